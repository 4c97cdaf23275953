// SPDX-License-Identifier: Apache-2.0
// iterate.hpp: one loop nest over several operands: flipped, sorted and collapsed when the
// operator is prepared.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "op.hpp"

namespace xhal::cpu {

constexpr int kMaxIterated = 6;

struct IterPlan {
  int ndim = 0;  // after collapsing; 0 for a single element
  int operands = 0;
  int64_t count = 1;  // product of sizes
  std::array<int64_t, XHAL_MAX_DIMENSIONS> sizes{};
  std::array<std::array<int64_t, XHAL_MAX_DIMENSIONS>, kMaxIterated> strides{};
  std::array<int64_t, kMaxIterated>
      offsets{};  // of the first element visited, from the operand's address

  int64_t inner() const { return ndim == 0 ? 1 : sizes[ndim - 1]; }
  int64_t inner_stride(int operand) const { return ndim == 0 ? 1 : strides[operand][ndim - 1]; }
};

// The order of dimensions follows operand 0 (largest stride outermost), whose negative strides are
// flipped; neighbours that are one run of memory for every operand are merged. With `keep_order`,
// dimensions are merged only: element number i of the nest is element i in row-major order.
IterPlan plan_iteration(uint32_t ndim, const int64_t* sizes,
                        std::span<const int64_t* const> strides, bool keep_order = false);

// Where a nest stands, for starting in the middle of it.
class IterPosition {
 public:
  IterPosition(const IterPlan& plan, int64_t index) : plan_(plan) {
    for (int d = plan.ndim; d-- > 0;) {
      at_[d] = index % plan.sizes[d];
      index /= plan.sizes[d];
    }
    for (int o = 0; o < plan.operands; ++o) {
      offset_[o] = plan.offsets[o];
      for (int d = 0; d < plan.ndim; ++d) offset_[o] += at_[d] * plan.strides[o][d];
    }
  }
  int64_t offset(int operand) const { return offset_[operand]; }
  // Elements left in the innermost dimension.
  int64_t left() const {
    return plan_.ndim == 0 ? 1 : plan_.sizes[plan_.ndim - 1] - at_[plan_.ndim - 1];
  }

  // Moves on by n <= left() elements.
  void advance(int64_t n) {
    int d = plan_.ndim - 1;
    if (d < 0) return;
    at_[d] += n;
    for (int o = 0; o < plan_.operands; ++o) offset_[o] += n * plan_.strides[o][d];
    while (at_[d] == plan_.sizes[d] && d > 0) {
      for (int o = 0; o < plan_.operands; ++o)
        offset_[o] += plan_.strides[o][d - 1] - plan_.sizes[d] * plan_.strides[o][d];
      at_[d] = 0;
      ++at_[--d];
    }
  }

 private:
  const IterPlan& plan_;
  std::array<int64_t, XHAL_MAX_DIMENSIONS> at_{};
  std::array<int64_t, kMaxIterated> offset_{};
};

}  // namespace xhal::cpu
