// SPDX-License-Identifier: Apache-2.0
// Order along a dimension: largest, smallest, sorted, running sums.
#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/argmax_ops.h>
#include <ATen/ops/argmin_ops.h>
#include <ATen/ops/cumsum_ops.h>
#include <ATen/ops/max_ops.h>
#include <ATen/ops/min_ops.h>
#include <ATen/ops/sort_ops.h>
#include <ATen/ops/topk_ops.h>

#include "copy.h"
#include "native.h"
#include "op_call.h"
#include "operands.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using Sizes = c10::SmallVector<int64_t, 8>;

Tensor at_least_1d(const Tensor& tensor) { return tensor.dim() ? tensor : tensor.unsqueeze(0); }

Sizes without(const Tensor& self, int64_t dim, bool keepdim) {
  Sizes sizes(self.sizes().begin(), self.sizes().end());
  if (self.dim() == 0) return sizes;
  if (keepdim) {
    sizes[dim] = 1;
  } else {
    sizes.erase(sizes.begin() + dim);
  }
  return sizes;
}

bool usable(const Tensor& self) {
  return self.device().type() == kXhal && is_native(self.scalar_type()) && self.numel() > 0;
}

// ---- the place of the extreme

template <uint32_t id, class Op>
Tensor& arg_extreme_out(const Tensor& self, std::optional<int64_t> dim, bool keepdim, Tensor& out) {
  if (usable(self) && out.scalar_type() == at::kLong) {
    const Tensor from = at_least_1d(apart_from(out, self));
    OpCall call(id, self);
    if (dim) {
      const int64_t d = c10::maybe_wrap_dim(*dim, from.dim());
      at::native::resize_output(out, without(self, d, keepdim));
      call.attr("dim", d);
    } else {
      at::native::resize_output(out, keepdim ? Sizes(self.dim(), 1) : Sizes());
      call.attr("all", true);
    }
    // A row without dimensions has a result of its own shape.
    if (call.in(from).absent().out(out).run()) return out;
  }
  return on_host<Op>(self, dim, keepdim, out);
}

template <uint32_t id, class Op>
std::tuple<Tensor&, Tensor&> extreme_dim_out(const Tensor& self, int64_t dim, bool keepdim,
                                             Tensor& value, Tensor& index) {
  if (usable(self) && value.scalar_type() == self.scalar_type() &&
      index.scalar_type() == at::kLong) {
    const Tensor from = at_least_1d(apart_from(index, apart_from(value, self)));
    const int64_t d = c10::maybe_wrap_dim(dim, from.dim());
    const Sizes sizes = without(self, d, keepdim);
    at::native::resize_output(value, sizes);
    at::native::resize_output(index, sizes);
    OpCall call(id, self);
    if (call.attr("dim", d).in(from).out(value).out(index).run()) return {value, index};
  }
  return on_host<Op>(self, dim, keepdim, value, index);
}

// ---- sorted

std::tuple<Tensor&, Tensor&> topk_out(const Tensor& self, int64_t k, int64_t dim, bool largest,
                                      bool sorted, Tensor& values, Tensor& indices) {
  const Tensor from = at_least_1d(apart_from(indices, apart_from(values, self)));
  const int64_t d = c10::maybe_wrap_dim(dim, from.dim());
  if (usable(self) && k > 0 && k <= from.size(d) && values.scalar_type() == self.scalar_type()) {
    Sizes sizes(self.sizes().begin(), self.sizes().end());
    if (self.dim()) sizes[d] = k;
    at::native::resize_output(values, sizes);
    at::native::resize_output(indices, sizes);
    const Tensor v = at_least_1d(values), i = at_least_1d(indices);
    OpCall call(XHAL_OP_topk, self);
    if (call.attr("k", k).attr("dim", d).attr("largest", largest).in(from).out(v).out(i).run())
      return {values, indices};
  }
  return on_host<at::_ops::topk_values>(self, k, dim, largest, sorted, values, indices);
}

std::tuple<Tensor&, Tensor&> sort_out(const Tensor& self, std::optional<bool> stable, int64_t dim,
                                      bool descending, Tensor& values, Tensor& indices) {
  if (usable(self) && values.scalar_type() == self.scalar_type()) {
    at::native::resize_output(values, self.sizes());
    at::native::resize_output(indices, self.sizes());
    const Tensor from = at_least_1d(apart_from(indices, apart_from(values, self))),
                 v = at_least_1d(values), i = at_least_1d(indices);
    OpCall call(XHAL_OP_sort, self);
    call.attr("dim", c10::maybe_wrap_dim(dim, from.dim())).attr("descending", descending);
    if (call.in(from).out(v).out(i).run()) return {values, indices};
  }
  return on_host<at::_ops::sort_values_stable>(self, stable, dim, descending, values, indices);
}

// ---- running sum

Tensor& cumsum_out(const Tensor& self, int64_t dim, std::optional<at::ScalarType> type,
                   Tensor& out) {
  TORCH_CHECK(!type || *type == out.scalar_type(), "Expected out tensor to have dtype ",
              type.value_or(out.scalar_type()), ", but got ", out.scalar_type(), " instead");
  if (self.device().type() == kXhal && is_native(self.scalar_type()) &&
      is_native(out.scalar_type())) {
    at::assert_no_internal_overlap(out);
    if (!out.is_same(self)) at::assert_no_partial_overlap(out, self);
    at::native::resize_output(out, self.sizes());
    if (self.numel() == 0) return out;
    const bool wider = !c10::isFloatingType(self.scalar_type()) && out.scalar_type() == at::kLong;
    const Tensor from = at_least_1d(wider ? self : self.to(out.scalar_type())),
                 to = at_least_1d(out);
    OpCall call(XHAL_OP_cumsum, self);
    if (call.attr("dim", c10::maybe_wrap_dim(dim, from.dim())).in(from).out(to).run()) return out;
  }
  return on_host<at::_ops::cumsum_out>(self, dim, type, out);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<argmax_out, &arg_extreme_out<XHAL_OP_argmax, argmax_out>>(m);
  native<argmin_out, &arg_extreme_out<XHAL_OP_argmin, argmin_out>>(m);
  native<max_dim_max, &extreme_dim_out<XHAL_OP_argmax, max_dim_max>>(m);
  native<min_dim_min, &extreme_dim_out<XHAL_OP_argmin, min_dim_min>>(m);
  native<topk_values, &topk_out>(m);
  native<sort_values_stable, &sort_out>(m);
  native<at::_ops::cumsum_out, &xhal_torch::cumsum_out>(m);
}

}  // namespace xhal_torch
