// SPDX-License-Identifier: Apache-2.0
// optimizer_test.cpp: optimiser steps and operators over lists, against references in double.
#include <gmock/gmock.h>

#include "isa_levels.hpp"

namespace xhal::cpu::test {
namespace {

using ::testing::HasSubstr;

constexpr double kInf = std::numeric_limits<double>::infinity();

std::vector<Tensor> list(DType type, uint32_t seed, double low = -1, double high = 1) {
  std::vector<Tensor> all;
  for (int64_t n : {1, 17, 0, 40000, 130})
    all.push_back(Tensor::random(type, {n}, seed++, low, high));
  return all;
}
std::vector<Tensor> copies(const std::vector<Tensor>& from) {
  std::vector<Tensor> all;
  for (const Tensor& t : from) all.push_back(t.copy());
  return all;
}

struct AdamCase {
  DType type;
  bool amsgrad, maximize, decoupled, raises_step;
};

TEST(Adam, OneStepForManyTensors) {
  for_each_isa([] {
    for (const AdamCase& c : {AdamCase{DType::f32, false, false, true, false},
                              AdamCase{DType::f32, true, true, true, true},
                              AdamCase{DType::f32, false, false, false, false},
                              AdamCase{DType::bf16, true, false, true, false}}) {
      const auto param = list(c.type, 1), grad = list(c.type, 11), avg = list(DType::f32, 21),
                 sq = list(DType::f32, 31, 0, 1);
      const auto top = list(DType::f32, 41, 0, 1);
      std::vector<Tensor> step;
      for (int i = 0; i < 5; ++i) step.push_back(Tensor::of(DType::f32, {}, {3.0 + i}));
      const auto p = copies(param), m = copies(avg), v = copies(sq), x = copies(top),
                 s = copies(step);
      const std::vector<Tensor> none;
      Call call(XHAL_OP_multi_adamw);
      call.group(p).group(grad).group(m).group(v).group(c.amsgrad ? x : none).group(s).absent();
      call.group(p).group(m).group(v).group(c.amsgrad ? x : none).group(c.raises_step ? s : none);
      call.attr(0, c.amsgrad).attr(1, c.maximize).attr(2, c.decoupled);
      call.scalar(0.01).scalar(0.8).scalar(0.95).scalar(0.1).scalar(1e-3).scalar(4);
      ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
      for (size_t k = 0; k < p.size(); ++k) {
        const double t = step[k][0] + (c.raises_step ? 1 : 0);
        ASSERT_EQ(s[k][0], t);
        for (int64_t i = 0; i < p[k].count(); ++i) {
          double g = grad[k][i] / 4 * (c.maximize ? -1 : 1), w = param[k][i];
          if (c.decoupled) w -= 0.01 * 0.1 * w;
          if (!c.decoupled) g += 0.1 * w;
          const double mean = 0.8 * avg[k][i] + 0.2 * g, square = 0.95 * sq[k][i] + 0.05 * g * g;
          const double bound = c.amsgrad ? std::max(top[k][i], square) : square;
          w -= 0.01 / (1 - std::pow(0.8, t)) * mean /
               (std::sqrt(bound) / std::sqrt(1 - std::pow(0.95, t)) + 1e-3);
          ASSERT_NEAR(m[k][i], mean, 2e-7);
          ASSERT_NEAR(v[k][i], square, 2e-7);
          if (c.amsgrad) {
            ASSERT_NEAR(x[k][i], bound, 2e-7);
          }
          ASSERT_NEAR(p[k][i], w, 2e-6 + std::fabs(w) * unit_roundoff(c.type));
        }
      }
    }
  });
}

TEST(Adam, NothingChangesWhenInfinitiesWereFound) {
  const auto p = list(DType::f32, 1), g = list(DType::f32, 2), m = list(DType::f32, 3),
             v = list(DType::f32, 4, 0, 1);
  const auto before = copies(p);
  const std::vector<Tensor> steps(5, Tensor::of(DType::f32, {}, {7}));
  Call call(XHAL_OP_multi_adamw);
  call.group(p).group(g).group(m).group(v).absent().group(steps).add(
      Tensor::of(DType::f32, {}, {1}));
  ASSERT_EQ(call.group(p).group(m).group(v).absent().group(steps).run(), XHAL_OK) << call.error;
  for (size_t k = 0; k < p.size(); ++k) EXPECT_EQ(p[k].values(), before[k].values());
  EXPECT_EQ(steps[0][0], 7);
}

TEST(Adam, ListsOfDifferentLengthsAreRefused) {
  const auto p = list(DType::f32, 1);
  Call call(XHAL_OP_multi_adamw);
  call.group(p)
      .group({p[0]})
      .group(p)
      .group(p)
      .absent()
      .group({})
      .absent()
      .group(p)
      .group(p)
      .group(p)
      .absent()
      .absent();
  EXPECT_EQ(call.run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_THAT(call.error, HasSubstr("differ in length: 5 and 1"));
}

TEST(Sgd, MomentumNesterovAndTheFirstStep) {
  for_each_isa([] {
    for (DType type : {DType::f32, DType::f16})
      for (int mode : {0, 1, 2, 3}) {  // plain, momentum, nesterov, first
        const auto param = list(type, 1), grad = list(type, 11), buffer = list(DType::f32, 21);
        const auto p = copies(param), b = copies(buffer);
        const std::vector<Tensor> none;
        Call call(XHAL_OP_multi_sgd);
        call.group(p)
            .group(grad)
            .group(mode == 0 ? none : b)
            .absent()
            .group(p)
            .group(mode == 0 ? none : b);
        call.attr(0, mode == 2).attr(2, mode == 3);
        call.scalar(0.1).scalar(0.9).scalar(0.3).scalar(0.01).scalar(2);
        ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
        for (size_t k = 0; k < p.size(); ++k)
          for (int64_t i = 0; i < p[k].count(); ++i) {
            double g = grad[k][i] / 2 + 0.01 * param[k][i];
            const double momentum = mode == 3 ? g : 0.9 * buffer[k][i] + 0.7 * g;
            if (mode != 0) {
              ASSERT_NEAR(b[k][i], momentum, 2e-7);
              g = mode == 2 ? g + 0.9 * momentum : momentum;
            }
            ASSERT_NEAR(p[k][i], param[k][i] - 0.1 * g, 2 * unit_roundoff(type) + 1e-7);
          }
      }
  });
}

TEST(LossScale, UnscaleFindsInfinitiesAndNan) {
  for_each_isa([] {
    for (double bad : {0.0, kInf, -kInf, std::nan("")}) {
      const auto in = list(DType::f16, 1);
      auto x = copies(in);
      if (bad != 0) x[3].set(33333, bad);
      const Tensor found = Tensor::of(DType::f32, {}, {0}),
                   inverse = Tensor::of(DType::f32, {}, {0.25});
      ASSERT_EQ(
          Call(XHAL_OP_multi_unscale).group(x).add(found).add(inverse).group(x).add(found).run(2),
          XHAL_OK);
      EXPECT_EQ(found[0], bad != 0);
      EXPECT_EQ(x[4][7], in[4][7] / 4);
    }
  });
}

TEST(LossScale, GrowsAfterGoodStepsAndBacksOff) {
  for (DType type : {DType::i32, DType::i64}) {
    const Tensor scale = Tensor::of(DType::f32, {}, {1024}), tracker = Tensor::of(type, {}, {0}),
                 found = Tensor::of(DType::f32, {}, {0});
    Call call(XHAL_OP_update_scale);
    call.add(scale).add(tracker).add(found).add(scale).add(tracker).scalar(2).scalar(0.5).scalar(3);
    ASSERT_EQ(call.run(), XHAL_OK);
    ASSERT_EQ(call.run(), XHAL_OK);
    EXPECT_EQ(tracker[0], 2);
    EXPECT_EQ(scale[0], 1024);
    ASSERT_EQ(call.run(), XHAL_OK);
    EXPECT_EQ(tracker[0], 0);
    EXPECT_EQ(scale[0], 2048);
    Tensor inf = found;
    inf.set(0, 1);
    ASSERT_EQ(call.run(), XHAL_OK);
    EXPECT_EQ(scale[0], 1024);
  }
}

TEST(Multi, FormulasOverLists) {
  for_each_isa([] {
    for (DType type : {DType::f32, DType::bf16}) {
      const auto x = list(type, 1), y = list(type, 11, 1, 2), z = list(type, 21);
      const auto out = copies(x);
      const double u = 4 * unit_roundoff(type);
      const auto check = [&](const char* name,
                             const std::function<double(size_t, int64_t)>& exact) {
        for (size_t k = 0; k < out.size(); ++k)
          for (int64_t i = 0; i < out[k].count(); i += 1 + out[k].count() / 500)
            ASSERT_NEAR(out[k][i], exact(k, i), u * (1 + std::fabs(exact(k, i)))) << name;
      };
      ASSERT_EQ(Call(XHAL_OP_multi_axpby).group(x).group(y).group(out).scalar(2).scalar(3).run(2),
                XHAL_OK);
      check("axpby", [&](size_t k, int64_t i) { return 2 * x[k][i] + 3 * y[k][i]; });
      ASSERT_EQ(Call(XHAL_OP_multi_axpby).group(x).absent().group(out).scalar(2).scalar(3).run(),
                XHAL_OK);
      check("axpby", [&](size_t k, int64_t i) { return 2 * x[k][i] + 3; });
      ASSERT_EQ(Call(XHAL_OP_multi_mul).group(x).group(y).absent().group(out).scalar(0.5).run(),
                XHAL_OK);
      check("mul", [&](size_t k, int64_t i) { return x[k][i] * y[k][i] / 2; });
      ASSERT_EQ(Call(XHAL_OP_multi_mul)
                    .group(x)
                    .absent()
                    .add(Tensor::of(DType::f32, {}, {0.25}))
                    .group(out)
                    .run(),
                XHAL_OK);
      check("mul", [&](size_t k, int64_t i) { return x[k][i] / 4; });
      ASSERT_EQ(Call(XHAL_OP_multi_div).group(x).group(y).group(out).run(), XHAL_OK);
      check("div", [&](size_t k, int64_t i) { return x[k][i] / y[k][i]; });
      ASSERT_EQ(Call(XHAL_OP_multi_div).group(x).absent().group(out).scalar(8).run(), XHAL_OK);
      check("div", [&](size_t k, int64_t i) { return x[k][i] / 8; });
      ASSERT_EQ(Call(XHAL_OP_multi_lerp).group(x).group(y).group(out).scalar(0.25).run(), XHAL_OK);
      check("lerp", [&](size_t k, int64_t i) { return x[k][i] + (y[k][i] - x[k][i]) / 4; });
      ASSERT_EQ(Call(XHAL_OP_multi_addcmul).group(x).group(y).group(z).group(out).scalar(0.5).run(),
                XHAL_OK);
      check("addcmul", [&](size_t k, int64_t i) { return x[k][i] + 0.5 * y[k][i] * z[k][i]; });
      ASSERT_EQ(Call(XHAL_OP_multi_addcdiv).group(x).group(z).group(y).group(out).scalar(0.5).run(),
                XHAL_OK);
      check("addcdiv", [&](size_t k, int64_t i) { return x[k][i] + 0.5 * z[k][i] / y[k][i]; });
      ASSERT_EQ(Call(XHAL_OP_multi_sqrt).group(y).group(out).run(), XHAL_OK);
      check("sqrt", [&](size_t k, int64_t i) { return std::sqrt(y[k][i]); });
    }
  });
}

TEST(Multi, NormOfEachTensor) {
  for (double p : {2.0, 1.0, kInf}) {
    const auto x = list(DType::f32, 1);
    std::vector<Tensor> out(5);
    for (Tensor& t : out) t = Tensor(DType::f32, {});
    ASSERT_EQ(Call(XHAL_OP_multi_norm).group(x).group(out).attr_float(0, p).run(2), XHAL_OK);
    for (size_t k = 0; k < 5; ++k) {
      double sum = 0, top = 0;
      for (double v : x[k].values())
        sum += std::pow(std::fabs(v), p), top = std::max(top, std::fabs(v));
      const double exact = std::isinf(p) ? std::max(top, -kInf) : std::pow(sum, 1 / p);
      if (std::isinf(p) && x[k].count() == 0) continue;
      EXPECT_NEAR(out[k][0], exact, exact * 1e-6);
    }
  }
}

}  // namespace
}  // namespace xhal::cpu::test
