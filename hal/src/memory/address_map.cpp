// SPDX-License-Identifier: Apache-2.0
#include "memory/address_map.hpp"

#include <algorithm>
#include <thread>

#include "core/locks.hpp"
#include "core/object.hpp"

namespace xhal {
namespace {

constexpr int kTriesBeforeLock = 64;
constexpr uint32_t kNodesAtOnce = 64;

uint64_t next_serial() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}
uint64_t next_allocation_id() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

template <class T>
uint64_t word(T* pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}
template <class T>
T* pointer(uint64_t word) {
  return reinterpret_cast<T*>(word);
}

const void* record_of_device(const xhal_device* device) {
  return device == nullptr ? nullptr : private_of(device)->device;
}

}  // namespace

// All loads acquire and all stores release: then a reader that has seen anything of a change also
// sees the odd version before it or a later one after it, without fences.
void AddressMap::Node::put(const AddressRange& r) {
  const uint64_t values[kWords] = {r.size_bytes,      uint64_t{r.kind} << 32 | r.flags,
                                   word(r.device),    word(r.context),
                                   word(r.pool),      r.allocation_id,
                                   r.requested_bytes, r.detail};
  for (size_t i = 0; i < kWords; ++i) words[i].store(values[i], std::memory_order_release);
}

AddressRange AddressMap::Node::get(uint64_t base) const {
  uint64_t v[kWords];
  for (size_t i = 0; i < kWords; ++i) v[i] = words[i].load(std::memory_order_acquire);
  return {base,
          v[0],
          static_cast<uint32_t>(v[1] >> 32),
          static_cast<uint32_t>(v[1]),
          pointer<xhal_device>(v[2]),
          pointer<xhal_context>(v[3]),
          pointer<xhal_pool>(v[4]),
          v[5],
          v[6],
          v[7]};
}

AddressMap::Directory::Directory(uint32_t n)
    : capacity(n), first(new std::atomic<uint64_t>[n]()), chunk(new std::atomic<Chunk*>[n]()) {}

static StripedMutex& locks() {
  static auto* locks = new StripedMutex(Rank::addresses);
  return *locks;
}
static const AtLoad locks_at_load(locks);

static std::mutex& map_lock(const void* map) noexcept { return locks().of(map); }

AddressMap::AddressMap() : serial_(next_serial()), mutex_(map_lock(this)) {}
AddressMap::~AddressMap() = default;

// Marks the time in which what readers see may be inconsistent. The mutex is held.
class AddressMap::Change {
 public:
  explicit Change(AddressMap& map)
      : map_(map), version_(map.version_.load(std::memory_order_relaxed)) {
    map_.version_.store(version_ + 1, std::memory_order_release);
  }
  ~Change() { map_.version_.store(version_ + 2, std::memory_order_release); }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  AddressMap& map_;
  uint64_t version_;
};

// Reads until nothing has changed meanwhile. A writer that was suspended in the middle is waited
// for asleep, with its mutex.
template <class Read>
auto AddressMap::consistent(Read&& read) const {
  for (int tries = 0; tries < kTriesBeforeLock; ++tries) {
    const uint64_t before = version_.load(std::memory_order_acquire);
    if ((before & 1) == 0) {
      auto result = read();
      if (version_.load(std::memory_order_acquire) == before) return std::pair(result, before);
    }
    std::this_thread::yield();
  }
  const std::lock_guard lock(mutex_);
  auto result = read();
  return std::pair(result, version_.load(std::memory_order_acquire));
}

// What a reader finds may be stale in any way, so nothing is followed or indexed unchecked.
AddressMap::Found AddressMap::look(uint64_t address) const {
  Found found;
  found.range.size_bytes = UINT64_MAX;  // the gap, until something bounds it
  const auto* directory = directory_.load(std::memory_order_acquire);
  if (directory == nullptr) return found;
  const uint32_t chunks =
      std::min(chunk_count_.load(std::memory_order_acquire), directory->capacity);
  // How many of `n` keys are at most `address`.
  const auto upper = [address](uint32_t n, auto&& key) {
    uint32_t low = 0;
    while (n > 0) {
      const uint32_t half = n / 2;
      if (key(low + half).load(std::memory_order_acquire) <= address) {
        low += half + 1;
        n -= half + 1;
      } else {
        n = half;
      }
    }
    return low;
  };
  const uint32_t c = upper(
      chunks, [&](uint32_t i) -> auto& { return directory->first[i]; });
  uint64_t gap_begin = 0, gap_end = UINT64_MAX;
  if (c < chunks) gap_end = directory->first[c].load(std::memory_order_acquire);
  const auto* chunk = c == 0 ? nullptr : directory->chunk[c - 1].load(std::memory_order_acquire);
  if (chunk != nullptr) {
    const auto& entries = chunk->entries;
    for (uint32_t i = 0; i < kChunkRanges; i += 64 / sizeof(Entry)) __builtin_prefetch(&entries[i]);
    const uint32_t count = std::min(chunk->count.load(std::memory_order_acquire), kChunkRanges);
    const uint32_t i = upper(
        count, [&](uint32_t k) -> auto& { return entries[k].base; });
    if (i < count) gap_end = entries[i].base.load(std::memory_order_acquire);
    const auto* node = i == 0 ? nullptr : entries[i - 1].node.load(std::memory_order_acquire);
    if (node != nullptr) {
      found.range = node->get(entries[i - 1].base.load(std::memory_order_acquire));
      if (address - found.range.base < found.range.size_bytes) {
        found.known = true;
        return found;
      }
      gap_begin = found.range.end();
    }
  }
  found.range = {};
  found.range.base = gap_begin;
  found.range.size_bytes = gap_end - gap_begin;
  return found;
}

std::optional<AddressRange> AddressMap::find(uint64_t address) const {
  struct Line {
    uint64_t serial, version;
    Found found;
  };
  static thread_local std::array<Line, 8> cache{};
  auto& line = cache[(address >> 12) * 0x9e3779b97f4a7c15u >> 61];
  const uint64_t version = version_.load(std::memory_order_acquire);
  const bool current = line.version == version && line.serial == serial_;
  if (!current || address - line.found.range.base >= line.found.range.size_bytes) {
    const auto [found, at] = consistent([&] { return look(address); });
    line = {serial_, at, found};
  }
  if (!line.found.known) return std::nullopt;
  return line.found.range;
}

std::optional<AddressMap::Place> AddressMap::at_or_before(uint64_t address) const {
  const auto* directory = directory_.load(std::memory_order_relaxed);
  uint32_t low = 0, high = chunk_count_.load(std::memory_order_relaxed);
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    if (directory->first[middle].load(std::memory_order_relaxed) <= address)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0) return std::nullopt;
  const auto* chunk = directory->chunk[low - 1].load(std::memory_order_relaxed);
  uint32_t i = 0;
  while (i < chunk->count.load(std::memory_order_relaxed) &&
         chunk->entries[i].base.load(std::memory_order_relaxed) <= address)
    ++i;
  return Place{low - 1, i - 1};  // a chunk is never empty
}

std::optional<AddressMap::Place> AddressMap::exactly(uint64_t base) const {
  const auto place = at_or_before(base);
  if (!place || entry_at(*place).base.load(std::memory_order_relaxed) != base) return std::nullopt;
  return place;
}

AddressMap::Entry& AddressMap::entry_at(Place place) const {
  return directory_.load(std::memory_order_relaxed)
      ->chunk[place.chunk]
      .load(std::memory_order_relaxed)
      ->entries[place.index];
}

AddressRange AddressMap::range_at(Place place) const {
  const auto& entry = entry_at(place);
  return entry.node.load(std::memory_order_relaxed)
      ->get(entry.base.load(std::memory_order_relaxed));
}

std::optional<AddressRange> AddressMap::overlap_locked(uint64_t base, uint64_t size) const {
  // The last one that begins before the end is the only candidate.
  const auto place = at_or_before(base + (size - 1));
  if (!place) return std::nullopt;
  const AddressRange range = range_at(*place);
  if (range.end() - 1 < base) return std::nullopt;
  return range;
}

std::optional<AddressRange> AddressMap::overlap(uint64_t base, uint64_t size) const {
  const std::lock_guard lock(mutex_);
  return overlap_locked(base, size);
}

void AddressMap::insert_chunk(uint32_t position, Chunk* chunk, uint64_t first) {
  auto* directory = directory_.load(std::memory_order_relaxed);
  const uint32_t count = chunk_count_.load(std::memory_order_relaxed);
  for (uint32_t i = count; i > position; --i) {
    directory->first[i].store(directory->first[i - 1].load(std::memory_order_relaxed),
                              std::memory_order_release);
    directory->chunk[i].store(directory->chunk[i - 1].load(std::memory_order_relaxed),
                              std::memory_order_release);
  }
  directory->first[position].store(first, std::memory_order_release);
  directory->chunk[position].store(chunk, std::memory_order_release);
  chunk_count_.store(count + 1, std::memory_order_release);
}

void AddressMap::insert(uint64_t base, Node* node) {
  auto* directory = directory_.load(std::memory_order_relaxed);
  const auto before = at_or_before(base);
  if (chunk_count_.load(std::memory_order_relaxed) == 0) {
    auto* chunk = free_chunks_.back();
    free_chunks_.pop_back();
    chunk->entries[0].put(base, node);
    chunk->count.store(1, std::memory_order_release);
    insert_chunk(0, chunk, base);
    return;
  }
  uint32_t c = before ? before->chunk : 0, i = before ? before->index + 1 : 0;
  auto* chunk = directory->chunk[c].load(std::memory_order_relaxed);
  uint32_t count = chunk->count.load(std::memory_order_relaxed);
  if (count == kChunkRanges) {
    // Ranges often come in rising order: then the new chunk begins empty behind a full one.
    const bool appended = i == count && c + 1 == chunk_count_.load(std::memory_order_relaxed);
    const uint32_t kept = appended ? count : count / 2;
    auto* second = free_chunks_.back();
    free_chunks_.pop_back();
    for (uint32_t k = kept; k < count; ++k) second->entries[k - kept].copy(chunk->entries[k]);
    second->count.store(count - kept, std::memory_order_release);
    chunk->count.store(kept, std::memory_order_release);
    insert_chunk(c + 1, second,
                 appended ? base : second->entries[0].base.load(std::memory_order_relaxed));
    if (i > kept || appended) {
      ++c;
      i -= kept;
      chunk = second;
    }
    count = chunk->count.load(std::memory_order_relaxed);
  }
  for (uint32_t k = count; k > i; --k) chunk->entries[k].copy(chunk->entries[k - 1]);
  chunk->entries[i].put(base, node);
  chunk->count.store(count + 1, std::memory_order_release);
  if (i == 0) directory->first[c].store(base, std::memory_order_release);
}

void AddressMap::forget(Index& index, const void* owner, uint64_t base) noexcept {
  const auto it = index.find(owner);
  if (it == index.end()) return;
  it->second.erase(base);
  if (it->second.empty()) index.erase(it);
}

bool AddressMap::add(AddressRange range, AddressRange* conflict) {
  const std::lock_guard lock(mutex_);
  if (const auto other = overlap_locked(range.base, range.size_bytes)) {
    if (conflict != nullptr) *conflict = *other;
    return false;
  }
  // Everything that can throw first.
  if (free_nodes_.empty()) {
    auto& fresh = nodes_.emplace_back(std::make_unique<Node[]>(kNodesAtOnce));
    // Room for all of them, so that giving one back cannot fail.
    const size_t room = nodes_.size() * kNodesAtOnce;
    if (free_nodes_.capacity() < room) free_nodes_.reserve(2 * room);
    for (uint32_t i = 0; i < kNodesAtOnce; ++i) free_nodes_.push_back(&fresh[i]);
  }
  if (free_chunks_.empty()) {
    free_chunks_.reserve(chunks_.size() + 1);
    free_chunks_.push_back(chunks_.emplace_back(std::make_unique<Chunk>()).get());
  }
  const uint32_t chunks = chunk_count_.load(std::memory_order_relaxed);
  const auto* old = directory_.load(std::memory_order_relaxed);
  Directory* larger = nullptr;
  if (old == nullptr || chunks == old->capacity) {
    const uint32_t capacity = old == nullptr ? 4 : old->capacity * 2;
    larger = directories_.emplace_back(std::make_unique<Directory>(capacity)).get();
    for (uint32_t i = 0; i < chunks; ++i) {
      larger->first[i].store(old->first[i].load(std::memory_order_relaxed),
                             std::memory_order_relaxed);
      larger->chunk[i].store(old->chunk[i].load(std::memory_order_relaxed),
                             std::memory_order_relaxed);
    }
  }
  const void* record = record_of_device(range.device);
  try {
    if (record != nullptr) by_device_[record].insert(range.base);
    if (range.context != nullptr) by_context_[range.context].insert(range.base);
  } catch (...) {
    forget(by_device_, record, range.base);
    forget(by_context_, range.context, range.base);
    throw;
  }
  range.allocation_id = next_allocation_id();
  auto* node = free_nodes_.back();
  free_nodes_.pop_back();
  const Change change(*this);
  if (larger != nullptr) directory_.store(larger, std::memory_order_release);
  node->put(range);
  insert(range.base, node);
  return true;
}

AddressRange AddressMap::take_out(Place place) {
  auto* directory = directory_.load(std::memory_order_relaxed);
  auto* chunk = directory->chunk[place.chunk].load(std::memory_order_relaxed);
  auto* node = entry_at(place).node.load(std::memory_order_relaxed);
  const AddressRange range = range_at(place);
  {
    const Change change(*this);
    const uint32_t count = chunk->count.load(std::memory_order_relaxed) - 1;
    for (uint32_t k = place.index; k < count; ++k) chunk->entries[k].copy(chunk->entries[k + 1]);
    chunk->count.store(count, std::memory_order_release);
    if (count == 0) {
      const uint32_t chunks = chunk_count_.load(std::memory_order_relaxed) - 1;
      for (uint32_t k = place.chunk; k < chunks; ++k) {
        directory->first[k].store(directory->first[k + 1].load(std::memory_order_relaxed),
                                  std::memory_order_release);
        directory->chunk[k].store(directory->chunk[k + 1].load(std::memory_order_relaxed),
                                  std::memory_order_release);
      }
      chunk_count_.store(chunks, std::memory_order_release);
      free_chunks_.push_back(chunk);  // has room: it came from there
    } else if (place.index == 0) {
      directory->first[place.chunk].store(chunk->entries[0].base.load(std::memory_order_relaxed),
                                          std::memory_order_release);
    }
  }
  free_nodes_.push_back(node);
  return range;
}

std::optional<AddressRange> AddressMap::remove_locked(uint64_t base) {
  const auto place = exactly(base);
  if (!place) return std::nullopt;
  const AddressRange range = take_out(*place);
  forget(by_device_, record_of_device(range.device), base);
  forget(by_context_, range.context, base);
  return range;
}

std::optional<AddressRange> AddressMap::remove(uint64_t base) {
  const std::lock_guard lock(mutex_);
  return remove_locked(base);
}

template <class Edit>
bool AddressMap::edit(uint64_t base, Edit&& edit) {
  const std::lock_guard lock(mutex_);
  const auto place = exactly(base);
  if (!place) return false;
  AddressRange range = range_at(*place);
  edit(range);
  const Change change(*this);
  entry_at(*place).node.load(std::memory_order_relaxed)->put(range);
  return true;
}

bool AddressMap::set_pool(uint64_t base, xhal_pool* pool) {
  return edit(base, [&](AddressRange& range) { range.pool = pool; });
}

bool AddressMap::set_allocation(uint64_t base, uint64_t requested, uint32_t more_flags) {
  return edit(base, [&](AddressRange& range) {
    range.requested_bytes = requested;
    range.flags |= more_flags;
  });
}

bool AddressMap::set_detail(uint64_t base, uint32_t kind, uint64_t detail) {
  return edit(base, [&](AddressRange& range) {
    range.kind = kind;
    range.detail = detail;
  });
}

std::vector<AddressRange> AddressMap::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<AddressRange> ranges;
  const auto* directory = directory_.load(std::memory_order_relaxed);
  for (uint32_t c = 0; c < chunk_count_.load(std::memory_order_relaxed); ++c) {
    const auto* chunk = directory->chunk[c].load(std::memory_order_relaxed);
    for (uint32_t i = 0; i < chunk->count.load(std::memory_order_relaxed); ++i)
      ranges.push_back(range_at({c, i}));
  }
  return ranges;
}

void AddressMap::remove_all(std::unordered_map<const void*, std::unordered_set<uint64_t>>& index,
                            const void* owner) {
  const std::lock_guard lock(mutex_);
  const auto it = index.find(owner);
  if (it == index.end()) return;
  const auto bases = std::move(it->second);
  index.erase(it);
  for (const uint64_t base : bases) (void)remove_locked(base);
}

void AddressMap::remove_device(const DeviceRecord& record) { remove_all(by_device_, &record); }

void AddressMap::remove_context(const xhal_context* context) {
  if (context != nullptr) remove_all(by_context_, context);
}

AddressMap& address_map() {
  static auto* map = new AddressMap;  // lives until process exit: queries stay legal after shutdown
  return *map;
}
const AtLoad address_map_at_load(address_map);

}  // namespace xhal
