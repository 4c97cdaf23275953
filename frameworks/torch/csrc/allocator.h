// SPDX-License-Identifier: Apache-2.0
// allocator.h: torch's allocators over libxhal's pools, which are the only cache. What lives
// here is bookkeeping: which other streams use a block, so that its free can name the events
// to wait for, and counters over the pools of a device (its own and the graphs').
#pragma once

#include <c10/core/Allocator.h>

#include <memory>
#include <utility>

#include "runtime.h"

namespace xhal_torch {

class GraphPool;

c10::Allocator* device_allocator();

// Tells the owner of `ptr` that `stream` uses it too. Memory that is not ours is ignored.
void record_stream(const c10::DataPtr& ptr, DeviceIndex index, StreamId stream);

// Tells the owner of pinned memory, found by an address in it, that work submitted so far to a
// stream of the device uses it. False when it is not ours: nobody keeps it until the work has run.
bool record_pinned_use(const void* data, DeviceIndex index, xhal_stream* stream);

// Whether `data` is host memory that a device reaches without a bounce.
bool is_pinned(const void* data);

c10::Allocator* pinned_allocator();
// Gives the pinned memory back that nobody holds.
void trim_pinned();

// What is handed out on a device, the most that was at once, and what was handed out and given back
// since the last reset_accumulated(). Blocks, their bytes as the pools round, and as asked for.
struct MemoryCount {
  uint64_t current = 0, peak = 0, allocated = 0, freed = 0;
};
struct MemoryCounts {
  MemoryCount blocks, bytes, requested;
};
// All zeros while the device is closed.
MemoryCounts memory_counts(DeviceIndex index);
// The counters of all pools of the device in one; the peaks of pools are added up.
xhal_pool_stats pool_stats(DeviceIndex index);
void reset_peaks(DeviceIndex index);
void reset_accumulated(DeviceIndex index);
// Waits for what is queued, then gives every device the memory back that nobody holds.
void empty_caches();
std::pair<size_t, size_t> memory_info(DeviceIndex index);

// Block of device memory for the time of one submission: freed at once, reused in stream order.
class Scratch {
 public:
  Scratch(DeviceIndex index, xhal_stream* stream, uint64_t size_bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  uint64_t address() const { return address_; }

 private:
  DeviceIndex index_;
  uint64_t size_bytes_;
  xhal_pool* pool_ = nullptr;
  std::shared_ptr<GraphPool> graph_;
  uint64_t address_ = 0;
};

}  // namespace xhal_torch
