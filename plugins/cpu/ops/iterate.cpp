// SPDX-License-Identifier: Apache-2.0
// iterate.cpp: how a loop nest over strided operands becomes as few and as long loops as possible.
#include "iterate.hpp"

#include <cstdlib>
#include <utility>

namespace xhal::cpu {

IterPlan plan_iteration(uint32_t ndim, const int64_t* sizes,
                        std::span<const int64_t* const> strides, bool keep_order) {
  IterPlan plan;
  plan.operands = static_cast<int>(strides.size());

  std::array<int, XHAL_MAX_DIMENSIONS> order{};
  int dims = 0;
  for (uint32_t d = 0; d < ndim; ++d) {
    plan.count *= sizes[d];
    if (sizes[d] != 1) order[dims++] = static_cast<int>(d);
  }
  if (plan.count == 0) return plan;

  std::array<std::array<int64_t, XHAL_MAX_DIMENSIONS>, kMaxIterated> s{};
  for (int o = 0; o < plan.operands; ++o)
    for (uint32_t d = 0; d < ndim; ++d) s[o][d] = strides[o][d];

  if (!keep_order) {
    for (int i = 0; i < dims; ++i) {
      const int d = order[i];
      if (s[0][d] >= 0) continue;
      for (int o = 0; o < plan.operands; ++o) {
        plan.offsets[o] += (sizes[d] - 1) * s[o][d];
        s[o][d] = -s[o][d];
      }
    }
    const auto outside = [&](int a, int b) {  // the first operand that moves along both decides
      for (int o = 0; o < plan.operands; ++o) {
        const int64_t x = std::abs(s[o][a]), y = std::abs(s[o][b]);
        if (x != y && x != 0 && y != 0) return x > y;
      }
      return false;
    };
    for (int i = 1; i < dims; ++i)  // not std::sort: with zeros in it, this is no strict weak order
      for (int j = i; j > 0 && outside(order[j], order[j - 1]); --j)
        std::swap(order[j], order[j - 1]);
  }

  for (int i = 0; i < dims; ++i) {
    const int d = order[i];
    bool merges = plan.ndim > 0;
    for (int o = 0; o < plan.operands && merges; ++o)
      merges = plan.strides[o][plan.ndim - 1] == s[o][d] * sizes[d];
    if (!merges) {
      plan.sizes[plan.ndim] = 1;
      ++plan.ndim;
    }
    plan.sizes[plan.ndim - 1] *= sizes[d];
    for (int o = 0; o < plan.operands; ++o) plan.strides[o][plan.ndim - 1] = s[o][d];
  }
  return plan;
}

}  // namespace xhal::cpu
