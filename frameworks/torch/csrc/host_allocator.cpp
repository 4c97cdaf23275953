// SPDX-License-Identifier: Apache-2.0
// Pinned host memory from a host pool of the current device. The pool reuses a block once the
// events of its uses are reached, so a non-blocking copy needs no wait. Uses are told by address:
// a tensor made over the memory by NumPy or DLPack has another owner, but the same block.
#include <ATen/core/CachingHostAllocator.h>

#include <atomic>
#include <map>
#include <mutex>
#include <vector>

#include "allocator.h"
#include "capture.h"
#include "compat.h"

namespace xhal_torch {
namespace {

struct PinnedBlock {
  uint64_t address, size_bytes;
  xhal_pool* pool;
  uint32_t references = 1;         // of the tensor and of graphs that read or write it
  std::vector<xhal_event> uses{};  // the newest of each stream
};

// Blocks by their first address. Every field of a block that changes is behind the lock.
struct PinnedBlocks {
  std::mutex mutex;
  std::map<uint64_t, PinnedBlock*> by_address;

  // The block an address lies in; null when it is not ours. The lock is held.
  PinnedBlock* find(uint64_t address) const {
    auto it = by_address.upper_bound(address);
    if (it == by_address.begin()) return nullptr;
    --it;
    return address - it->first < it->second->size_bytes ? it->second : nullptr;
  }
};
PinnedBlocks& pinned_blocks() {
  static auto* const all = new PinnedBlocks;
  return *all;
}

void free_pinned(void* context) {
  auto* block = static_cast<PinnedBlock*>(context);
  if (!block) return;
  {
    const std::lock_guard lock(pinned_blocks().mutex);
    if (--block->references > 0) return;
    pinned_blocks().by_address.erase(block->address);
  }
  if (!is_shut_down()) {
    xhal_pool_free(block->pool, block->address, block->uses.data(),
                   static_cast<uint32_t>(block->uses.size()));
  }
  delete block;
}

// One pool for the process: host memory belongs to no device, the context only
// lends its accounting.
std::atomic<xhal_pool*> pinned_pool{nullptr};

xhal_pool* pool() {
  static xhal_pool* const made = [] {
    xhal_pool_info info{};
    info.struct_size = sizeof info;
    info.kind = XHAL_MEMORY_HOST;
    xhal_pool* pool = nullptr;
    check(xhal_pool_create(device(current_device()).context, &info, &pool),
          "making the pool of pinned memory");
    pinned_pool.store(pool);
    return pool;
  }();
  return made;
}

#if XHAL_TORCH_HAS_DEVICE_ALLOCATOR
using Base = at::HostAllocator;
#else
using Base = at::Allocator;
#endif

class PinnedAllocator final : public Base {
 public:
  c10::DataPtr allocate(size_t size) override {
    if (!size) return {nullptr, nullptr, &free_pinned, c10::DeviceType::CPU};
    xhal_pool* from = pool();
    uint64_t address = 0;
    check(xhal_pool_alloc(from, nullptr, size, {}, &address), "allocating pinned memory");
    auto* block = new PinnedBlock{address, size, from};
    const std::lock_guard lock(pinned_blocks().mutex);
    pinned_blocks().by_address.emplace(address, block);
    return {reinterpret_cast<void*>(address), block, &free_pinned, c10::DeviceType::CPU};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* dest, const void* src, std::size_t count) const override {
    default_copy_data(dest, src, count);
  }

#if XHAL_TORCH_HAS_DEVICE_ALLOCATOR
  bool record_event(void* data, void*, c10::Stream stream) override {
    return record_pinned_use(data, stream.device_index(),
                             stream_handle(stream.device_index(), stream.id()));
  }
  void empty_cache() override { trim_pinned(); }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {
    check(xhal_pool_reset_peaks(pool()), "resetting the pool's peaks");
  }

  at::HostStats get_stats() override {
    xhal_pool_stats now{};
    now.struct_size = sizeof now;
    check(xhal_pool_query(pool(), &now), "reading the pool's counters");
    at::HostStats stats;
    stats.allocations.current = static_cast<int64_t>(now.allocation_count - now.free_count);
    stats.allocations.allocated = static_cast<int64_t>(now.allocation_count);
    stats.allocations.freed = static_cast<int64_t>(now.free_count);
    stats.allocated_bytes.current = static_cast<int64_t>(now.reserved_bytes);
    stats.allocated_bytes.peak = static_cast<int64_t>(now.reserved_peak_bytes);
    stats.num_host_alloc = static_cast<int64_t>(now.slab_allocation_count);
    stats.num_host_free = static_cast<int64_t>(now.slab_allocation_count - now.slab_count);
    return stats;
  }
#endif
};

PinnedAllocator* the_pinned_allocator() {
  static auto* const allocator = new PinnedAllocator;
  return allocator;
}

#if XHAL_TORCH_HAS_DEVICE_ALLOCATOR
const bool registered = [] {
  at::setHostAllocator(kXhal, the_pinned_allocator());
  return true;
}();
#endif

}  // namespace

void trim_pinned() {
  if (xhal_pool* made = pinned_pool.load())
    check(xhal_pool_trim(made, 0), "emptying the cache of pinned memory");
}

c10::Allocator* pinned_allocator() { return the_pinned_allocator(); }

bool record_pinned_use(const void* data, DeviceIndex index, xhal_stream* stream) {
  const auto address = reinterpret_cast<uint64_t>(data);
  PinnedBlocks& all = pinned_blocks();
  if (const auto capture = capture_of(index, stream)) [[unlikely]] {
    PinnedBlock* block = nullptr;
    {
      const std::lock_guard lock(all.mutex);
      block = all.find(address);
      if (block) ++block->references;
    }
    if (block) capture->keep({nullptr, block, &free_pinned, c10::DeviceType::CPU});
    return block != nullptr;
  }
  {
    const std::lock_guard lock(all.mutex);
    if (!all.find(address)) return false;
  }
  xhal_event event{};
  check(xhal_event_record(stream, 0, &event), "recording a use of pinned memory");
  const std::lock_guard lock(all.mutex);
  PinnedBlock* block = all.find(address);
  if (!block) return false;  // freed meanwhile by another thread, which is its fault
  for (auto& use : block->uses) {
    if (use.timeline == event.timeline) {
      use = event;
      return true;
    }
  }
  block->uses.push_back(event);
  return true;
}

bool is_pinned(const void* data) {
  if (!data || device_count() == 0) return false;
  xhal_pointer_info info{};
  return xhal_pointer_query(reinterpret_cast<uint64_t>(data), &info) == XHAL_OK &&
         info.kind == XHAL_MEMORY_HOST;
}

}  // namespace xhal_torch
