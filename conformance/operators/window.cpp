// SPDX-License-Identifier: Apache-2.0
// Convolutions, pooling and interpolation.
#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Problem;
using ref::Sizes;
using ref::Tensor;
using Problems = std::vector<Problem>;

struct Convolution {
  const char* note;
  Sizes in;  // [n, ci, ...]
  int64_t out_channels;
  Sizes kernel;
  std::vector<int64_t> stride, padding, dilation;
  bool transposed = false;
  std::vector<int64_t> output_padding = {};
  int64_t groups = 1;
};

std::vector<Convolution> convolutions(const Maker& m) {
  std::vector<Convolution> list = {
      {"3x3", {2, 4, 8, 8}, 6, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
      {"1x1", {2, 8, 6, 6}, 4, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
      {"stride 2", {2, 3, 9, 10}, 5, {3, 2}, {2, 2}, {1, 0}, {1, 1}},
      {"dilated", {1, 4, 11, 11}, 4, {3, 3}, {1, 1}, {2, 2}, {2, 2}},
      {"grouped", {2, 6, 7, 7}, 4, {3, 3}, {1, 1}, {1, 1}, {1, 1}, false, {}, 2},
      {"depthwise", {2, 8, 7, 7}, 8, {3, 3}, {1, 1}, {1, 1}, {1, 1}, false, {}, 8},
      {"one dim", {2, 4, 16}, 6, {5}, {2}, {2}, {1}},
      {"three dims", {1, 3, 5, 6, 5}, 4, {2, 3, 2}, {1, 2, 1}, {0, 1, 0}, {1, 1, 1}},
      {"transposed", {2, 4, 5, 5}, 6, {3, 3}, {2, 2}, {1, 1}, {1, 1}, true, {1, 1}},
      {"transposed, grouped", {1, 6, 4, 4}, 4, {2, 2}, {2, 2}, {0, 0}, {1, 1}, true, {}, 2},
  };
  if (m.is(Case::odd)) {
    list.push_back({"odd channels", {1, 17, 9, 13}, 19, {3, 3}, {1, 1}, {1, 1}, {1, 1}});
    list.push_back({"wide kernel", {1, 3, 12, 12}, 2, {7, 5}, {3, 2}, {3, 2}, {1, 1}});
  }
  return list;
}

Sizes conv_output(const Convolution& c) {
  Sizes out = {c.in[0], c.out_channels};
  for (size_t d = 0; d < c.kernel.size(); ++d) {
    const int64_t reach = c.dilation[d] * (c.kernel[d] - 1) + 1;
    const int64_t extra = c.output_padding.empty() ? 0 : c.output_padding[d];
    out.push_back(c.transposed ? (c.in[2 + d] - 1) * c.stride[d] - 2 * c.padding[d] + reach + extra
                               : (c.in[2 + d] + 2 * c.padding[d] - reach) / c.stride[d] + 1);
  }
  return out;
}

Sizes conv_weight(const Convolution& c) {
  Sizes weight = c.transposed ? Sizes{c.in[1], c.out_channels / c.groups}
                              : Sizes{c.out_channels, c.in[1] / c.groups};
  weight.insert(weight.end(), c.kernel.begin(), c.kernel.end());
  return weight;
}

enum class Pass { forward, input, weight };

Problems conv_problems(Maker& m, Pass pass) {
  Problems problems;
  for (auto c : convolutions(m)) {
    if (m.is(Case::empty)) c.in[0] = 0;
    const auto out = conv_output(c), weight = conv_weight(c);
    Problem p;
    p.note = c.note;
    p.attributes = {list(0, c.stride),        list(1, c.padding),        list(2, c.dilation),
                    integer(3, c.transposed), list(4, c.output_padding), integer(5, c.groups)};
    switch (pass) {
      case Pass::forward:
        p.inputs = {{m.real(c.in, -1, 1)}, {m.real(weight, -1, 1)}, {}};
        if (c.groups == 1) p.inputs[2] = {m.real({c.out_channels}, -1, 1)};
        p.outputs = {{output(m.dtype, out)}};
        break;
      case Pass::input:
        p.inputs = {{m.real(out, -1, 1)}, {m.real(weight, -1, 1)}};
        p.outputs = {{output(m.dtype, c.in)}};
        break;
      case Pass::weight:
        p.inputs = {{m.real(out, -1, 1)}, {m.real(c.in, -1, 1)}};
        p.outputs = {{output(m.dtype, weight)}, {}};
        if (c.groups == 1) p.outputs[1] = {output(m.dtype, {c.out_channels})};
        break;
    }
    problems.push_back(p);
  }
  return problems;
}

struct Window {
  const char* note;
  std::vector<int64_t> kernel, stride, padding, dilation;
  bool ceil = false, count_padding = true;
  int64_t divisor = 0;
};

const Window kWindows[] = {
    {"2x2", {2, 2}, {2, 2}, {0, 0}, {1, 1}},
    {"3x3, overlapping, padded", {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {"3x2, stride 2, ceil", {3, 2}, {2, 2}, {1, 0}, {1, 1}, true, false},
    {"default stride", {2, 3}, {}, {}, {}},
    {"padding not counted", {3, 3}, {2, 2}, {1, 1}, {1, 1}, false, false},
    {"own divisor", {2, 2}, {2, 2}, {0, 0}, {1, 1}, false, true, 3},
    {"dilated", {2, 3}, {1, 2}, {0, 1}, {2, 2}},
};

// PyTorch's rule: in ceil mode the last window must begin inside the input or its left padding.
int64_t pooled(int64_t size, const Window& w, size_t d) {
  const int64_t stride = w.stride.empty() ? w.kernel[d] : w.stride[d],
                padding = w.padding.empty() ? 0 : w.padding[d];
  const int64_t dilation = w.dilation.empty() ? 1 : w.dilation[d];
  const int64_t span = size + 2 * padding - dilation * (w.kernel[d] - 1) - 1;
  int64_t out = (span + (w.ceil ? stride - 1 : 0)) / stride + 1;
  if (w.ceil && (out - 1) * stride >= size + padding) --out;
  return out;
}

Problems max_pool_problems(Maker& m, bool backward) {
  Problems problems;
  for (const auto& w : kWindows) {
    if (w.divisor != 0) continue;
    const auto in = m.shape({2, 4, 10, 12});
    const Sizes out = {in[0], in[1], pooled(in[2], w, 0), pooled(in[3], w, 1)};
    Problem p;
    p.note = w.note;
    p.attributes = {list(0, w.kernel), list(1, w.stride), list(2, w.padding), list(3, w.dilation),
                    integer(4, w.ceil)};
    p.inputs = {{m.real(in)}};
    p.outputs = {{output(m.dtype, out)}, {output(DType::i64, out)}};
    if (!backward) {
      problems.push_back(p);
      p.note += ", no index";
      p.outputs[1].clear();
      problems.push_back(p);
      continue;
    }
    p.op = XHAL_OP_max_pool;
    auto index = ref::max_pool(p).outputs[1][0];
    index.broadcast_dim = Tensor::kNoDim;
    p.attributes.clear();
    p.inputs = {{m.real(out)}, {index}};
    p.outputs = {{output(m.dtype, in)}};
    problems.push_back(p);
  }
  return problems;
}

Problems avg_pool_problems(Maker& m, bool backward) {
  Problems problems;
  for (const auto& w : kWindows) {
    if (!w.dilation.empty() && w.dilation[0] != 1) continue;
    const auto in = m.shape({2, 4, 10, 12});
    const Sizes out = {in[0], in[1], pooled(in[2], w, 0), pooled(in[3], w, 1)};
    Problem p;
    p.note = w.note;
    p.attributes = {list(0, w.kernel),  list(1, w.stride),           list(2, w.padding),
                    integer(3, w.ceil), integer(4, w.count_padding), integer(5, w.divisor)};
    p.inputs = {{m.real(backward ? out : in)}};
    p.outputs = {{output(m.dtype, backward ? in : out)}};
    problems.push_back(p);
  }
  return problems;
}

// Operators that map a plane [h, w] to another size, both ways.
Problems resize_problems(Maker& m, bool backward, bool has_corners) {
  struct Sized {
    int64_t h, w, oh, ow;
  };
  Problems problems;
  for (const auto& s : {Sized{8, 8, 4, 2}, Sized{6, 10, 12, 20}, Sized{5, 7, 8, 16},
                        Sized{7, 5, 1, 1}, Sized{4, 6, 4, 6}}) {
    for (const int64_t corners : {0, 1}) {
      if (corners == 1 && !has_corners) continue;
      const auto batch = m.shape({2, 4});
      const Sizes in = {batch[0], batch[1], s.h, s.w}, out = {batch[0], batch[1], s.oh, s.ow};
      Problem p;
      p.note = std::to_string(s.h) + "x" + std::to_string(s.w) + " to " + std::to_string(s.oh) +
               "x" + std::to_string(s.ow) + (corners ? ", corners" : "");
      if (has_corners) p.attributes = {integer(0, corners)};
      p.inputs = {{m.real(backward ? out : in)}};
      p.outputs = {{output(m.dtype, backward ? in : out)}};
      problems.push_back(p);
    }
  }
  return problems;
}

}  // namespace

void add_window_tests(OpTests& tests) {
  const auto add = [&](uint32_t id, auto problems, ref::Reference reference) {
    tests.push_back({id, dtypes_of('F'), problems, reference, kAllCases, false, {}});
  };
  add(
      XHAL_OP_conv, [](Maker& m) { return conv_problems(m, Pass::forward); }, ref::conv);
  add(
      XHAL_OP_conv_grad_input, [](Maker& m) { return conv_problems(m, Pass::input); },
      ref::conv_grad_input);
  add(
      XHAL_OP_conv_grad_weight, [](Maker& m) { return conv_problems(m, Pass::weight); },
      ref::conv_grad_weight);
  add(
      XHAL_OP_max_pool, [](Maker& m) { return max_pool_problems(m, false); }, ref::max_pool);
  add(
      XHAL_OP_max_pool_grad, [](Maker& m) { return max_pool_problems(m, true); },
      ref::max_pool_grad);
  add(
      XHAL_OP_avg_pool, [](Maker& m) { return avg_pool_problems(m, false); }, ref::avg_pool);
  add(
      XHAL_OP_avg_pool_grad, [](Maker& m) { return avg_pool_problems(m, true); }, ref::avg_pool);
  add(
      XHAL_OP_adaptive_avg_pool, [](Maker& m) { return resize_problems(m, false, false); },
      ref::avg_pool);
  add(
      XHAL_OP_adaptive_avg_pool_grad, [](Maker& m) { return resize_problems(m, true, false); },
      ref::avg_pool);
  add(
      XHAL_OP_upsample_nearest, [](Maker& m) { return resize_problems(m, false, false); },
      ref::upsample_nearest);
  add(
      XHAL_OP_upsample_nearest_grad, [](Maker& m) { return resize_problems(m, true, false); },
      ref::upsample_nearest);
  add(
      XHAL_OP_upsample_bilinear, [](Maker& m) { return resize_problems(m, false, true); },
      ref::upsample_bilinear);
  add(
      XHAL_OP_upsample_bilinear_grad, [](Maker& m) { return resize_problems(m, true, true); },
      ref::upsample_bilinear);
}

}  // namespace xhal::cts
