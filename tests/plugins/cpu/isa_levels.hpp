// SPDX-License-Identifier: Apache-2.0
// isa_levels.hpp: runs a test body once for each instruction set this machine has and
// the kernels know.
#pragma once

#include <gtest/gtest.h>
#include <hwy/detect_targets.h>
#include <hwy/targets.h>

#include "kernel_harness.hpp"

namespace xhal::cpu::test {

inline void for_each_isa(const std::function<void()>& body) {
  const int64_t available = hwy::SupportedTargets();
  struct Level {
    const char* name;
    int64_t targets;
  };
  for (const Level& level : {Level{"avx512", HWY_AVX3 | HWY_AVX2 | HWY_SCALAR},
                             Level{"avx2", HWY_AVX2 | HWY_SCALAR}, Level{"baseline", HWY_SCALAR}}) {
    const int64_t best = level.targets & -level.targets;
    if ((available & best) == 0 && best != HWY_SCALAR) continue;
    hwy::SetSupportedTargetsForTest(level.targets & (available | HWY_SCALAR));
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(level.name);
    body();
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
}

// The distance of a result from its exact value in units of its dtype's last place (of the largest
// normal below one place of a subnormal). Same NaN, infinity or zero: 0.
inline double ulps(DType type, double got, double exact) {
  if (std::isnan(got) || std::isnan(exact)) return std::isnan(got) == std::isnan(exact) ? 0 : 1e30;
  if (got == exact) return 0;
  const double largest = type == DType::f16    ? 65504.0
                         : type == DType::bf16 ? 0x1.fep127
                                               : 0x1.fffffep127;
  const double least = type == DType::f16 ? 0x1p-24 : type == DType::bf16 ? 0x1p-133 : 0x1p-149;
  if (std::isinf(got) && std::fabs(exact) >= largest)
    return std::signbit(got) == std::signbit(exact) ? 0 : 1e30;
  if (std::isinf(got) || std::isinf(exact)) return std::fabs(got) >= largest ? 1 : 1e30;
  const double place = std::ldexp(2 * unit_roundoff(type), std::ilogb(exact == 0 ? got : exact));
  return std::fabs(got - exact) / std::max(place, least);
}

// The same values as `dense`, in every kind of memory an operator must take: dense, with
// gaps, transposed, backwards.
inline std::vector<Tensor> layouts_of(const Tensor& dense) {
  std::vector<Tensor> all{dense};
  const Sizes& sizes = dense.sizes();
  if (sizes.empty() || dense.count() == 0) return all;
  const size_t last = sizes.size() - 1;
  all.push_back(dense.spread(last));
  Tensor back = dense.copy().sliced(last, sizes[last] - 1, sizes[last], -1);
  back.fill([&](int64_t i) { return dense[i]; });
  all.push_back(back);
  if (sizes.size() > 1) {
    all.push_back(dense.spread(0));
    std::vector<size_t> reversed;
    for (size_t d = sizes.size(); d-- > 0;) reversed.push_back(d);
    all.push_back(dense.stored_as(reversed));
  }
  return all;
}

inline double rounded_to(DType type, double x) {
  alignas(8) char memory[8];
  store_element(type, memory, x);
  return load_element(type, memory);
}

}  // namespace xhal::cpu::test
