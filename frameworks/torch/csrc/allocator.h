// SPDX-License-Identifier: Apache-2.0
// allocator.h: torch's allocators over libxhal's pools, which are the only cache. What lives
// here is bookkeeping: which other streams use a block, so that its free can name the events
// to wait for.
#pragma once

#include <c10/core/Allocator.h>

#include <utility>

#include "runtime.h"

namespace xhal_torch {

c10::Allocator* device_allocator();

// Tells the owner of `ptr` that `stream` uses it too. Memory that is not ours is ignored.
void record_stream(const c10::DataPtr& ptr, DeviceIndex index, StreamId stream);

// Tells the owner of a pinned buffer that work submitted to `stream` so far uses it. False when it
// is not ours.
bool record_pinned_use(const c10::DataPtr& ptr, xhal_stream* stream);

// Whether `data` is host memory that a device reaches without a bounce.
bool is_pinned(const void* data);

c10::Allocator* pinned_allocator();

// Counters of a device's pool; zeros while the device is closed. Free and total bytes
// of the device.
xhal_pool_stats pool_stats(DeviceIndex index);
void reset_peaks(DeviceIndex index);
void trim_pools();
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
  xhal_pool* pool_ = nullptr;
  uint64_t address_ = 0;
};

}  // namespace xhal_torch
