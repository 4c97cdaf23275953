// SPDX-License-Identifier: Apache-2.0
// address_map.hpp: which address belongs to what: one map for all devices and pinned host memory.
//
// Readers take no lock and write nothing that others see: the map is a seqlock over a directory of
// sorted chunks whose memory is never given back while the map lives, so that a reader who is
// overtaken reads something stale, notices, and looks again. Every thread keeps the ranges it found
// last; they count as long as nothing has changed since.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "xhal/memory.h"

namespace xhal {

struct DeviceRecord;

struct AddressRange {
  uint64_t base = 0, size_bytes = 0;
  uint32_t kind = 0, flags = 0;
  xhal_device* device = nullptr;
  xhal_context* context = nullptr;
  xhal_pool* pool = nullptr;
  uint64_t allocation_id = 0;    // given by add(), never used again in this process
  uint64_t requested_bytes = 0;  // what xhal_memory_alloc or xhal_host_alloc was asked for; 0: the
                                 // range did not come from there (imports, reserved space)
  uint64_t detail = 0;  // of pinned memory: its slab; of registered host memory: where the device
                        // sees its beginning

  uint64_t end() const { return base + size_bytes; }
  uint64_t left_at(uint64_t address) const { return size_bytes - (address - base); }
};

class AddressMap {
 public:
  AddressMap();
  ~AddressMap();
  AddressMap(const AddressMap&) = delete;
  AddressMap& operator=(const AddressMap&) = delete;

  // False when it would overlap a range that is there.
  bool add(AddressRange range, AddressRange* conflict = nullptr);
  std::optional<AddressRange> remove(uint64_t base);
  // Changes what is known of the range that begins at `base`; false when there is none.
  bool set_pool(uint64_t base, xhal_pool* pool);
  bool set_allocation(uint64_t base, uint64_t requested_bytes, uint32_t more_flags);
  bool set_detail(uint64_t base, uint32_t kind, uint64_t detail);

  // The range an address lies in. Any thread, lock-free.
  std::optional<AddressRange> find(uint64_t address) const;
  // A range that has a byte in common with this one.
  std::optional<AddressRange> overlap(uint64_t base, uint64_t size_bytes) const;
  std::vector<AddressRange> all() const;

  void remove_device(const DeviceRecord& record);
  void remove_context(const xhal_context* context);

 private:
  // With many ranges a look-up costs what it misses in the caches: one chunk, whose lines are
  // fetched together, and one node of one line.
  static constexpr uint32_t kChunkRanges = 32;
  static constexpr size_t kWords = 8;
  struct alignas(64) Node {  // all of a range but its base
    std::array<std::atomic<uint64_t>, kWords> words;
    void put(const AddressRange& range);
    AddressRange get(uint64_t base) const;
  };
  struct Entry {
    std::atomic<uint64_t> base;
    std::atomic<Node*> node;
    void put(uint64_t new_base, Node* new_node) {
      base.store(new_base, std::memory_order_release);
      node.store(new_node, std::memory_order_release);
    }
    void copy(const Entry& from) {
      put(from.base.load(std::memory_order_relaxed), from.node.load(std::memory_order_relaxed));
    }
  };
  struct alignas(64) Chunk {
    std::array<Entry, kChunkRanges> entries;
    std::atomic<uint32_t> count{0};
  };
  struct Directory {
    explicit Directory(uint32_t n);
    uint32_t capacity;
    std::unique_ptr<std::atomic<uint64_t>[]> first;  // address of each chunk
    std::unique_ptr<std::atomic<Chunk*>[]> chunk;
  };
  // What there is at an address: the range, or the gap between two.
  struct Found {
    bool known = false;
    AddressRange range;
  };
  struct Place {
    uint32_t chunk, index;
  };
  class Change;

  Found look(uint64_t address) const;
  template <class Read>
  auto consistent(Read&& read) const;
  // With the mutex held: the last range that begins at or before `address`.
  std::optional<Place> at_or_before(uint64_t address) const;
  std::optional<Place> exactly(uint64_t base) const;
  Entry& entry_at(Place place) const;
  AddressRange range_at(Place place) const;
  std::optional<AddressRange> overlap_locked(uint64_t base, uint64_t size_bytes) const;
  AddressRange take_out(Place place);
  std::optional<AddressRange> remove_locked(uint64_t base);
  void insert(uint64_t base, Node* node);
  void insert_chunk(uint32_t position, Chunk* chunk, uint64_t first);
  template <class Edit>
  bool edit(uint64_t base, Edit&& edit);
  void remove_all(std::unordered_map<const void*, std::unordered_set<uint64_t>>& index,
                  const void* owner);

  const uint64_t serial_;  // tells this map's entries in the threads' caches from another's
  std::atomic<uint64_t> version_{0};  // odd: being changed
  std::atomic<Directory*> directory_{nullptr};
  std::atomic<uint32_t> chunk_count_{0};

  std::mutex& mutex_;                                    // of writers and what follows (striped)
  std::vector<std::unique_ptr<Directory>> directories_;  // each twice as large as the one before
  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<std::unique_ptr<Node[]>> nodes_;
  std::vector<Chunk*> free_chunks_;
  std::vector<Node*> free_nodes_;
  using Index = std::unordered_map<const void*, std::unordered_set<uint64_t>>;
  static void forget(Index& index, const void* owner, uint64_t base) noexcept;
  Index by_device_, by_context_;
};

AddressMap& address_map();

}  // namespace xhal
