// SPDX-License-Identifier: Apache-2.0
// measure.hpp: two things measured against each other in one run.
//
// Shared machines change while one measures, so nothing is compared with a number from another
// minute: the sides take turns, in changing order, and what is compared are the medians.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace xhal::bench {

uint64_t now_ns();

double median(std::vector<double> values);
// The distance between the quartiles, as a part of the median: 0 when every sample is the same.
double spread(std::vector<double> values);

// Takes one sample: a time per operation, or a rate.
using Sample = std::function<double()>;

struct Effort {
  uint32_t rounds = 60;       // samples of each side, at most
  uint32_t least_rounds = 5;  // also when the time is over
  uint64_t time_ns = 2'000'000'000;
  uint64_t settle_ns = 0;  // before each sample: until the other side's threads have gone to sleep
};

// The samples of every side, each measured as often as the others.
std::vector<std::vector<double>> interleave(const std::vector<Sample>& sides, const Effort& effort);

// Nanoseconds of one of `count` calls of `body`.
template <class Body>
double ns_per_call(uint32_t count, Body&& body) {
  const uint64_t begin = now_ns();
  for (uint32_t i = 0; i < count; ++i) body();
  return static_cast<double>(now_ns() - begin) / count;
}

// The same for a cost that is not known before: at least 16 calls, then as many of `count` as
// `budget_ns` pays for.
template <class Body>
double ns_per_call_within(uint64_t budget_ns, uint32_t count, Body&& body) {
  constexpr uint32_t kFirst = 16;
  const double first = ns_per_call(kFirst, body);
  const double left = static_cast<double>(budget_ns) - first * kFirst;
  if (left <= first * kFirst) return first;
  return ns_per_call(std::max(kFirst, static_cast<uint32_t>(std::min<double>(count, left / first))),
                     body);
}

// Keeps the compiler from dropping a result or from knowing a value.
template <class T>
void keep(T& value) {
  asm volatile("" : "+m"(value) : : "memory");
}

}  // namespace xhal::bench
