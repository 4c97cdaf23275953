// SPDX-License-Identifier: Apache-2.0
// pointwise_engine.hpp: how a pointwise operator is put together: a kernel, and where its inputs
// and parameters come from.
#pragma once

#include <array>

#include "pointwise.hpp"

namespace xhal::cpu {

constexpr int kMaxInputs = 3, kMaxOutputs = 2, kMaxParams = 2;

// Where a kernel's input comes from: the operand of a group; if that is absent, a launch scalar;
// else a constant.
struct PointwiseInput {
  int group = -1;
  int scalar = -1;
  double constant = 0;
};

// A kernel with its inputs, outputs (as groups) and parameters.
struct PointwiseSpec {
  Kernel kernel;
  int inputs;
  std::array<PointwiseInput, kMaxInputs> input;
  int first_output;  // group
  int outputs = 1;
  std::array<PointwiseInput, kMaxParams> param{};
  bool compares =
      false;  // decides between integers and a fractional scalar as PyTorch does: in f32
};

// All operands must have the output's sizes. Computes in f64 when one of them is that, else in f32
// when one is a float, else in i64.
Prepared build_pointwise(const PointwiseSpec& spec, const OpRequest& request, Refusal& refusal);

}  // namespace xhal::cpu
