// SPDX-License-Identifier: Apache-2.0
// pool_test.cpp: pooling and interpolation of planes, and their gradients.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernel_harness.hpp"

namespace xhal::cpu::test {
namespace {

struct Window {
  int64_t kernel, stride, padding, dilation;
  int64_t out(int64_t size, bool ceil) const {
    const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
    int64_t n = (room + (ceil ? stride - 1 : 0)) / stride + 1;
    if (ceil && (n - 1) * stride >= size + padding) --n;
    return n;
  }
};

std::string dtype_name(const testing::TestParamInfo<DType>& info) {
  return std::string(name_of(info.param));
}

class PoolTest : public testing::TestWithParam<DType> {
 protected:
  DType type() const { return GetParam(); }
  Tensor random(Sizes sizes, uint32_t seed) const {
    return Tensor::random(type(), std::move(sizes), seed);
  }
  void expect_near(const Tensor& got, const std::vector<double>& want, double slack = 1e-5) const {
    for (int64_t i = 0; i < got.count(); ++i) {
      const double w = want[static_cast<size_t>(i)];
      ASSERT_NEAR(got[i], w, 2 * unit_roundoff(type()) * std::abs(w) + slack) << "at " << i;
    }
  }
  // The gradient must be the transpose of the operator: <grad, f(in)> = <f'(grad), in> for
  // a linear f.
  void expect_transposed(const Tensor& in, const Tensor& out, const Tensor& grad,
                         const Tensor& din) const {
    double left = 0, right = 0, magnitude = 0;
    for (int64_t i = 0; i < out.count(); ++i)
      left += grad[i] * out[i], magnitude += std::abs(grad[i] * out[i]);
    for (int64_t i = 0; i < in.count(); ++i)
      right += din[i] * in[i], magnitude += std::abs(din[i] * in[i]);
    EXPECT_NEAR(left, right, magnitude * 4 * unit_roundoff(type()) + 1e-5);
  }
};
INSTANTIATE_TEST_SUITE_P(, PoolTest, testing::Values(DType::f32, DType::bf16, DType::f16),
                         dtype_name);

TEST_P(PoolTest, MaxPoolGivesTheLargestOfEachWindowAndItsPlace) {
  for (const Window& w : {Window{3, 2, 1, 1}, {2, 2, 0, 1}, {3, 1, 1, 2}})
    for (const bool ceil : {false, true})
      for (const bool last : {false, true}) {
        const int64_t oh = w.out(10, ceil), ow = w.out(7, ceil);
        Tensor in = random({2, 3, 10, 7}, 1), out(type(), {2, 3, oh, ow}),
               index(DType::i64, {2, 3, oh, ow});
        Tensor din(type(), in.sizes());
        if (last) in = in.stored_as({0, 2, 3, 1}), out = out.stored_as({0, 2, 3, 1});
        Call call(XHAL_OP_max_pool);
        call.add(in)
            .add(out)
            .add(index)
            .attr_list(0, {w.kernel})
            .attr_list(1, {w.stride, w.stride});
        call.attr_list(2, {w.padding}).attr_list(3, {w.dilation}).attr(4, ceil);
        ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
        const Tensor grad = random({2, 3, oh, ow}, 2);
        Call back(XHAL_OP_max_pool_grad);
        back.add(grad).add(index).add(din);
        ASSERT_EQ(back.run(2), XHAL_OK) << back.error;
        std::vector<double> want_grad(static_cast<size_t>(in.count()));
        for (int64_t p = 0; p < 6; ++p)
          for (int64_t r = 0; r < oh; ++r)
            for (int64_t c = 0; c < ow; ++c) {
              double best = -INFINITY;
              int64_t at = 0;
              for (int64_t i = 0; i < w.kernel; ++i)
                for (int64_t j = 0; j < w.kernel; ++j) {
                  const int64_t y = r * w.stride - w.padding + i * w.dilation,
                                x = c * w.stride - w.padding + j * w.dilation;
                  if (y < 0 || y >= 10 || x < 0 || x >= 7 || in[p * 70 + y * 7 + x] <= best)
                    continue;
                  best = in[p * 70 + y * 7 + x];
                  at = y * 7 + x;
                }
              const int64_t o = (p * oh + r) * ow + c;
              ASSERT_EQ(out[o], best);
              ASSERT_EQ(index[o], static_cast<double>(at));
              want_grad[static_cast<size_t>(p * 70 + at)] += grad[o];
            }
        expect_near(din, want_grad);
      }
}

TEST_P(PoolTest, MaxPoolTakesTheFirstOfEqualsAndPassesNanOn) {
  const Tensor in = Tensor::of(type(), {1, 1, 2, 4}, {1, 1, NAN, 2, 1, 1, 3, 4});
  Tensor out(type(), {1, 1, 1, 2}), index(DType::i64, {1, 1, 1, 2});
  Call call(XHAL_OP_max_pool);
  call.add(in).add(out).add(index).attr_list(0, {2});
  ASSERT_EQ(call.run(), XHAL_OK) << call.error;
  EXPECT_EQ(index[0], 0);
  EXPECT_EQ(index[1], 2);
  EXPECT_TRUE(std::isnan(out[1]));
}

TEST_P(PoolTest, AvgPoolDividesByTheWindowThePaddedWindowOrADivisor) {
  const Window w{3, 2, 1, 1};
  for (const bool ceil : {false, true})
    for (const bool count_padding : {false, true})
      for (const int64_t divisor : {0, 5}) {
        const int64_t oh = w.out(10, ceil), ow = w.out(7, ceil);
        const Tensor in = random({2, 2, 10, 7}, 1), grad = random({2, 2, oh, ow}, 2);
        Tensor out(type(), grad.sizes()), din(type(), in.sizes());
        const auto attributes = [&](Call& call) -> Call& {
          return call.attr_list(0, {3})
              .attr_list(1, {2})
              .attr_list(2, {1})
              .attr(3, ceil)
              .attr(4, count_padding)
              .attr(5, divisor);
        };
        Call call(XHAL_OP_avg_pool);
        ASSERT_EQ(attributes(call.add(in).add(out)).run(2), XHAL_OK) << call.error;
        Call back(XHAL_OP_avg_pool_grad);
        ASSERT_EQ(attributes(back.add(grad).add(din)).run(2), XHAL_OK) << back.error;
        std::vector<double> want;
        for (int64_t p = 0; p < 4; ++p)
          for (int64_t r = 0; r < oh; ++r)
            for (int64_t c = 0; c < ow; ++c) {
              double sum = 0;
              int64_t inside = 0, padded = 0;
              for (int64_t y = r * 2 - 1; y < std::min<int64_t>(r * 2 + 2, 11); ++y)
                for (int64_t x = c * 2 - 1; x < std::min<int64_t>(c * 2 + 2, 8); ++x) {
                  ++padded;
                  if (y < 0 || y >= 10 || x < 0 || x >= 7) continue;
                  ++inside;
                  sum += in[p * 70 + y * 7 + x];
                }
              want.push_back(sum / static_cast<double>(divisor != 0    ? divisor
                                                       : count_padding ? padded
                                                                       : inside));
            }
        expect_near(out, want);
        expect_transposed(in, out, grad, din);
      }
}

TEST_P(PoolTest, AdaptiveAvgPoolCoversThePlaneEvenly) {
  for (const auto& [h, w] : {std::pair<int64_t, int64_t>{1, 1}, {3, 4}, {10, 7}, {12, 5}}) {
    const Tensor in = random({2, 2, 10, 7}, 1), grad = random({2, 2, h, w}, 2);
    Tensor out(type(), grad.sizes()), din(type(), in.sizes());
    Call call(XHAL_OP_adaptive_avg_pool);
    ASSERT_EQ(call.add(in).add(out).run(2), XHAL_OK) << call.error;
    Call back(XHAL_OP_adaptive_avg_pool_grad);
    ASSERT_EQ(back.add(grad).add(din).run(2), XHAL_OK) << back.error;
    std::vector<double> want;
    for (int64_t p = 0; p < 4; ++p)
      for (int64_t r = 0; r < h; ++r)
        for (int64_t c = 0; c < w; ++c) {
          double sum = 0;
          int64_t n = 0;
          for (int64_t y = r * 10 / h; y < ((r + 1) * 10 + h - 1) / h; ++y)
            for (int64_t x = c * 7 / w; x < ((c + 1) * 7 + w - 1) / w; ++x)
              sum += in[p * 70 + y * 7 + x], ++n;
          want.push_back(sum / static_cast<double>(n));
        }
    expect_near(out, want);
    expect_transposed(in, out, grad, din);
  }
}

TEST_P(PoolTest, UpsampleNearestRepeatsElements) {
  for (const auto& [h, w] : {std::pair<int64_t, int64_t>{10, 14}, {13, 9}, {3, 4}}) {
    const Tensor in = random({2, 2, 5, 7}, 1), grad = random({2, 2, h, w}, 2);
    Tensor out = Tensor(type(), grad.sizes()).stored_as({0, 2, 3, 1}), din(type(), in.sizes());
    Call call(XHAL_OP_upsample_nearest);
    ASSERT_EQ(call.add(in).add(out).run(2), XHAL_OK) << call.error;
    Call back(XHAL_OP_upsample_nearest_grad);
    ASSERT_EQ(back.add(grad).add(din).run(2), XHAL_OK) << back.error;
    for (int64_t i = 0; i < out.count(); ++i)
      ASSERT_EQ(out[i], in[i / (h * w) * 35 + i / w % h * 5 / h * 7 + i % w * 7 / w]);
    expect_transposed(in, out, grad, din);
  }
}

TEST_P(PoolTest, UpsampleBilinearInterpolates) {
  for (const bool align : {false, true})
    for (const auto& [h, w] : {std::pair<int64_t, int64_t>{10, 14}, {13, 9}, {3, 4}, {1, 1}}) {
      const Tensor in = random({2, 2, 5, 7}, 1), grad = random({2, 2, h, w}, 2);
      Tensor out(type(), grad.sizes()), din(type(), in.sizes());
      Call call(XHAL_OP_upsample_bilinear);
      ASSERT_EQ(call.add(in).add(out).attr(0, align).run(2), XHAL_OK) << call.error;
      Call back(XHAL_OP_upsample_bilinear_grad);
      ASSERT_EQ(back.add(grad).add(din).attr(0, align).run(2), XHAL_OK) << back.error;
      const auto place = [align](int64_t o, int64_t size, int64_t to) {
        if (align)
          return to > 1 ? static_cast<double>(o * (size - 1)) / static_cast<double>(to - 1) : 0.0;
        return std::max(0.0, (static_cast<double>(o) + 0.5) * static_cast<double>(size) /
                                     static_cast<double>(to) -
                                 0.5);
      };
      std::vector<double> want;
      for (int64_t p = 0; p < 4; ++p)
        for (int64_t r = 0; r < h; ++r)
          for (int64_t c = 0; c < w; ++c) {
            const double y = place(r, 5, h), x = place(c, 7, w);
            const auto y0 = static_cast<int64_t>(y), x0 = static_cast<int64_t>(x);
            const int64_t y1 = std::min<int64_t>(y0 + 1, 4), x1 = std::min<int64_t>(x0 + 1, 6);
            const double fy = y - static_cast<double>(y0), fx = x - static_cast<double>(x0);
            const auto at = [&](int64_t i, int64_t j) { return in[p * 35 + i * 7 + j]; };
            want.push_back((1 - fy) * ((1 - fx) * at(y0, x0) + fx * at(y0, x1)) +
                           fy * ((1 - fx) * at(y1, x0) + fx * at(y1, x1)));
          }
      expect_near(out, want);
      expect_transposed(in, out, grad, din);
    }
}

TEST(PoolEdges, TakesEmptyBatchesAndRefusesEmptyPlanes) {
  Tensor out(DType::f32, {0, 3, 2, 2});
  Call call(XHAL_OP_avg_pool);
  EXPECT_EQ(call.add(Tensor(DType::f32, {0, 3, 4, 4})).add(out).attr_list(0, {2}).run(), XHAL_OK)
      << call.error;
  Call empty(XHAL_OP_adaptive_avg_pool);
  EXPECT_EQ(empty.add(Tensor(DType::f32, {1, 1, 0, 4})).add(Tensor(DType::f32, {1, 1, 2, 2})).run(),
            XHAL_ERR_INVALID_ARGUMENT);
}

TEST(PoolEdges, AnIndexOutsideThePlaneFailsAndIsNamed) {
  Tensor grad(DType::f32, {1, 2, 1, 2}), din(DType::f32, {1, 2, 2, 2});
  const Tensor index = Tensor::of(DType::i64, {1, 2, 1, 2}, {0, 3, 1, 4});
  Call call(XHAL_OP_max_pool_grad);
  EXPECT_EQ(call.add(grad).add(index).add(din).run(), XHAL_ERR_DEVICE);
  EXPECT_EQ(call.error, "max_pool_grad: index 4 at row 0, column 1 of plane 1 is outside [0, 4)");
}

TEST(PoolEdges, TheWrongPooledSizeIsRefusedWithTheRightOne) {
  Call call(XHAL_OP_max_pool);
  call.add(Tensor(DType::f32, {1, 1, 8, 8}))
      .add(Tensor(DType::f32, {1, 1, 4, 3}))
      .absent()
      .attr_list(0, {2});
  EXPECT_EQ(call.run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(call.error,
            "`out` of `max_pool` has sizes [1, 1, 4, 3] instead of [1, 1, 4, 4] (pooled(X), where "
            "X = [1, 1, 8, 8])");
}

// The catalogue compares no sizes then.
TEST(PoolEdges, AWindowOutOfRangeIsRefused) {
  for (const int64_t kernel : {int64_t{0}, int64_t{1} << 40}) {
    Call call(XHAL_OP_avg_pool);
    call.add(Tensor(DType::f32, {1, 1, 8, 8})).add(Tensor(DType::f32, {1, 1, 16, 16}));
    EXPECT_EQ(call.attr_list(0, {kernel}).run(), XHAL_ERR_INVALID_ARGUMENT) << kernel;
  }
}

}  // namespace
}  // namespace xhal::cpu::test
