// SPDX-License-Identifier: Apache-2.0
#include "op_cache.h"

#include <xhal/catalogue.hpp>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace xhal_torch {
namespace {

constexpr size_t kShards = 16;
constexpr size_t kSlots = 1024;
constexpr uint64_t kMostBytes = 512 << 20;
constexpr uint64_t kYoungBytes = kMostBytes / kShards / 2;  // of a shard
constexpr uint64_t kHeavyBytes = 64 << 10;                  // too much to be kept by every thread
constexpr int kDestroyed = 4;                               // dropped entries at each insertion

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

bool same(const PreparedOp& entry, const KeyWords& words) {
  return entry.words.size() == words.size() &&
         std::memcmp(entry.words.data(), words.data(), words.size() * sizeof(uint64_t)) == 0;
}

// What an entry costs in host memory, with what its plugin keeps for it. The ABI does not tell
// that; these are the figures of compiled kernels (oneDNN's), where one is compiled for each shape.
uint64_t bytes_of(const PreparedOp& entry) {
  const uint64_t own = sizeof entry + entry.words.size() * sizeof(uint64_t) +
                       entry.needs.size() * sizeof(xhal_operand_need) + entry.refusal.size();
  if (!entry.op) return own;
  switch (key::low(entry.words[0])) {
    case XHAL_OP_conv:
    case XHAL_OP_conv_grad_input:
    case XHAL_OP_conv_grad_weight:
      return own + (entry.half ? 672 << 10 : 96 << 10);
    case XHAL_OP_gemm:
      return own + (20 << 10);
    default:
      return own + (1 << 10);
  }
}

using Entries = std::unordered_multimap<uint64_t, std::shared_ptr<PreparedOp>>;

// Two generations: what is used moves to the young one; when that is full it becomes the old one,
// and what was in the old one, not used for that long, is dropped. Dropped entries are destroyed a
// few at a time, so that no launch pays for all of them.
class Shard {
 public:
  std::shared_ptr<PreparedOp> find(const KeyWords& words, uint64_t hash) {
    const std::lock_guard lock(mutex_);
    if (auto it = find_in(young_, words, hash); it != young_.end()) return it->second;
    const auto it = find_in(old_, words, hash);
    if (it == old_.end()) return nullptr;
    const auto entry = it->second;
    young_.insert(old_.extract(it));
    young_bytes_ += bytes_of(*entry);
    return entry;
  }

  // True when entries were dropped.
  bool insert(uint64_t hash, std::shared_ptr<PreparedOp> entry) {
    std::shared_ptr<PreparedOp> destroyed[kDestroyed];  // without the lock
    const std::lock_guard lock(mutex_);
    young_bytes_ += bytes_of(*entry);
    young_.emplace(hash, std::move(entry));
    const bool full = young_bytes_ > kYoungBytes;
    if (full) {
      if (!old_.empty()) dropped_.push_back(std::move(old_));
      old_ = std::exchange(young_, {});
      young_bytes_ = 0;
    }
    for (auto& one : destroyed) {
      if (dropped_.empty()) break;
      Entries& from = dropped_.back();
      one = std::move(from.extract(from.begin()).mapped());
      if (from.empty()) dropped_.pop_back();
    }
    return full;
  }

 private:
  static Entries::iterator find_in(Entries& entries, const KeyWords& words, uint64_t hash) {
    auto [it, end] = entries.equal_range(hash);
    while (it != end && !same(*it->second, words)) ++it;
    return it != end ? it : entries.end();
  }

  std::mutex mutex_;
  Entries young_, old_;
  std::vector<Entries> dropped_;
  uint64_t young_bytes_ = 0;
};

struct Table {
  Shard shards[kShards];
  std::atomic<uint64_t> epoch{0};  // moves on when entries are dropped: threads let go of them
};

Table& table() {
  static Table* const made = new Table;  // outlives every thread
  return *made;
}

struct Slot {
  uint64_t hash = 0;
  std::shared_ptr<PreparedOp> entry;
};

struct Recent {
  uint64_t epoch = 0;
  std::unique_ptr<Slot[]> slots{new Slot[kSlots]};
  std::shared_ptr<PreparedOp> heavy;  // the last one too heavy for a slot
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

void read_needs(PreparedOp& entry, const Request& request) {
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

std::shared_ptr<PreparedOp> prepare(const KeyWords& words) {
  auto entry = std::make_shared<PreparedOp>();
  entry->words.assign(words.begin(), words.end());
  const Request request = decode(entry->words);
  entry->half = std::any_of(request.operands.begin(), request.operands.end(),
                            [](const xhal_tensor_desc& desc) { return desc.bits == 16; });
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

std::shared_ptr<PreparedOp> find_or_prepare(const KeyWords& words, uint64_t hash) {
  Shard& shard = table().shards[hash % kShards];
  if (auto found = shard.find(words, hash)) return found;
  auto entry = prepare(words);  // may compile: not under the lock; a race prepares twice
  if (shard.insert(hash, entry)) table().epoch.fetch_add(1);
  return entry;
}

}  // namespace

PreparedOp::~PreparedOp() {
  if (op && !is_shut_down()) xhal_op_destroy(op);
}

const PreparedOp* find_op(const KeyWords& words) {
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
  auto entry = find_or_prepare(words, hash);
  auto& place = bytes_of(*entry) > kHeavyBytes ? mine.heavy : slot.entry;
  if (&place == &slot.entry) slot.hash = hash;
  place = std::move(entry);
  return place.get();
}

const char* op_name(uint32_t id) { return xhal::catalogue::name_of(id).data(); }

}  // namespace xhal_torch
