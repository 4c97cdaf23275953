// SPDX-License-Identifier: Apache-2.0
// Elementwise operators with two tensors, or a tensor and a number.
#include <ATen/core/Tensor.h>
#include <ATen/native/BinaryOps.h>
#include <ATen/ops/add_ops.h>
#include <ATen/ops/bitwise_and_ops.h>
#include <ATen/ops/bitwise_left_shift_ops.h>
#include <ATen/ops/bitwise_or_ops.h>
#include <ATen/ops/bitwise_right_shift_ops.h>
#include <ATen/ops/bitwise_xor_ops.h>
#include <ATen/ops/div_ops.h>
#include <ATen/ops/eq_ops.h>
#include <ATen/ops/floor_divide_ops.h>
#include <ATen/ops/fmod_ops.h>
#include <ATen/ops/ge_ops.h>
#include <ATen/ops/gt_ops.h>
#include <ATen/ops/le_ops.h>
#include <ATen/ops/logical_and_ops.h>
#include <ATen/ops/logical_or_ops.h>
#include <ATen/ops/logical_xor_ops.h>
#include <ATen/ops/lt_ops.h>
#include <ATen/ops/maximum_ops.h>
#include <ATen/ops/minimum_ops.h>
#include <ATen/ops/mul_ops.h>
#include <ATen/ops/ne_ops.h>
#include <ATen/ops/pow_ops.h>
#include <ATen/ops/remainder_ops.h>
#include <ATen/ops/rsub_ops.h>
#include <ATen/ops/sub_ops.h>

#include "native.h"
#include "pointwise.h"

namespace xhal_torch {
namespace {

using at::Scalar;
using at::Tensor;
constexpr int kNoAttribute = -1;

// ---- f(tensor, tensor) and f(tensor, number); `attribute` is how a quotient is rounded

template <uint32_t id, Types types, int attribute = kNoAttribute>
struct Binary {
  template <class Other>
  static bool run(const Tensor& self, const Other& other, Tensor& out) {
    Pointwise call(id, types);
    call.operand(self);
    if constexpr (std::is_same_v<Other, Scalar>) {
      call.number(other);
    } else {
      call.operand(other);
    }
    if constexpr (attribute != kNoAttribute)
      call.attr(id == XHAL_OP_div ? "rounding" : "truncate", attribute);
    return call.run(out);
  }
  template <class Op, class Other>
  static Tensor functional(const Tensor& self, const Other& other) {
    Tensor out;
    return run(self, other, out) ? out : on_host<Op>(self, other);
  }
  template <class Op, class Other>
  static Tensor& in_place(Tensor& self, const Other& other) {
    return run(self, other, self) ? self : on_host<Op>(self, other);
  }
  template <class Op, class Other>
  static Tensor& into(const Tensor& self, const Other& other, Tensor& out) {
    return run(self, other, out) ? out : on_host<Op>(self, other, out);
  }
};

template <class Kernel, class Functional, class InPlace, class Out>
void add_tensor_forms(torch::Library& m) {
  native<Functional, &Kernel::template functional<Functional, Tensor>>(m);
  if constexpr (!std::is_void_v<InPlace>)
    native<InPlace, &Kernel::template in_place<InPlace, Tensor>>(m);
  native<Out, &Kernel::template into<Out, Tensor>>(m);
}

template <class Kernel, class Functional, class InPlace, class Out>
void add_scalar_forms(torch::Library& m) {
  native<Functional, &Kernel::template functional<Functional, Scalar>>(m);
  native<InPlace, &Kernel::template in_place<InPlace, Scalar>>(m);
  if constexpr (!std::is_void_v<Out>) native<Out, &Kernel::template into<Out, Scalar>>(m);
}

// ---- a + alpha * b and a - alpha * b

template <uint32_t id>
struct Scaled {
  template <class Other>
  static bool run(const Tensor& self, const Other& other, const Scalar& alpha, Tensor& out) {
    if constexpr (id == XHAL_OP_sub) at::native::sub_check(self, other);
    Pointwise call(id, Types::common);
    call.operand(self);
    if constexpr (std::is_same_v<Other, Scalar>) {
      call.number(other);
    } else {
      call.operand(other);
    }
    if (!(alpha.isIntegral(/*includeBool=*/false) && alpha.toLong() == 1)) call.scalar(2, alpha);
    return call.run(out);
  }
  template <class Op, class Other>
  static Tensor functional(const Tensor& self, const Other& other, const Scalar& alpha) {
    Tensor out;
    return run(self, other, alpha, out) ? out : on_host<Op>(self, other, alpha);
  }
  template <class Op, class Other>
  static Tensor& in_place(Tensor& self, const Other& other, const Scalar& alpha) {
    return run(self, other, alpha, self) ? self : on_host<Op>(self, other, alpha);
  }
  template <class Op>
  static Tensor& into(const Tensor& self, const Tensor& other, const Scalar& alpha, Tensor& out) {
    return run(self, other, alpha, out) ? out : on_host<Op>(self, other, alpha, out);
  }
};

Tensor rsub_tensor(const Tensor& self, const Tensor& other, const Scalar& alpha) {
  at::native::sub_check(other, self);
  Tensor out;
  Pointwise call(XHAL_OP_sub, Types::common);
  return call.operand(other).operand(self).scalar(2, alpha).run(out)
             ? out
             : on_host<at::_ops::rsub_Tensor>(self, other, alpha);
}
Tensor rsub_scalar(const Tensor& self, const Scalar& other, const Scalar& alpha) {
  at::native::sub_check(self, other);
  Tensor out;
  Pointwise call(XHAL_OP_sub, Types::common);
  return call.number(other).operand(self).scalar(2, alpha).run(out)
             ? out
             : on_host<at::_ops::rsub_Scalar>(self, other, alpha);
}

// ---- division by rounding mode

using Mode = std::optional<c10::string_view>;

bool run_div(const Tensor& self, const Tensor& other, const Mode& mode, Tensor& out) {
  const int64_t rounding = !mode ? 0 : *mode == "trunc" ? 1 : *mode == "floor" ? 2 : -1;
  if (rounding < 0) return false;
  Pointwise call(XHAL_OP_div, rounding ? Types::common : Types::to_float);
  return call.operand(self).operand(other).attr("rounding", rounding).run(out);
}
Tensor div_mode(const Tensor& self, const Tensor& other, Mode mode) {
  Tensor out;
  return run_div(self, other, mode, out) ? out
                                         : on_host<at::_ops::div_Tensor_mode>(self, other, mode);
}
Tensor& div_mode_out(const Tensor& self, const Tensor& other, Mode mode, Tensor& out) {
  return run_div(self, other, mode, out) ? out
                                         : on_host<at::_ops::div_out_mode>(self, other, mode, out);
}

// ---- powers

bool run_pow(const Tensor& self, const Scalar& exponent, Tensor& out) {
  if (exponent.isComplex()) return false;
  const double e = exponent.toDouble();
  const bool floating = is_float(self.scalar_type());
  // The square of bools is an integer: the exponent promotes them.
  if (e == 2 && self.scalar_type() != at::kBool && (floating || exponent.isIntegral(false))) {
    return Pointwise(XHAL_OP_mul, Types::common).operand(self).operand(self).run(out);
  }
  if (floating && e == 0.5) return Pointwise(XHAL_OP_sqrt, Types::common).operand(self).run(out);
  if (floating && e == -0.5) return Pointwise(XHAL_OP_rsqrt, Types::common).operand(self).run(out);
  if (floating && e == -1)
    return Pointwise(XHAL_OP_reciprocal, Types::common).operand(self).run(out);
  if (!floating && (e < 0 || e > 127)) return false;  // torch's errors
  return Pointwise(XHAL_OP_pow, Types::common).operand(self).number(exponent).run(out);
}
Tensor pow_scalar(const Tensor& self, const Scalar& exponent) {
  Tensor out;
  return run_pow(self, exponent, out) ? out : on_host<at::_ops::pow_Tensor_Scalar>(self, exponent);
}
Tensor& pow_scalar_out(const Tensor& self, const Scalar& exponent, Tensor& out) {
  return run_pow(self, exponent, out)
             ? out
             : on_host<at::_ops::pow_Tensor_Scalar_out>(self, exponent, out);
}
Tensor& pow_base_out(const Scalar& base, const Tensor& exponent, Tensor& out) {
  return Pointwise(XHAL_OP_pow, Types::common).number(base).operand(exponent).run(out)
             ? out
             : on_host<at::_ops::pow_Scalar_out>(base, exponent, out);
}

Tensor remainder_base(const Scalar& self, const Tensor& other) {
  Tensor out;
  return Pointwise(XHAL_OP_remainder, Types::common).number(self).operand(other).run(out)
             ? out
             : on_host<at::_ops::remainder_Scalar_Tensor>(self, other);
}

}  // namespace

// X(ATen, catalogue, types): f, f_ and f.out with two tensors, all without overload name.
#define XHAL_PLAIN(X)                  \
  X(logical_and, logical_and, boolean) \
  X(logical_or, logical_or, boolean)   \
  X(logical_xor, logical_xor, boolean)

// X(ATen, catalogue, types): f.Tensor, f_.Tensor and f.Tensor_out.
#define XHAL_OVERLOADED(X)                  \
  X(eq, eq, boolean)                        \
  X(ne, ne, boolean)                        \
  X(lt, lt, boolean)                        \
  X(le, le, boolean)                        \
  X(gt, gt, boolean)                        \
  X(ge, ge, boolean)                        \
  X(remainder, remainder, common)           \
  X(bitwise_and, bitwise_and, common)       \
  X(bitwise_or, bitwise_or, common)         \
  X(bitwise_xor, bitwise_xor, common)       \
  X(bitwise_left_shift, shift_left, common) \
  X(bitwise_right_shift, shift_right, common)

#define XHAL_COMPARISON(X) X(eq) X(ne) X(lt) X(le) X(gt) X(ge)

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
#define XHAL_ADD(aten, op, types) \
  add_tensor_forms<Binary<XHAL_OP_##op, Types::types>, aten, aten##_, aten##_out>(m);
  XHAL_PLAIN(XHAL_ADD)
#undef XHAL_ADD
#define XHAL_ADD(aten, op, types)                                                     \
  add_tensor_forms<Binary<XHAL_OP_##op, Types::types>, aten##_Tensor, aten##__Tensor, \
                   aten##_Tensor_out>(m);
  XHAL_OVERLOADED(XHAL_ADD)
#undef XHAL_ADD
#define XHAL_ADD(op)                                                                \
  add_scalar_forms<Binary<XHAL_OP_##op, Types::boolean>, op##_Scalar, op##__Scalar, \
                   op##_Scalar_out>(m);
  XHAL_COMPARISON(XHAL_ADD)
#undef XHAL_ADD

  using Mul = Binary<XHAL_OP_mul, Types::common>;
  using Div = Binary<XHAL_OP_div, Types::to_float>;
  using Fmod = Binary<XHAL_OP_remainder, Types::common, 1>;
  using FloorDivide = Binary<XHAL_OP_div, Types::common, 2>;
  add_tensor_forms<Mul, mul_Tensor, mul__Tensor, mul_out>(m);
  add_scalar_forms<Mul, mul_Scalar, mul__Scalar, void>(m);
  add_tensor_forms<Div, div_Tensor, div__Tensor, div_out>(m);
  add_scalar_forms<Div, div_Scalar, div__Scalar, void>(m);
  add_tensor_forms<Fmod, fmod_Tensor, fmod__Tensor, fmod_Tensor_out>(m);
  add_tensor_forms<FloorDivide, floor_divide, floor_divide__Tensor, floor_divide_out>(m);
  add_tensor_forms<Binary<XHAL_OP_maximum, Types::common>, maximum, void, maximum_out>(m);
  add_tensor_forms<Binary<XHAL_OP_minimum, Types::common>, minimum, void, minimum_out>(m);
  add_tensor_forms<Binary<XHAL_OP_pow, Types::common>, pow_Tensor_Tensor, pow__Tensor,
                   pow_Tensor_Tensor_out>(m);
  native<pow_Tensor_Scalar, &pow_scalar>(m);
  native<pow_Tensor_Scalar_out, &pow_scalar_out>(m);
  native<pow_Scalar_out, &pow_base_out>(m);
  native<remainder_Scalar_Tensor, &remainder_base>(m);
  native<div_Tensor_mode, &div_mode>(m);
  native<div_out_mode, &div_mode_out>(m);

  using Add = Scaled<XHAL_OP_add>;
  using Sub = Scaled<XHAL_OP_sub>;
  native<add_Tensor, &Add::functional<add_Tensor, Tensor>>(m);
  native<add_Scalar, &Add::functional<add_Scalar, Scalar>>(m);
  native<add__Tensor, &Add::in_place<add__Tensor, Tensor>>(m);
  native<add__Scalar, &Add::in_place<add__Scalar, Scalar>>(m);
  native<add_out, &Add::into<add_out>>(m);
  native<sub_Tensor, &Sub::functional<sub_Tensor, Tensor>>(m);
  native<sub_Scalar, &Sub::functional<sub_Scalar, Scalar>>(m);
  native<sub__Tensor, &Sub::in_place<sub__Tensor, Tensor>>(m);
  native<sub__Scalar, &Sub::in_place<sub__Scalar, Scalar>>(m);
  native<sub_out, &Sub::into<sub_out>>(m);
  native<rsub_Tensor, &rsub_tensor>(m);
  native<rsub_Scalar, &rsub_scalar>(m);
}

}  // namespace xhal_torch
