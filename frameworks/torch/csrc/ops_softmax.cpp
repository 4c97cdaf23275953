// SPDX-License-Identifier: Apache-2.0
// Softmax and the losses.
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_log_softmax_backward_data_ops.h>
#include <ATen/ops/_log_softmax_ops.h>
#include <ATen/ops/_softmax_backward_data_ops.h>
#include <ATen/ops/_softmax_ops.h>
#include <ATen/ops/mse_loss_backward_ops.h>
#include <ATen/ops/mse_loss_ops.h>
#include <ATen/ops/nll_loss2d_backward_ops.h>
#include <ATen/ops/nll_loss2d_forward_ops.h>
#include <ATen/ops/nll_loss_backward_ops.h>
#include <ATen/ops/nll_loss_forward_ops.h>

#include "native.h"
#include "op_call.h"
#include "pointwise.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;
using c10::ScalarType;

// A tensor without dimensions is a row of one.
Tensor at_least_1d(const Tensor& tensor) { return tensor.dim() ? tensor : tensor.unsqueeze(0); }

// ---- softmax

template <uint32_t id>
bool run_softmax(const Tensor& self, int64_t dim, bool half_to_float, Tensor& out) {
  if (!is_float(self.scalar_type())) return false;
  const ScalarType type = half_to_float ? ScalarType::Float : self.scalar_type();
  if (!out.defined()) out = new_tensor(self.sizes(), type, self.device());
  if (self.numel() == 0) return true;
  OpCall call(id, self);
  const Tensor from = at_least_1d(self), to = at_least_1d(out);
  return call.attr("dim", c10::maybe_wrap_dim(dim, from.dim())).in(from).out(to).run();
}
template <uint32_t id, class Op>
Tensor softmax(const Tensor& self, int64_t dim, bool half_to_float) {
  Tensor out;
  return run_softmax<id>(self, dim, half_to_float, out) ? out
                                                        : on_host<Op>(self, dim, half_to_float);
}
template <uint32_t id, class Op>
Tensor& softmax_out(const Tensor& self, int64_t dim, bool half_to_float, Tensor& out) {
  at::native::resize_output(out, self.sizes());
  return run_softmax<id>(self, dim, half_to_float, out)
             ? out
             : on_host<Op>(self, dim, half_to_float, out);
}

template <uint32_t id>
bool run_softmax_backward(const Tensor& grad, const Tensor& output, int64_t dim, ScalarType type,
                          Tensor& out) {
  if (!is_float(grad.scalar_type()) || !is_float(type)) return false;
  if (!out.defined()) out = new_tensor(grad.sizes(), type, grad.device());
  if (grad.numel() == 0) return true;
  OpCall call(id, grad);
  const Tensor g = at_least_1d(grad), o = at_least_1d(output), to = at_least_1d(out);
  return call.attr("dim", c10::maybe_wrap_dim(dim, g.dim())).in(g).in(o).out(to).run();
}
template <uint32_t id, class Op>
Tensor softmax_backward(const Tensor& grad, const Tensor& output, int64_t dim, ScalarType type) {
  Tensor out;
  return run_softmax_backward<id>(grad, output, dim, type, out)
             ? out
             : on_host<Op>(grad, output, dim, type);
}
template <uint32_t id, class Op>
Tensor& softmax_backward_out(const Tensor& grad, const Tensor& output, int64_t dim, ScalarType type,
                             Tensor& out) {
  at::native::resize_output(out, grad.sizes());
  return run_softmax_backward<id>(grad, output, dim, type, out)
             ? out
             : on_host<Op>(grad, output, dim, type, out);
}

// ---- negative log likelihood

bool nll_usable(const Tensor& self, const Tensor& target, const OptTensor& weight) {
  return is_float(self.scalar_type()) && target.scalar_type() == at::kLong &&
         target.device() == self.device() && self.numel() > 0 && target.dim() == self.dim() - 1 &&
         (!weight || !weight->defined() || weight->scalar_type() == self.scalar_type());
}

bool run_nll(const Tensor& self, const Tensor& target, const OptTensor& weight, int64_t reduction,
             int64_t ignore, const Tensor& out, const Tensor& total) {
  OpCall call(XHAL_OP_nll_loss, self);
  call.attr("reduction", reduction).attr("ignore_index", ignore);
  return call.in(self).in(target).in(weight).out(out).out(total).run();
}

std::tuple<Tensor&, Tensor&> nll_loss_out(const Tensor& self, const Tensor& target,
                                          const OptTensor& weight, int64_t reduction,
                                          int64_t ignore, Tensor& out, Tensor& total) {
  if (self.dim() <= 2 && nll_usable(self, target, weight)) {
    const bool each = reduction == 0 && self.dim() == 2;
    at::native::resize_output(out,
                              each ? c10::IntArrayRef(self.sizes().data(), 1) : c10::IntArrayRef());
    at::native::resize_output(total, {});
    if (run_nll(self, target, weight, reduction, ignore, out, total)) return {out, total};
  }
  return on_host<at::_ops::nll_loss_forward_output>(self, target, weight, reduction, ignore, out,
                                                    total);
}

Tensor& nll_loss_backward_out(const Tensor& grad, const Tensor& self, const Tensor& target,
                              const OptTensor& weight, int64_t reduction, int64_t ignore,
                              const Tensor& total, Tensor& out) {
  if (self.dim() <= 2 && nll_usable(self, target, weight)) {
    at::native::resize_output(out, self.sizes());
    OpCall call(XHAL_OP_nll_loss_grad, self);
    call.attr("reduction", reduction).attr("ignore_index", ignore);
    if (call.in(grad).in(target).in(weight).in(total).out(out).run()) return out;
  }
  return on_host<at::_ops::nll_loss_backward_grad_input>(grad, self, target, weight, reduction,
                                                         ignore, total, out);
}

// Pixels are rows: [n, c, h, w] is read as [n*h*w, c].
Tensor as_rows(const Tensor& self) {
  return self.permute({0, 2, 3, 1}).reshape({-1, self.size(1)});
}

std::tuple<Tensor, Tensor> nll_loss2d(const Tensor& self, const Tensor& target,
                                      const OptTensor& weight, int64_t reduction, int64_t ignore) {
  if (self.dim() == 4 && nll_usable(self, target, weight)) {
    const Tensor rows = as_rows(self);
    const Tensor targets = target.reshape({-1});
    const Tensor out = reduction == 0 ? new_like(self, {rows.size(0)}) : new_like(self, {});
    const Tensor total = new_like(self, {});
    if (run_nll(rows, targets, weight, reduction, ignore, out, total)) {
      return {reduction == 0 ? out.view(target.sizes()) : out, total};
    }
  }
  return on_host<at::_ops::nll_loss2d_forward>(self, target, weight, reduction, ignore);
}

Tensor nll_loss2d_backward(const Tensor& grad, const Tensor& self, const Tensor& target,
                           const OptTensor& weight, int64_t reduction, int64_t ignore,
                           const Tensor& total) {
  if (self.dim() == 4 && nll_usable(self, target, weight)) {
    const int64_t n = self.size(0), c = self.size(1), h = self.size(2), w = self.size(3);
    const Tensor rows = new_like(self, {n * h * w, c});
    const Tensor grads = reduction == 0 ? grad.reshape({-1}) : grad;
    const Tensor targets = target.reshape({-1});
    OpCall call(XHAL_OP_nll_loss_grad, self);
    call.attr("reduction", reduction).attr("ignore_index", ignore);
    if (call.in(grads).in(targets).in(weight).in(total).out(rows).run()) {
      return rows.view({n, h, w, c}).permute({0, 3, 1, 2}).contiguous();
    }
  }
  return on_host<at::_ops::nll_loss2d_backward>(grad, self, target, weight, reduction, ignore,
                                                total);
}

// ---- squared error

Tensor& mse_loss_out(const Tensor& self, const Tensor& target, int64_t reduction, Tensor& out) {
  if (is_float(self.scalar_type()) && self.scalar_type() == target.scalar_type() &&
      self.sizes().equals(target.sizes()) && self.numel() > 0 &&
      out.scalar_type() == self.scalar_type()) {
    at::native::resize_output(out, reduction ? c10::IntArrayRef() : self.sizes());
    OpCall call(XHAL_OP_mse_loss, self);
    if (call.attr("reduction", reduction).in(self).in(target).out(out).run()) return out;
  }
  return on_host<at::_ops::mse_loss_out>(self, target, reduction, out);
}

bool run_mse_backward(const Tensor& grad, const Tensor& self, const Tensor& target,
                      int64_t reduction, Tensor& out) {
  if (!is_float(self.scalar_type()) || self.scalar_type() != target.scalar_type() ||
      grad.scalar_type() != self.scalar_type() || !self.sizes().equals(target.sizes())) {
    return false;
  }
  if (!out.defined()) {
    out = new_like(self, self.sizes());
  } else {
    at::native::resize_output(out, self.sizes());
  }
  OpCall call(XHAL_OP_mse_loss_grad, self);
  return call.attr("reduction", reduction).in(grad).in(self).in(target).out(out).run();
}
Tensor mse_loss_backward(const Tensor& grad, const Tensor& self, const Tensor& target,
                         int64_t reduction) {
  Tensor out;
  return run_mse_backward(grad, self, target, reduction, out)
             ? out
             : on_host<at::_ops::mse_loss_backward>(grad, self, target, reduction);
}
Tensor& mse_loss_backward_out(const Tensor& grad, const Tensor& self, const Tensor& target,
                              int64_t reduction, Tensor& out) {
  return run_mse_backward(grad, self, target, reduction, out)
             ? out
             : on_host<at::_ops::mse_loss_backward_grad_input>(grad, self, target, reduction, out);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<_softmax, &softmax<XHAL_OP_softmax, _softmax>>(m);
  native<_softmax_out, &softmax_out<XHAL_OP_softmax, _softmax_out>>(m);
  native<_log_softmax, &softmax<XHAL_OP_log_softmax, _log_softmax>>(m);
  native<_log_softmax_out, &softmax_out<XHAL_OP_log_softmax, _log_softmax_out>>(m);
  native<_softmax_backward_data, &softmax_backward<XHAL_OP_softmax_grad, _softmax_backward_data>>(
      m);
  native<_softmax_backward_data_out,
         &softmax_backward_out<XHAL_OP_softmax_grad, _softmax_backward_data_out>>(m);
  native<_log_softmax_backward_data,
         &softmax_backward<XHAL_OP_log_softmax_grad, _log_softmax_backward_data>>(m);
  native<_log_softmax_backward_data_out,
         &softmax_backward_out<XHAL_OP_log_softmax_grad, _log_softmax_backward_data_out>>(m);
  native<nll_loss_forward_output, &nll_loss_out>(m);
  native<nll_loss_backward_grad_input, &nll_loss_backward_out>(m);
  native<nll_loss2d_forward, &nll_loss2d>(m);
  native<at::_ops::nll_loss2d_backward, &xhal_torch::nll_loss2d_backward>(m);
  native<at::_ops::mse_loss_out, &xhal_torch::mse_loss_out>(m);
  native<at::_ops::mse_loss_backward, &xhal_torch::mse_loss_backward>(m);
  native<mse_loss_backward_grad_input, &mse_loss_backward_out>(m);
}

}  // namespace xhal_torch
