// SPDX-License-Identifier: Apache-2.0
#include "conv_on_host.h"

#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>

#include "copy.h"
#include "dtype.h"
#include "fallback.h"
#include "operands.h"

namespace xhal_torch {
namespace {

at::Tensor back(const at::Tensor& host, const at::Tensor& like) {
  return host.defined() ? to_device(host.contiguous(), like.device()) : host;
}

// The kernel gives no reason of its own where a type is not the device's or nothing is computed.
std::string reason(const std::string& refusal, const at::Tensor& input) {
  if (!refusal.empty()) return refusal;
  const bool native = is_native(input.scalar_type());
  return host_reason(native ? c10::ScalarType::Undefined : input.scalar_type());
}

}  // namespace

at::Tensor convolution_on_host(const at::Tensor& input, const at::Tensor& weight,
                               const std::optional<at::Tensor>& bias, c10::IntArrayRef stride,
                               c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed,
                               c10::IntArrayRef output_padding, int64_t groups) {
  const std::string refusal = take_refusal();
  expect_device(weight, input.device(), "weight", "convolution");
  std::optional<at::Tensor> host_bias;
  if (bias && bias->defined()) {
    expect_device(*bias, input.device(), "bias", "convolution");
    host_bias = to_host(*bias);
  }
  const at::Tensor made = at::convolution(to_host(input), to_host(weight), host_bias, stride,
                                          padding, dilation, transposed, output_padding, groups);
  note_fallback("aten::convolution_overrideable", reason(refusal, input));
  return back(made, input);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward_on_host(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight,
    c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed,
    c10::IntArrayRef output_padding, int64_t groups, std::array<bool, 3> mask) {
  const std::string refusal = take_refusal();
  expect_device(weight, input.device(), "weight", "convolution_backward");
  expect_device(grad, input.device(), "grad_output", "convolution_backward");
  const int64_t channels = grad.size(1);
  auto [dinput, dweight, dbias] =
      at::convolution_backward(to_host(grad), to_host(input), to_host(weight), channels, stride,
                               padding, dilation, transposed, output_padding, groups, mask);
  note_fallback("aten::convolution_backward_overrideable", reason(refusal, input));
  return {back(dinput, input), back(dweight, input), back(dbias, input)};
}

}  // namespace xhal_torch
