// SPDX-License-Identifier: Apache-2.0
// Normalisation. Statistics are f32 whatever the input, as on other accelerators.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_native_batch_norm_legit_ops.h>
#include <ATen/ops/native_batch_norm_backward_ops.h>
#include <ATen/ops/native_batch_norm_ops.h>
#include <ATen/ops/native_group_norm_backward_ops.h>
#include <ATen/ops/native_group_norm_ops.h>
#include <ATen/ops/native_layer_norm_backward_ops.h>
#include <ATen/ops/native_layer_norm_ops.h>

#include "native.h"
#include "op_call.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;

// Weights of another type than the input take the input's.
OptTensor as_input(const OptTensor& weight, const Tensor& input) {
  if (!weight || !weight->defined()) return std::nullopt;
  return weight->scalar_type() == input.scalar_type() ? weight
                                                      : OptTensor(weight->to(input.scalar_type()));
}

Tensor statistics(const Tensor& input, c10::IntArrayRef sizes) {
  return new_tensor(sizes, c10::ScalarType::Float, input.device());
}

bool on_device(const Tensor& tensor) {
  return tensor.device().type() == kXhal && is_float(tensor.scalar_type());
}

// ---- layer

bool layer_usable(const Tensor& input, c10::IntArrayRef shape) {
  if (!on_device(input) || shape.empty() || input.numel() == 0) return false;
  const int64_t axis = input.dim() - static_cast<int64_t>(shape.size());
  return axis >= 0 && input.sizes().slice(axis).equals(shape);
}

Three layer_norm(const Tensor& input, c10::IntArrayRef shape, const OptTensor& weight,
                 const OptTensor& bias, double eps) {
  if (layer_usable(input, shape)) {
    const int64_t axis = input.dim() - static_cast<int64_t>(shape.size());
    c10::SmallVector<int64_t, 8> rows(input.sizes().begin(), input.sizes().end());
    for (size_t d = axis; d < rows.size(); ++d) rows[d] = 1;
    const Tensor out = new_like(input, input.sizes());
    const Tensor mean = statistics(input, rows), rstd = statistics(input, rows);
    const OptTensor w = as_input(weight, input), b = as_input(bias, input);
    OpCall call(XHAL_OP_layer_norm, input);
    call.attr("axis", axis).attr("eps", eps).in(input).in(w).in(b);
    if (call.out(out).out(mean).out(rstd).run()) return {out, mean, rstd};
  }
  return on_host<at::_ops::native_layer_norm>(input, shape, weight, bias, eps);
}

Three layer_norm_backward(const Tensor& grad, const Tensor& input, c10::IntArrayRef shape,
                          const Tensor& mean, const Tensor& rstd, const OptTensor& weight,
                          const OptTensor& bias, std::array<bool, 3> mask) {
  if (layer_usable(input, shape) && grad.scalar_type() == input.scalar_type()) {
    const int64_t axis = input.dim() - static_cast<int64_t>(shape.size());
    const OptTensor w = as_input(weight, input);
    const bool has_weight = w && mask[1], has_bias = bias && bias->defined() && mask[2];
    Tensor din, dweight, dbias;
    if (mask[0]) din = new_like(input, input.sizes());
    if (has_weight) dweight = new_like(input, shape);
    if (has_bias) dbias = new_like(input, shape);
    OpCall call(XHAL_OP_layer_norm_grad, input);
    call.attr("axis", axis).in(grad).in(input).in(mean).in(rstd).in(w);
    if (call.out(din).out(dweight).out(dbias).run()) {
      if (has_weight && weight->scalar_type() != dweight.scalar_type())
        dweight = dweight.to(weight->scalar_type());
      if (has_bias && bias->scalar_type() != dbias.scalar_type())
        dbias = dbias.to(bias->scalar_type());
      return {din, dweight, dbias};
    }
  }
  return on_host<at::_ops::native_layer_norm_backward>(grad, input, shape, mean, rstd, weight, bias,
                                                       mask);
}

// ---- group

Three group_norm(const Tensor& input, const OptTensor& weight, const OptTensor& bias, int64_t n,
                 int64_t c, int64_t hw, int64_t groups, double eps) {
  if (on_device(input) && input.numel() > 0) {
    const Tensor out = new_like(input, input.sizes(), input.suggest_memory_format());
    const Tensor mean = statistics(input, {n, groups}), rstd = statistics(input, {n, groups});
    const OptTensor w = as_input(weight, input), b = as_input(bias, input);
    OpCall call(XHAL_OP_group_norm, input);
    call.attr("groups", groups).attr("eps", eps).in(input).in(w).in(b);
    if (call.out(out).out(mean).out(rstd).run()) return {out, mean, rstd};
  }
  return on_host<at::_ops::native_group_norm>(input, weight, bias, n, c, hw, groups, eps);
}

Three group_norm_backward(const Tensor& grad, const Tensor& input, const Tensor& mean,
                          const Tensor& rstd, const OptTensor& weight, int64_t n, int64_t c,
                          int64_t hw, int64_t groups, std::array<bool, 3> mask) {
  if (on_device(input) && input.numel() > 0 && grad.scalar_type() == input.scalar_type()) {
    const OptTensor w = as_input(weight, input);
    Tensor din, dweight, dbias;
    if (mask[0]) din = new_like(input, input.sizes(), input.suggest_memory_format());
    if (mask[1]) dweight = new_like(input, {c});
    if (mask[2]) dbias = new_like(input, {c});
    OpCall call(XHAL_OP_group_norm_grad, input);
    call.attr("groups", groups).in(grad).in(input).in(mean).in(rstd).in(w);
    if (call.out(din).out(dweight).out(dbias).run()) {
      const auto type = weight && weight->defined() ? weight->scalar_type() : input.scalar_type();
      if (dweight.defined()) dweight = dweight.to(type);
      if (dbias.defined()) dbias = dbias.to(type);
      return {din, dweight, dbias};
    }
  }
  return on_host<at::_ops::native_group_norm_backward>(grad, input, mean, rstd, weight, n, c, hw,
                                                       groups, mask);
}

// ---- batch

bool run_batch_norm(const Tensor& input, const OptTensor& weight, const OptTensor& bias,
                    const OptTensor& mean, const OptTensor& var, bool training, double momentum,
                    double eps, Three& result) {
  if (!on_device(input) || input.numel() == 0 || input.dim() < 2) return false;
  const int64_t channels = training ? input.size(1) : 0;
  const Tensor out = new_like(input, input.sizes(), input.suggest_memory_format());
  const Tensor save_mean = statistics(input, {channels}), save_rstd = statistics(input, {channels});
  const OptTensor w = as_input(weight, input), b = as_input(bias, input);
  OpCall call(XHAL_OP_batch_norm, input);
  call.attr("training", training).attr("eps", eps).attr("momentum", momentum);
  call.in(input).in(w).in(b).in(mean).in(var).out(out);
  if (training) {
    call.out(save_mean).out(save_rstd);
  } else {
    call.absent().absent();
  }
  if (!call.run()) return false;
  result = {out, save_mean, save_rstd};
  return true;
}

Three batch_norm(const Tensor& input, const OptTensor& weight, const OptTensor& bias,
                 const OptTensor& mean, const OptTensor& var, bool training, double momentum,
                 double eps) {
  Three result;
  if (run_batch_norm(input, weight, bias, mean, var, training, momentum, eps, result))
    return result;
  return on_host<at::_ops::native_batch_norm>(input, weight, bias, mean, var, training, momentum,
                                              eps);
}
Three batch_norm_legit(const Tensor& input, const OptTensor& weight, const OptTensor& bias,
                       Tensor& mean, Tensor& var, bool training, double momentum, double eps) {
  Three result;
  if (run_batch_norm(input, weight, bias, mean, var, training, momentum, eps, result))
    return result;
  return on_host<at::_ops::_native_batch_norm_legit>(input, weight, bias, mean, var, training,
                                                     momentum, eps);
}
Three batch_norm_no_stats(const Tensor& input, const OptTensor& weight, const OptTensor& bias,
                          bool training, double momentum, double eps) {
  Three result;
  if (run_batch_norm(input, weight, bias, {}, {}, training, momentum, eps, result)) return result;
  return on_host<at::_ops::_native_batch_norm_legit_no_stats>(input, weight, bias, training,
                                                              momentum, eps);
}

Three batch_norm_backward(const Tensor& grad, const Tensor& input, const OptTensor& weight,
                          const OptTensor& mean, const OptTensor& var, const OptTensor& save_mean,
                          const OptTensor& save_rstd, bool training, double eps,
                          std::array<bool, 3> mask) {
  if (on_device(input) && input.numel() > 0 && grad.scalar_type() == input.scalar_type()) {
    const OptTensor w = as_input(weight, input);
    const c10::IntArrayRef channels(input.sizes().data() + 1, 1);
    Tensor din, dweight, dbias;
    if (mask[0]) din = new_like(input, input.sizes(), input.suggest_memory_format());
    if (mask[1]) dweight = new_like(input, channels);
    if (mask[2]) dbias = new_like(input, channels);
    OpCall call(XHAL_OP_batch_norm_grad, input);
    call.attr("training", training).attr("eps", eps).in(grad).in(input).in(w);
    if (training) {
      call.absent().absent().in(save_mean).in(save_rstd);
    } else {
      call.in(mean).in(var).absent().absent();
    }
    if (call.out(din).out(dweight).out(dbias).run()) {
      const auto type = weight && weight->defined() ? weight->scalar_type() : input.scalar_type();
      if (dweight.defined()) dweight = dweight.to(type);
      if (dbias.defined()) dbias = dbias.to(type);
      return {din, dweight, dbias};
    }
  }
  return on_host<at::_ops::native_batch_norm_backward>(grad, input, weight, mean, var, save_mean,
                                                       save_rstd, training, eps, mask);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<native_layer_norm, &layer_norm>(m);
  native<native_layer_norm_backward, &layer_norm_backward>(m);
  native<native_group_norm, &group_norm>(m);
  native<native_group_norm_backward, &group_norm_backward>(m);
  native<native_batch_norm, &batch_norm>(m);
  native<_native_batch_norm_legit, &batch_norm_legit>(m);
  native<_native_batch_norm_legit_no_stats, &batch_norm_no_stats>(m);
  native<native_batch_norm_backward, &batch_norm_backward>(m);
}

}  // namespace xhal_torch
