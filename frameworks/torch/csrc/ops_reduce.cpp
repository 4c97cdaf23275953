// SPDX-License-Identifier: Apache-2.0
// ops_reduce.cpp: reductions.
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/all_ops.h>
#include <ATen/ops/amax_ops.h>
#include <ATen/ops/amin_ops.h>
#include <ATen/ops/any_ops.h>
#include <ATen/ops/linalg_vector_norm_ops.h>
#include <ATen/ops/max_ops.h>
#include <ATen/ops/mean_ops.h>
#include <ATen/ops/min_ops.h>
#include <ATen/ops/prod_ops.h>
#include <ATen/ops/std_ops.h>
#include <ATen/ops/sum_ops.h>
#include <ATen/ops/var_mean_ops.h>
#include <ATen/ops/var_ops.h>

#include "copy.h"
#include "native.h"
#include "op_call.h"
#include "operands.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Scalar;
using at::Tensor;
using c10::ScalarType;
using Dims = at::OptionalIntArrayRef;
using OptType = std::optional<ScalarType>;

struct Reduced {
  c10::SmallVector<int64_t, 8> dims;   // reduced, counted from 0, ascending; empty = all
  c10::SmallVector<int64_t, 8> sizes;  // of the result
};

// No dims, or none in the list, means all of them.
Reduced reduced(const Tensor& self, Dims dims, bool keepdim) {
  uint64_t mask = 0;
  if (dims) {
    for (int64_t dim : *dims) {
      const uint64_t bit = uint64_t(1) << c10::maybe_wrap_dim(dim, self.dim());
      TORCH_CHECK(!(mask & bit), "dim ", dim, " appears multiple times in the list of dims");
      mask |= bit;
    }
  }
  const bool all = mask == 0;
  Reduced result;
  for (int64_t d = 0; d < self.dim(); ++d) {
    if (all || (mask >> d & 1)) {
      if (!all) result.dims.push_back(d);
      if (keepdim) result.sizes.push_back(1);
    } else {
      result.sizes.push_back(self.size(d));
    }
  }
  return result;
}

Tensor cast(const Tensor& self, ScalarType type) {
  if (self.scalar_type() == type) return self;
  Tensor made = new_dense_like(self, type);
  copy_on_device(self, made);
  return made;
}

void make_result(Tensor& out, const Tensor& like, c10::IntArrayRef sizes, ScalarType type) {
  if (!out.defined()) {
    out = new_tensor(sizes, type, like.device());
  } else {
    at::native::resize_output(out, sizes);
  }
}

// out = op(self) over dims. The operator reads `read` and writes `write`; a given `out` of another
// type is converted.
bool run_reduction(uint32_t id, const Tensor& self, Dims dims, bool keepdim, ScalarType read,
                   ScalarType write, Tensor& out, std::optional<double> attribute = {}) {
  if (!is_native(self.scalar_type()) || !is_native(read) || !is_native(write)) return false;
  // Torch converts into no other type but from bool to its old stand-in.
  if (out.defined() && out.scalar_type() != write &&
      !(write == at::kBool && out.scalar_type() == at::kByte))
    return false;
  const Reduced shape = reduced(self, dims, keepdim);
  make_result(out, self, shape.sizes, write);
  const Tensor input = cast(apart_from(out, self), read);
  Tensor result = out.scalar_type() == write ? out : new_tensor(shape.sizes, write, self.device());
  OpCall call(id, self);
  call.attr("dims", shape.dims);
  if (attribute) call.attr("p", *attribute);
  if (!call.in(input).out(result).run()) return false;
  if (!result.is_same(out)) copy_on_device(result, out);
  return true;
}

// ---- sum, product, mean

ScalarType sum_type(const Tensor& self, OptType asked, const Tensor& out) {
  if (asked) return *asked;
  if (out.defined()) return out.scalar_type();
  return c10::isIntegralType(self.scalar_type(), /*includeBool=*/true) ? at::kLong
                                                                       : self.scalar_type();
}

// A sum may be wider than its terms without a conversion first.
ScalarType summand_type(ScalarType self, ScalarType result) {
  if (is_float(self) && (result == at::kFloat || result == self)) return self;
  if (!c10::isFloatingType(self) && result == at::kLong) return self;
  return result;
}

template <uint32_t id>
bool run_sum(const Tensor& self, Dims dims, bool keepdim, OptType type, Tensor& out) {
  const ScalarType result = sum_type(self, type, out);
  return run_reduction(id, self, dims, keepdim, summand_type(self.scalar_type(), result), result,
                       out);
}

Tensor sum(const Tensor& self, Dims dims, bool keepdim, OptType type) {
  Tensor out;
  return run_sum<XHAL_OP_sum>(self, dims, keepdim, type, out)
             ? out
             : on_host<at::_ops::sum_dim_IntList>(self, dims, keepdim, type);
}
Tensor& sum_out(const Tensor& self, Dims dims, bool keepdim, OptType type, Tensor& out) {
  return run_sum<XHAL_OP_sum>(self, dims, keepdim, type, out)
             ? out
             : on_host<at::_ops::sum_IntList_out>(self, dims, keepdim, type, out);
}
Tensor sum_all(const Tensor& self, OptType type) {
  Tensor out;
  return run_sum<XHAL_OP_sum>(self, {}, false, type, out) ? out
                                                          : on_host<at::_ops::sum>(self, type);
}
Tensor prod_all(const Tensor& self, OptType type) {
  Tensor out;
  return run_sum<XHAL_OP_prod>(self, {}, false, type, out) ? out
                                                           : on_host<at::_ops::prod>(self, type);
}
Tensor& prod_out(const Tensor& self, int64_t dim, bool keepdim, OptType type, Tensor& out) {
  return self.dim() > 0 && run_sum<XHAL_OP_prod>(self, dim, keepdim, type, out)
             ? out
             : on_host<at::_ops::prod_int_out>(self, dim, keepdim, type, out);
}

bool run_mean(const Tensor& self, Dims dims, bool keepdim, OptType type, Tensor& out) {
  const ScalarType result = type ? *type : out.defined() ? out.scalar_type() : self.scalar_type();
  if (!is_float(result)) return false;
  return run_reduction(XHAL_OP_mean, self, dims, keepdim, result, result, out);
}
Tensor mean(const Tensor& self, Dims dims, bool keepdim, OptType type) {
  Tensor out;
  return run_mean(self, dims, keepdim, type, out)
             ? out
             : on_host<at::_ops::mean_dim>(self, dims, keepdim, type);
}
Tensor& mean_out(const Tensor& self, Dims dims, bool keepdim, OptType type, Tensor& out) {
  return run_mean(self, dims, keepdim, type, out)
             ? out
             : on_host<at::_ops::mean_out>(self, dims, keepdim, type, out);
}
Tensor mean_all(const Tensor& self, OptType type) {
  Tensor out;
  return run_mean(self, {}, false, type, out) ? out : on_host<at::_ops::mean>(self, type);
}

// ---- extremes

template <uint32_t id>
bool run_extreme(const Tensor& self, Dims dims, bool keepdim, Tensor& out) {
  if (self.numel() == 0) return false;  // torch's errors
  return run_reduction(id, self, dims, keepdim, self.scalar_type(), self.scalar_type(), out);
}
template <uint32_t id, class Op>
Tensor& extreme_out(const Tensor& self, c10::IntArrayRef dims, bool keepdim, Tensor& out) {
  TORCH_CHECK(self.scalar_type() == out.scalar_type(),
              "Expected the dtype for input and out to match, but got ", self.scalar_type(),
              " for input's dtype and ", out.scalar_type(), " for out's dtype.");
  return run_extreme<id>(self, dims, keepdim, out) ? out : on_host<Op>(self, dims, keepdim, out);
}
template <uint32_t id, class Op>
Tensor extreme_all(const Tensor& self) {
  Tensor out;
  return run_extreme<id>(self, {}, false, out) ? out : on_host<Op>(self);
}

// ---- any, all

template <uint32_t id>
bool run_logical(const Tensor& self, Dims dims, bool keepdim, Tensor& out) {
  return run_reduction(id, self, dims, keepdim, self.scalar_type(), at::kBool, out);
}
template <uint32_t id, class Op>
Tensor& logical_dim_out(const Tensor& self, int64_t dim, bool keepdim, Tensor& out) {
  return run_logical<id>(self, dim, keepdim, out) ? out : on_host<Op>(self, dim, keepdim, out);
}
template <uint32_t id, class Op>
Tensor& logical_dims_out(const Tensor& self, Dims dims, bool keepdim, Tensor& out) {
  // An explicitly empty list reduces nothing here.
  if (dims && dims->empty()) return on_host<Op>(self, dims, keepdim, out);
  return run_logical<id>(self, dims, keepdim, out) ? out : on_host<Op>(self, dims, keepdim, out);
}
template <uint32_t id, class Op>
Tensor& logical_all_out(const Tensor& self, Tensor& out) {
  return run_logical<id>(self, {}, false, out) ? out : on_host<Op>(self, out);
}

// ---- norm, variance

Tensor& norm_out(const Tensor& self, const Scalar& ord, Dims dims, bool keepdim, OptType type,
                 Tensor& out) {
  const ScalarType read = type ? *type : self.scalar_type();
  if (is_float(read) && !ord.isComplex() && (self.numel() > 0 || ord.toDouble() >= 0) &&
      run_reduction(XHAL_OP_norm, self, dims, keepdim, read, read, out, ord.toDouble())) {
    return out;
  }
  return on_host<at::_ops::linalg_vector_norm_out>(self, ord, dims, keepdim, type, out);
}

using Correction = std::optional<Scalar>;

bool run_var(const Tensor& self, Dims dims, const Correction& correction, bool keepdim, bool root,
             Tensor& out, Tensor* mean) {
  if (!is_float(self.scalar_type())) return false;
  const Reduced shape = reduced(self, dims, keepdim);
  make_result(out, self, shape.sizes, self.scalar_type());
  if (out.scalar_type() != self.scalar_type()) return false;
  OpCall call(XHAL_OP_var, self);
  call.attr("dims", shape.dims)
      .attr("correction", correction ? correction->toDouble() : 1.0)
      .attr("sqrt", root);
  const Tensor input = apart_from(out, self);
  call.in(input).out(out);
  if (mean) {
    *mean = new_like(self, shape.sizes);
    call.out(*mean);
  } else {
    call.absent();
  }
  return call.run();
}

template <bool root, class Op>
Tensor var(const Tensor& self, Dims dims, const Correction& correction, bool keepdim) {
  Tensor out;
  return run_var(self, dims, correction, keepdim, root, out, nullptr)
             ? out
             : on_host<Op>(self, dims, correction, keepdim);
}
template <bool root, class Op>
Tensor& var_out(const Tensor& self, Dims dims, const Correction& correction, bool keepdim,
                Tensor& out) {
  return run_var(self, dims, correction, keepdim, root, out, nullptr)
             ? out
             : on_host<Op>(self, dims, correction, keepdim, out);
}
std::tuple<Tensor, Tensor> var_mean(const Tensor& self, Dims dims, const Correction& correction,
                                    bool keepdim) {
  Tensor out, mean;
  if (run_var(self, dims, correction, keepdim, false, out, &mean)) return {out, mean};
  return on_host<at::_ops::var_mean_correction>(self, dims, correction, keepdim);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<sum_dim_IntList, &xhal_torch::sum>(m);
  native<sum_IntList_out, &sum_out>(m);
  native<at::_ops::sum, &sum_all>(m);
  native<prod, &prod_all>(m);
  native<prod_int_out, &prod_out>(m);
  native<mean_dim, &xhal_torch::mean>(m);
  native<at::_ops::mean_out, &xhal_torch::mean_out>(m);
  native<at::_ops::mean, &mean_all>(m);
  native<amax_out, &extreme_out<XHAL_OP_amax, amax_out>>(m);
  native<amin_out, &extreme_out<XHAL_OP_amin, amin_out>>(m);
  native<max, &extreme_all<XHAL_OP_amax, max>>(m);
  native<min, &extreme_all<XHAL_OP_amin, min>>(m);
  native<any_out, &logical_dim_out<XHAL_OP_any, any_out>>(m);
  native<all_out, &logical_dim_out<XHAL_OP_all, all_out>>(m);
  native<any_dims_out, &logical_dims_out<XHAL_OP_any, any_dims_out>>(m);
  native<all_dims_out, &logical_dims_out<XHAL_OP_all, all_dims_out>>(m);
  native<any_all_out, &logical_all_out<XHAL_OP_any, any_all_out>>(m);
  native<all_all_out, &logical_all_out<XHAL_OP_all, all_all_out>>(m);
  native<linalg_vector_norm_out, &norm_out>(m);
  native<var_correction, &var<false, var_correction>>(m);
  native<std_correction, &var<true, std_correction>>(m);
  native<var_correction_out, &xhal_torch::var_out<false, var_correction_out>>(m);
  native<std_correction_out, &xhal_torch::var_out<true, std_correction_out>>(m);
  native<var_mean_correction, &xhal_torch::var_mean>(m);
}

}  // namespace xhal_torch
