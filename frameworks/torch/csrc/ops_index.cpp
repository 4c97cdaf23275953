// SPDX-License-Identifier: Apache-2.0
// Gathering and scattering by index.
#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/IndexingUtils.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_index_put_impl_ops.h>
#include <ATen/ops/cat_ops.h>
#include <ATen/ops/embedding_dense_backward_ops.h>
#include <ATen/ops/gather_ops.h>
#include <ATen/ops/index_add_ops.h>
#include <ATen/ops/index_copy_ops.h>
#include <ATen/ops/index_fill_ops.h>
#include <ATen/ops/index_ops.h>
#include <ATen/ops/index_select_ops.h>
#include <ATen/ops/masked_select_ops.h>
#include <ATen/ops/nonzero_ops.h>
#include <ATen/ops/scatter_add_ops.h>
#include <ATen/ops/scatter_ops.h>
#include <ATen/ops/where.h>

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
using Sizes = c10::SmallVector<int64_t, 8>;
using IndexList = c10::List<std::optional<Tensor>>;

bool on_device(const Tensor& tensor) { return tensor.device().type() == kXhal; }
bool is_index(const Tensor& index) {
  return on_device(index) && (index.scalar_type() == at::kLong || index.scalar_type() == at::kInt);
}
Tensor at_least_1d(const Tensor& tensor) { return tensor.dim() ? tensor : tensor.unsqueeze(0); }

// Moving elements looks at their width only.
bool movable(const Tensor& tensor) {
  return on_device(tensor) && same_width(tensor.scalar_type()) != ScalarType::Undefined;
}
Tensor bits(const Tensor& tensor) {
  const ScalarType type = same_width(tensor.scalar_type());
  return type == tensor.scalar_type() ? tensor : reinterpret_as(tensor, type);
}

// What is written must not lie on what is read meanwhile: torch's rule for every write by index.
void expect_apart(const Tensor& out, std::initializer_list<const Tensor*> read) {
  at::assert_no_internal_overlap(out);
  for (const Tensor* tensor : read) at::assert_no_overlap(out, *tensor);
}

// ---- rows by a list

bool run_index_select(const Tensor& self, int64_t dim, const Tensor& index, Tensor& out) {
  if (!movable(self) || !is_index(index) || self.dim() == 0 || index.dim() > 1) return false;
  dim = c10::maybe_wrap_dim(dim, self.dim());
  c10::SmallVector<int64_t, 8> sizes(self.sizes().begin(), self.sizes().end());
  sizes[dim] = index.numel();
  if (!out.defined()) {
    out = new_like(self, sizes);
  } else {
    expect_apart(out, {&self, &index});
    at::native::resize_output(out, sizes);
  }
  if (out.scalar_type() != self.scalar_type()) return false;
  const Tensor from = bits(self), to = bits(out), rows = at_least_1d(index);
  OpCall call(XHAL_OP_index_select, self);
  return call.attr("dim", dim).in(from).in(rows).out(to).run();
}
Tensor index_select(const Tensor& self, int64_t dim, const Tensor& index) {
  Tensor out;
  return run_index_select(self, dim, index, out)
             ? out
             : on_host<at::_ops::index_select>(self, dim, index);
}
Tensor& index_select_out(const Tensor& self, int64_t dim, const Tensor& index, Tensor& out) {
  return run_index_select(self, dim, index, out)
             ? out
             : on_host<at::_ops::index_select_out>(self, dim, index, out);
}

Tensor embedding_backward(const Tensor& grad, const Tensor& indices, int64_t rows, int64_t padding,
                          bool by_frequency) {
  if (!by_frequency && is_float(grad.scalar_type()) && is_index(indices) && grad.dim() > 0) {
    const int64_t width = grad.size(-1);
    const Tensor out = new_like(grad, {rows, width});
    const Tensor flat = grad.reshape({-1, width}), index = indices.reshape({-1});
    OpCall call(XHAL_OP_embedding_grad, grad);
    if (call.attr("padding_index", padding).in(flat).in(index).out(out).run()) return out;
  }
  return on_host<at::_ops::embedding_dense_backward>(grad, indices, rows, padding, by_frequency);
}

// ---- advanced indexing

struct Advanced {
  Tensor self;                         // with the indexed dims adjacent
  std::vector<Tensor> indices;         // of one size
  c10::SmallVector<int64_t, 8> dims;   // which dims they index
  c10::SmallVector<int64_t, 8> sizes;  // of the result
};

// Masks become indices (which waits for the device), indices of one size, indexed dims adjacent.
bool resolve(const Tensor& self, const IndexList& list, Advanced& plan) {
  if (!movable(self) || self.dim() == 0) return false;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::optional<Tensor> given = list.get(i);
    if (given && given->defined()) expect_index_device(*given, self.device());
  }
  at::native::checkIndexTensorTypes(list, /*allow_int=*/true);
  TORCH_CHECK_INDEX(list.size() <= static_cast<size_t>(self.dim()),
                    "too many indices for tensor of dimension ", self.dim(), " (got ", list.size(),
                    ")");
  std::vector<Tensor> indices = at::native::expandTensors(self, list, /*ensure_same_device=*/true);
  indices = at::expand_outplace(indices);
  indices.resize(self.dim());
  plan.self = self;
  if (!at::native::hasContiguousSubspace(indices)) {
    std::tie(plan.self, indices) = at::native::transposeToFront(self, indices);
  }
  for (int64_t d = 0; d < self.dim(); ++d) {
    if (!indices[d].defined()) {
      plan.sizes.push_back(plan.self.size(d));
      continue;
    }
    if (!is_index(indices[d])) return false;
    if (plan.dims.empty()) {
      for (int64_t size : indices[d].sizes()) plan.sizes.push_back(size);
    }
    plan.dims.push_back(d);
    plan.indices.push_back(indices[d].scalar_type() == at::kLong ? indices[d]
                                                                 : indices[d].to(at::kLong));
  }
  return !plan.dims.empty();
}

Tensor index(const Tensor& self, const IndexList& list) {
  Advanced plan;
  if (resolve(self, list, plan)) {
    Tensor out = new_like(self, plan.sizes);
    const Tensor from = bits(plan.self), to = bits(out);
    OpCall call(XHAL_OP_index, self);
    if (call.attr("dims", plan.dims).in(from).in(at::TensorList(plan.indices)).out(to).run())
      return out;
  }
  return on_host<at::_ops::index_Tensor>(self, list);
}

// One mask and one value need no indices, and no waiting for their number.
bool run_as_masked_fill(Tensor& self, const IndexList& list, const Tensor& values,
                        bool accumulate) {
  if (accumulate || values.numel() != 1 || list.size() != 1) return false;
  if (!on_device(values) && values.dim() != 0) return false;
  const std::optional<Tensor> only = list.get(0);
  if (!only || only->scalar_type() != at::kBool || !on_device(*only) || only->dim() > self.dim() ||
      !only->sizes().equals(self.sizes().slice(0, only->dim())) ||
      values.scalar_type() != self.scalar_type()) {
    return false;
  }
  Tensor mask = *only;
  while (mask.dim() < self.dim()) mask = mask.unsqueeze(-1);
  self.masked_fill_(mask, values.reshape({}));
  return true;
}

Tensor& index_put(Tensor& self, const IndexList& list, const Tensor& values, bool accumulate,
                  bool unsafe) {
  Advanced plan;
  if (run_as_masked_fill(self, list, values, accumulate)) return self;
  if (values.scalar_type() == self.scalar_type() &&
      (!accumulate || is_native(self.scalar_type())) && (on_device(values) || values.dim() == 0) &&
      resolve(self, list, plan)) {
    expect_apart(self, {&values});
    for (const Tensor& index : plan.indices) expect_apart(self, {&index});
    const Tensor given = on_device(values) ? values : values.to(self.device());
    const Tensor source = bits(given.expand(plan.sizes)), target = bits(plan.self);
    OpCall call(XHAL_OP_index_put, self);
    call.attr("dims", plan.dims)
        .attr("accumulate", accumulate)
        .in(target)
        .in(source)
        .in(at::TensorList(plan.indices))
        .out(target);
    if (call.run()) return self;
  }
  return on_host<at::_ops::_index_put_impl_>(self, list, values, accumulate, unsafe);
}

// self[..., index, ...] = values along `dim`.
Tensor& write_rows(Tensor& self, int64_t dim, const Tensor& index, const Tensor& values) {
  at::assert_no_internal_overlap(self);
  const Tensor rows = at_least_1d(index.scalar_type() == at::kLong ? index : index.to(at::kLong));
  const Tensor target = bits(self);
  Sizes sizes(self.sizes().begin(), self.sizes().end());
  const int64_t dims[] = {c10::maybe_wrap_dim(dim, self.dim())};
  sizes[dims[0]] = rows.numel();
  const Tensor source = bits(values).expand(sizes);
  OpCall call(XHAL_OP_index_put, self);
  call.attr("dims", c10::IntArrayRef(dims)).attr("accumulate", false).in(target).in(source);
  call.in(at::TensorList(rows)).out(target);
  TORCH_CHECK_NOT_IMPLEMENTED(call.run(), "writing rows by index: ", call.refusal());
  return self;
}
bool writable(const Tensor& self, const Tensor& index) {
  return movable(self) && self.dim() > 0 && index.dim() <= 1 && on_device(index) &&
         index.scalar_type() == at::kLong;
}
Tensor& index_fill_scalar(Tensor& self, int64_t dim, const Tensor& index, const Scalar& value) {
  if (!writable(self, index) || value.isComplex()) {
    return on_host<at::_ops::index_fill__int_Scalar>(self, dim, index, value);
  }
  return write_rows(self, dim, index, new_like(self, {}).fill_(value));
}
Tensor& index_fill_tensor(Tensor& self, int64_t dim, const Tensor& index, const Tensor& value) {
  if (!writable(self, index) || value.dim() != 0) {
    return on_host<at::_ops::index_fill__int_Tensor>(self, dim, index, value);
  }
  return write_rows(self, dim, index, value.to(self.device(), self.scalar_type()));
}
// Whether source[..., i, ...] is what goes to self[..., index[i], ...].
bool is_source(const Tensor& source, const Tensor& self, int64_t dim, const Tensor& index) {
  if (source.scalar_type() != self.scalar_type() || source.dim() != self.dim()) return false;
  Sizes sizes(self.sizes().begin(), self.sizes().end());
  sizes[c10::maybe_wrap_dim(dim, self.dim())] = index.numel();
  return source.sizes().equals(sizes);
}
Tensor& index_copy_out(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source,
                       Tensor& out) {
  if (!writable(self, index) || !is_source(source, self, dim, index) ||
      out.scalar_type() != self.scalar_type()) {
    return on_host<at::_ops::index_copy_out>(self, dim, index, source, out);
  }
  expect_apart(out, {&index, &source});
  at::native::resize_output(out, self.sizes());
  if (!out.is_same(self)) out.copy_(self);
  // The operator counts negative indices from the end, index_copy has none: they are moved out of
  // the range.
  const Tensor rows = at::where(index.lt(0), index.sub(self.size(dim)), index);
  return write_rows(out, dim, rows, source);
}

Tensor find_nonzero(const Tensor& self) {
  if (self.numel() == 0) return new_tensor({0, self.dim()}, at::kLong, self.device());
  if (self.dim() == 0) return find_nonzero(self.reshape(1)).narrow(1, 0, 0);
  if (on_device(self) && self.dim() > 0) {
    const Tensor found = new_tensor({self.numel(), self.dim()}, at::kLong, self.device());
    const Tensor count = new_tensor({}, at::kLong, self.device());
    OpCall call(XHAL_OP_nonzero, self);
    if (call.in(self).out(found).out(count).run()) {
      const int64_t rows = count.item().toLong();
      return rows == self.numel() ? found : found.narrow(0, 0, rows).clone();
    }
  }
  return on_host<at::_ops::nonzero>(self);
}
Tensor& nonzero_out(const Tensor& self, Tensor& out) {
  const Tensor found = find_nonzero(self);
  expect_device(out, self.device(), "out", "nonzero");
  TORCH_CHECK(out.scalar_type() == at::kLong, "nonzero: Expected out tensor to have scalar type ",
              at::kLong, " but got scalar type ", out.scalar_type());
  expect_apart(out, {&self});
  at::native::resize_output(out, found.sizes());
  return out.copy_(found);
}

Tensor masked_select(const Tensor& self, const Tensor& mask) {
  if (movable(self) && on_device(mask) && mask.scalar_type() == at::kBool) {
    const auto both = at::expand_outplace(self, mask);
    const Tensor flat = std::get<0>(both)->reshape({-1}), chosen = std::get<1>(both)->reshape({-1});
    Tensor out;
    if (run_index_select(flat, 0, find_nonzero(chosen).reshape({-1}), out)) return out;
  }
  return on_host<at::_ops::masked_select>(self, mask);
}

// ---- element by element

Tensor& gather_out(const Tensor& self, int64_t dim, const Tensor& index, bool sparse, Tensor& out) {
  if (movable(self) && is_index(index) && out.scalar_type() == self.scalar_type()) {
    expect_apart(out, {&self});
    at::assert_no_partial_overlap(out, index);
    at::native::resize_output(out, index.sizes());
    const Tensor from = at_least_1d(bits(self)), to = at_least_1d(bits(out)),
                 where = at_least_1d(index);
    OpCall call(XHAL_OP_gather, self);
    if (call.attr("dim", c10::maybe_wrap_dim(dim, from.dim())).in(from).in(where).out(to).run())
      return out;
  }
  return on_host<at::_ops::gather_out>(self, dim, index, sparse, out);
}

enum Reduce : int64_t { kSet = 0, kAdd = 1, kMultiply = 2 };

bool run_scatter(const Tensor& self, int64_t dim, const Tensor& index, const Tensor* source,
                 const Scalar* value, int64_t reduce, Tensor& out) {
  if (!on_device(self) || !is_native(self.scalar_type()) || !is_index(index) || reduce < 0 ||
      out.scalar_type() != self.scalar_type()) {
    return false;
  }
  if (source && (source->scalar_type() != self.scalar_type() || !on_device(*source))) return false;
  expect_apart(out, {&index});
  if (source) expect_apart(out, {source});
  at::native::resize_output(out, self.sizes());
  if (index.numel() == 0) {
    if (!out.is_same(self)) copy_on_device(self, out);
    return true;
  }
  const Tensor from = at_least_1d(self), to = at_least_1d(out), where = at_least_1d(index);
  Tensor part;
  OpCall call(XHAL_OP_scatter, self);
  call.attr("dim", c10::maybe_wrap_dim(dim, from.dim())).attr("reduce", reduce).in(from).in(where);
  if (source) {
    // The source may be larger than the index; only its front is read.
    part = at_least_1d(*source);
    expect_device(part, self.device(), "src", "scatter");
    call.raw(reinterpret_cast<const void*>(address_of(part)), part.scalar_type(), where.sizes(),
             part.strides(), false);
  } else {
    call.absent();
  }
  call.out(to);
  if (value) call.scalar(*value);
  return call.run();
}

int64_t reduce_of(c10::string_view name) {
  if (name == "add") return kAdd;
  return name == "multiply" ? int64_t(kMultiply) : -1;
}

Tensor& scatter_src_out(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source,
                        Tensor& out) {
  return run_scatter(self, dim, index, &source, nullptr, kSet, out)
             ? out
             : on_host<at::_ops::scatter_src_out>(self, dim, index, source, out);
}
Tensor& scatter_value_out(const Tensor& self, int64_t dim, const Tensor& index, const Scalar& value,
                          Tensor& out) {
  return run_scatter(self, dim, index, nullptr, &value, kSet, out)
             ? out
             : on_host<at::_ops::scatter_value_out>(self, dim, index, value, out);
}
Tensor& scatter_reduce_out(const Tensor& self, int64_t dim, const Tensor& index,
                           const Tensor& source, c10::string_view reduce, Tensor& out) {
  return run_scatter(self, dim, index, &source, nullptr, reduce_of(reduce), out)
             ? out
             : on_host<at::_ops::scatter_reduce_out>(self, dim, index, source, reduce, out);
}
Tensor& scatter_add_out(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source,
                        Tensor& out) {
  return run_scatter(self, dim, index, &source, nullptr, kAdd, out)
             ? out
             : on_host<at::_ops::scatter_add_out>(self, dim, index, source, out);
}

Tensor& index_add_out(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source,
                      const Scalar& alpha, Tensor& out) {
  if (on_device(self) && is_native(self.scalar_type()) && is_index(index) && self.dim() > 0 &&
      index.dim() <= 1 && source.scalar_type() == self.scalar_type() &&
      out.scalar_type() == self.scalar_type()) {
    expect_apart(out, {&index, &source});
    at::native::resize_output(out, self.sizes());
    const Tensor rows = at_least_1d(index);
    OpCall call(XHAL_OP_index_add, self);
    call.attr("dim", c10::maybe_wrap_dim(dim, self.dim()))
        .in(self)
        .in(rows)
        .in(source)
        .out(out)
        .scalar(alpha);
    if (call.run()) return out;
  }
  return on_host<at::_ops::index_add_out>(self, dim, index, source, alpha, out);
}

// ---- concatenation

bool run_cat(const at::ITensorListRef& list, int64_t dim, Tensor& out) {
  std::vector<Tensor> parts;
  const ScalarType type = out.scalar_type();
  if (!movable(out)) return false;
  for (const Tensor& tensor : list) {
    if (tensor.dim() == 1 && tensor.size(0) == 0) continue;  // torch has always let these pass
    if (!on_device(tensor) || tensor.dim() == 0 || tensor.device() != out.device()) return false;
    if (tensor.scalar_type() != type && !(is_native(type) && is_native(tensor.scalar_type())))
      return false;
    parts.push_back(bits(tensor.scalar_type() == type ? tensor : tensor.to(type)));
  }
  if (parts.empty()) return false;
  dim = c10::maybe_wrap_dim(dim, parts[0].dim());
  c10::SmallVector<int64_t, 8> sizes(parts[0].sizes().begin(), parts[0].sizes().end());
  sizes[dim] = 0;
  for (const Tensor& part : parts) {
    if (part.dim() != parts[0].dim()) return false;
    sizes[dim] += part.size(dim);
  }
  for (const Tensor& part : parts) expect_apart(out, {&part});
  at::native::resize_output(out, sizes);
  std::erase_if(parts, [](const Tensor& part) { return part.numel() == 0; });
  const Tensor to = bits(out);
  OpCall call(XHAL_OP_cat, out);
  return call.attr("dim", dim).in(at::TensorList(parts)).out(to).run();
}
Tensor& cat_out(const at::ITensorListRef& list, int64_t dim, Tensor& out) {
  return run_cat(list, dim, out) ? out : on_host<at::_ops::cat_out>(list, dim, out);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<at::_ops::index_select, &xhal_torch::index_select>(m);
  native<at::_ops::index_select_out, &xhal_torch::index_select_out>(m);
  native<embedding_dense_backward, &embedding_backward>(m);
  native<index_Tensor, &xhal_torch::index>(m);
  native<_index_put_impl_, &index_put>(m);
  native<at::_ops::index_copy_out, &xhal_torch::index_copy_out>(m);
  native<index_fill__int_Scalar, &index_fill_scalar>(m);
  native<index_fill__int_Tensor, &index_fill_tensor>(m);
  native<at::_ops::nonzero, &find_nonzero>(m);
  native<at::_ops::nonzero_out, &xhal_torch::nonzero_out>(m);
  native<at::_ops::masked_select, &xhal_torch::masked_select>(m);
  native<at::_ops::gather_out, &xhal_torch::gather_out>(m);
  native<at::_ops::scatter_src_out, &xhal_torch::scatter_src_out>(m);
  native<at::_ops::scatter_value_out, &xhal_torch::scatter_value_out>(m);
  native<at::_ops::scatter_reduce_out, &xhal_torch::scatter_reduce_out>(m);
  native<at::_ops::scatter_add_out, &xhal_torch::scatter_add_out>(m);
  native<at::_ops::index_add_out, &xhal_torch::index_add_out>(m);
  native<at::_ops::cat_out, &xhal_torch::cat_out>(m);
}

}  // namespace xhal_torch
