// SPDX-License-Identifier: Apache-2.0
// losses_test.cpp: likelihood losses, cross entropy and squared error, against
// references in double.
#include <gmock/gmock.h>

#include "isa_levels.hpp"

namespace xhal::cpu::test {
namespace {

using ::testing::HasSubstr;

constexpr DType kFloatTypes[] = {DType::f32, DType::bf16, DType::f16};
constexpr int64_t kSamples = 37, kClasses = 53;

Tensor targets_with_ignored(int64_t ignored) {
  Tensor t = Tensor::random(DType::i64, {kSamples}, 9, 0, double(kClasses - 1));
  for (int64_t i = 0; i < kSamples; i += 7) t.set(i, double(ignored));
  return t;
}

TEST(NllLoss, EveryReductionWithWeightsAndIgnoredTargets) {
  for_each_isa([] {
    for (DType type : kFloatTypes)
      for (int64_t reduction : {0, 1, 2})
        for (bool weighted : {false, true})
          for (const Tensor& in :
               layouts_of(Tensor::random(type, {kSamples, kClasses}, 1, -5, 0))) {
            const Tensor target = targets_with_ignored(-100),
                         w = Tensor::random(type, {kClasses}, 2, 0.5, 1);
            const Tensor out(type, reduction == 0 ? Sizes{kSamples} : Sizes{}),
                total(DType::f32, {});
            Call call(XHAL_OP_nll_loss);
            call.add(in).add(target);
            weighted ? call.add(w) : call.absent();
            ASSERT_EQ(call.add(out).add(total).attr(0, reduction).run(), XHAL_OK) << call.error;
            double sum = 0, weights = 0;
            for (int64_t i = 0; i < kSamples; ++i) {
              const auto t = static_cast<int64_t>(target[i]);
              const double wt = t < 0      ? 0
                                : weighted ? w[t]
                                           : 1,
                           loss = t < 0 ? 0 : -in[i * kClasses + t] * wt;
              sum += loss, weights += wt;
              if (reduction == 0) {
                ASSERT_NEAR(out[i], loss, loss * 2 * unit_roundoff(type) + 1e-6);
              }
            }
            const double exact = reduction == 1 ? sum / weights : sum;
            if (reduction != 0) {
              ASSERT_NEAR(out[0], exact, exact * 2 * unit_roundoff(type));
            }
            if (reduction != 0) {
              ASSERT_NEAR(total[0], weights, 1e-5);
            }

            const Tensor grad = Tensor::random(type, out.sizes(), 3), din = in.copy();
            Call back(XHAL_OP_nll_loss_grad);
            back.add(grad).add(target);
            weighted ? back.add(w) : back.absent();
            ASSERT_EQ(back.add(total).add(din).attr(0, reduction).run(2), XHAL_OK) << back.error;
            for (int64_t i = 0; i < kSamples; ++i)
              for (int64_t c = 0; c < kClasses; ++c) {
                const double g = grad[reduction == 0 ? i : 0] / (reduction == 1 ? weights : 1);
                const double d = target[i] == double(c) ? -g * (weighted ? w[c] : 1) : 0;
                ASSERT_NEAR(din[i * kClasses + c], d, std::fabs(d) * 4 * unit_roundoff(type));
              }
          }
  });
}

TEST(NllLoss, OneSampleWithoutABatchDimension) {
  const Tensor in = Tensor::of(DType::f32, {3}, {-1, -2, -3}),
               target = Tensor::of(DType::i64, {}, {1});
  const Tensor out(DType::f32, {}), total(DType::f32, {});
  ASSERT_EQ(Call(XHAL_OP_nll_loss).add(in).add(target).absent().add(out).add(total).run(), XHAL_OK);
  EXPECT_EQ(out[0], 2);
  EXPECT_EQ(total[0], 1);
}

TEST(NllLoss, AllIgnoredHasNoMean) {
  const Tensor in(DType::f32, {2, 3}), target = Tensor::of(DType::i64, {2}, {-1, -1}),
                                       out(DType::f32, {}), total(DType::f32, {});
  ASSERT_EQ(
      Call(XHAL_OP_nll_loss).add(in).add(target).absent().add(out).add(total).attr(1, -1).run(),
      XHAL_OK);
  EXPECT_TRUE(std::isnan(out[0]));
  EXPECT_EQ(total[0], 0);
}

TEST(NllLoss, ATargetOutsideFailsTheStreamAndIsNamed) {
  const Tensor in(DType::f32, {2, 3}), target = Tensor::of(DType::i64, {2}, {1, 3}),
                                       one(DType::f32, {}), total(DType::f32, {});
  Call call(XHAL_OP_nll_loss);
  EXPECT_EQ(call.add(in).add(target).absent().add(one).add(total).run(), XHAL_ERR_DEVICE);
  EXPECT_THAT(call.error, HasSubstr("target[1] is 3; there are 3 classes"));
  Call back(XHAL_OP_nll_loss_grad);
  EXPECT_EQ(back.add(one).add(target).absent().add(total).add(in).run(2), XHAL_ERR_DEVICE);
  EXPECT_THAT(back.error, HasSubstr("target[1] is 3"));
}

TEST(CrossEntropy, WithSmoothingAndIgnoredTargets) {
  for_each_isa([] {
    for (DType type : kFloatTypes)
      for (int64_t reduction : {0, 1, 2})
        for (double smoothing : {0.0, 0.2}) {
          const Tensor in = Tensor::random(type, {kSamples, kClasses}, 1, -5, 5).spread(0),
                       target = targets_with_ignored(4);
          const Tensor out(DType::f32, reduction == 0 ? Sizes{kSamples} : Sizes{}),
              log_sum(DType::f32, {kSamples});
          ASSERT_EQ(Call(XHAL_OP_cross_entropy)
                        .add(in)
                        .add(target)
                        .add(out)
                        .add(log_sum)
                        .attr(0, reduction)
                        .attr(1, 4)
                        .attr_float(2, smoothing)
                        .run(2),
                    XHAL_OK);
          const Tensor grad = Tensor::random(DType::f32, out.sizes(), 3), din = in.copy();
          ASSERT_EQ(Call(XHAL_OP_cross_entropy_grad)
                        .add(grad)
                        .add(in)
                        .add(target)
                        .add(log_sum)
                        .add(din)
                        .attr(0, reduction)
                        .attr(1, 4)
                        .attr_float(2, smoothing)
                        .run(2),
                    XHAL_OK);
          double total = 0, used = 0;
          for (int64_t i = 0; i < kSamples; ++i) used += target[i] != 4;
          for (int64_t i = 0; i < kSamples; ++i) {
            double sum = 0, mean = 0;
            for (int64_t c = 0; c < kClasses; ++c)
              sum += std::exp(in[i * kClasses + c]), mean += in[i * kClasses + c] / kClasses;
            const double log_exact = std::log(sum);
            ASSERT_NEAR(log_sum[i], log_exact, 2e-6);
            const auto t = static_cast<int64_t>(target[i]);
            const double loss = t == 4 ? 0
                                       : (1 - smoothing) * (log_exact - in[i * kClasses + t]) +
                                             smoothing * (log_exact - mean);
            total += loss;
            if (reduction == 0) {
              ASSERT_NEAR(out[i], loss, 1e-5);
            }
            const double g =
                t == 4 ? 0 : grad[reduction == 0 ? i : 0] / (reduction == 1 ? used : 1);
            for (int64_t c = 0; c < kClasses; ++c) {
              const double p = std::exp(in[i * kClasses + c] - log_exact);
              const double d = g * (p - (c == t ? 1 - smoothing : 0) - smoothing / kClasses);
              ASSERT_NEAR(din[i * kClasses + c], d, std::fabs(d) * unit_roundoff(type) + 1e-6);
            }
          }
          if (reduction != 0) {
            ASSERT_NEAR(out[0], reduction == 1 ? total / used : total, 1e-4);
          }
        }
  });
}

TEST(MseLoss, EveryReductionAndItsGradient) {
  for_each_isa([] {
    for (DType type : kFloatTypes)
      for (int64_t reduction : {0, 1, 2}) {
        const Sizes sizes{50, 31};
        const Tensor a = Tensor::random(type, sizes, 1),
                     b = Tensor::random(type, {31, 50}, 2).transposed(0, 1);
        const Tensor out(type, reduction == 0 ? sizes : Sizes{}),
            grad = Tensor::random(type, out.sizes(), 3), da(type, sizes);
        ASSERT_EQ(Call(XHAL_OP_mse_loss).add(a).add(b).add(out).attr(0, reduction).run(2), XHAL_OK);
        ASSERT_EQ(
            Call(XHAL_OP_mse_loss_grad).add(grad).add(a).add(b).add(da).attr(0, reduction).run(2),
            XHAL_OK);
        double sum = 0;
        const double count = double(a.count());
        for (int64_t i = 0; i < a.count(); ++i) {
          const double d = a[i] - b[i];
          sum += d * d;
          if (reduction == 0) {
            ASSERT_NEAR(out[i], d * d, d * d * 2 * unit_roundoff(type) + 1e-7);
          }
          const double exact = 2 * d * grad[reduction == 0 ? i : 0] / (reduction == 1 ? count : 1);
          ASSERT_NEAR(da[i], exact, std::fabs(exact) * 2 * unit_roundoff(type) + 1e-7);
        }
        const double exact = reduction == 1 ? sum / count : sum;
        if (reduction != 0) {
          ASSERT_NEAR(out[0], exact, exact * 2 * unit_roundoff(type));
        }
      }
  });
}

}  // namespace
}  // namespace xhal::cpu::test
