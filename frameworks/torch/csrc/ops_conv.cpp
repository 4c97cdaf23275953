// SPDX-License-Identifier: Apache-2.0
// Convolution, pooling and resampling of planes.
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_adaptive_avg_pool2d_backward_ops.h>
#include <ATen/ops/_adaptive_avg_pool2d_ops.h>
#include <ATen/ops/avg_pool2d_backward_ops.h>
#include <ATen/ops/avg_pool2d_ops.h>
#include <ATen/ops/convolution_backward_overrideable_ops.h>
#include <ATen/ops/convolution_overrideable_ops.h>
#include <ATen/ops/max_pool2d_with_indices_backward_ops.h>
#include <ATen/ops/max_pool2d_with_indices_ops.h>
#include <ATen/ops/upsample_bilinear2d_backward_ops.h>
#include <ATen/ops/upsample_bilinear2d_ops.h>
#include <ATen/ops/upsample_nearest2d_backward_ops.h>
#include <ATen/ops/upsample_nearest2d_ops.h>
#include <xhal/shape.hpp>

#include <algorithm>

#include "conv_on_host.h"
#include "native.h"
#include "op_call.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using c10::IntArrayRef;
using OptTensor = std::optional<Tensor>;
using OptDouble = std::optional<double>;
using Ints = c10::SmallVector<int64_t, 4>;
using Sizes = c10::SmallVector<int64_t, 8>;

// A result without elements may be a window that does not fit: torch's own kernel says so.
bool has_elements(const Sizes& sizes) {
  return std::all_of(sizes.begin(), sizes.end(), [](int64_t size) { return size > 0; });
}

// ---- convolution

void set_geometry(OpCall& call, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                  bool transposed, IntArrayRef output_padding, int64_t groups) {
  call.attr("stride", stride)
      .attr("padding", padding)
      .attr("dilation", dilation)
      .attr("transposed", transposed)
      .attr("output_padding", output_padding)
      .attr("groups", groups);
}

Sizes convolved(const Tensor& input, const Tensor& weight, IntArrayRef stride, IntArrayRef padding,
                IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups) {
  Sizes sizes{input.size(0), transposed ? weight.size(1) * groups : weight.size(0)};
  for (int64_t d = 0; d + 2 < input.dim(); ++d) {
    const xhal::Window window{weight.size(d + 2), stride[d], padding[d], dilation[d]};
    const int64_t size = input.size(d + 2);
    sizes.push_back(transposed ? xhal::transposed_size(size, window, output_padding[d])
                               : xhal::convolved_size(size, window));
  }
  return sizes;
}

// The format of the results: channels last when the input or the weight lies so.
at::MemoryFormat conv_format(const Tensor& input, const Tensor& weight) {
  const auto format = input.suggest_memory_format();
  return format == at::MemoryFormat::Contiguous ? weight.suggest_memory_format() : format;
}

bool conv_usable(const Tensor& input, const Tensor& weight) {
  return is_float(input.scalar_type()) && weight.scalar_type() == input.scalar_type() &&
         input.dim() >= 3 && input.numel() > 0 && weight.numel() > 0;
}

Tensor convolution(const Tensor& input, const Tensor& weight, const OptTensor& bias,
                   IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, bool transposed,
                   IntArrayRef output_padding, int64_t groups) {
  if (conv_usable(input, weight)) {
    const Sizes sizes =
        convolved(input, weight, stride, padding, dilation, transposed, output_padding, groups);
    if (has_elements(sizes)) {
      const Tensor out = new_like(input, sizes, conv_format(input, weight));
      OpCall call(XHAL_OP_conv, input);
      set_geometry(call, stride, padding, dilation, transposed, output_padding, groups);
      if (call.in(input).in(weight).in(bias).out(out).run()) return out;
    }
  }
  return convolution_on_host(input, weight, bias, stride, padding, dilation, transposed,
                             output_padding, groups);
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(const Tensor& grad, const Tensor& input,
                                                        const Tensor& weight, IntArrayRef stride,
                                                        IntArrayRef padding, IntArrayRef dilation,
                                                        bool transposed, IntArrayRef output_padding,
                                                        int64_t groups, std::array<bool, 3> mask) {
  if (conv_usable(input, weight) && grad.scalar_type() == input.scalar_type()) {
    const at::MemoryFormat format = conv_format(input, weight);
    Tensor dinput, dweight, dbias;
    bool done = true;
    if (mask[0]) {
      dinput = new_like(input, input.sizes(), format);
      OpCall call(XHAL_OP_conv_grad_input, input);
      set_geometry(call, stride, padding, dilation, transposed, output_padding, groups);
      done = call.in(grad).in(weight).out(dinput).run();
    }
    if (done && mask[1]) {
      dweight = new_like(weight, weight.sizes(), format);
      if (mask[2]) dbias = new_like(weight, {grad.size(1)});
      OpCall call(XHAL_OP_conv_grad_weight, input);
      set_geometry(call, stride, padding, dilation, transposed, output_padding, groups);
      done = call.in(grad).in(input).out(dweight).out(dbias).run();
    } else if (done && mask[2]) {
      Sizes dims{0};
      for (int64_t d = 2; d < grad.dim(); ++d) dims.push_back(d);
      dbias = grad.sum(dims);
    }
    if (done) return {dinput, dweight, dbias};
  }
  return convolution_backward_on_host(grad, input, weight, stride, padding, dilation, transposed,
                                      output_padding, groups, mask);
}

// ---- pooling

Ints pair(IntArrayRef values, int64_t fallback) {
  if (values.empty()) return {fallback, fallback};
  return values.size() == 1 ? Ints{values[0], values[0]} : Ints(values.begin(), values.end());
}
Ints pair_or(IntArrayRef values, const Ints& fallback) {
  return values.empty() ? fallback : pair(values, 0);
}

int64_t pooled(int64_t input, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
               bool ceil) {
  if (kernel < 1 || stride < 1 || padding < 0 || dilation < 1) return 0;
  return xhal::pooled_size(input, {kernel, stride, padding, dilation}, ceil);
}

// Planes of a batch; a single sample is a batch of one.
Tensor batched(const Tensor& tensor) { return tensor.dim() == 3 ? tensor.unsqueeze(0) : tensor; }
bool planes(const Tensor& self) {
  return (self.dim() == 3 || self.dim() == 4) && is_float(self.scalar_type()) && self.numel() > 0;
}
Sizes with_plane(const Tensor& self, int64_t h, int64_t w) {
  Sizes sizes(self.sizes().begin(), self.sizes().end());
  sizes[sizes.size() - 2] = h;
  sizes[sizes.size() - 1] = w;
  return sizes;
}

std::tuple<Tensor&, Tensor&> max_pool_out(const Tensor& self, IntArrayRef kernel,
                                          IntArrayRef stride, IntArrayRef padding,
                                          IntArrayRef dilation, bool ceil, Tensor& out,
                                          Tensor& indices) {
  if (planes(self)) {
    const Ints k = pair(kernel, 1), s = pair_or(stride, k), p = pair(padding, 0),
               d = pair(dilation, 1);
    const Sizes sizes = with_plane(self, pooled(self.size(-2), k[0], s[0], p[0], d[0], ceil),
                                   pooled(self.size(-1), k[1], s[1], p[1], d[1], ceil));
    if (has_elements(sizes)) {
      at::native::resize_output(out, sizes);
      at::native::resize_output(indices, sizes);
      const Tensor from = batched(self), to = batched(out), where = batched(indices);
      OpCall call(XHAL_OP_max_pool, self);
      call.attr("kernel", k)
          .attr("stride", s)
          .attr("padding", p)
          .attr("dilation", d)
          .attr("ceil", ceil);
      if (call.in(from).out(to).out(where).run()) return {out, indices};
    }
  }
  return on_host<at::_ops::max_pool2d_with_indices_out>(self, kernel, stride, padding, dilation,
                                                        ceil, out, indices);
}

Tensor& max_pool_backward_out(const Tensor& grad, const Tensor& self, IntArrayRef kernel,
                              IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                              bool ceil, const Tensor& indices, Tensor& out) {
  if (planes(self) && grad.scalar_type() == self.scalar_type()) {
    at::native::resize_output(out, self.sizes());
    const Tensor from = batched(grad), to = batched(out), where = batched(indices);
    OpCall call(XHAL_OP_max_pool_grad, self);
    if (call.in(from).in(where).out(to).run()) return out;
  }
  return on_host<at::_ops::max_pool2d_with_indices_backward_grad_input>(
      grad, self, kernel, stride, padding, dilation, ceil, indices, out);
}

void set_average(OpCall& call, const Ints& k, const Ints& s, const Ints& p, bool ceil,
                 bool count_padding, std::optional<int64_t> divisor) {
  call.attr("kernel", k)
      .attr("stride", s)
      .attr("padding", p)
      .attr("ceil", ceil)
      .attr("count_padding", count_padding)
      .attr("divisor", divisor.value_or(0));
}

Tensor& avg_pool_out(const Tensor& self, IntArrayRef kernel, IntArrayRef stride,
                     IntArrayRef padding, bool ceil, bool count_padding,
                     std::optional<int64_t> divisor, Tensor& out) {
  if (planes(self)) {
    const Ints k = pair(kernel, 1), s = pair_or(stride, k), p = pair(padding, 0);
    const Sizes sizes = with_plane(self, pooled(self.size(-2), k[0], s[0], p[0], 1, ceil),
                                   pooled(self.size(-1), k[1], s[1], p[1], 1, ceil));
    if (has_elements(sizes)) {
      at::native::resize_output(out, sizes);
      const Tensor from = batched(self), to = batched(out);
      OpCall call(XHAL_OP_avg_pool, self);
      set_average(call, k, s, p, ceil, count_padding, divisor);
      if (call.in(from).out(to).run()) return out;
    }
  }
  return on_host<at::_ops::avg_pool2d_out>(self, kernel, stride, padding, ceil, count_padding,
                                           divisor, out);
}

Tensor& avg_pool_backward_out(const Tensor& grad, const Tensor& self, IntArrayRef kernel,
                              IntArrayRef stride, IntArrayRef padding, bool ceil,
                              bool count_padding, std::optional<int64_t> divisor, Tensor& out) {
  if (planes(self) && grad.scalar_type() == self.scalar_type()) {
    const Ints k = pair(kernel, 1), s = pair_or(stride, k), p = pair(padding, 0);
    at::native::resize_output(out, self.sizes());
    const Tensor from = batched(grad), to = batched(out);
    OpCall call(XHAL_OP_avg_pool_grad, self);
    set_average(call, k, s, p, ceil, count_padding, divisor);
    if (call.in(from).out(to).run()) return out;
  }
  return on_host<at::_ops::avg_pool2d_backward_grad_input>(grad, self, kernel, stride, padding,
                                                           ceil, count_padding, divisor, out);
}

Tensor adaptive_pool(const Tensor& self, IntArrayRef size) {
  if (planes(self)) {
    Tensor out = new_like(self, with_plane(self, size[0], size[1]), self.suggest_memory_format());
    const Tensor from = batched(self), to = batched(out);
    OpCall call(XHAL_OP_adaptive_avg_pool, self);
    if (call.in(from).out(to).run()) return out;
  }
  return on_host<at::_ops::_adaptive_avg_pool2d>(self, size);
}
Tensor adaptive_pool_backward(const Tensor& grad, const Tensor& self) {
  if (planes(self) && grad.scalar_type() == self.scalar_type()) {
    Tensor out = new_like(self, self.sizes(), self.suggest_memory_format());
    const Tensor from = batched(grad), to = batched(out);
    OpCall call(XHAL_OP_adaptive_avg_pool_grad, self);
    if (call.in(from).out(to).run()) return out;
  }
  return on_host<at::_ops::_adaptive_avg_pool2d_backward>(grad, self);
}

// ---- resampling

// The operators scale by the ratio of sizes; torch may have been given another factor.
bool plain_scale(IntArrayRef input, IntArrayRef output, OptDouble h, OptDouble w) {
  const auto same = [](int64_t in, int64_t out, OptDouble scale) {
    return !scale || static_cast<double>(in) * *scale == static_cast<double>(out);
  };
  return same(input[2], output[0], h) && same(input[3], output[1], w);
}

Tensor& nearest_out(const Tensor& self, IntArrayRef size, OptDouble h, OptDouble w, Tensor& out) {
  if (self.dim() == 4 && planes(self) && plain_scale(self.sizes(), size, h, w)) {
    at::native::resize_output(out, with_plane(self, size[0], size[1]));
    OpCall call(XHAL_OP_upsample_nearest, self);
    if (call.in(self).out(out).run()) return out;
  }
  return on_host<at::_ops::upsample_nearest2d_out>(self, size, h, w, out);
}
Tensor& nearest_backward_out(const Tensor& grad, IntArrayRef size, IntArrayRef input, OptDouble h,
                             OptDouble w, Tensor& out) {
  if (grad.dim() == 4 && planes(grad) && plain_scale(input, size, h, w)) {
    at::native::resize_output(out, input);
    OpCall call(XHAL_OP_upsample_nearest_grad, grad);
    if (call.in(grad).out(out).run()) return out;
  }
  return on_host<at::_ops::upsample_nearest2d_backward_grad_input>(grad, size, input, h, w, out);
}
Tensor& bilinear_out(const Tensor& self, IntArrayRef size, bool corners, OptDouble h, OptDouble w,
                     Tensor& out) {
  if (self.dim() == 4 && planes(self) && (corners || plain_scale(self.sizes(), size, h, w))) {
    at::native::resize_output(out, with_plane(self, size[0], size[1]));
    OpCall call(XHAL_OP_upsample_bilinear, self);
    if (call.attr("align_corners", corners).in(self).out(out).run()) return out;
  }
  return on_host<at::_ops::upsample_bilinear2d_out>(self, size, corners, h, w, out);
}
Tensor& bilinear_backward_out(const Tensor& grad, IntArrayRef size, IntArrayRef input, bool corners,
                              OptDouble h, OptDouble w, Tensor& out) {
  if (grad.dim() == 4 && planes(grad) && (corners || plain_scale(input, size, h, w))) {
    at::native::resize_output(out, input);
    OpCall call(XHAL_OP_upsample_bilinear_grad, grad);
    if (call.attr("align_corners", corners).in(grad).out(out).run()) return out;
  }
  return on_host<at::_ops::upsample_bilinear2d_backward_grad_input>(grad, size, input, corners, h,
                                                                    w, out);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<convolution_overrideable, &convolution>(m);
  native<convolution_backward_overrideable, &convolution_backward>(m);
  native<max_pool2d_with_indices_out, &max_pool_out>(m);
  native<max_pool2d_with_indices_backward_grad_input, &max_pool_backward_out>(m);
  native<avg_pool2d_out, &avg_pool_out>(m);
  native<avg_pool2d_backward_grad_input, &avg_pool_backward_out>(m);
  native<_adaptive_avg_pool2d, &adaptive_pool>(m);
  native<_adaptive_avg_pool2d_backward, &adaptive_pool_backward>(m);
  native<upsample_nearest2d_out, &nearest_out>(m);
  native<upsample_nearest2d_backward_grad_input, &nearest_backward_out>(m);
  native<upsample_bilinear2d_out, &bilinear_out>(m);
  native<upsample_bilinear2d_backward_grad_input, &bilinear_backward_out>(m);
}

}  // namespace xhal_torch
