// SPDX-License-Identifier: Apache-2.0
// wait.hpp: sleeping, spinning and time, the small words the runtime is built from.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <thread>

namespace xhal::cpu {

inline void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
inline void futex_wake(std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

inline uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

// The time stamp counter, which costs a third of a clock call and serves for durations only.
inline uint64_t ticks() { return __rdtsc(); }

// Nanoseconds of one tick; measured once, when a device is opened.
double ns_per_tick();
inline uint64_t ticks_of(uint64_t ns) {
  return static_cast<uint64_t>(static_cast<double>(ns) / ns_per_tick());
}
inline uint64_t ns_of(uint64_t count) {
  return static_cast<uint64_t>(static_cast<double>(count) * ns_per_tick());
}

// Looks for `ready` until `budget_ticks` have passed. Gives up at once when a yield takes long:
// then another thread wants this core, and spinning against it would only slow both. Begins with a
// yield, for that may be the one that was just woken.
template <class Ready>
bool spin_until(uint64_t budget_ticks, Ready&& ready) {
  if (ready()) return true;
  if (budget_ticks == 0) return false;
  const uint64_t contended = ticks_of(3'000);
  for (const uint64_t start = ticks();;) {
    const uint64_t before = ticks();
    if (before - start > budget_ticks) return false;
    sched_yield();
    if (ready()) return true;
    if (ticks() - before > contended) return false;
    for (int i = 0; i < 100; ++i) {
      _mm_pause();
      if (ready()) return true;
    }
  }
}

// Held for a few instructions only; yields when its holder has lost its core.
class SpinLock {
 public:
  void lock() {
    for (int i = 0; word_.exchange(1, std::memory_order_acquire) != 0; ++i) {
      while (word_.load(std::memory_order_relaxed) != 0) {
        if (++i < 100) {
          _mm_pause();
        } else {
          sched_yield();
        }
      }
    }
  }
  void unlock() { word_.store(0, std::memory_order_release); }

 private:
  std::atomic<uint32_t> word_{0};
};

}  // namespace xhal::cpu
