// SPDX-License-Identifier: Apache-2.0
// memory_counters.h: counts what a device's pools hand out and get back. Lock-free: a peak may miss
// what two threads allocate and free in the same instant.
#pragma once

#include <algorithm>
#include <atomic>

#include "allocator.h"

namespace xhal_torch {

class Counter {
 public:
  void add(uint64_t amount) {
    const uint64_t now = allocated_.fetch_add(amount, std::memory_order_relaxed) + amount -
                         freed_.load(std::memory_order_relaxed);
    uint64_t peak = peak_.load(std::memory_order_relaxed);
    while (now > peak && !peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
    }
  }
  void remove(uint64_t amount) { freed_.fetch_add(amount, std::memory_order_relaxed); }

  MemoryCount read() const {
    const uint64_t freed = freed_.load(std::memory_order_relaxed);  // first: never above allocated
    const uint64_t allocated = allocated_.load(std::memory_order_relaxed);
    const uint64_t current = allocated - freed;
    return {current, std::max(peak_.load(std::memory_order_relaxed), current),
            allocated - allocated_before_.load(std::memory_order_relaxed),
            freed - freed_before_.load(std::memory_order_relaxed)};
  }
  void reset_peak() { peak_.store(read().current, std::memory_order_relaxed); }
  void reset_accumulated() {
    freed_before_.store(freed_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    allocated_before_.store(allocated_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }

 private:
  std::atomic<uint64_t> allocated_{0}, freed_{0}, peak_{0};
  std::atomic<uint64_t> allocated_before_{0}, freed_before_{0};  // the last reset_accumulated()
};

struct DeviceCounters {
  Counter blocks, bytes, requested;

  // As the pools round.
  static uint64_t rounded(uint64_t size) { return (size + 511) / 512 * 512; }
  void add(uint64_t size) {
    blocks.add(1);
    bytes.add(rounded(size));
    requested.add(size);
  }
  void remove(uint64_t size) {
    blocks.remove(1);
    bytes.remove(rounded(size));
    requested.remove(size);
  }
  void reset_peaks() {
    for (Counter* counter : {&blocks, &bytes, &requested}) counter->reset_peak();
  }
  void reset_accumulated() {
    for (Counter* counter : {&blocks, &bytes, &requested}) counter->reset_accumulated();
  }
};

}  // namespace xhal_torch
