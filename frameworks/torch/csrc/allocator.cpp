// SPDX-License-Identifier: Apache-2.0
#include "allocator.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "capture.h"
#include "compat.h"
#include "memory_counters.h"

namespace xhal_torch {
namespace {

DeviceCounters counters[kMaxDevices];

// Waits for what is queued on the device, except on streams in a capture, which run nothing. What
// has failed has ended, too.
void settle(DeviceIndex index) {
  for (auto& slot : device(index).streams) {
    xhal_stream* stream = slot.load(std::memory_order_acquire);
    uint32_t capturing = 0;
    if (stream && xhal_stream_capturing(stream, &capturing) == XHAL_OK && !capturing)
      xhal_stream_synchronize(stream, XHAL_FOREVER);
  }
}

void trim(DeviceIndex index) {
  reap_graph_pools(index);
  for_each_pool(index, [](xhal_pool* pool) {
    check(xhal_pool_trim(pool, 0), "emptying a memory pool's cache");
  });
}

// A block of device memory, from the pool of the capture that the stream is in, if it is in one.
struct Grant {
  uint64_t address = 0;
  xhal_pool* pool;
  std::shared_ptr<GraphPool> graph;
};

Grant take(DeviceIndex index, xhal_stream* stream, uint64_t size) {
  Grant grant;
  grant.pool = device(index).pool;
  if (const auto capture = capture_of(index, stream)) [[unlikely]] {
    grant.graph = capture->pool();
    grant.pool = grant.graph->handle();
  }
  xhal_status status = xhal_pool_alloc(grant.pool, stream, size, {}, &grant.address);
  if (status == XHAL_ERR_OUT_OF_MEMORY) [[unlikely]] {
    // What is free may lie in slabs of other sizes, other pools, or behind work that still runs.
    settle(index);
    trim(index);
    trim_pinned();
    status = xhal_pool_alloc(grant.pool, stream, size, {}, &grant.address);
  }
  if (status < 0) [[unlikely]] {
    fail(status, c10::str("allocating ", size, " bytes on xhal:", static_cast<int>(index)).c_str());
  }
  counters[index].add(size);
  return grant;
}

// Owner of one block; the context of its DataPtr.
struct Block {
  uint64_t address, size_bytes;
  xhal_pool* pool;
  std::shared_ptr<GraphPool> graph;  // whose pool it is, if it is one
  DeviceIndex index;
  std::mutex mutex;
  std::vector<StreamId> users;  // other streams, by record_stream
  StreamId home;
};

void free_block(void* context);

// While a stream that uses the block is being captured, no event tells when that use is over.
bool wait_for_capture(Block* block) {
  for (StreamId user : block->users) {
    if (const auto capture = capture_of(block->index, stream_handle(block->index, user))) {
      capture->free_at_end({nullptr, block, &free_block, c10::Device(kXhal, block->index)});
      return true;
    }
  }
  return false;
}

void free_block(void* context) {
  Block* block = static_cast<Block*>(context);
  if (!block) return;
  if (!is_shut_down()) {
    if (!block->users.empty() && wait_for_capture(block)) return;
    xhal_event events[kMaxStreams];
    uint32_t count = 0;
    for (StreamId user : block->users) {
      // A stream that has failed records nothing; what it was told to do has been dropped.
      if (xhal_event_record(stream_handle(block->index, user), 0, &events[count]) == XHAL_OK)
        ++count;
    }
    xhal_pool_free(block->pool, block->address, events, count);
    counters[block->index].remove(block->size_bytes);
  }
  delete block;
}

class DeviceAllocator final : public DeviceAllocatorBase {
 public:
  c10::DataPtr allocate(size_t size) override {
    const DeviceIndex index = current_device();
    const c10::Device where(kXhal, index);
    if (!size) return {nullptr, nullptr, &free_block, where};
    Grant grant = take(index, current_stream(index), size);
    Block* block = new Block{grant.address, size, grant.pool, std::move(grant.graph),
                             index,         {},   {},         current_stream_id_unchecked(index)};
    return {reinterpret_cast<void*>(grant.address), block, &free_block, where};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }

  void copy_data(void* dest, const void* src, std::size_t count) const override {
    xhal_stream* stream = current_stream(current_device());
    refuse_wait_in_capture(current_device(), stream, "copying a storage");
    check(xhal_stream_copy(stream, reinterpret_cast<uint64_t>(dest),
                           reinterpret_cast<uint64_t>(src), count),
          "copying a storage");
    check(xhal_stream_synchronize(stream, XHAL_FOREVER), "copying a storage");
  }

#if XHAL_TORCH_HAS_DEVICE_ALLOCATOR
  bool initialized() override { return device_count() > 0; }

  void emptyCache(c10::MempoolId_t) override { empty_caches(); }

  void recordStream(const c10::DataPtr& ptr, c10::Stream stream) override {
    record_stream(ptr, stream.device_index(), stream.id());
  }

  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex index) override {
    const xhal_pool_stats now = pool_stats(index);
    const MemoryCounts counts = memory_counts(index);
    c10::CachingDeviceAllocator::DeviceStats stats;
    const auto set = [](auto& array, const MemoryCount& count) {
      for (auto& stat : array) {
        stat.current = static_cast<int64_t>(count.current);
        stat.peak = static_cast<int64_t>(count.peak);
        stat.allocated = static_cast<int64_t>(count.allocated);
        stat.freed = static_cast<int64_t>(count.freed);
      }
    };
    set(stats.allocation, counts.blocks);
    set(stats.active, counts.blocks);
    set(stats.allocated_bytes, counts.bytes);
    set(stats.active_bytes, counts.bytes);
    set(stats.requested_bytes, counts.requested);
    set(stats.segment, {now.slab_count, now.slab_count, now.slab_allocation_count,
                        now.slab_allocation_count - now.slab_count});
    set(stats.reserved_bytes, {now.reserved_bytes, now.reserved_peak_bytes, 0, 0});
    for (auto& stat : stats.active_bytes)  // freed, but work that uses it still runs
      stat.current += static_cast<int64_t>(now.pending_bytes);
    stats.num_alloc_retries = static_cast<int64_t>(now.retry_count);
    stats.num_ooms = static_cast<int64_t>(now.out_of_memory_count);
    stats.num_device_alloc = static_cast<int64_t>(now.slab_allocation_count);
    stats.num_device_free = static_cast<int64_t>(now.slab_allocation_count - now.slab_count);
    return stats;
  }

  void resetAccumulatedStats(DeviceIndex index) override { reset_accumulated(index); }
  void resetPeakStats(DeviceIndex index) override { reset_peaks(index); }

  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex index) override { return memory_info(index); }
#endif
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
  if (ptr.get_deleter() != &free_block || !ptr.get_context()) return;
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

MemoryCounts memory_counts(DeviceIndex index) {
  const DeviceCounters& all = counters[index];
  return {all.blocks.read(), all.bytes.read(), all.requested.read()};
}

xhal_pool_stats pool_stats(DeviceIndex index) {
  xhal_pool_stats sum{};
  sum.struct_size = sizeof sum;
  if (!device_is_open(index)) return sum;
  for_each_pool(index, [&sum](xhal_pool* pool) {
    xhal_pool_stats one{};
    one.struct_size = sizeof one;
    check(xhal_pool_query(pool, &one), "reading a memory pool's counters");
    for (auto field : {&xhal_pool_stats::used_bytes, &xhal_pool_stats::used_peak_bytes,
                       &xhal_pool_stats::requested_bytes, &xhal_pool_stats::reserved_bytes,
                       &xhal_pool_stats::reserved_peak_bytes, &xhal_pool_stats::pending_bytes,
                       &xhal_pool_stats::allocation_count, &xhal_pool_stats::free_count,
                       &xhal_pool_stats::slab_count, &xhal_pool_stats::slab_allocation_count,
                       &xhal_pool_stats::retry_count, &xhal_pool_stats::out_of_memory_count})
      sum.*field += one.*field;
    sum.largest_free_bytes = std::max(sum.largest_free_bytes, one.largest_free_bytes);
  });
  return sum;
}

void reset_peaks(DeviceIndex index) {
  if (!device_is_open(index)) return;
  counters[index].reset_peaks();
  for_each_pool(index, [](xhal_pool* pool) {
    check(xhal_pool_reset_peaks(pool), "resetting a memory pool's peaks");
  });
}

void reset_accumulated(DeviceIndex index) {
  if (device_is_open(index)) counters[index].reset_accumulated();
}

void empty_caches() {
  for (DeviceIndex index = 0; index < device_count(); ++index) {
    if (!device_is_open(index)) continue;
    settle(index);
    trim(index);
  }
  trim_pinned();
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

Scratch::Scratch(DeviceIndex index, xhal_stream* stream, uint64_t size_bytes)
    : index_(index), size_bytes_(size_bytes) {
  if (!size_bytes) return;
  Grant grant = take(index, stream, size_bytes);
  address_ = grant.address;
  pool_ = grant.pool;
  graph_ = std::move(grant.graph);
}

Scratch::~Scratch() {
  if (!address_) return;
  xhal_pool_free(pool_, address_, nullptr, 0);
  counters[index_].remove(size_bytes_);
}

}  // namespace xhal_torch
