// SPDX-License-Identifier: Apache-2.0
// Pinned host memory from a host pool of the current device. The pool reuses a block once the
// events of its uses are reached, so a non-blocking copy needs no wait.
#include <ATen/core/CachingHostAllocator.h>

#include <mutex>
#include <vector>

#include "allocator.h"
#include "compat.h"

namespace xhal_torch {
namespace {

struct PinnedBlock {
  uint64_t address;
  xhal_pool* pool;
  std::mutex mutex;
  std::vector<xhal_event> uses;  // the newest of each stream
};

void free_pinned(void* context) {
  auto* block = static_cast<PinnedBlock*>(context);
  if (!block) return;
  if (!is_shut_down()) {
    xhal_pool_free(block->pool, block->address, block->uses.data(),
                   static_cast<uint32_t>(block->uses.size()));
  }
  delete block;
}

// One pool for the process: host memory belongs to no device, the context only
// lends its accounting.
xhal_pool* pool() {
  static xhal_pool* const made = [] {
    xhal_pool_info info{};
    info.struct_size = sizeof info;
    info.kind = XHAL_MEMORY_HOST;
    xhal_pool* pool = nullptr;
    check(xhal_pool_create(device(current_device()).context, &info, &pool),
          "making the pool of pinned memory");
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
    return {reinterpret_cast<void*>(address), new PinnedBlock{address, from, {}, {}}, &free_pinned,
            c10::DeviceType::CPU};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* dest, const void* src, std::size_t count) const override {
    default_copy_data(dest, src, count);
  }

#if XHAL_TORCH_HAS_DEVICE_ALLOCATOR
  bool record_event(void*, void* context, c10::Stream stream) override {
    return record(static_cast<PinnedBlock*>(context),
                  stream_handle(stream.device_index(), stream.id()));
  }
  void empty_cache() override {
    check(xhal_pool_trim(pool(), 0), "emptying the cache of pinned memory");
  }
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

  static bool record(PinnedBlock* block, xhal_stream* stream) {
    if (!block) return false;
    xhal_event event{};
    check(xhal_event_record(stream, 0, &event), "recording a use of pinned memory");
    std::lock_guard lock(block->mutex);
    for (auto& use : block->uses) {
      if (use.timeline == event.timeline) {
        use = event;
        return true;
      }
    }
    block->uses.push_back(event);
    return true;
  }
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

c10::Allocator* pinned_allocator() { return the_pinned_allocator(); }

bool record_pinned_use(const c10::DataPtr& ptr, xhal_stream* stream) {
  if (ptr.get_deleter() != &free_pinned) return false;
  return PinnedAllocator::record(static_cast<PinnedBlock*>(ptr.get_context()), stream);
}

bool is_pinned(const void* data) {
  if (!data || device_count() == 0) return false;
  xhal_pointer_info info{};
  return xhal_pointer_query(reinterpret_cast<uint64_t>(data), &info) == XHAL_OK &&
         info.kind == XHAL_MEMORY_HOST;
}

}  // namespace xhal_torch
