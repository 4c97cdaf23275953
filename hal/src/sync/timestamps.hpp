// SPDX-License-Identifier: Apache-2.0
// timestamps.hpp: the times of a device's timed events: a ring of slots in shared memory.
//
// Rings are used again by devices opened later, and the numbers of a ring's slots go on from one
// owner to the next: an event of an earlier owner finds another number and is expired.
#pragma once

#include <atomic>
#include <cstdint>

#include "xhal/host.h"

namespace xhal {

inline constexpr uint32_t kTimestampRing = 4096;  // slots, unless a program asks for more
inline constexpr uint32_t kLargestTimestampRing = 1 << 20;

class TimestampRing {
 public:
  // `size` is a power of two. Without memory for a ring there are no times: take() gives nullptr.
  void open(uint32_t size) noexcept;
  // Gives the ring back. No device may write to it any more; its events are expired.
  void close() noexcept;
  // Expires its events, but keeps the ring from others: something may still write to it.
  void abandon() noexcept { slots_.store(nullptr, std::memory_order_release); }

  uint32_t size() const noexcept { return size_; }
  // Where the plugin puts the next time, and its number (never 0).
  xhal_timestamp* take(uint32_t* number) noexcept;
  // XHAL_OK; NOT_READY: the event was overtaken by a later one and its time comes still; EXPIRED.
  xhal_status read(uint32_t number, uint64_t* ns) const noexcept;

 private:
  std::atomic<xhal_timestamp*> slots_{nullptr};
  std::atomic<uint32_t> last_{0};
  uint32_t size_ = kTimestampRing;
};

// In the child of a fork, all locks held: the free rings are the parent's.
void timestamps_after_fork() noexcept;

}  // namespace xhal
