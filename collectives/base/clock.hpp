// SPDX-License-Identifier: Apache-2.0
// clock.hpp: two clocks. now_ns() is the monotonic clock that deadlines are in. ticks() is
// the cheapest counter the processor has, for records on the hot path; a Calibration turns
// it into nanoseconds.
#pragma once

#include <time.h>

#include <cstdint>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace xcoll {

inline uint64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

// `timeout_ns` after `since_ns`; a moment beyond the clock's range is "never".
inline uint64_t deadline_of(uint64_t since_ns, uint64_t timeout_ns) {
  return timeout_ns > UINT64_MAX - since_ns ? UINT64_MAX : since_ns + timeout_ns;
}

inline uint64_t ticks() {
#if defined(__x86_64__)
  return __rdtsc();
#else
  return now_ns();
#endif
}

inline void cpu_relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Two readings of both clocks, the first at construction: the longer it lives the better it is.
class Calibration {
 public:
  Calibration() : first_ticks_(ticks()), first_ns_(now_ns()) {}

  // The monotonic time of a reading of ticks().
  uint64_t ns_of(uint64_t reading) const {
    const uint64_t elapsed_ticks = ticks() - first_ticks_;
    const uint64_t elapsed_ns = now_ns() - first_ns_;
    const double ns_per_tick =
        elapsed_ticks == 0 ? 1.0
                           : static_cast<double>(elapsed_ns) / static_cast<double>(elapsed_ticks);
    const auto offset = static_cast<double>(static_cast<int64_t>(reading - first_ticks_));
    return first_ns_ + static_cast<uint64_t>(static_cast<int64_t>(offset * ns_per_tick));
  }

 private:
  uint64_t first_ticks_;
  uint64_t first_ns_;
};

}  // namespace xcoll
