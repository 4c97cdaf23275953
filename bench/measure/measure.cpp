// SPDX-License-Identifier: Apache-2.0
#include "measure.hpp"

#include <time.h>

#include <algorithm>
#include <cmath>
#include <thread>

namespace xhal::bench {
namespace {

double quantile(std::vector<double>& values, double part) {
  if (values.empty()) return std::nan("");
  const double place = part * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(below), values.end());
  const double low = values[below];
  if (below + 1 == values.size()) return low;
  const double high =
      *std::min_element(values.begin() + static_cast<ptrdiff_t>(below) + 1, values.end());
  return low + (high - low) * (place - static_cast<double>(below));
}

}  // namespace

uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

double median(std::vector<double> values) { return quantile(values, 0.5); }

double spread(std::vector<double> values) {
  const double middle = quantile(values, 0.5);
  return middle == 0 ? 0 : (quantile(values, 0.75) - quantile(values, 0.25)) / std::fabs(middle);
}

std::vector<std::vector<double>> interleave(const std::vector<Sample>& sides,
                                            const Effort& effort) {
  std::vector<std::vector<double>> samples(sides.size());
  const auto take = [&](size_t side) {
    if (effort.settle_ns != 0)
      std::this_thread::sleep_for(std::chrono::nanoseconds(effort.settle_ns));
    return sides[side]();
  };
  for (size_t side = 0; side < sides.size(); ++side)
    (void)take(side);  // caches, first touches, threads
  const uint64_t end = now_ns() + effort.time_ns;
  for (uint32_t round = 0; round < effort.rounds; ++round) {
    if (round >= effort.least_rounds && now_ns() >= end) break;
    for (size_t i = 0; i < sides.size(); ++i) {
      const size_t side = round % 2 == 0 ? i : sides.size() - 1 - i;
      samples[side].push_back(take(side));
    }
  }
  return samples;
}

}  // namespace xhal::bench
