// SPDX-License-Identifier: Apache-2.0
// Elementwise operators with one tensor: the table, and the few that need more than a row of it.
#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/abs_ops.h>
#include <ATen/ops/bitwise_not_ops.h>
#include <ATen/ops/ceil_ops.h>
#include <ATen/ops/clamp_max_ops.h>
#include <ATen/ops/clamp_min_ops.h>
#include <ATen/ops/clamp_ops.h>
#include <ATen/ops/cos_ops.h>
#include <ATen/ops/erf_ops.h>
#include <ATen/ops/exp_ops.h>
#include <ATen/ops/expm1_ops.h>
#include <ATen/ops/floor_ops.h>
#include <ATen/ops/gelu_ops.h>
#include <ATen/ops/isinf_ops.h>
#include <ATen/ops/isnan_ops.h>
#include <ATen/ops/isneginf_ops.h>
#include <ATen/ops/isposinf_ops.h>
#include <ATen/ops/log1p_ops.h>
#include <ATen/ops/log2_ops.h>
#include <ATen/ops/log_ops.h>
#include <ATen/ops/logical_not_ops.h>
#include <ATen/ops/neg_ops.h>
#include <ATen/ops/reciprocal_ops.h>
#include <ATen/ops/relu_ops.h>
#include <ATen/ops/result_type.h>
#include <ATen/ops/round_ops.h>
#include <ATen/ops/rsqrt_ops.h>
#include <ATen/ops/sgn_ops.h>
#include <ATen/ops/sigmoid_ops.h>
#include <ATen/ops/sign_ops.h>
#include <ATen/ops/silu_ops.h>
#include <ATen/ops/sin_ops.h>
#include <ATen/ops/sqrt_ops.h>
#include <ATen/ops/tanh_ops.h>
#include <ATen/ops/trunc_ops.h>

#include "native.h"
#include "pointwise.h"

namespace xhal_torch {
namespace {

using at::Scalar;
using at::Tensor;

template <uint32_t id, Types types>
bool run(const Tensor& self, Tensor& out) {
  if (id == XHAL_OP_neg && self.scalar_type() == at::kBool) return false;  // torch's error
  return Pointwise(id, types).operand(self).run(out);
}

template <uint32_t id, Types types, class Functional, class InPlace, class Out>
struct Unary {
  static Tensor functional(const Tensor& self) {
    Tensor out;
    return run<id, types>(self, out) ? out : on_host<Functional>(self);
  }
  static Tensor& in_place(Tensor& self) {
    return run<id, types>(self, self) ? self : on_host<InPlace>(self);
  }
  static Tensor& into(const Tensor& self, Tensor& out) {
    // Where the result has the operand's type torch converts into no other.
    const bool typed = types != Types::common || out.scalar_type() == self.scalar_type();
    return typed && run<id, types>(self, out) ? out : on_host<Out>(self, out);
  }
  static void add(torch::Library& m) {
    native<Functional, &functional>(m);
    native<InPlace, &in_place>(m);
    native<Out, &into>(m);
  }
};

// Rounding leaves integers as they are; the catalogue rounds floats only.
template <uint32_t id, class Functional, class Out>
struct Rounding {
  static bool run(const Tensor& self, Tensor& out) {
    const bool integer = c10::isIntegralType(self.scalar_type(), /*includeBool=*/false);
    if (out.defined() && out.scalar_type() != self.scalar_type()) return false;
    if (integer && out.is_same(self)) {
      at::assert_no_internal_overlap(out);
      return true;
    }
    return Pointwise(integer ? uint32_t(XHAL_OP_strided_copy) : id, Types::common)
        .operand(self)
        .run(out);
  }
  static Tensor functional(const Tensor& self) {
    Tensor out;
    return run(self, out) ? out : on_host<Functional>(self);
  }
  static Tensor& into(const Tensor& self, Tensor& out) {
    return run(self, out) ? out : on_host<Out>(self, out);
  }
  static void add(torch::Library& m) {
    native<Functional, &functional>(m);
    native<Out, &into>(m);
  }
};

// ---- is it infinite, and of which sign

template <int sign>
bool run_is_inf(const Tensor& self, Tensor& out) {
  return Pointwise(XHAL_OP_is_inf, Types::boolean)
      .operand(self)
      .attr("sign", int64_t(sign))
      .run(out);
}

Tensor isinf(const Tensor& self) {
  Tensor out;
  return run_is_inf<0>(self, out) ? out : on_host<at::_ops::isinf>(self);
}
Tensor isnan(const Tensor& self) {
  Tensor out;
  return run<XHAL_OP_is_nan, Types::boolean>(self, out) ? out : on_host<at::_ops::isnan>(self);
}
template <int sign, class Op>
Tensor& is_signed_inf(const Tensor& self, Tensor& out) {
  return out.scalar_type() == at::kBool && run_is_inf<sign>(self, out) ? out
                                                                       : on_host<Op>(self, out);
}

// ---- with arguments

bool run_gelu(const Tensor& self, c10::string_view approximate, Tensor& out) {
  return Pointwise(XHAL_OP_gelu, Types::common)
      .operand(self)
      .attr("tanh", int64_t(approximate == "tanh"))
      .run(out);
}
Tensor gelu(const Tensor& self, c10::string_view approximate) {
  Tensor out;
  return run_gelu(self, approximate, out) ? out : on_host<at::_ops::gelu>(self, approximate);
}
Tensor& gelu_out(const Tensor& self, c10::string_view approximate, Tensor& out) {
  return run_gelu(self, approximate, out) ? out
                                          : on_host<at::_ops::gelu_out>(self, approximate, out);
}

using OptScalar = std::optional<Scalar>;
using OptTensor = std::optional<Tensor>;

// A limit of another kind than the tensor changes the result's type; torch has made `out` of it.
bool fits(const Tensor& self, const OptScalar& limit) {
  if (!limit || c10::isFloatingType(self.scalar_type())) return true;
  return limit->isIntegral(/*includeBool=*/true) && self.scalar_type() != at::kBool;
}

bool run_clamp(const Tensor& self, const OptScalar& lo, const OptScalar& hi, Tensor& out) {
  if (!lo && !hi) return false;
  c10::ScalarType result = self.scalar_type();
  if (lo) result = at::result_type(self, *lo);
  if (hi) result = c10::promoteTypes(result, at::result_type(self, *hi));
  if (out.defined() && out.scalar_type() != result) return false;
  if (!fits(self, lo) || !fits(self, hi)) {
    return is_float(out.scalar_type()) && !is_float(self.scalar_type()) &&
           run_clamp(self.to(out.scalar_type()), lo, hi, out);
  }
  Pointwise call(XHAL_OP_clamp, Types::common);
  call.operand(self).absent().absent();
  call.attr("has_lo", int64_t(lo.has_value())).attr("has_hi", int64_t(hi.has_value()));
  return call.scalar(0, lo.value_or(0)).scalar(1, hi.value_or(0)).run(out);
}
Tensor& clamp_out(const Tensor& self, const OptScalar& lo, const OptScalar& hi, Tensor& out) {
  return run_clamp(self, lo, hi, out) ? out : on_host<at::_ops::clamp_out>(self, lo, hi, out);
}
Tensor& clamp_min_out(const Tensor& self, const Scalar& lo, Tensor& out) {
  return run_clamp(self, lo, {}, out) ? out : on_host<at::_ops::clamp_min_out>(self, lo, out);
}
Tensor& clamp_max_out(const Tensor& self, const Scalar& hi, Tensor& out) {
  return run_clamp(self, {}, hi, out) ? out : on_host<at::_ops::clamp_max_out>(self, hi, out);
}

bool run_clamp_tensor(const Tensor& self, const OptTensor& lo, const OptTensor& hi, Tensor& out) {
  return Pointwise(XHAL_OP_clamp, Types::common)
      .operand(self)
      .optional_operand(lo)
      .optional_operand(hi)
      .run(out);
}
Tensor& clamp_tensor_out(const Tensor& self, const OptTensor& lo, const OptTensor& hi,
                         Tensor& out) {
  return run_clamp_tensor(self, lo, hi, out)
             ? out
             : on_host<at::_ops::clamp_Tensor_out>(self, lo, hi, out);
}
Tensor& clamp_min_tensor_out(const Tensor& self, const Tensor& lo, Tensor& out) {
  return run_clamp_tensor(self, lo, {}, out)
             ? out
             : on_host<at::_ops::clamp_min_Tensor_out>(self, lo, out);
}
Tensor& clamp_max_tensor_out(const Tensor& self, const Tensor& hi, Tensor& out) {
  return run_clamp_tensor(self, {}, hi, out)
             ? out
             : on_host<at::_ops::clamp_max_Tensor_out>(self, hi, out);
}

}  // namespace

// X(ATen, catalogue, types)
#define XHAL_UNARY(X)                  \
  X(neg, neg, common)                  \
  X(abs, abs, common)                  \
  X(sign, sign, common)                \
  X(sgn, sign, common)                 \
  X(exp, exp, to_float)                \
  X(expm1, expm1, to_float)            \
  X(log, log, to_float)                \
  X(log1p, log1p, to_float)            \
  X(log2, log2, to_float)              \
  X(sqrt, sqrt, to_float)              \
  X(rsqrt, rsqrt, to_float)            \
  X(reciprocal, reciprocal, to_float)  \
  X(sin, sin, to_float)                \
  X(cos, cos, to_float)                \
  X(tanh, tanh, to_float)              \
  X(sigmoid, sigmoid, to_float)        \
  X(erf, erf, to_float)                \
  X(relu, relu, common)                \
  X(silu, silu, common)                \
  X(logical_not, logical_not, boolean) \
  X(bitwise_not, bitwise_not, common)

#define XHAL_ROUNDING(X) X(floor) X(ceil) X(trunc) X(round)

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
#define XHAL_ADD(aten, op, types)                                                                  \
  Unary<XHAL_OP_##op, Types::types, at::_ops::aten, at::_ops::aten##_, at::_ops::aten##_out>::add( \
      m);
  XHAL_UNARY(XHAL_ADD)
#undef XHAL_ADD
#define XHAL_ADD(op) Rounding<XHAL_OP_##op, at::_ops::op, at::_ops::op##_out>::add(m);
  XHAL_ROUNDING(XHAL_ADD)
#undef XHAL_ADD
  native<at::_ops::isinf, &isinf>(m);
  native<at::_ops::isnan, &isnan>(m);
  native<at::_ops::isposinf_out, &is_signed_inf<1, at::_ops::isposinf_out>>(m);
  native<at::_ops::isneginf_out, &is_signed_inf<-1, at::_ops::isneginf_out>>(m);
  native<at::_ops::gelu, &gelu>(m);
  native<at::_ops::gelu_out, &gelu_out>(m);
  native<at::_ops::clamp_out, &clamp_out>(m);
  native<at::_ops::clamp_min_out, &clamp_min_out>(m);
  native<at::_ops::clamp_max_out, &clamp_max_out>(m);
  native<at::_ops::clamp_Tensor_out, &clamp_tensor_out>(m);
  native<at::_ops::clamp_min_Tensor_out, &clamp_min_tensor_out>(m);
  native<at::_ops::clamp_max_Tensor_out, &clamp_max_tensor_out>(m);
}

}  // namespace xhal_torch
