// SPDX-License-Identifier: Apache-2.0
// conv_test.cpp: convolutions and their gradients against float64.
#include <gtest/gtest.h>

#include "kernel_harness.hpp"

namespace xhal::cpu::test {
namespace {

struct Case {
  int64_t n, in_channels, out_channels, groups;
  Sizes size, kernel, stride, padding, dilation;
  bool transposed = false;
  Sizes output_padding = {};
};

class Conv {
 public:
  Case c;
  DType type;
  Sizes out_size;
  Tensor in, weights, bias, out, grad, din, dweight, dbias;

  Conv(Case with, DType t) : c(std::move(with)), type(t) {
    const size_t spatial = c.size.size();
    if (c.output_padding.empty()) c.output_padding.assign(spatial, 0);
    Sizes in_sizes{c.n, c.in_channels}, out_sizes{c.n, c.out_channels};
    Sizes w{c.transposed ? c.in_channels : c.out_channels,
            (c.transposed ? c.out_channels : c.in_channels) / c.groups};
    for (size_t d = 0; d < spatial; ++d) {
      const int64_t reach = c.dilation[d] * (c.kernel[d] - 1) + 1;
      out_size.push_back(c.transposed ? (c.size[d] - 1) * c.stride[d] - 2 * c.padding[d] + reach +
                                            c.output_padding[d]
                                      : (c.size[d] + 2 * c.padding[d] - reach) / c.stride[d] + 1);
      in_sizes.push_back(c.size[d]);
      out_sizes.push_back(out_size[d]);
      w.push_back(c.kernel[d]);
    }
    in = Tensor::random(type, in_sizes, 1);
    weights = Tensor::random(type, w, 2);
    bias = Tensor::random(type, {c.out_channels}, 3);
    grad = Tensor::random(type, out_sizes, 4);
    out = Tensor(type, out_sizes);
    din = Tensor(type, in_sizes);
    dweight = Tensor(type, w);
    dbias = Tensor(type, {c.out_channels});
  }

  Call& attributes(Call& call) const {
    return call.attr_list(0, c.stride)
        .attr_list(1, c.padding)
        .attr_list(2, c.dilation)
        .attr(3, c.transposed)
        .attr_list(4, c.output_padding)
        .attr(5, c.groups);
  }
  void run(int threads) {
    Call forward(XHAL_OP_conv);
    attributes(forward.add(in).add(weights).add(bias).add(out));
    ASSERT_EQ(forward.run(threads), XHAL_OK) << forward.error;
    Call input(XHAL_OP_conv_grad_input);
    attributes(input.add(grad).add(weights).add(din));
    ASSERT_EQ(input.run(threads), XHAL_OK) << input.error;
    Call weight(XHAL_OP_conv_grad_weight);
    attributes(weight.add(grad).add(in).add(dweight).add(dbias));
    ASSERT_EQ(weight.run(threads), XHAL_OK) << weight.error;
  }

  // f(flat positions in in, weights and out) for every product of the convolution.
  template <class F>
  void for_each_product(F&& f) const {
    const size_t spatial = c.size.size();
    const int64_t in_group = c.in_channels / c.groups, out_group = c.out_channels / c.groups;
    int64_t in_plane = 1, out_plane = 1, window = 1;
    for (size_t d = 0; d < spatial; ++d)
      in_plane *= c.size[d], out_plane *= out_size[d], window *= c.kernel[d];
    // x is the larger image of the untransposed convolution, y the other one.
    const Sizes& y_size = c.transposed ? c.size : out_size;
    const Sizes& x_size = c.transposed ? out_size : c.size;
    const int64_t y_plane = c.transposed ? in_plane : out_plane;
    for (int64_t p = 0; p < y_plane; ++p)
      for (int64_t k = 0; k < window; ++k) {
        int64_t x_at = 0, step = 1, rest = p, rest_k = k;
        bool inside = true;
        for (size_t d = spatial; d-- > 0;) {
          const int64_t x =
              rest % y_size[d] * c.stride[d] - c.padding[d] + rest_k % c.kernel[d] * c.dilation[d];
          inside &= x >= 0 && x < x_size[d];
          x_at += x * step;
          step *= x_size[d];
          rest /= y_size[d];
          rest_k /= c.kernel[d];
        }
        if (!inside) continue;
        for (int64_t n = 0; n < c.n; ++n)
          for (int64_t g = 0; g < c.groups; ++g)
            for (int64_t i = 0; i < in_group; ++i)
              for (int64_t o = 0; o < out_group; ++o) {
                const int64_t ci = g * in_group + i, co = g * out_group + o;
                const int64_t w = c.transposed ? (ci * out_group + o) * window + k
                                               : (co * in_group + i) * window + k;
                f((n * c.in_channels + ci) * in_plane + (c.transposed ? p : x_at), w,
                  (n * c.out_channels + co) * out_plane + (c.transposed ? x_at : p));
              }
      }
  }

  void check() const {
    struct Sum {
      std::vector<double> value, magnitude;
      explicit Sum(const Tensor& t)
          : value(static_cast<size_t>(t.count())), magnitude(value.size()) {}
      void add(int64_t at, double x) {
        value[static_cast<size_t>(at)] += x;
        magnitude[static_cast<size_t>(at)] += std::abs(x);
      }
    };
    Sum o(out), gi(din), gw(dweight), gb(dbias);
    const auto x = in.values(), w = weights.values(), g = grad.values();
    for_each_product([&](int64_t i, int64_t k, int64_t to) {
      const double a = x[static_cast<size_t>(i)], b = w[static_cast<size_t>(k)],
                   d = g[static_cast<size_t>(to)];
      o.add(to, a * b);
      gi.add(i, b * d);
      gw.add(k, a * d);
    });
    const int64_t plane =
        std::max<int64_t>(1, out.count() / std::max<int64_t>(1, c.n * c.out_channels));
    for (int64_t i = 0; i < out.count(); ++i) {
      o.add(i, bias[i / plane % c.out_channels]);
      gb.add(i / plane % c.out_channels, g[static_cast<size_t>(i)]);
    }
    const auto compare = [&](const Tensor& got, const Sum& want, const char* name) {
      for (int64_t i = 0; i < got.count(); ++i) {
        const auto at = static_cast<size_t>(i);
        ASSERT_NEAR(
            got[i], want.value[at],
            2 * unit_roundoff(type) * std::abs(want.value[at]) + 1e-5 * want.magnitude[at] + 1e-7)
            << name << " at " << i;
      }
    };
    compare(out, o, "out");
    compare(din, gi, "din");
    compare(dweight, gw, "dweight");
    compare(dbias, gb, "dbias");
  }
};

class ConvTest : public testing::TestWithParam<DType> {
 protected:
  void check(const Case& c) {
    Conv conv(c, GetParam());
    conv.run(2);
    if (!HasFatalFailure()) conv.check();
  }
};
std::string dtype_name(const testing::TestParamInfo<DType>& info) {
  return std::string(name_of(info.param));
}
INSTANTIATE_TEST_SUITE_P(, ConvTest, testing::Values(DType::f32, DType::bf16, DType::f16),
                         dtype_name);

TEST_P(ConvTest, TwoDimensionsWithPaddingStrideAndDilation) {
  check({2, 5, 7, 1, {9, 8}, {3, 3}, {1, 1}, {1, 1}, {1, 1}});
  check({3, 3, 16, 1, {11, 10}, {3, 2}, {2, 1}, {1, 0}, {1, 2}});
  check({1, 1, 1, 1, {1, 1}, {1, 1}, {1, 1}, {0, 0}, {1, 1}});
  check({17, 4, 8, 1, {6, 7}, {1, 1}, {1, 1}, {0, 0}, {1, 1}});
}

TEST_P(ConvTest, OneAndThreeDimensions) {
  check({2, 6, 5, 1, {19}, {5}, {2}, {2}, {1}});
  check({2, 3, 4, 1, {5, 6, 4}, {3, 2, 3}, {1, 2, 1}, {1, 0, 1}, {1, 1, 1}});
}

TEST_P(ConvTest, GroupsAndDepthwise) {
  check({2, 6, 4, 2, {7, 7}, {3, 3}, {1, 1}, {1, 1}, {1, 1}});
  check({2, 12, 12, 12, {8, 7}, {3, 3}, {2, 2}, {1, 1}, {1, 1}});
  check({2, 4, 8, 4, {8, 7}, {3, 3}, {1, 1}, {1, 1}, {1, 1}});
}

TEST_P(ConvTest, Transposed) {
  check({2, 5, 7, 1, {6, 5}, {3, 3}, {2, 2}, {1, 1}, {1, 1}, true, {1, 0}});
  check({2, 6, 4, 2, {6, 5}, {4, 4}, {2, 2}, {1, 1}, {1, 1}, true});
  check({1, 3, 2, 1, {7}, {3}, {1}, {0}, {2}, true});
  check({1, 2, 3, 1, {3, 4, 3}, {2, 2, 3}, {2, 1, 1}, {0, 0, 1}, {1, 1, 1}, true});
}

TEST_P(ConvTest, FewImagesAreCutByChannels) {
  check({1, 40, 80, 1, {20, 20}, {3, 3}, {1, 1}, {1, 1}, {1, 1}});
  check({1, 80, 40, 1, {20, 20}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, true});
}

TEST_P(ConvTest, ImagesMayBeChannelsLastTransposedOrWithGaps) {
  for (const auto& order : {std::vector<size_t>{0, 2, 3, 1}, {1, 0, 3, 2}}) {
    Conv conv({3, 16, 24, 1, {9, 8}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}, GetParam());
    for (Tensor* t : {&conv.in, &conv.out, &conv.grad, &conv.din, &conv.weights, &conv.dweight})
      *t = t->stored_as(order);
    conv.run(2);
    if (HasFatalFailure()) return;
    conv.check();
  }
  Conv conv({3, 4, 5, 1, {9, 8}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}, GetParam());
  for (Tensor* t : {&conv.in, &conv.out, &conv.grad, &conv.din}) *t = t->spread(3).spread(1);
  conv.bias = conv.bias.spread(0);
  conv.dbias = conv.dbias.spread(0);
  conv.run(2);
  if (!HasFatalFailure()) conv.check();
}

TEST_P(ConvTest, AGradientMayBeBroadcast) {
  Conv conv({2, 3, 4, 1, {6, 6}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}, GetParam());
  Tensor one(GetParam(), {1, 1, 1, 1});
  one.fill([](int64_t) { return 0.5; });
  conv.grad = one.expanded(0, 2).expanded(1, 4).expanded(2, 6).expanded(3, 6);
  conv.run(1);
  if (!HasFatalFailure()) conv.check();
}

TEST_P(ConvTest, AnEmptyBatchGivesZeroGradients) {
  for (const bool transposed : {false, true}) {
    Conv conv({0, 3, 4, 1, {6, 6}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, transposed}, GetParam());
    conv.dweight.fill([](int64_t) { return 7; });
    conv.dbias.fill([](int64_t) { return 7; });
    conv.run(1);
    if (!HasFatalFailure()) conv.check();
  }
}

TEST_P(ConvTest, GivesTheSameBitsWithAnyNumberOfThreads) {
  std::vector<std::vector<char>> first;
  for (int threads = 1; threads <= 3; ++threads) {
    Conv conv({5, 16, 32, 1, {14, 14}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}, GetParam());
    conv.run(threads);
    const std::vector<std::vector<char>> bytes = {conv.out.bytes(), conv.din.bytes(),
                                                  conv.dweight.bytes(), conv.dbias.bytes()};
    if (threads == 1) first = bytes;
    EXPECT_EQ(bytes, first) << threads << " threads";
  }
}

TEST(ConvRefusal, SaysWhichSizeIsWrong) {
  Conv conv({2, 3, 4, 1, {6, 6}, {3, 3}, {1, 1}, {1, 1}, {1, 1}}, DType::f32);
  Call call(XHAL_OP_conv);
  conv.attributes(
      call.add(conv.in).add(conv.weights).absent().add(Tensor(DType::f32, {2, 4, 6, 7})));
  EXPECT_EQ(call.run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(call.error,
            "`out` of `conv` has sizes [2, 4, 6, 7] instead of [2, 4, 6, 6] (convolved(X,W), where "
            "X = [2, 3, 6, 6], W = [4, 3, 3, 3])");
  EXPECT_EQ(call.refusal.operand, 3u);
}

// The catalogue compares no sizes then.
TEST(ConvRefusal, TakesNoStrideOutOfRangeAndNoKernelOfOtherDimensions) {
  const Tensor in(DType::f32, {1, 1, 4, 4}), out(DType::f32, {1, 1, 9, 9});
  Call far(XHAL_OP_conv);
  far.add(in).add(Tensor(DType::f32, {1, 1, 1, 1})).absent().add(out);
  EXPECT_EQ(far.attr_list(0, {int64_t{1} << 40}).run(), XHAL_ERR_INVALID_ARGUMENT);
  Call flat(XHAL_OP_conv);
  flat.add(in).add(Tensor(DType::f32, {1, 1, 1})).absent().add(out);
  EXPECT_EQ(flat.run(), XHAL_ERR_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace xhal::cpu::test
