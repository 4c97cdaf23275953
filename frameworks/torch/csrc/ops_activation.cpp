// SPDX-License-Identifier: Apache-2.0
// Activations and elementwise losses that are a few kernels of the catalogue in a row.
#include <ATen/core/Reduction.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_prelu_kernel_backward_ops.h>
#include <ATen/ops/_prelu_kernel_ops.h>
#include <ATen/ops/binary_cross_entropy_backward_ops.h>
#include <ATen/ops/binary_cross_entropy_ops.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/elu_backward_ops.h>
#include <ATen/ops/elu_ops.h>
#include <ATen/ops/glu_backward_ops.h>
#include <ATen/ops/glu_ops.h>
#include <ATen/ops/hardsigmoid_backward_ops.h>
#include <ATen/ops/hardsigmoid_ops.h>
#include <ATen/ops/hardswish_backward_ops.h>
#include <ATen/ops/hardswish_ops.h>
#include <ATen/ops/hardtanh_backward_ops.h>
#include <ATen/ops/hardtanh_ops.h>
#include <ATen/ops/huber_loss_backward_ops.h>
#include <ATen/ops/huber_loss_ops.h>
#include <ATen/ops/leaky_relu_backward_ops.h>
#include <ATen/ops/leaky_relu_ops.h>
#include <ATen/ops/log_sigmoid_backward_ops.h>
#include <ATen/ops/log_sigmoid_forward_ops.h>
#include <ATen/ops/mish_ops.h>
#include <ATen/ops/smooth_l1_loss_backward_ops.h>
#include <ATen/ops/smooth_l1_loss_ops.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/softplus_backward_ops.h>
#include <ATen/ops/softplus_ops.h>
#include <ATen/ops/threshold_ops.h>
#include <ATen/ops/where.h>

#include "composed.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Scalar;
using at::Tensor;
using OptTensor = std::optional<Tensor>;

// ---- log(sigmoid(x)) = min(x, 0) - log1p(exp(-|x|))

std::tuple<Tensor, Tensor> log_sigmoid(const Tensor& self) {
  if (!composable(self)) return on_host<at::_ops::log_sigmoid_forward>(self);
  const Tensor wide = self.to(at::kFloat), tail = wide.abs().neg_().exp_().log1p_();
  return {wide.clamp_max(0).sub_(tail).to(self.scalar_type()), new_like(self, {0})};
}
std::tuple<Tensor&, Tensor&> log_sigmoid_out(const Tensor& self, Tensor& out, Tensor& buffer) {
  if (!composable(self)) {
    return on_host<at::_ops::log_sigmoid_forward_output>(self, out, buffer);
  }
  store(std::get<0>(log_sigmoid(self)), out);
  return {out, buffer};
}
Tensor log_sigmoid_backward(const Tensor& grad, const Tensor& self, const Tensor&) {
  return self.neg().sigmoid_().mul_(grad);
}

// ---- pieces of lines

Tensor hardtanh(const Tensor& self, const Scalar& lo, const Scalar& hi) {
  return self.clamp(lo, hi);
}
Tensor& hardtanh_in_place(Tensor& self, const Scalar& lo, const Scalar& hi) {
  return composable(self) ? self.clamp_(lo, hi) : on_host<at::_ops::hardtanh_>(self, lo, hi);
}
Tensor hardtanh_backward(const Tensor& grad, const Tensor& self, const Scalar& lo,
                         const Scalar& hi) {
  return grad.masked_fill(self.le(lo).logical_or_(self.ge(hi)), 0);
}
Tensor hardsigmoid(const Tensor& self) { return self.add(3).clamp_(0, 6).div_(6); }
Tensor hardsigmoid_backward(const Tensor& grad, const Tensor& self) {
  return grad.div(6).masked_fill_(self.le(-3).logical_or_(self.ge(3)), 0);
}
Tensor hardswish(const Tensor& self) { return hardsigmoid(self).mul_(self); }
Tensor& hardswish_in_place(Tensor& self) {
  return composable(self) ? self.mul_(hardsigmoid(self)) : on_host<at::_ops::hardswish_>(self);
}
Tensor hardswish_backward(const Tensor& grad, const Tensor& self) {
  const Tensor inside = self.div(3).add_(0.5).mul_(grad).masked_fill_(self.le(-3), 0);
  return at::where(self.ge(3), grad, inside);
}
Tensor threshold(const Tensor& self, const Scalar& limit, const Scalar& value) {
  return self.masked_fill(self.le(limit), value);
}
Tensor leaky_relu(const Tensor& self, const Scalar& slope) {
  return at::where(self.gt(0), self, self.mul(slope));
}
Tensor leaky_relu_backward(const Tensor& grad, const Tensor& self, const Scalar& slope, bool) {
  return at::where(self.gt(0), grad, grad.mul(slope));
}
Tensor prelu(const Tensor& self, const Tensor& weight) {
  return at::where(self.gt(0), self, self.mul(weight));
}
std::tuple<Tensor, Tensor> prelu_backward(const Tensor& grad, const Tensor& self,
                                          const Tensor& weight) {
  if (!composable(self)) return on_host<at::_ops::_prelu_kernel_backward>(grad, self, weight);
  const Tensor positive = self.gt(0);
  return {at::where(positive, grad, grad.mul(weight)), self.mul(grad).masked_fill_(positive, 0)};
}

// ---- with exponentials

Tensor elu(const Tensor& self, const Scalar& alpha, const Scalar& scale, const Scalar& inner) {
  const Tensor below = self.mul(inner).expm1_().mul_(alpha.toDouble() * scale.toDouble());
  return at::where(self.gt(0), self.mul(scale), below);
}
Tensor elu_backward(const Tensor& grad, const Scalar& alpha, const Scalar& scale,
                    const Scalar& inner, bool is_result, const Tensor& saved) {
  const double factor = alpha.toDouble() * scale.toDouble();
  const Tensor slope = is_result ? saved.add(factor) : saved.mul(inner).exp_().mul_(factor);
  return at::where(saved.le(0), slope.mul(inner).mul_(grad), grad.mul(scale));
}
Tensor softplus(const Tensor& self, const Scalar& beta, const Scalar& limit) {
  const Tensor scaled = self.mul(beta);
  return at::where(scaled.gt(limit), self, scaled.exp().log1p_().div_(beta));
}
Tensor softplus_backward(const Tensor& grad, const Tensor& self, const Scalar& beta,
                         const Scalar& limit) {
  const Tensor scaled = self.mul(beta);
  return at::where(scaled.gt(limit), grad, scaled.sigmoid().mul_(grad));
}
Tensor mish(const Tensor& self) { return at::softplus(self).tanh_().mul_(self); }

Tensor glu(const Tensor& self, int64_t dim) {
  const auto halves = self.chunk(2, dim);
  return halves[1].sigmoid().mul_(halves[0]);
}
Tensor glu_backward(const Tensor& grad, const Tensor& self, int64_t dim) {
  const auto halves = self.chunk(2, dim);
  const Tensor gate = halves[1].sigmoid(), through = grad.mul(gate);
  return at::cat({through, through.mul(halves[0]).mul_(gate.neg().add_(1))}, dim);
}

// ---- losses of each element

Tensor reduced(const Tensor& loss, int64_t reduction) {
  if (reduction == at::Reduction::Mean) return loss.mean();
  return reduction == at::Reduction::Sum ? loss.sum() : loss;
}
double share(const Tensor& self, int64_t reduction) {
  return reduction == at::Reduction::Mean ? 1.0 / static_cast<double>(self.numel()) : 1.0;
}
Tensor smooth_l1(const Tensor& self, const Tensor& target, int64_t reduction, double beta) {
  const Tensor distance = self.sub(target).abs_();
  if (beta == 0) return reduced(distance, reduction);
  const Tensor near = distance.square().mul_(0.5 / beta);
  return reduced(at::where(distance.lt(beta), near, distance.sub(0.5 * beta)), reduction);
}
Tensor smooth_l1_backward(const Tensor& grad, const Tensor& self, const Tensor& target,
                          int64_t reduction, double beta) {
  Tensor slope = self.sub(target);
  if (beta == 0) {
    slope.sign_();
  } else {
    slope.div_(beta).clamp_(-1, 1);
  }
  return slope.mul_(share(self, reduction)).mul(grad);
}
Tensor huber(const Tensor& self, const Tensor& target, int64_t reduction, double delta) {
  const Tensor distance = self.sub(target).abs_();
  const Tensor far = distance.sub(0.5 * delta).mul_(delta);
  return reduced(at::where(distance.le(delta), distance.square().mul_(0.5), far), reduction);
}
Tensor huber_backward(const Tensor& grad, const Tensor& self, const Tensor& target,
                      int64_t reduction, double delta) {
  return self.sub(target).clamp_(-delta, delta).mul_(share(self, reduction)).mul(grad);
}
Tensor cross_entropy_of_two(const Tensor& self, const Tensor& target, const OptTensor& weight,
                            int64_t reduction) {
  const Tensor yes = self.log().clamp_min_(-100), no = self.neg().log1p_().clamp_min_(-100);
  Tensor loss = no.sub(yes).mul_(target).sub_(no);  // -(t * yes + (1 - t) * no)
  if (weight && weight->defined()) loss = loss.mul(*weight);
  return reduced(loss, reduction);
}
Tensor cross_entropy_of_two_backward(const Tensor& grad, const Tensor& self, const Tensor& target,
                                     const OptTensor& weight, int64_t reduction) {
  const Tensor spread = self.neg().add_(1).mul_(self).clamp_min_(1e-12);
  Tensor slope = self.sub(target).div_(spread).mul_(share(self, reduction));
  if (weight && weight->defined()) slope = slope.mul(*weight);
  return slope.mul(grad);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<log_sigmoid_forward, &log_sigmoid>(m);
  native<log_sigmoid_forward_output, &log_sigmoid_out>(m);
  native<hardtanh_, &hardtanh_in_place>(m);
  native<hardswish_, &hardswish_in_place>(m);
  native<_prelu_kernel_backward, &prelu_backward>(m);
#define XHAL_ADD(op, out, compute) Composed<op, out, &xhal_torch::compute>::add(m);
  XHAL_ADD(at::_ops::log_sigmoid_backward, log_sigmoid_backward_grad_input, log_sigmoid_backward)
  XHAL_ADD(at::_ops::hardtanh, hardtanh_out, hardtanh)
  XHAL_ADD(at::_ops::hardtanh_backward, hardtanh_backward_grad_input, hardtanh_backward)
  XHAL_ADD(at::_ops::hardsigmoid, hardsigmoid_out, hardsigmoid)
  XHAL_ADD(at::_ops::hardsigmoid_backward, hardsigmoid_backward_grad_input, hardsigmoid_backward)
  XHAL_ADD(at::_ops::hardswish, hardswish_out, hardswish)
  XHAL_ADD(at::_ops::hardswish_backward, void, hardswish_backward)
  XHAL_ADD(at::_ops::threshold, threshold_out, threshold)
  XHAL_ADD(at::_ops::leaky_relu, leaky_relu_out, leaky_relu)
  XHAL_ADD(at::_ops::leaky_relu_backward, leaky_relu_backward_grad_input, leaky_relu_backward)
  XHAL_ADD(_prelu_kernel, void, prelu)
  XHAL_ADD(at::_ops::elu, elu_out, elu)
  XHAL_ADD(at::_ops::softplus, softplus_out, softplus)
  XHAL_ADD(at::_ops::softplus_backward, softplus_backward_grad_input, softplus_backward)
  XHAL_ADD(at::_ops::mish, mish_out, mish)
  XHAL_ADD(at::_ops::glu, glu_out, glu)
  XHAL_ADD(at::_ops::glu_backward, glu_backward_grad_input, glu_backward)
  XHAL_ADD(at::_ops::elu_backward, elu_backward_grad_input, elu_backward)
  XHAL_ADD(smooth_l1_loss, smooth_l1_loss_out, smooth_l1)
  XHAL_ADD(smooth_l1_loss_backward, smooth_l1_loss_backward_grad_input, smooth_l1_backward)
  XHAL_ADD(huber_loss, huber_loss_out, huber)
  XHAL_ADD(huber_loss_backward, huber_loss_backward_out, huber_backward)
  XHAL_ADD(binary_cross_entropy, binary_cross_entropy_out, cross_entropy_of_two)
  XHAL_ADD(binary_cross_entropy_backward, binary_cross_entropy_backward_grad_input,
           cross_entropy_of_two_backward)
#undef XHAL_ADD
}

}  // namespace xhal_torch
