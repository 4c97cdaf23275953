// SPDX-License-Identifier: Apache-2.0
// Optimizer steps for many tensors at once, and the loss scale of mixed precision.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale_ops.h>
#include <ATen/ops/_amp_update_scale_ops.h>
#include <ATen/ops/_fused_adam_ops.h>
#include <ATen/ops/_fused_adamw_ops.h>
#include <ATen/ops/_fused_sgd_ops.h>

#include "native.h"
#include "op_call.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using at::TensorList;
using OptTensor = std::optional<Tensor>;

struct Rate {  // a number, or a tensor of one element
  double number = 0;
  const Tensor* tensor = nullptr;
};

void add_rate(OpCall& call, const Rate& rate) {
  if (!rate.tensor) {
    call.scalar(rate.number);
  } else if (rate.tensor->is_cpu()) {
    call.scalar(rate.tensor->item());
  } else {
    call.scalar_at(*rate.tensor);
  }
}

void add_grad_scale(OpCall& call, const OptTensor& scale) {
  if (scale && scale->defined()) add_rate(call, {0, &*scale});
}

bool usable(TensorList params, TensorList grads, const OptTensor& found_inf) {
  if (params.empty() || params.size() != grads.size()) return false;
  for (const Tensor& tensor : params) {
    if (tensor.device() != params[0].device() || !is_float(tensor.scalar_type())) return false;
  }
  return !found_inf || !found_inf->defined() || found_inf->device() == params[0].device();
}

// ---- Adam

struct Adam {
  TensorList params, grads, first, second, largest, steps;
  Rate lr;
  double beta1, beta2, decay, eps;
  bool amsgrad, maximize, decoupled;
  const OptTensor &grad_scale, &found_inf;

  bool run() const {
    if (!usable(params, grads, found_inf)) return false;
    for (const Tensor& step : steps) {
      if (step.device() != params[0].device() || step.scalar_type() != at::kFloat) return false;
    }
    // torch has raised the steps already, the operator raises what it is given: it gets copies
    // of one less.
    const Tensor before =
        new_tensor({static_cast<int64_t>(steps.size())}, at::kFloat, params[0].device());
    std::vector<Tensor> lowered;
    for (size_t i = 0; i < steps.size(); ++i)
      lowered.push_back(before.as_strided({}, {}, static_cast<int64_t>(i)));
    OpCall lower(XHAL_OP_multi_axpby, params[0]);
    lower.in(steps).in(TensorList()).out(TensorList(lowered)).scalar(1.0).scalar(-1.0);
    if (!lower.run()) return false;

    const TensorList most = amsgrad ? largest : TensorList();
    OpCall call(XHAL_OP_multi_adamw, params[0]);
    call.attr("amsgrad", amsgrad).attr("maximize", maximize).attr("decoupled", decoupled);
    call.in(params).in(grads).in(first).in(second).in(most).in(TensorList(lowered)).in(found_inf);
    call.out(params).out(first).out(second).out(most).out(TensorList(lowered));
    add_rate(call, lr);
    call.scalar(beta1).scalar(beta2).scalar(decay).scalar(eps);
    add_grad_scale(call, grad_scale);
    return call.run();
  }
};

template <class Op, bool decoupled>
void adam(TensorList params, TensorList grads, TensorList first, TensorList second,
          TensorList largest, TensorList steps, double lr, double beta1, double beta2, double decay,
          double eps, bool amsgrad, bool maximize, const OptTensor& grad_scale,
          const OptTensor& found_inf) {
  const Adam step{params, grads, first, second,  largest,  steps,     {lr, nullptr}, beta1,
                  beta2,  decay, eps,   amsgrad, maximize, decoupled, grad_scale,    found_inf};
  if (step.run()) return;
  on_host<Op>(params, grads, first, second, largest, steps, lr, beta1, beta2, decay, eps, amsgrad,
              maximize, grad_scale, found_inf);
}
template <class Op, bool decoupled>
void adam_tensor_lr(TensorList params, TensorList grads, TensorList first, TensorList second,
                    TensorList largest, TensorList steps, const Tensor& lr, double beta1,
                    double beta2, double decay, double eps, bool amsgrad, bool maximize,
                    const OptTensor& grad_scale, const OptTensor& found_inf) {
  const Adam step{params, grads, first, second,  largest,  steps,     {0, &lr},   beta1,
                  beta2,  decay, eps,   amsgrad, maximize, decoupled, grad_scale, found_inf};
  if (step.run()) return;
  on_host<Op>(params, grads, first, second, largest, steps, lr, beta1, beta2, decay, eps, amsgrad,
              maximize, grad_scale, found_inf);
}

// ---- SGD

bool run_sgd(TensorList params, TensorList grads, TensorList momenta, double decay, double momentum,
             Rate lr, double dampening, bool nesterov, bool maximize, bool first,
             const OptTensor& grad_scale, const OptTensor& found_inf) {
  if (!usable(params, grads, found_inf)) return false;
  const TensorList buffers = momentum != 0 ? momenta : TensorList();
  OpCall call(XHAL_OP_multi_sgd, params[0]);
  call.attr("nesterov", nesterov).attr("maximize", maximize).attr("first", first);
  call.in(params).in(grads).in(buffers).in(found_inf).out(params).out(buffers);
  add_rate(call, lr);
  call.scalar(momentum).scalar(dampening).scalar(decay);
  add_grad_scale(call, grad_scale);
  return call.run();
}
void sgd(TensorList params, TensorList grads, TensorList momenta, double decay, double momentum,
         double lr, double dampening, bool nesterov, bool maximize, bool first,
         const OptTensor& grad_scale, const OptTensor& found_inf) {
  if (run_sgd(params, grads, momenta, decay, momentum, {lr, nullptr}, dampening, nesterov, maximize,
              first, grad_scale, found_inf)) {
    return;
  }
  on_host<at::_ops::_fused_sgd_>(params, grads, momenta, decay, momentum, lr, dampening, nesterov,
                                 maximize, first, grad_scale, found_inf);
}
void sgd_tensor_lr(TensorList params, TensorList grads, TensorList momenta, double decay,
                   double momentum, const Tensor& lr, double dampening, bool nesterov,
                   bool maximize, bool first, const OptTensor& grad_scale,
                   const OptTensor& found_inf) {
  if (run_sgd(params, grads, momenta, decay, momentum, {0, &lr}, dampening, nesterov, maximize,
              first, grad_scale, found_inf)) {
    return;
  }
  on_host<at::_ops::_fused_sgd__tensor_lr>(params, grads, momenta, decay, momentum, lr, dampening,
                                           nesterov, maximize, first, grad_scale, found_inf);
}

// ---- loss scale

void unscale(TensorList grads, Tensor& found_inf, const Tensor& inv_scale) {
  if (grads.empty()) return;
  OpCall call(XHAL_OP_multi_unscale, found_inf);
  call.in(grads).in(found_inf).in(inv_scale).out(grads).out(found_inf);
  if (!call.run())
    on_host<at::_ops::_amp_foreach_non_finite_check_and_unscale_>(grads, found_inf, inv_scale);
}

Tensor& update_scale(Tensor& scale, Tensor& tracker, const Tensor& found_inf, double growth,
                     double backoff, int64_t interval) {
  const Tensor s = scale.dim() ? scale.view({}) : scale,
               t = tracker.dim() ? tracker.view({}) : tracker;
  const Tensor f = found_inf.dim() ? found_inf.view({}) : found_inf;
  OpCall call(XHAL_OP_update_scale, scale);
  call.in(s).in(t).in(f).out(s).out(t).scalar(growth).scalar(backoff).scalar(interval);
  return call.run() ? scale
                    : on_host<at::_ops::_amp_update_scale_>(scale, tracker, found_inf, growth,
                                                            backoff, interval);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<_fused_adamw_, &adam<_fused_adamw_, true>>(m);
  native<_fused_adamw__tensor_lr, &adam_tensor_lr<_fused_adamw__tensor_lr, true>>(m);
  native<_fused_adam_, &adam<_fused_adam_, false>>(m);
  native<_fused_adam__tensor_lr, &adam_tensor_lr<_fused_adam__tensor_lr, false>>(m);
  native<_fused_sgd_, &sgd>(m);
  native<_fused_sgd__tensor_lr, &sgd_tensor_lr>(m);
  native<_amp_foreach_non_finite_check_and_unscale_, &unscale>(m);
  native<_amp_update_scale_, &update_scale>(m);
}

}  // namespace xhal_torch
