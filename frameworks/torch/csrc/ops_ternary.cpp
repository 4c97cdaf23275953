// SPDX-License-Identifier: Apache-2.0
// Elementwise operators with a mask or three tensors, and the gradients of elementwise operators.
#include <ATen/ExpandUtils.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addcdiv_ops.h>
#include <ATen/ops/addcmul_ops.h>
#include <ATen/ops/any.h>
#include <ATen/ops/gelu_backward_ops.h>
#include <ATen/ops/lerp_ops.h>
#include <ATen/ops/masked_fill_ops.h>
#include <ATen/ops/result_type.h>
#include <ATen/ops/sigmoid_backward_ops.h>
#include <ATen/ops/silu_backward_ops.h>
#include <ATen/ops/tanh_backward_ops.h>
#include <ATen/ops/threshold_backward_ops.h>
#include <ATen/ops/where_ops.h>

#include "native.h"
#include "operands.h"
#include "pointwise.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Scalar;
using at::Tensor;

// ---- choosing

bool run_where(const Tensor& condition, const Tensor& self, const Tensor& other, Tensor& out) {
  if (condition.scalar_type() != at::kBool || condition.device().type() != kXhal) return false;
  return Pointwise(XHAL_OP_where, Types::common)
      .plain(condition)
      .operand(self)
      .operand(other)
      .run(out);
}
Tensor where(const Tensor& condition, const Tensor& self, const Tensor& other) {
  Tensor out;
  return run_where(condition, self, other, out)
             ? out
             : on_host<at::_ops::where_self>(condition, self, other);
}
Tensor& where_out(const Tensor& condition, const Tensor& self, const Tensor& other, Tensor& out) {
  return at::result_type(self, other) == out.scalar_type() && run_where(condition, self, other, out)
             ? out
             : on_host<at::_ops::where_self_out>(condition, self, other, out);
}

// An expanded tensor has elements at the same place: that place is filled when the mask says so for
// any of them, as when one after another is filled.
bool repeats(const Tensor& self) { return at::has_internal_overlap(self) == at::MemOverlap::Yes; }
template <class Value>
Tensor& masked_fill_repeated(Tensor& self, const Tensor& mask, const Value& value) {
  TORCH_WARN_ONCE(
      "masked_fill_ on an expanded tensor is deprecated: clone() the tensor before. This also "
      "holds for indexing with a mask, as in tensor[mask] = number");
  c10::SmallVector<int64_t, 8> dims;
  for (int64_t d = 0; d < self.dim(); ++d) {
    if (self.stride(d) == 0 && self.size(d) > 1) dims.push_back(d);
  }
  const Tensor any = at::any(mask.expand(self.sizes()), at::OptionalIntArrayRef(dims), true);
  without_repeats(self).masked_fill_(any, value);
  return self;
}

bool run_masked_fill(const Tensor& self, const Tensor& mask, const Scalar& value, Tensor& out) {
  if (mask.scalar_type() != at::kBool || mask.device().type() != kXhal) return false;
  if (self.scalar_type() == at::kHalf && !value.isComplex())
    value.toHalf();  // raises if it is none
  return Pointwise(XHAL_OP_masked_fill, Types::common)
      .operand(self)
      .plain(mask)
      .scalar(0, value)
      .run(out);
}
// Torch's result is contiguous, however self lies.
Tensor masked_fill(const Tensor& self, const Tensor& mask, const Scalar& value) {
  Tensor out;
  if (self.device().type() == kXhal && !self.is_contiguous())
    out = new_tensor(at::infer_size(self.sizes(), mask.sizes()), self.scalar_type(), self.device());
  return run_masked_fill(self, mask, value, out)
             ? out
             : on_host<at::_ops::masked_fill_Scalar>(self, mask, value);
}
Tensor& masked_fill_(Tensor& self, const Tensor& mask, const Scalar& value) {
  if (repeats(self)) return masked_fill_repeated(self, mask, value);
  return run_masked_fill(self, mask, value, self)
             ? self
             : on_host<at::_ops::masked_fill__Scalar>(self, mask, value);
}
// The value is cast to the type of self, it does not promote it.
Tensor& masked_fill_tensor_(Tensor& self, const Tensor& mask, const Tensor& value) {
  TORCH_CHECK(value.dim() == 0,
              "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with ",
              value.dim(), " dimension(s).");
  if (value.is_cpu()) return masked_fill_(self, mask, value.item());
  if (repeats(self)) return masked_fill_repeated(self, mask, value);
  if (mask.scalar_type() == at::kBool && mask.device().type() == kXhal) {
    const Tensor same = value.to(self.scalar_type());
    if (Pointwise(XHAL_OP_where, Types::common).plain(mask).operand(same).operand(self).run(self))
      return self;
  }
  return on_host<at::_ops::masked_fill__Tensor>(self, mask, value);
}

// ---- three tensors

template <uint32_t id>
struct Accumulate {
  static bool run(const Tensor& self, const Tensor& a, const Tensor& b, const Scalar& value,
                  Tensor& out) {
    // Torch refuses to divide integers here.
    if (id == XHAL_OP_addcdiv && c10::isIntegralType(a.scalar_type(), true) &&
        c10::isIntegralType(b.scalar_type(), true))
      return false;
    return Pointwise(id, Types::common)
        .operand(self)
        .operand(a)
        .operand(b)
        .scalar(0, value)
        .run(out);
  }
  template <class Op>
  static Tensor functional(const Tensor& self, const Tensor& a, const Tensor& b,
                           const Scalar& value) {
    Tensor out;
    return run(self, a, b, value, out) ? out : on_host<Op>(self, a, b, value);
  }
  template <class Op>
  static Tensor& in_place(Tensor& self, const Tensor& a, const Tensor& b, const Scalar& value) {
    return run(self, a, b, value, self) ? self : on_host<Op>(self, a, b, value);
  }
  template <class Op>
  static Tensor& into(const Tensor& self, const Tensor& a, const Tensor& b, const Scalar& value,
                      Tensor& out) {
    return run(self, a, b, value, out) ? out : on_host<Op>(self, a, b, value, out);
  }
};

template <class Weight>
bool run_lerp(const Tensor& self, const Tensor& end, const Weight& weight, Tensor& out) {
  const auto expect_type = [&](const Tensor& tensor, const char* name) {
    TORCH_CHECK(tensor.scalar_type() == self.scalar_type(), "expected dtype ", self.dtype(),
                " for `", name, "` but got dtype ", tensor.dtype());
  };
  expect_type(end, "end");
  if constexpr (std::is_same_v<Weight, Tensor>) {
    if (weight.dim() > 0) expect_type(weight, "weight");
  }
  Pointwise call(XHAL_OP_lerp, Types::common);
  call.operand(self).operand(end);
  if constexpr (std::is_same_v<Weight, Scalar>) {
    return call.number(weight).run(out);
  } else {
    return call.operand(weight).run(out);
  }
}
template <class Op, class Weight>
Tensor lerp(const Tensor& self, const Tensor& end, const Weight& weight) {
  Tensor out;
  return run_lerp(self, end, weight, out) ? out : on_host<Op>(self, end, weight);
}
template <class Op, class Weight>
Tensor& lerp_(Tensor& self, const Tensor& end, const Weight& weight) {
  return run_lerp(self, end, weight, self) ? self : on_host<Op>(self, end, weight);
}
template <class Op, class Weight>
Tensor& lerp_out(const Tensor& self, const Tensor& end, const Weight& weight, Tensor& out) {
  return run_lerp(self, end, weight, out) ? out : on_host<Op>(self, end, weight, out);
}

// ---- gradients

template <uint32_t id, class Functional, class Out>
struct Gradient {
  static bool run(const Tensor& grad, const Tensor& saved, Tensor& out) {
    return Pointwise(id, Types::common).operand(grad).operand(saved).run(out);
  }
  static Tensor functional(const Tensor& grad, const Tensor& saved) {
    Tensor out;
    return run(grad, saved, out) ? out : on_host<Functional>(grad, saved);
  }
  static Tensor& into(const Tensor& grad, const Tensor& saved, Tensor& out) {
    return run(grad, saved, out) ? out : on_host<Out>(grad, saved, out);
  }
  static void add(torch::Library& m) {
    native<Functional, &functional>(m);
    native<Out, &into>(m);
  }
};

bool run_gelu_backward(const Tensor& grad, const Tensor& self, c10::string_view approximate,
                       Tensor& out) {
  return Pointwise(XHAL_OP_gelu_grad, Types::common)
      .operand(grad)
      .operand(self)
      .attr("tanh", int64_t(approximate == "tanh"))
      .run(out);
}
Tensor gelu_backward(const Tensor& grad, const Tensor& self, c10::string_view approximate) {
  Tensor out;
  return run_gelu_backward(grad, self, approximate, out)
             ? out
             : on_host<at::_ops::gelu_backward>(grad, self, approximate);
}
Tensor& gelu_backward_out(const Tensor& grad, const Tensor& self, c10::string_view approximate,
                          Tensor& out) {
  return run_gelu_backward(grad, self, approximate, out)
             ? out
             : on_host<at::_ops::gelu_backward_grad_input>(grad, self, approximate, out);
}

bool run_threshold_backward(const Tensor& grad, const Tensor& self, const Scalar& threshold,
                            Tensor& out) {
  return Pointwise(XHAL_OP_threshold_grad, Types::common)
      .operand(grad)
      .operand(self)
      .scalar(0, threshold)
      .run(out);
}
Tensor threshold_backward(const Tensor& grad, const Tensor& self, const Scalar& threshold) {
  Tensor out;
  return run_threshold_backward(grad, self, threshold, out)
             ? out
             : on_host<at::_ops::threshold_backward>(grad, self, threshold);
}
Tensor& threshold_backward_out(const Tensor& grad, const Tensor& self, const Scalar& threshold,
                               Tensor& out) {
  return run_threshold_backward(grad, self, threshold, out)
             ? out
             : on_host<at::_ops::threshold_backward_grad_input>(grad, self, threshold, out);
}

template <uint32_t id, class Functional, class InPlace, class Out>
void add_accumulate(torch::Library& m) {
  native<Functional, &Accumulate<id>::template functional<Functional>>(m);
  native<InPlace, &Accumulate<id>::template in_place<InPlace>>(m);
  native<Out, &Accumulate<id>::template into<Out>>(m);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<where_self, &where>(m);
  native<where_self_out, &where_out>(m);
  native<masked_fill_Scalar, &masked_fill>(m);
  native<masked_fill__Scalar, &masked_fill_>(m);
  native<masked_fill__Tensor, &masked_fill_tensor_>(m);

  add_accumulate<XHAL_OP_addcmul, addcmul, addcmul_, addcmul_out>(m);
  add_accumulate<XHAL_OP_addcdiv, addcdiv, addcdiv_, addcdiv_out>(m);

  native<lerp_Scalar, &lerp<lerp_Scalar, Scalar>>(m);
  native<lerp__Scalar, &lerp_<lerp__Scalar, Scalar>>(m);
  native<lerp_Scalar_out, &lerp_out<lerp_Scalar_out, Scalar>>(m);
  native<lerp_Tensor, &lerp<lerp_Tensor, Tensor>>(m);
  native<lerp__Tensor, &lerp_<lerp__Tensor, Tensor>>(m);
  native<lerp_Tensor_out, &lerp_out<lerp_Tensor_out, Tensor>>(m);

  Gradient<XHAL_OP_tanh_grad, tanh_backward, tanh_backward_grad_input>::add(m);
  Gradient<XHAL_OP_sigmoid_grad, sigmoid_backward, sigmoid_backward_grad_input>::add(m);
  Gradient<XHAL_OP_silu_grad, silu_backward, silu_backward_grad_input>::add(m);
  native<at::_ops::gelu_backward, &xhal_torch::gelu_backward>(m);
  native<gelu_backward_grad_input, &gelu_backward_out>(m);
  native<at::_ops::threshold_backward, &xhal_torch::threshold_backward>(m);
  native<threshold_backward_grad_input, &threshold_backward_out>(m);
}

}  // namespace xhal_torch
