// SPDX-License-Identifier: Apache-2.0
#include "allocator.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "compat.h"

namespace xhal_torch {
namespace {

// Owner of one block; the context of its DataPtr.
struct Block {
  uint64_t address;
  xhal_pool* pool;
  DeviceIndex index;
  std::mutex mutex;
  std::vector<StreamId> users;  // other streams, by record_stream
  StreamId home;
};

void free_block(void* context) {
  Block* block = static_cast<Block*>(context);
  if (!is_shut_down()) {
    xhal_event events[kMaxStreams];
    uint32_t count = 0;
    for (StreamId user : block->users) {
      // A stream that has failed records nothing; what it was told to do has been dropped.
      if (xhal_event_record(stream_handle(block->index, user), 0, &events[count]) == XHAL_OK)
        ++count;
    }
    xhal_pool_free(block->pool, block->address, events, count);
  }
  delete block;
}

// A stream that is being captured takes its memory from the graph's own pool.
xhal_pool* pool_of(Device& device, xhal_stream* stream) {
  if (device.captured_stream.load(std::memory_order_acquire) == stream) [[unlikely]] {
    return device.capture_pool.load(std::memory_order_acquire);
  }
  return device.pool;
}

class DeviceAllocator final : public DeviceAllocatorBase {
 public:
  c10::DataPtr allocate(size_t size) override {
    const DeviceIndex index = current_device();
    const c10::Device where(kXhal, index);
    if (!size) return {nullptr, nullptr, &free_block_or_nothing, where};
    Device& found = device(index);
    xhal_stream* stream = current_stream(index);
    xhal_pool* pool = pool_of(found, stream);
    uint64_t address = 0;
    const xhal_status status = xhal_pool_alloc(pool, stream, size, {}, &address);
    if (status < 0) [[unlikely]]
      out_of_memory(status, size);
    Block* block = new Block{address, pool, index, {}, {}, current_stream_id_unchecked(index)};
    return {reinterpret_cast<void*>(address), block, &free_block_or_nothing, where};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free_block_or_nothing; }

  void copy_data(void* dest, const void* src, std::size_t count) const override {
    xhal_stream* stream = current_stream(current_device());
    check(xhal_stream_copy(stream, reinterpret_cast<uint64_t>(dest),
                           reinterpret_cast<uint64_t>(src), count),
          "copying a storage");
    check(xhal_stream_synchronize(stream, XHAL_FOREVER), "copying a storage");
  }

#if XHAL_TORCH_HAS_DEVICE_ALLOCATOR
  bool initialized() override { return device_count() > 0; }

  void emptyCache(c10::MempoolId_t) override { trim_pools(); }

  void recordStream(const c10::DataPtr& ptr, c10::Stream stream) override {
    record_stream(ptr, stream.device_index(), stream.id());
  }

  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex index) override {
    const xhal_pool_stats now = pool_stats(index);
    c10::CachingDeviceAllocator::DeviceStats stats;
    const auto set = [](auto& array, uint64_t current, uint64_t peak, uint64_t allocated,
                        uint64_t freed) {
      for (auto& stat : array) {
        stat.current = static_cast<int64_t>(current);
        stat.peak = static_cast<int64_t>(peak);
        stat.allocated = static_cast<int64_t>(allocated);
        stat.freed = static_cast<int64_t>(freed);
      }
    };
    const uint64_t live = now.allocation_count - now.free_count;
    set(stats.allocation, live, live, now.allocation_count, now.free_count);
    set(stats.active, live, live, now.allocation_count, now.free_count);
    set(stats.segment, now.slab_count, now.slab_count, now.slab_allocation_count,
        now.slab_allocation_count - now.slab_count);
    set(stats.allocated_bytes, now.used_bytes, now.used_peak_bytes, 0, 0);
    set(stats.active_bytes, now.used_bytes + now.pending_bytes, now.used_peak_bytes, 0, 0);
    set(stats.reserved_bytes, now.reserved_bytes, now.reserved_peak_bytes, 0, 0);
    set(stats.requested_bytes, now.requested_bytes, now.requested_bytes, 0, 0);
    stats.num_alloc_retries = static_cast<int64_t>(now.retry_count);
    stats.num_ooms = static_cast<int64_t>(now.out_of_memory_count);
    stats.num_device_alloc = static_cast<int64_t>(now.slab_allocation_count);
    stats.num_device_free = static_cast<int64_t>(now.slab_allocation_count - now.slab_count);
    return stats;
  }

  // The pool counts from its making; only the peaks can be set back.
  void resetAccumulatedStats(DeviceIndex) override {}
  void resetPeakStats(DeviceIndex index) override { reset_peaks(index); }

  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex index) override { return memory_info(index); }
#endif

  static void free_block_or_nothing(void* context) {
    if (context) free_block(context);
  }

 private:
  [[noreturn]] static void out_of_memory(xhal_status status, size_t size) {
    fail(status, c10::str("allocating ", size, " bytes on xhal:", int(current_device())).c_str());
  }
};

DeviceAllocator* the_device_allocator() {
  static auto* const allocator = new DeviceAllocator;
  return allocator;
}

const bool registered = [] {
  c10::SetAllocator(kXhal, the_device_allocator());
  return true;
}();

}  // namespace

c10::Allocator* device_allocator() { return the_device_allocator(); }

void record_stream(const c10::DataPtr& ptr, DeviceIndex index, StreamId stream) {
  if (ptr.get_deleter() != &DeviceAllocator::free_block_or_nothing || !ptr.get_context()) return;
  Block* block = static_cast<Block*>(ptr.get_context());
  if (block->index == index && block->home == stream) return;
  TORCH_CHECK(block->index == index,
              "record_stream: the memory is on xhal:", static_cast<int>(block->index),
              ", the stream on xhal:", static_cast<int>(index));
  std::lock_guard lock(block->mutex);
  if (std::find(block->users.begin(), block->users.end(), stream) == block->users.end()) {
    block->users.push_back(stream);
  }
}

xhal_pool_stats pool_stats(DeviceIndex index) {
  xhal_pool_stats stats{};
  stats.struct_size = sizeof stats;
  if (device_is_open(index))
    check(xhal_pool_query(device(index).pool, &stats), "reading the pool's counters");
  return stats;
}

void reset_peaks(DeviceIndex index) {
  if (device_is_open(index))
    check(xhal_pool_reset_peaks(device(index).pool), "resetting the pool's peaks");
}

void trim_pools() {
  for (DeviceIndex index = 0; index < device_count(); ++index) {
    if (device_is_open(index))
      check(xhal_pool_trim(device(index).pool, 0), "emptying the pool's cache");
  }
}

std::pair<size_t, size_t> memory_info(DeviceIndex index) {
  Device& found = device(index);
  uint64_t free = 0, total = found.info.memory_bytes;
  const bool known =
      xhal_device_limit(found.handle, XHAL_LIMIT_MEMORY_FREE_BYTES, &free) == XHAL_OK;
  xhal_device_limit(found.handle, XHAL_LIMIT_MEMORY_TOTAL_BYTES, &total);
  if (!known)
    free = total > pool_stats(index).reserved_bytes ? total - pool_stats(index).reserved_bytes : 0;
  return {static_cast<size_t>(free), static_cast<size_t>(total)};
}

Scratch::Scratch(DeviceIndex index, xhal_stream* stream, uint64_t size_bytes) {
  if (!size_bytes) return;
  pool_ = pool_of(device(index), stream);
  check(xhal_pool_alloc(pool_, stream, size_bytes, {}, &address_), "allocating workspace");
}

Scratch::~Scratch() {
  if (address_) xhal_pool_free(pool_, address_, nullptr, 0);
}

}  // namespace xhal_torch
