// SPDX-License-Identifier: Apache-2.0
// pointwise.hpp: the kernels the pointwise engine runs: dense arrays of one computing type in,
// the same out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "op.hpp"

namespace xhal::cpu {

// in[k][i * inc[k]] with inc[k] 0 or 1; where inc[k] is 0, in[k] has 64 bytes of copies of the one
// value. out may be in.
template <class T>
using PointwiseFn = void (*)(const T* const* in, const size_t* inc, T* const* out, size_t n,
                             const T* params);

enum class Kernel : uint8_t {
  // one input
  copy,
  neg,
  abs,
  sign,
  exp,
  expm1,
  log,
  log1p,
  log2,
  sqrt,
  rsqrt,
  reciprocal,
  sin,
  cos,
  tanh,
  sigmoid,
  erf,
  relu,
  gelu,
  gelu_tanh,
  silu,
  floor,
  ceil,
  trunc,
  round,
  logical_not,
  bitwise_not,
  is_nan,
  is_inf,
  is_finite,
  square,
  cube,
  pow_half,
  scale_shift,  // params[0] * x + params[1]
  // two
  axpby,
  add,
  sub,
  mul,
  div,
  div_trunc,
  div_floor,
  remainder,
  fmod,
  pow,
  minimum,
  maximum,
  eq,
  ne,
  lt,
  le,
  gt,
  ge,
  logical_and,
  logical_or,
  logical_xor,
  add_bool,  // a or (b and params[0])
  bitwise_and,
  bitwise_or,
  bitwise_xor,
  shift_left,
  shift_right,
  square_difference,
  tanh_grad,
  sigmoid_grad,
  threshold_grad,
  gelu_grad,
  gelu_tanh_grad,
  silu_grad,
  swiglu,
  // three
  clamp,
  where,
  addcmul,
  addcdiv,
  lerp,
  dropout_grad,
  mul3,
  mse_grad,     // params[0] * in[0] * (in[1] - in[2])
  swiglu_grad,  // two outputs
};

// For the instruction set chosen at this moment; nullptr when the type has no such kernel.
PointwiseFn<float> float_kernel(Kernel kernel);
PointwiseFn<double> double_kernel(Kernel kernel);
PointwiseFn<int64_t> int_kernel(Kernel kernel);

// A kernel as the operator of a request whose first groups are its inputs and whose group
// `first_output` is its output; all have the output's sizes.
Prepared prepare_kernel(const OpRequest& request, Kernel kernel, int inputs, int first_output,
                        double param, Refusal& refusal);

// out = x * y * factor for one tensor of a multi_mul: operands x, y if given, factor (0-d) if
// given, else scalar 0, out.
Prepared prepare_scaled_product(const xhal_tensor_desc& x, const xhal_tensor_desc* y,
                                const xhal_tensor_desc* factor, const xhal_tensor_desc& out,
                                Refusal& refusal);

}  // namespace xhal::cpu
