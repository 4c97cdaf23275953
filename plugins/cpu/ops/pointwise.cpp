// SPDX-License-Identifier: Apache-2.0
// pointwise.cpp: the pointwise operators of the catalogue: which kernel each one is, and where that
// finds its inputs.
#include <limits>

#include "pointwise_engine.hpp"

namespace xhal::cpu {
namespace {

constexpr PointwiseInput group(int index) { return {index, -1, 0}; }

PointwiseSpec one(Kernel kernel) { return {kernel, 1, {group(0)}, 1}; }
PointwiseSpec two(Kernel kernel) { return {kernel, 2, {group(0), group(1)}, 2}; }
PointwiseSpec three(Kernel kernel) { return {kernel, 3, {group(0), group(1), group(2)}, 3}; }
PointwiseSpec binary(Kernel kernel) {  // absent operands are scalars 0 and 1
  return {kernel, 2, {PointwiseInput{0, 0, 0}, PointwiseInput{1, 1, 0}}, 2};
}

template <Kernel kKernel>
Prepared prepare_one(const OpRequest& request, Refusal& refusal) {
  return build_pointwise(one(kKernel), request, refusal);
}
template <Kernel kKernel>
Prepared prepare_two(const OpRequest& request, Refusal& refusal) {
  return build_pointwise(two(kKernel), request, refusal);
}
template <Kernel kKernel>
Prepared prepare_binary(const OpRequest& request, Refusal& refusal) {
  return build_pointwise(binary(kKernel), request, refusal);
}
template <Kernel kKernel>
Prepared prepare_comparison(const OpRequest& request, Refusal& refusal) {
  PointwiseSpec spec = binary(kKernel);
  spec.compares = true;
  return build_pointwise(spec, request, refusal);
}

template <Kernel kByErf, Kernel kByTanh, int kInputs>
Prepared prepare_gelu(const OpRequest& request, Refusal& refusal) {
  const Kernel kernel = request.attribute_int("tanh") != 0 ? kByTanh : kByErf;
  return build_pointwise(kInputs == 1 ? one(kernel) : two(kernel), request, refusal);
}

Prepared prepare_bitwise_not(const OpRequest& request, Refusal& refusal) {
  PointwiseSpec spec = one(Kernel::bitwise_not);
  spec.param[0].constant = dtype_of(*request.operand(0)) == DType::boolean;
  return build_pointwise(spec, request, refusal);
}

Prepared prepare_is_inf(const OpRequest& request, Refusal& refusal) {
  PointwiseSpec spec = one(Kernel::is_inf);
  spec.param[0].constant = static_cast<double>(request.attribute_int("sign"));
  return build_pointwise(spec, request, refusal);
}

Prepared prepare_clamp(const OpRequest& request, Refusal& refusal) {
  PointwiseSpec spec = three(Kernel::clamp);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  spec.input[1] = {1, request.attribute_int("has_lo") != 0 ? 0 : -1, -kInfinity};
  spec.input[2] = {2, request.attribute_int("has_hi") != 0 ? 1 : -1, kInfinity};
  return build_pointwise(spec, request, refusal);
}

template <Kernel kKernel>
Prepared prepare_add(const OpRequest& request, Refusal& refusal) {
  const bool is_bool = dtype_of(*request.operand(2)) == DType::boolean;
  PointwiseSpec spec = binary(is_bool ? Kernel::add_bool : kKernel);
  spec.param[0].scalar = 2;
  return build_pointwise(spec, request, refusal);
}

Prepared prepare_div(const OpRequest& request, Refusal& refusal) {
  constexpr Kernel kKernels[] = {Kernel::div, Kernel::div_trunc, Kernel::div_floor};
  const int64_t rounding = request.attribute_int("rounding");
  if (rounding < 0 || rounding > 2)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
                  "attribute `rounding` of `div` is 0, 1 or 2");
  return build_pointwise(binary(kKernels[rounding]), request, refusal);
}

Prepared prepare_remainder(const OpRequest& request, Refusal& refusal) {
  return build_pointwise(
      binary(request.attribute_int("truncate") != 0 ? Kernel::fmod : Kernel::remainder), request,
      refusal);
}

template <Kernel kKernel>
Prepared prepare_shift(const OpRequest& request, Refusal& refusal) {
  PointwiseSpec spec = binary(kKernel);
  spec.param[0].constant = 8.0 * static_cast<double>(size_of(dtype_of(*request.operand(2))));
  return build_pointwise(spec, request, refusal);
}

Prepared prepare_where(const OpRequest& request, Refusal& refusal) {
  PointwiseSpec spec = three(Kernel::where);
  spec.input[1].scalar = 0;
  spec.input[2].scalar = 1;
  return build_pointwise(spec, request, refusal);
}

Prepared prepare_masked_fill(const OpRequest& request, Refusal& refusal) {
  const PointwiseSpec spec{Kernel::where, 3, {group(1), PointwiseInput{-1, 0, 0}, group(0)}, 2};
  return build_pointwise(spec, request, refusal);
}

template <Kernel kKernel>
Prepared prepare_three_with_value(const OpRequest& request, Refusal& refusal) {
  PointwiseSpec spec = three(kKernel);
  spec.param[0].scalar = 0;
  return build_pointwise(spec, request, refusal);
}

Prepared prepare_lerp(const OpRequest& request, Refusal& refusal) {
  PointwiseSpec spec = three(Kernel::lerp);
  spec.input[2].scalar = 0;
  return build_pointwise(spec, request, refusal);
}

Prepared prepare_axpby(const OpRequest& request, Refusal& refusal) {
  const bool has_y = request.operand(1) != nullptr;
  PointwiseSpec spec = has_y ? two(Kernel::axpby) : one(Kernel::scale_shift);
  spec.first_output = 2;
  spec.param[0].scalar = 0;
  spec.param[1].scalar = 1;
  return build_pointwise(spec, request, refusal);
}

template <Kernel kKernel>
Prepared prepare_with_scalar(const OpRequest& request, Refusal& refusal) {
  PointwiseSpec spec = two(kKernel);
  spec.param[0].scalar = 0;
  return build_pointwise(spec, request, refusal);
}

Prepared prepare_swiglu_grad(const OpRequest& request, Refusal& refusal) {
  PointwiseSpec spec = three(Kernel::swiglu_grad);
  spec.outputs = 2;
  return build_pointwise(spec, request, refusal);
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_axpby, prepare_axpby},
    {XHAL_OP_neg, prepare_one<Kernel::neg>},
    {XHAL_OP_abs, prepare_one<Kernel::abs>},
    {XHAL_OP_sign, prepare_one<Kernel::sign>},
    {XHAL_OP_exp, prepare_one<Kernel::exp>},
    {XHAL_OP_expm1, prepare_one<Kernel::expm1>},
    {XHAL_OP_log, prepare_one<Kernel::log>},
    {XHAL_OP_log1p, prepare_one<Kernel::log1p>},
    {XHAL_OP_log2, prepare_one<Kernel::log2>},
    {XHAL_OP_sqrt, prepare_one<Kernel::sqrt>},
    {XHAL_OP_rsqrt, prepare_one<Kernel::rsqrt>},
    {XHAL_OP_reciprocal, prepare_one<Kernel::reciprocal>},
    {XHAL_OP_sin, prepare_one<Kernel::sin>},
    {XHAL_OP_cos, prepare_one<Kernel::cos>},
    {XHAL_OP_tanh, prepare_one<Kernel::tanh>},
    {XHAL_OP_sigmoid, prepare_one<Kernel::sigmoid>},
    {XHAL_OP_erf, prepare_one<Kernel::erf>},
    {XHAL_OP_relu, prepare_one<Kernel::relu>},
    {XHAL_OP_gelu, prepare_gelu<Kernel::gelu, Kernel::gelu_tanh, 1>},
    {XHAL_OP_silu, prepare_one<Kernel::silu>},
    {XHAL_OP_floor, prepare_one<Kernel::floor>},
    {XHAL_OP_ceil, prepare_one<Kernel::ceil>},
    {XHAL_OP_trunc, prepare_one<Kernel::trunc>},
    {XHAL_OP_round, prepare_one<Kernel::round>},
    {XHAL_OP_logical_not, prepare_one<Kernel::logical_not>},
    {XHAL_OP_bitwise_not, prepare_bitwise_not},
    {XHAL_OP_is_nan, prepare_one<Kernel::is_nan>},
    {XHAL_OP_is_inf, prepare_is_inf},
    {XHAL_OP_is_finite, prepare_one<Kernel::is_finite>},
    {XHAL_OP_clamp, prepare_clamp},
    {XHAL_OP_add, prepare_add<Kernel::add>},
    {XHAL_OP_sub, prepare_add<Kernel::sub>},
    {XHAL_OP_mul, prepare_binary<Kernel::mul>},
    {XHAL_OP_div, prepare_div},
    {XHAL_OP_remainder, prepare_remainder},
    {XHAL_OP_pow, prepare_binary<Kernel::pow>},
    {XHAL_OP_minimum, prepare_binary<Kernel::minimum>},
    {XHAL_OP_maximum, prepare_binary<Kernel::maximum>},
    {XHAL_OP_eq, prepare_comparison<Kernel::eq>},
    {XHAL_OP_ne, prepare_comparison<Kernel::ne>},
    {XHAL_OP_lt, prepare_comparison<Kernel::lt>},
    {XHAL_OP_le, prepare_comparison<Kernel::le>},
    {XHAL_OP_gt, prepare_comparison<Kernel::gt>},
    {XHAL_OP_ge, prepare_comparison<Kernel::ge>},
    {XHAL_OP_logical_and, prepare_comparison<Kernel::logical_and>},
    {XHAL_OP_logical_or, prepare_comparison<Kernel::logical_or>},
    {XHAL_OP_logical_xor, prepare_comparison<Kernel::logical_xor>},
    {XHAL_OP_bitwise_and, prepare_binary<Kernel::bitwise_and>},
    {XHAL_OP_bitwise_or, prepare_binary<Kernel::bitwise_or>},
    {XHAL_OP_bitwise_xor, prepare_binary<Kernel::bitwise_xor>},
    {XHAL_OP_shift_left, prepare_shift<Kernel::shift_left>},
    {XHAL_OP_shift_right, prepare_shift<Kernel::shift_right>},
    {XHAL_OP_where, prepare_where},
    {XHAL_OP_masked_fill, prepare_masked_fill},
    {XHAL_OP_addcmul, prepare_three_with_value<Kernel::addcmul>},
    {XHAL_OP_addcdiv, prepare_three_with_value<Kernel::addcdiv>},
    {XHAL_OP_lerp, prepare_lerp},
    {XHAL_OP_tanh_grad, prepare_two<Kernel::tanh_grad>},
    {XHAL_OP_sigmoid_grad, prepare_two<Kernel::sigmoid_grad>},
    {XHAL_OP_threshold_grad, prepare_with_scalar<Kernel::threshold_grad>},
    {XHAL_OP_gelu_grad, prepare_gelu<Kernel::gelu_grad, Kernel::gelu_tanh_grad, 2>},
    {XHAL_OP_silu_grad, prepare_two<Kernel::silu_grad>},
    {XHAL_OP_swiglu, prepare_two<Kernel::swiglu>},
    {XHAL_OP_swiglu_grad, prepare_swiglu_grad},
    {XHAL_OP_dropout_grad, prepare_with_scalar<Kernel::dropout_grad>},
};

}  // namespace

Prepared prepare_kernel(const OpRequest& request, Kernel kernel, int inputs, int first_output,
                        double param, Refusal& refusal) {
  PointwiseSpec spec = inputs == 2 ? two(kernel) : three(kernel);
  spec.first_output = first_output;
  spec.param[0].constant = param;
  return build_pointwise(spec, request, refusal);
}

Prepared prepare_scaled_product(const xhal_tensor_desc& x, const xhal_tensor_desc* y,
                                const xhal_tensor_desc* factor, const xhal_tensor_desc& out,
                                Refusal& refusal) {
  xhal_tensor_desc operands[4] = {x};
  uint32_t sizes[4] = {1, 0, 0, 1}, count = 1;
  if (y != nullptr) operands[count++] = *y, sizes[1] = 1;
  if (factor != nullptr) {
    xhal_tensor_desc& expanded = operands[count++] = out;
    expanded.code = factor->code;
    expanded.bits = factor->bits;
    for (int64_t& stride : expanded.strides) stride = 0;
    sizes[2] = 1;
  }
  operands[count++] = out;
  xhal_op_info info{};
  info.struct_size = sizeof info;
  info.id = XHAL_OP_multi_mul;
  info.group_count = 4;
  info.group_sizes = sizes;
  info.operands = operands;
  info.operand_count = count;
  const PointwiseSpec spec{
      Kernel::mul3, 3, {group(0), PointwiseInput{1, -1, 1}, PointwiseInput{2, 0, 0}}, 3};
  return build_pointwise(spec, OpRequest(info), refusal);
}

std::span<const KernelEntry> pointwise_ops() { return kOps; }

}  // namespace xhal::cpu
