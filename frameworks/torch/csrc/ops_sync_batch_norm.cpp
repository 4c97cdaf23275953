// SPDX-License-Identifier: Apache-2.0
// Batch normalisation over several ranks: the five operators that torch leaves to each backend.
// Statistics are f32 whatever the input's type.
#include <ATen/core/Tensor.h>
#include <ATen/ops/batch_norm_backward_elemt_ops.h>
#include <ATen/ops/batch_norm_backward_reduce_ops.h>
#include <ATen/ops/batch_norm_elemt_ops.h>
#include <ATen/ops/batch_norm_gather_stats_with_counts_ops.h>
#include <ATen/ops/batch_norm_stats_ops.h>
#include <ATen/ops/var_mean.h>

#include "native.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;
using Sizes = c10::SmallVector<int64_t, 8>;

Sizes all_but_channels(const Tensor& input) {
  Sizes dims;
  for (int64_t d = 0; d < input.dim(); ++d) {
    if (d != 1) dims.push_back(d);
  }
  return dims;
}

// A value for each channel, shaped to meet the input.
Tensor on_channels(const Tensor& value, const Tensor& input) {
  Sizes sizes(input.dim(), 1);
  sizes[1] = value.numel();
  return value.reshape(sizes);
}

std::tuple<Tensor, Tensor> batch_norm_stats(const Tensor& input, double eps) {
  auto [var, mean] = at::var_mean(input.to(at::kFloat), all_but_channels(input), /*correction=*/0);
  return {mean, var.add_(eps).rsqrt_()};
}

Tensor batch_norm_elemt(const Tensor& input, const OptTensor& weight, const OptTensor& bias,
                        const Tensor& mean, const Tensor& rstd, double) {
  Tensor out = input.to(at::kFloat).sub(on_channels(mean, input)).mul_(on_channels(rstd, input));
  if (weight && weight->defined()) out.mul_(on_channels(*weight, input));
  if (bias && bias->defined()) out.add_(on_channels(*bias, input));
  return out.to(input.scalar_type());
}

// Joins the statistics of all ranks (rows of mean and rstd) and lets the running ones follow.
std::tuple<Tensor, Tensor> batch_norm_gather(const Tensor&, const Tensor& mean, const Tensor& rstd,
                                             const OptTensor& running_mean,
                                             const OptTensor& running_var, double momentum,
                                             double eps, const Tensor& counts) {
  const Tensor share = counts.to(at::kFloat).reshape({-1, 1}), total = share.sum();
  const Tensor joint = mean.mul(share).sum(c10::IntArrayRef{0}).div_(total);
  const Tensor var = rstd.pow(-2)
                         .sub_(eps)
                         .add_(mean.sub(joint).square_())
                         .mul_(share)
                         .sum(c10::IntArrayRef{0})
                         .div_(total);
  if (running_mean && running_mean->defined())
    running_mean->mul_(1 - momentum).add_(joint, momentum);
  if (running_var && running_var->defined()) {
    running_var->mul_(1 - momentum).add_(var.mul(total).div_(total.sub(1)), momentum);
  }
  return {joint, var.add(eps).rsqrt_()};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_backward_reduce(
    const Tensor& grad, const Tensor& input, const Tensor& mean, const Tensor& rstd,
    const OptTensor& weight, bool, bool weight_g, bool bias_g) {
  const Sizes dims = all_but_channels(input);
  const Tensor dy = grad.to(at::kFloat),
               centred = input.to(at::kFloat).sub(on_channels(mean, input));
  const Tensor sum_dy = dy.sum(dims), sum_dy_xmu = dy.mul(centred).sum(dims);
  const auto type = weight && weight->defined() ? weight->scalar_type() : input.scalar_type();
  return {sum_dy, sum_dy_xmu, weight_g ? sum_dy_xmu.mul(rstd).to(type) : Tensor(),
          bias_g ? sum_dy.to(type) : Tensor()};
}

Tensor batch_norm_backward_elemt(const Tensor& grad, const Tensor& input, const Tensor& mean,
                                 const Tensor& rstd, const OptTensor& weight, const Tensor& sum_dy,
                                 const Tensor& sum_dy_xmu, const Tensor& count) {
  const Tensor total = count.to(at::kFloat).sum();
  const Tensor centred = input.to(at::kFloat).sub(on_channels(mean, input));
  Tensor dx = grad.to(at::kFloat).sub(on_channels(sum_dy.div(total), input));
  dx.sub_(centred.mul_(on_channels(rstd.square().mul_(sum_dy_xmu).div_(total), input)));
  dx.mul_(on_channels(weight && weight->defined() ? rstd.mul(*weight) : rstd, input));
  return dx.to(input.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<at::_ops::batch_norm_stats, &xhal_torch::batch_norm_stats>(m);
  native<at::_ops::batch_norm_elemt, &xhal_torch::batch_norm_elemt>(m);
  native<batch_norm_gather_stats_with_counts, &batch_norm_gather>(m);
  native<at::_ops::batch_norm_backward_reduce, &xhal_torch::batch_norm_backward_reduce>(m);
  native<at::_ops::batch_norm_backward_elemt, &xhal_torch::batch_norm_backward_elemt>(m);
}

}  // namespace xhal_torch
