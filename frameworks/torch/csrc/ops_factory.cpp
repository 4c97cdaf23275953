// SPDX-License-Identifier: Apache-2.0
// Filling: constants, ranges, triangles.
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/arange_ops.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/fill_ops.h>
#include <ATen/ops/flip_ops.h>
#include <ATen/ops/tril_ops.h>
#include <ATen/ops/triu_ops.h>
#include <ATen/ops/zero_ops.h>
#include <c10/util/complex.h>

#include <cmath>
#include <cstring>

#include "native.h"
#include "op_call.h"
#include "operands.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Scalar;
using at::Tensor;

// The bits of `value` as one element of `type`; false for elements of more than 8 bytes.
bool pattern_of(const Scalar& value, c10::ScalarType type, uint64_t* pattern) {
  *pattern = 0;
  const auto store = [&](auto element) { std::memcpy(pattern, &element, sizeof element); };
  switch (type) {
    case at::kFloat:
      store(value.to<float>());
      return true;
    case at::kDouble:
      store(value.to<double>());
      return true;
    case at::kHalf:
      store(value.to<at::Half>());
      return true;
    case at::kBFloat16:
      store(value.to<at::BFloat16>());
      return true;
    case at::kLong:
      store(value.to<int64_t>());
      return true;
    case at::kInt:
      store(value.to<int32_t>());
      return true;
    case at::kShort:
      store(value.to<int16_t>());
      return true;
    case at::kChar:
      store(value.to<int8_t>());
      return true;
    case at::kByte:
      store(value.to<uint8_t>());
      return true;
    case at::kBool:
      store(uint8_t(value.to<bool>()));
      return true;
    case at::kComplexFloat:
      store(value.to<c10::complex<float>>());
      return true;
    default:
      return false;
  }
}

bool is_zero(const Scalar& value) {
  return !value.isComplex() &&
         (value.isFloatingPoint() ? value.toDouble() == 0 && !std::signbit(value.toDouble())
                                  : value.toLong() == 0);
}

bool run_fill(Tensor& self, const Scalar& value) {
  if (self.numel() == 0) return true;
  uint64_t pattern = 0;
  if (!pattern_of(value, self.scalar_type(), &pattern) && !is_zero(value)) return false;
  if (self.is_non_overlapping_and_dense()) {
    const uint32_t width = self.element_size() > 8 ? 8 : static_cast<uint32_t>(self.element_size());
    xhal_stream* stream = launch_stream(self.device().index());
    check(xhal_stream_fill(stream, address_of(self), self.nbytes(), pattern, width),
          "filling a tensor");
    return true;
  }
  const auto type = same_width(self.scalar_type());
  if (type == c10::ScalarType::Undefined) return false;
  // The same value may be written to one place many times; the operator writes it once.
  const Tensor once = without_repeats(self);
  OpCall call(XHAL_OP_fill, self);
  if (type == self.scalar_type()) return call.out(once).scalar(value).run();
  const Tensor bits = reinterpret_as(once, type);
  int64_t element = 0;
  std::memcpy(&element, &pattern, sizeof element);
  return call.out(bits).scalar(element).run();
}

Tensor& fill_scalar(Tensor& self, const Scalar& value) {
  return run_fill(self, value) ? self : on_host<at::_ops::fill__Scalar>(self, value);
}
Tensor& fill_tensor(Tensor& self, const Tensor& value) {
  TORCH_CHECK(value.dim() == 0, "fill_ only supports 0-dimension value tensor but got tensor with ",
              value.dim(), " dimensions.");
  if (value.is_cpu()) return fill_scalar(self, value.item());
  return self.copy_(value.expand(self.sizes()));
}
Tensor& zero(Tensor& self) { return run_fill(self, 0) ? self : on_host<at::_ops::zero_>(self); }

Tensor& arange(const Scalar& start, const Scalar& end, const Scalar& step, Tensor& out) {
  const double from = start.toDouble(), to = end.toDouble(), by = step.toDouble();
  const bool legal = std::isfinite(from) && std::isfinite(to) &&
                     ((by > 0 && to >= from) || (by < 0 && to <= from));
  if (!legal || !is_native(out.scalar_type())) {
    return on_host<at::_ops::arange_start_out>(start, end, step, out);
  }
  const bool integers = start.isIntegral(false) && end.isIntegral(false) && step.isIntegral(false);
  const int64_t size =
      integers ? (end.toLong() - start.toLong() + step.toLong() - (by > 0 ? 1 : -1)) / step.toLong()
               : static_cast<int64_t>(std::ceil((to - from) / by));
  if (out.numel() != size) at::native::resize_output(out, {size});
  OpCall call(XHAL_OP_arange, out);
  if (call.out(out).scalar(start).scalar(step).run()) return out;
  return on_host<at::_ops::arange_start_out>(start, end, step, out);
}

template <uint32_t id, class Op>
Tensor& triangle(const Tensor& self, int64_t diagonal, Tensor& out) {
  const auto type = same_width(self.scalar_type());
  at::native::resize_output(out, self.sizes());
  if (type != c10::ScalarType::Undefined && self.dim() >= 2 &&
      out.scalar_type() == self.scalar_type()) {
    const Tensor from = reinterpret_as(self, type), to = reinterpret_as(out, type);
    OpCall call(id, self);
    if (call.attr("diagonal", diagonal).in(from).out(to).run()) return out;
  }
  return on_host<Op>(self, diagonal, out);
}

Tensor flip(const Tensor& self, c10::IntArrayRef dims) {
  const auto type = same_width(self.scalar_type());
  if (type != c10::ScalarType::Undefined && self.dim() > 0) {
    Tensor out = at::empty_like(self);
    c10::SmallVector<int64_t, 8> wrapped;
    for (int64_t dim : dims) wrapped.push_back(c10::maybe_wrap_dim(dim, self.dim()));
    const Tensor from = reinterpret_as(self, type), to = reinterpret_as(out, type);
    OpCall call(XHAL_OP_flip, out);
    if (call.attr("dims", wrapped).in(from).out(to).run()) return out;
  }
  return on_host<at::_ops::flip>(self, dims);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<fill__Scalar, &fill_scalar>(m);
  native<fill__Tensor, &fill_tensor>(m);
  native<zero_, &zero>(m);
  native<arange_start_out, &xhal_torch::arange>(m);
  native<tril_out, &triangle<XHAL_OP_tril, tril_out>>(m);
  native<triu_out, &triangle<XHAL_OP_triu, triu_out>>(m);
  native<at::_ops::flip, &xhal_torch::flip>(m);
}

}  // namespace xhal_torch
