// SPDX-License-Identifier: Apache-2.0
#include "wait.hpp"

namespace xhal::cpu {

double ns_per_tick() {
  static const double ratio = [] {
    constexpr uint64_t kIntervalNs = 500'000;
    const uint64_t begin_ns = now_ns(), begin = ticks();
    uint64_t end_ns = begin_ns;
    while (end_ns - begin_ns < kIntervalNs) end_ns = now_ns();
    return static_cast<double>(end_ns - begin_ns) / static_cast<double>(ticks() - begin);
  }();
  return ratio;
}

}  // namespace xhal::cpu
