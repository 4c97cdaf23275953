// SPDX-License-Identifier: Apache-2.0
#include "op_cache.h"

#include <xhal/catalogue.hpp>

#include <cstring>
#include <mutex>
#include <unordered_map>

namespace xhal_torch {
namespace {

constexpr size_t kShards = 16;
constexpr size_t kMostEntries = 1u << 16;
constexpr size_t kSlots = 1024;

uint64_t hash_of(const KeyWords& words) {
  constexpr uint64_t k1 = 0x9E3779B97F4A7C15u, k2 = 0xC2B2AE3D27D4EB4Fu;
  uint64_t a = words.size() * k1, b = k2;
  size_t i = 0;
  for (; i + 1 < words.size(); i += 2) {
    a = (a ^ words[i]) * k1;
    b = (b ^ words[i + 1]) * k2;
    a ^= a >> 29;
    b ^= b >> 31;
  }
  if (i < words.size()) a = (a ^ words[i]) * k1;
  a ^= (b << 23 | b >> 41) * k1;
  return a ^ a >> 32;
}

bool same(const OpEntry& entry, const KeyWords& words) {
  return entry.words.size() == words.size() &&
         std::memcmp(entry.words.data(), words.data(), words.size() * sizeof(uint64_t)) == 0;
}

struct Shard {
  std::mutex mutex;
  std::unordered_multimap<uint64_t, std::shared_ptr<OpEntry>> entries;
};

struct Table {
  Shard shards[kShards];
  std::atomic<size_t> size{0};
  std::atomic<uint64_t> epoch{0};
};

Table& table() {
  static Table* const made = new Table;  // outlives every thread
  return *made;
}

struct Slot {
  uint64_t hash = 0;
  std::shared_ptr<OpEntry> entry;
};

struct Recent {
  uint64_t epoch = 0;
  std::unique_ptr<Slot[]> slots{new Slot[kSlots]};
};

Recent& recent() {
  thread_local Recent slots;
  return slots;
}

struct Request {
  std::vector<xhal_attribute> attributes;
  std::vector<uint32_t> group_sizes;
  std::vector<xhal_tensor_desc> operands;
  std::vector<std::vector<int64_t>> ints;
  std::vector<std::vector<double>> floats;
  bool too_many_dims = false;
};

Request decode(const std::vector<uint64_t>& words) {
  Request request;
  for (size_t i = 1; i < words.size();) {
    const uint64_t word = words[i++];
    if (key::tag(word) == key::kGroup) {
      request.group_sizes.push_back(key::low(word));
    } else if (key::tag(word) == key::kAttribute) {
      xhal_attribute attribute{};
      attribute.index = key::byte(word, 4) | uint32_t(key::byte(word, 5)) << 8;
      attribute.kind = key::byte(word, 6);
      attribute.count = key::low(word);
      const uint64_t* values = &words[i];
      i += attribute.count;
      switch (attribute.kind) {
        case XHAL_ATTR_INT:
          attribute.value.i = static_cast<int64_t>(values[0]);
          break;
        case XHAL_ATTR_FLOAT:
          std::memcpy(&attribute.value.f, values, sizeof(double));
          break;
        case XHAL_ATTR_INTS:
          request.ints.emplace_back(values, values + attribute.count);
          attribute.value.ints = request.ints.back().data();
          break;
        default:
          request.floats.emplace_back(attribute.count);
          if (attribute.count)
            std::memcpy(request.floats.back().data(), values, attribute.count * sizeof(double));
          attribute.value.floats = request.floats.back().data();
      }
      request.attributes.push_back(attribute);
    } else {
      xhal_tensor_desc desc{};
      desc.code = key::byte(word, 6);
      desc.bits = key::byte(word, 5);
      desc.lanes = 1;
      desc.flags = key::byte(word, 4);
      desc.ndim = key::low(word);
      if (desc.ndim > XHAL_MAX_DIMENSIONS) {
        request.too_many_dims = true;
        i += 2 * desc.ndim;
        continue;
      }
      for (uint32_t d = 0; d < desc.ndim; ++d) {
        desc.sizes[d] = static_cast<int64_t>(words[i + d]);
        desc.strides[d] = static_cast<int64_t>(words[i + desc.ndim + d]);
      }
      i += 2 * desc.ndim;
      request.operands.push_back(desc);
    }
  }
  return request;
}

void read_needs(OpEntry& entry, const Request& request) {
  xhal_op_properties properties{};
  properties.struct_size = sizeof properties;
  entry.needs.resize(request.operands.size());
  check(xhal_op_query(entry.op, &properties, entry.needs.data(),
                      static_cast<uint32_t>(entry.needs.size())),
        "asking an operator what it needs");
  entry.workspace_bytes = properties.workspace_bytes;
  for (size_t i = 0; i < entry.needs.size(); ++i) {
    xhal_operand_need& need = entry.needs[i];
    const xhal_tensor_desc& desc = request.operands[i];
    if (xhal::is_contiguous(desc)) need.need &= ~uint32_t(XHAL_NEED_CONTIGUOUS);
    if (need.code == desc.code && need.bits == desc.bits) need.need &= ~uint32_t(XHAL_NEED_DTYPE);
    // Blocks of the pool are aligned to 512 bytes; only views can be less.
    if (need.alignment_bytes <= 1) need.need &= ~uint32_t(XHAL_NEED_ALIGNED);
    if (need.need) entry.rewrite = true;
  }
  if (!entry.rewrite) entry.needs.clear();
}

std::shared_ptr<OpEntry> prepare(const KeyWords& words) {
  auto entry = std::make_shared<OpEntry>();
  entry->words.assign(words.begin(), words.end());
  const Request request = decode(entry->words);
  const uint32_t id = key::low(words[0]);
  if (request.too_many_dims) {
    entry->refusal = std::string(op_name(id)) + ": more than 8 dimensions";
    return entry;
  }
  xhal_op_info info{};
  info.struct_size = sizeof info;
  info.id = id;
  info.flags = key::byte(words[0], 5) ? XHAL_OP_DETERMINISTIC : 0;
  info.attribute_count = static_cast<uint32_t>(request.attributes.size());
  info.attributes = request.attributes.data();
  info.group_count = static_cast<uint32_t>(request.group_sizes.size());
  info.group_sizes = request.group_sizes.data();
  info.operand_count = static_cast<uint32_t>(request.operands.size());
  info.operands = request.operands.data();
  xhal_context* context = device(static_cast<DeviceIndex>(key::byte(words[0], 4))).context;
  const xhal_status status = xhal_op_prepare(context, &info, &entry->op);
  if (status == XHAL_ERR_UNSUPPORTED || status == XHAL_ERR_INVALID_ARGUMENT) {
    entry->op = nullptr;
    entry->refusal = last_error_text(status);
    return entry;
  }
  if (status < 0) fail(status, op_name(id));
  read_needs(*entry, request);
  return entry;
}

std::shared_ptr<OpEntry> find_or_prepare(const KeyWords& words, uint64_t hash) {
  Shard& shard = table().shards[hash % kShards];
  {
    std::lock_guard lock(shard.mutex);
    auto [begin, end] = shard.entries.equal_range(hash);
    for (auto it = begin; it != end; ++it) {
      if (same(*it->second, words)) return it->second;
    }
  }
  std::shared_ptr<OpEntry> entry =
      prepare(words);  // may compile: not under the lock; a race prepares twice
  if (table().size.fetch_add(1) >= kMostEntries) {
    table().size.store(0);
    for (Shard& each : table().shards) {
      std::lock_guard lock(each.mutex);
      each.entries.clear();
    }
    table().epoch.fetch_add(1);
  }
  std::lock_guard lock(shard.mutex);
  shard.entries.emplace(hash, entry);
  return entry;
}

}  // namespace

OpEntry::~OpEntry() {
  if (op && !is_shut_down()) xhal_op_destroy(op);
}

const OpEntry* find_op(const KeyWords& words) {
  Recent& mine = recent();
  const uint64_t epoch = table().epoch.load(std::memory_order_relaxed);
  if (mine.epoch != epoch) [[unlikely]] {
    for (size_t i = 0; i < kSlots; ++i) mine.slots[i] = {};
    mine.epoch = epoch;
  }
  const uint64_t hash = hash_of(words);
  Slot& slot = mine.slots[hash % kSlots];
  if (slot.hash == hash && slot.entry && same(*slot.entry, words)) [[likely]]
    return slot.entry.get();
  slot.entry = find_or_prepare(words, hash);
  slot.hash = hash;
  return slot.entry.get();
}

const char* op_name(uint32_t id) { return xhal::catalogue::name_of(id).data(); }

}  // namespace xhal_torch
