// SPDX-License-Identifier: Apache-2.0
// Lists of tensors in one launch. What the operators do not cover (mixed types, strides, different
// scalars) goes tensor by tensor through torch's own loops, which reach the device again.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_add_native.h>
#include <ATen/ops/_foreach_add_ops.h>
#include <ATen/ops/_foreach_addcdiv_native.h>
#include <ATen/ops/_foreach_addcdiv_ops.h>
#include <ATen/ops/_foreach_addcmul_native.h>
#include <ATen/ops/_foreach_addcmul_ops.h>
#include <ATen/ops/_foreach_copy_native.h>
#include <ATen/ops/_foreach_copy_ops.h>
#include <ATen/ops/_foreach_div_native.h>
#include <ATen/ops/_foreach_div_ops.h>
#include <ATen/ops/_foreach_lerp_native.h>
#include <ATen/ops/_foreach_lerp_ops.h>
#include <ATen/ops/_foreach_mul_native.h>
#include <ATen/ops/_foreach_mul_ops.h>
#include <ATen/ops/_foreach_norm_native.h>
#include <ATen/ops/_foreach_norm_ops.h>
#include <ATen/ops/_foreach_sqrt_native.h>
#include <ATen/ops/_foreach_sqrt_ops.h>
#include <ATen/ops/_foreach_sub_native.h>
#include <ATen/ops/_foreach_sub_ops.h>

#include <algorithm>

#include "native.h"
#include "op_call.h"
#include "operands.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Scalar;
using at::Tensor;
using at::TensorList;
using Tensors = std::vector<Tensor>;
namespace slow = at::native;

// Whether one launch does it: one device, one float type, contiguous, sizes equal
// position by position.
bool even(TensorList self, std::initializer_list<TensorList> others = {}) {
  if (self.empty()) return false;
  const auto type = self[0].scalar_type();
  const auto device = self[0].device();
  if (!is_float(type) || device.type() != kXhal) return false;
  const auto fits = [&](const Tensor& tensor) {
    return tensor.scalar_type() == type && tensor.device() == device && tensor.is_contiguous();
  };
  for (const Tensor& tensor : self) {
    if (!fits(tensor)) return false;
  }
  for (TensorList other : others) {
    if (other.size() != self.size()) return false;
    for (size_t i = 0; i < other.size(); ++i) {
      if (!fits(other[i]) || !other[i].sizes().equals(self[i].sizes())) return false;
    }
  }
  return true;
}

// Likewise for lists that are written in place. Where a tensor lies on another one, torch's loop
// refuses or does one after the other. `on_others`: the catalogue lets the result lie on `others`.
bool even_in_place(TensorList self, std::initializer_list<TensorList> others = {},
                   bool on_others = false) {
  return even(self, others) && independent(self, others, on_others);
}

Tensors results(TensorList like) {
  Tensors made;
  made.reserve(like.size());
  for (const Tensor& tensor : like) made.push_back(new_like(tensor, tensor.sizes()));
  return made;
}

bool real(const Scalar& value) { return !value.isComplex(); }

// The one value of a list of equal numbers.
std::optional<Scalar> only(at::ArrayRef<Scalar> values) {
  for (const Scalar& value : values) {
    if (!real(value) || value.toDouble() != values[0].toDouble()) return std::nullopt;
  }
  return values.empty() ? std::nullopt : std::optional<Scalar>(values[0]);
}

// ---- x * alpha + y * beta

bool axpby(TensorList x, TensorList y, TensorList out, const Scalar& alpha, const Scalar& beta) {
  OpCall call(XHAL_OP_multi_axpby, x[0]);
  return call.in(x).in(y).out(out).scalar(alpha.toDouble()).scalar(beta.toDouble()).run();
}
Scalar minus(const Scalar& value) { return -value.toDouble(); }

Tensors add_scalar(TensorList self, const Scalar& value) {
  if (even(self) && real(value)) {
    Tensors out = results(self);
    if (axpby(self, {}, out, 1, value)) return out;
  }
  return slow::foreach_tensor_add_scalar_kernel_slow(self, value);
}
void add_scalar_(TensorList self, const Scalar& value) {
  if (even_in_place(self) && real(value) && axpby(self, {}, self, 1, value)) return;
  slow::foreach_tensor_add_scalar_kernel_slow_(self, value);
}
Tensors add_list(TensorList self, TensorList other, const Scalar& alpha) {
  if (even(self, {other}) && real(alpha)) {
    Tensors out = results(self);
    if (axpby(self, other, out, 1, alpha)) return out;
  }
  return slow::foreach_tensor_add_list_kernel_slow(self, other, alpha);
}
void add_list_(TensorList self, TensorList other, const Scalar& alpha) {
  if (even_in_place(self, {other}, true) && real(alpha) && axpby(self, other, self, 1, alpha))
    return;
  slow::foreach_tensor_add_list_kernel_slow_(self, other, alpha);
}
Tensors sub_scalar(TensorList self, const Scalar& value) {
  if (even(self) && real(value)) {
    Tensors out = results(self);
    if (axpby(self, {}, out, 1, minus(value))) return out;
  }
  return slow::foreach_tensor_sub_scalar_kernel_slow(self, value);
}
void sub_scalar_(TensorList self, const Scalar& value) {
  if (even_in_place(self) && real(value) && axpby(self, {}, self, 1, minus(value))) return;
  slow::foreach_tensor_sub_scalar_kernel_slow_(self, value);
}
Tensors sub_list(TensorList self, TensorList other, const Scalar& alpha) {
  if (even(self, {other}) && real(alpha)) {
    Tensors out = results(self);
    if (axpby(self, other, out, 1, minus(alpha))) return out;
  }
  return slow::foreach_tensor_sub_list_kernel_slow(self, other, alpha);
}
void sub_list_(TensorList self, TensorList other, const Scalar& alpha) {
  if (even_in_place(self, {other}, true) && real(alpha) &&
      axpby(self, other, self, 1, minus(alpha)))
    return;
  slow::foreach_tensor_sub_list_kernel_slow_(self, other, alpha);
}

// ---- products and quotients

bool multiply(TensorList x, TensorList y, TensorList out, const Scalar& factor) {
  OpCall call(XHAL_OP_multi_mul, x[0]);
  return call.in(x).in(y).absent().out(out).scalar(factor.toDouble()).run();
}
bool multiply_by(TensorList x, const Tensor& factor, TensorList out) {
  if (factor.dim() != 0 || factor.device() != x[0].device() || !is_float(factor.scalar_type()))
    return false;
  const Tensor same = factor.to(x[0].scalar_type());
  OpCall call(XHAL_OP_multi_mul, x[0]);
  return call.in(x).in(TensorList()).in(same).out(out).run();
}
bool divide(TensorList x, TensorList y, TensorList out, const Scalar& divisor) {
  OpCall call(XHAL_OP_multi_div, x[0]);
  return call.in(x).in(y).out(out).scalar(divisor.toDouble()).run();
}

Tensors mul_scalar(TensorList self, const Scalar& value) {
  if (even(self) && real(value)) {
    Tensors out = results(self);
    if (multiply(self, {}, out, value)) return out;
  }
  return slow::foreach_tensor_mul_scalar_kernel_slow(self, value);
}
void mul_scalar_(TensorList self, const Scalar& value) {
  if (even_in_place(self) && real(value) && multiply(self, {}, self, value)) return;
  slow::foreach_tensor_mul_scalar_kernel_slow_(self, value);
}
Tensors mul_list(TensorList self, TensorList other) {
  if (even(self, {other})) {
    Tensors out = results(self);
    if (multiply(self, other, out, 1)) return out;
  }
  return slow::foreach_tensor_mul_list_kernel_slow(self, other);
}
void mul_list_(TensorList self, TensorList other) {
  if (even_in_place(self, {other}) && multiply(self, other, self, 1)) return;
  slow::foreach_tensor_mul_list_kernel_slow_(self, other);
}
Tensors mul_tensor(TensorList self, const Tensor& other) {
  if (even(self)) {
    Tensors out = results(self);
    if (multiply_by(self, other, out)) return out;
  }
  return slow::foreach_tensor_mul_tensor_kernel_slow(self, other);
}
void mul_tensor_(TensorList self, const Tensor& other) {
  const bool apart = std::none_of(
      self.begin(), self.end(), [&](const Tensor& tensor) { return share_memory(tensor, other); });
  if (apart && even_in_place(self) && multiply_by(self, other, self)) return;
  slow::foreach_tensor_mul_tensor_kernel_slow_(self, other);
}
Tensors div_scalar(TensorList self, const Scalar& value) {
  if (even(self) && real(value)) {
    Tensors out = results(self);
    if (divide(self, {}, out, value)) return out;
  }
  return slow::foreach_tensor_div_scalar_kernel_slow(self, value);
}
void div_scalar_(TensorList self, const Scalar& value) {
  if (even_in_place(self) && real(value) && divide(self, {}, self, value)) return;
  slow::foreach_tensor_div_scalar_kernel_slow_(self, value);
}
Tensors div_list(TensorList self, TensorList other) {
  if (even(self, {other})) {
    Tensors out = results(self);
    if (divide(self, other, out, 1)) return out;
  }
  return slow::foreach_tensor_div_list_kernel_slow(self, other);
}
void div_list_(TensorList self, TensorList other) {
  if (even_in_place(self, {other}) && divide(self, other, self, 1)) return;
  slow::foreach_tensor_div_list_kernel_slow_(self, other);
}
// Optimizers give every tensor the same number.
void div_scalars_(TensorList self, at::ArrayRef<Scalar> values) {
  const auto value = only(values);
  if (value && values.size() == self.size() && even_in_place(self) &&
      divide(self, {}, self, *value))
    return;
  slow::foreach_tensor_div_scalarlist_kernel_slow_(self, values);
}

// ---- three lists

bool lerp(TensorList self, TensorList end, TensorList out, const Scalar& weight) {
  OpCall call(XHAL_OP_multi_lerp, self[0]);
  return call.in(self).in(end).out(out).scalar(weight.toDouble()).run();
}
Tensors lerp_scalar(TensorList self, TensorList end, const Scalar& weight) {
  if (even(self, {end}) && real(weight)) {
    Tensors out = results(self);
    if (lerp(self, end, out, weight)) return out;
  }
  return slow::foreach_tensor_lerp_list_kernel_slow(self, end, weight);
}
void lerp_scalar_(TensorList self, TensorList end, const Scalar& weight) {
  if (even_in_place(self, {end}) && real(weight) && lerp(self, end, self, weight)) return;
  slow::foreach_tensor_lerp_list_kernel_slow_(self, end, weight);
}

bool accumulate(uint32_t id, TensorList self, TensorList a, TensorList b, const Scalar& value) {
  if (!even_in_place(self, {a, b}) || !real(value)) return false;
  OpCall call(id, self[0]);
  return call.in(self).in(a).in(b).out(self).scalar(value.toDouble()).run();
}
void addcmul_(TensorList self, TensorList a, TensorList b, const Scalar& value) {
  if (accumulate(XHAL_OP_multi_addcmul, self, a, b, value)) return;
  slow::foreach_tensor_addcmul_scalar_slow_(self, a, b, value);
}
void addcmul_scalars_(TensorList self, TensorList a, TensorList b, at::ArrayRef<Scalar> values) {
  const auto value = only(values);
  if (value && values.size() == self.size() &&
      accumulate(XHAL_OP_multi_addcmul, self, a, b, *value))
    return;
  slow::foreach_tensor_addcmul_scalarlist_slow_(self, a, b, values);
}
void addcdiv_(TensorList self, TensorList a, TensorList b, const Scalar& value) {
  if (accumulate(XHAL_OP_multi_addcdiv, self, a, b, value)) return;
  slow::foreach_tensor_addcdiv_scalar_slow_(self, a, b, value);
}
void addcdiv_scalars_(TensorList self, TensorList a, TensorList b, at::ArrayRef<Scalar> values) {
  const auto value = only(values);
  if (value && values.size() == self.size() &&
      accumulate(XHAL_OP_multi_addcdiv, self, a, b, *value))
    return;
  slow::foreach_tensor_addcdiv_scalarlist_slow_(self, a, b, values);
}

// ---- one list

bool square_root(TensorList self, TensorList out) {
  OpCall call(XHAL_OP_multi_sqrt, self[0]);
  return call.in(self).out(out).run();
}
Tensors sqrt(TensorList self) {
  if (even(self)) {
    Tensors out = results(self);
    if (square_root(self, out)) return out;
  }
  return slow::foreach_tensor_sqrt_slow(self);
}
void sqrt_(TensorList self) {
  if (even_in_place(self) && square_root(self, self)) return;
  slow::foreach_tensor_sqrt_slow_(self);
}

Tensors norm(TensorList self, const Scalar& ord, std::optional<at::ScalarType> type) {
  if (even(self) && real(ord) && (!type || *type == self[0].scalar_type())) {
    Tensors out;
    for (const Tensor& tensor : self) out.push_back(new_like(tensor, {}));
    OpCall call(XHAL_OP_multi_norm, self[0]);
    if (call.attr("p", ord.toDouble()).in(self).out(TensorList(out)).run()) return out;
  }
  return slow::foreach_tensor_norm_slow(self, ord, type);
}

void copy_(TensorList self, TensorList source, bool non_blocking) {
  bool one = !self.empty() && self.size() == source.size();
  for (size_t i = 0; one && i < self.size(); ++i) {
    one = self[i].device().type() == kXhal && self[i].device() == self[0].device() &&
          source[i].device() == self[0].device() && is_native(self[i].scalar_type()) &&
          is_native(source[i].scalar_type()) && self[i].is_contiguous() &&
          source[i].is_contiguous() && self[i].sizes().equals(source[i].sizes());
  }
  if (one && independent(self, {source}, false)) {
    OpCall call(XHAL_OP_multi_copy, self[0]);
    if (call.in(source).out(self).run()) return;
  }
  slow::foreach_tensor_copy_list_kernel_slow_(self, source, non_blocking);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<_foreach_add_Scalar, &add_scalar>(m);
  native<_foreach_add__Scalar, &add_scalar_>(m);
  native<_foreach_add_List, &add_list>(m);
  native<_foreach_add__List, &add_list_>(m);
  native<_foreach_sub_Scalar, &sub_scalar>(m);
  native<_foreach_sub__Scalar, &sub_scalar_>(m);
  native<_foreach_sub_List, &sub_list>(m);
  native<_foreach_sub__List, &sub_list_>(m);
  native<_foreach_mul_Scalar, &mul_scalar>(m);
  native<_foreach_mul__Scalar, &mul_scalar_>(m);
  native<_foreach_mul_List, &mul_list>(m);
  native<_foreach_mul__List, &mul_list_>(m);
  native<_foreach_mul_Tensor, &mul_tensor>(m);
  native<_foreach_mul__Tensor, &mul_tensor_>(m);
  native<_foreach_div_Scalar, &div_scalar>(m);
  native<_foreach_div__Scalar, &div_scalar_>(m);
  native<_foreach_div_List, &div_list>(m);
  native<_foreach_div__List, &div_list_>(m);
  native<_foreach_div__ScalarList, &div_scalars_>(m);
  native<_foreach_lerp_Scalar, &lerp_scalar>(m);
  native<_foreach_lerp__Scalar, &lerp_scalar_>(m);
  native<_foreach_addcmul__Scalar, &addcmul_>(m);
  native<_foreach_addcmul__ScalarList, &addcmul_scalars_>(m);
  native<_foreach_addcdiv__Scalar, &addcdiv_>(m);
  native<_foreach_addcdiv__ScalarList, &addcdiv_scalars_>(m);
  native<_foreach_sqrt, &xhal_torch::sqrt>(m);
  native<_foreach_sqrt_, &sqrt_>(m);
  native<_foreach_norm_Scalar, &norm>(m);
  native<_foreach_copy_, &copy_>(m);
}

}  // namespace xhal_torch
