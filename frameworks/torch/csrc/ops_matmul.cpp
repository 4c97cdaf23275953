// SPDX-License-Identifier: Apache-2.0
// Matrix products, all of them gemm: transposition is a matter of strides, a 1-d addend
// is the bias.
#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/addmm_ops.h>
#include <ATen/ops/addmv_ops.h>
#include <ATen/ops/baddbmm_ops.h>
#include <ATen/ops/bmm_ops.h>
#include <ATen/ops/dot_ops.h>
#include <ATen/ops/mm_ops.h>
#include <ATen/ops/vdot_ops.h>

#include "native.h"
#include "op_call.h"
#include "operands.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Scalar;
using at::Tensor;

// A matrix (or a batch of them) as gemm sees it: memory with sizes and strides.
struct Matrix {
  const void* data;
  c10::ScalarType type;
  c10::SmallVector<int64_t, 3> sizes, strides;

  explicit Matrix(const Tensor& tensor)
      : data(reinterpret_cast<const void*>(address_of(tensor))),
        type(tensor.scalar_type()),
        sizes(tensor.sizes().begin(), tensor.sizes().end()),
        strides(tensor.strides().begin(), tensor.strides().end()) {}

  // A vector as a row (1 x n) or a column (n x 1).
  static Matrix row(const Tensor& vector) {
    Matrix matrix(vector);
    matrix.sizes.insert(matrix.sizes.begin(), 1);
    matrix.strides.insert(matrix.strides.begin(), vector.size(0) * vector.stride(0));
    return matrix;
  }
  static Matrix column(const Tensor& vector) {
    Matrix matrix(vector);
    matrix.sizes.push_back(1);
    matrix.strides.push_back(1);
    return matrix;
  }
};

struct Product {
  const Matrix& a;
  const Matrix& b;
  const Matrix& out;
  const Tensor* addend = nullptr;  // broadcast to out
  Scalar alpha = 1, beta = 1;
};

bool is_nothing(const Scalar& value) { return !value.isComplex() && value.toDouble() == 0; }
bool is_one(const Scalar& value) { return !value.isComplex() && value.toDouble() == 1; }

void expect_writable(const Tensor& out, const Tensor& factor) {
  expect_device(out, factor.device(), "out", "gemm");
  if (!out.is_non_overlapping_and_dense()) at::assert_no_internal_overlap(out);
}

// A factor of a product. The result may lie on the addend, not on a factor: it is copied then.
struct Factor {
  Tensor copy;
  const Tensor& tensor;
  Factor(const Tensor& out, const Tensor& given)
      : copy(share_memory(out, given) ? given.clone() : Tensor()),
        tensor(copy.defined() ? copy : given) {}
};

bool run(const Product& p, DeviceIndex index) {
  if (!is_float(p.out.type) || p.a.type != p.out.type || p.b.type != p.out.type) return false;
  OpCall call(XHAL_OP_gemm, index);
  call.raw(p.a.data, p.a.type, p.a.sizes, p.a.strides, false);
  call.raw(p.b.data, p.b.type, p.b.sizes, p.b.strides, false);
  const bool add = p.addend && !is_nothing(p.beta);
  if (!add) {
    call.absent().absent();
  } else if (p.addend->scalar_type() != p.out.type) {
    return false;
  } else {
    const Tensor& c = *p.addend;
    const int64_t n = p.out.sizes.back();
    const void* data = reinterpret_cast<const void*>(address_of(c));
    const bool bias =
        is_one(p.beta) && c.dim() >= 1 && c.numel() == n && c.size(-1) == n && p.out.data != data;
    if (bias) {
      call.absent().raw(data, c.scalar_type(), n, c.stride(-1), false);
    } else {
      // Broadcast: a dimension that is missing or 1 has stride 0.
      c10::SmallVector<int64_t, 3> strides(p.out.sizes.size(), 0);
      for (int64_t d = 0; d < c.dim(); ++d) {
        if (c.size(d) != 1) strides[strides.size() - c.dim() + d] = c.stride(d);
      }
      call.raw(data, c.scalar_type(), p.out.sizes, strides, false).absent();
    }
  }
  call.raw(p.out.data, p.out.type, p.out.sizes, p.out.strides, true);
  if (add || !is_one(p.alpha)) call.scalar(p.alpha).scalar(p.beta);
  return call.run();
}

bool usable(const Tensor& a, const Tensor& b) {
  return a.device() == b.device() && a.device().type() == kXhal && a.size(-1) == b.size(-2);
}

// A product of matrices without inner size is zero.
bool sum_of_nothing(Tensor& out, const Tensor* addend, const Scalar& beta) {
  if (addend && !is_nothing(beta)) {
    out.copy_(addend->expand(out.sizes())).mul_(beta);
  } else {
    out.zero_();
  }
  return true;
}

// ---- matrix

bool run_mm(const Tensor& a, const Tensor& b, Tensor& out) {
  if (a.dim() != 2 || b.dim() != 2 || !usable(a, b) || !is_float(a.scalar_type())) return false;
  if (!out.defined()) {
    out = new_like(a, {a.size(0), b.size(1)});
  } else {
    at::native::resize_output(out, {a.size(0), b.size(1)});
  }
  if (out.scalar_type() != a.scalar_type()) return false;
  if (a.size(1) == 0) return sum_of_nothing(out, nullptr, 0);
  expect_writable(out, a);
  const Factor left(out, a), right(out, b);
  const Matrix ma(left.tensor), mb(right.tensor), mo(out);
  return run({.a = ma, .b = mb, .out = mo}, a.device().index());
}
Tensor mm(const Tensor& a, const Tensor& b) {
  Tensor out;
  return run_mm(a, b, out) ? out : on_host<at::_ops::mm>(a, b);
}
Tensor& mm_out(const Tensor& a, const Tensor& b, Tensor& out) {
  return run_mm(a, b, out) ? out : on_host<at::_ops::mm_out>(a, b, out);
}

bool broadcasts(const Tensor& self, c10::IntArrayRef to) {
  if (self.dim() > static_cast<int64_t>(to.size())) return false;
  for (int64_t d = 0; d < self.dim(); ++d) {
    const int64_t size = self.size(d);
    if (size != 1 && size != to[to.size() - self.dim() + d]) return false;
  }
  return true;
}

bool run_addmm(const Tensor& self, const Tensor& a, const Tensor& b, const Scalar& beta,
               const Scalar& alpha, Tensor& out) {
  if (a.dim() != 2 || b.dim() != 2 || !usable(a, b) || self.device() != a.device() ||
      !is_float(a.scalar_type())) {
    return false;
  }
  const int64_t sizes[] = {a.size(0), b.size(1)};
  if (!broadcasts(self, sizes)) return false;
  if (!out.defined()) {
    out = new_like(a, sizes);
  } else {
    at::native::resize_output(out, sizes);
  }
  if (out.scalar_type() != a.scalar_type()) return false;
  if (a.size(-1) == 0) return sum_of_nothing(out, &self, beta);
  expect_writable(out, a);
  const Factor left(out, a), right(out, b);
  const Matrix ma(left.tensor), mb(right.tensor), mo(out);
  return run({.a = ma, .b = mb, .out = mo, .addend = &self, .alpha = alpha, .beta = beta},
             a.device().index());
}
Tensor addmm(const Tensor& self, const Tensor& a, const Tensor& b, const Scalar& beta,
             const Scalar& alpha) {
  Tensor out;
  return run_addmm(self, a, b, beta, alpha, out)
             ? out
             : on_host<at::_ops::addmm>(self, a, b, beta, alpha);
}
Tensor& addmm_out(const Tensor& self, const Tensor& a, const Tensor& b, const Scalar& beta,
                  const Scalar& alpha, Tensor& out) {
  return run_addmm(self, a, b, beta, alpha, out)
             ? out
             : on_host<at::_ops::addmm_out>(self, a, b, beta, alpha, out);
}

// ---- batches

bool run_bmm(const Tensor* self, const Tensor& a, const Tensor& b, const Scalar& beta,
             const Scalar& alpha, Tensor& out) {
  if (a.dim() != 3 || b.dim() != 3 || a.size(0) != b.size(0) || !usable(a, b) ||
      !is_float(a.scalar_type())) {
    return false;
  }
  const int64_t sizes[] = {a.size(0), a.size(1), b.size(2)};
  if (self && (self->device() != a.device() || !broadcasts(*self, sizes))) return false;
  if (!out.defined()) {
    out = new_like(a, sizes);
  } else {
    at::native::resize_output(out, sizes);
  }
  if (out.scalar_type() != a.scalar_type()) return false;
  if (a.size(-1) == 0) return sum_of_nothing(out, self, beta);
  expect_writable(out, a);
  const Factor left(out, a), right(out, b);
  const Matrix ma(left.tensor), mb(right.tensor), mo(out);
  return run({.a = ma, .b = mb, .out = mo, .addend = self, .alpha = alpha, .beta = beta},
             a.device().index());
}
Tensor bmm(const Tensor& a, const Tensor& b) {
  Tensor out;
  return run_bmm(nullptr, a, b, 0, 1, out) ? out : on_host<at::_ops::bmm>(a, b);
}
Tensor& bmm_out(const Tensor& a, const Tensor& b, Tensor& out) {
  return run_bmm(nullptr, a, b, 0, 1, out) ? out : on_host<at::_ops::bmm_out>(a, b, out);
}
Tensor& baddbmm_out(const Tensor& self, const Tensor& a, const Tensor& b, const Scalar& beta,
                    const Scalar& alpha, Tensor& out) {
  return run_bmm(&self, a, b, beta, alpha, out)
             ? out
             : on_host<at::_ops::baddbmm_out>(self, a, b, beta, alpha, out);
}

// ---- vectors

Tensor& addmv_out(const Tensor& self, const Tensor& a, const Tensor& v, const Scalar& beta,
                  const Scalar& alpha, Tensor& out) {
  if (a.dim() == 2 && v.dim() == 1 && a.size(1) == v.size(0) && a.device() == v.device() &&
      self.device() == a.device() && (self.dim() == 0 || self.numel() == a.size(0))) {
    at::native::resize_output(out, {a.size(0)});
    if (v.numel() == 0 && is_float(out.scalar_type()) && out.scalar_type() == a.scalar_type()) {
      sum_of_nothing(out, &self, beta);
      return out;
    }
    const Tensor addend = self.dim() ? self.unsqueeze(1) : self;
    expect_writable(out, a);
    const Factor left(out, a), right(out, v);
    const Matrix ma(left.tensor), mv = Matrix::column(right.tensor), mo = Matrix::column(out);
    if (run({.a = ma, .b = mv, .out = mo, .addend = &addend, .alpha = alpha, .beta = beta},
            a.device().index())) {
      return out;
    }
  }
  return on_host<at::_ops::addmv_out>(self, a, v, beta, alpha, out);
}

template <class Op>
Tensor dot(const Tensor& a, const Tensor& b) {
  if (a.dim() == 1 && b.dim() == 1 && a.size(0) == b.size(0) && a.numel() > 0 &&
      a.device() == b.device() && is_float(a.scalar_type())) {
    Tensor out = new_like(a, {});
    const Matrix ma = Matrix::row(a), mb = Matrix::column(b);
    Matrix mo(out);
    mo.sizes = {1, 1};
    mo.strides = {1, 1};
    if (run({.a = ma, .b = mb, .out = mo}, a.device().index())) return out;
  }
  return on_host<Op>(a, b);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<at::_ops::mm, &xhal_torch::mm>(m);
  native<at::_ops::mm_out, &xhal_torch::mm_out>(m);
  native<at::_ops::addmm, &xhal_torch::addmm>(m);
  native<at::_ops::addmm_out, &xhal_torch::addmm_out>(m);
  native<at::_ops::bmm, &xhal_torch::bmm>(m);
  native<at::_ops::bmm_out, &xhal_torch::bmm_out>(m);
  native<at::_ops::baddbmm_out, &xhal_torch::baddbmm_out>(m);
  native<at::_ops::addmv_out, &xhal_torch::addmv_out>(m);
  native<at::_ops::dot, &xhal_torch::dot<at::_ops::dot>>(m);
  native<vdot, &xhal_torch::dot<vdot>>(m);
}

}  // namespace xhal_torch
