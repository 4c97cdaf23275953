// SPDX-License-Identifier: Apache-2.0
// attention_test.cpp: sdpa and its gradient against float64.
#include <gtest/gtest.h>

#include "isa_levels.hpp"

namespace xhal::cpu::test {
namespace {

struct Case {
  int64_t b, h, hk, s, t, d, dv;
  bool causal = false;
  int mask = 0;  // 1 bool, 2 float
  double scale = 0, dropout = 0;
};

std::string dtype_name(const testing::TestParamInfo<DType>& info) {
  return std::string(name_of(info.param));
}

struct Attention {
  Case c;
  DType type;
  Tensor q, k, v, mask, out, log_sum, grad, dq, dk, dv;
  std::vector<double> keep;

  Attention(Case with, DType t) : c(with), type(t) {
    // As PyTorch makes them: [batch, row, head, element] seen as [batch, head, row, element].
    const auto heads = [&](int64_t h, int64_t rows, int64_t width, uint32_t seed) {
      return Tensor::random(type, {c.b, rows, h, width}, seed).transposed(1, 2);
    };
    q = heads(c.h, c.s, c.d, 1);
    k = heads(c.hk, c.t, c.d, 2);
    v = heads(c.hk, c.t, c.dv, 3);
    grad = heads(c.h, c.s, c.dv, 4);
    out = Tensor(type, {c.b, c.s, c.h, c.dv}).transposed(1, 2);
    log_sum = Tensor(DType::f32, {c.b, c.h, c.s});
    dq = Tensor(type, {c.b, c.h, c.s, c.d});
    dk = Tensor(type, {c.b, c.hk, c.t, c.d});
    dv = Tensor(type, {c.b, c.t, c.hk, c.dv}).transposed(1, 2);
    if (c.mask == 1)
      mask = Tensor::random(DType::boolean, {c.b, 1, c.s, c.t}, 5, 0, 1).expanded(1, c.h);
    if (c.mask == 2)
      mask = Tensor::random(type, {1, 1, c.s, c.t}, 5, -2, 2).expanded(0, c.b).expanded(1, c.h);
    keep.assign(static_cast<size_t>(c.b * c.h * c.s * c.t), 1.0);
  }

  Call forward() {
    Call call(XHAL_OP_sdpa);
    call.add(q).add(k).add(v);
    c.mask != 0 ? call.add(mask) : call.absent();
    call.add(out)
        .add(log_sum)
        .attr(0, c.causal)
        .attr_float(1, c.scale)
        .attr_float(2, c.dropout)
        .scalar(77)
        .scalar(5);
    return call;
  }
  Call backward() {
    Call call(XHAL_OP_sdpa_grad);
    call.add(grad).add(q).add(k).add(v).add(out).add(log_sum);
    c.mask != 0 ? call.add(mask) : call.absent();
    call.add(dq)
        .add(dk)
        .add(dv)
        .attr(0, c.causal)
        .attr_float(1, c.scale)
        .attr_float(2, c.dropout)
        .scalar(77)
        .scalar(5);
    return call;
  }

  void compare(const Tensor& got, const std::vector<double>& want, double largest,
               const char* name) const {
    const double narrow = type == DType::f32 ? 0 : unit_roundoff(type);
    for (int64_t i = 0; i < got.count(); ++i) {
      const double w = want[static_cast<size_t>(i)];
      ASSERT_NEAR(got[i], w, 3e-6 * largest + 2 * narrow * (std::abs(w) + largest / 8))
          << name << " at " << i;
    }
  }

  void check(int threads) {
    Call run = forward();
    ASSERT_EQ(run.run(threads), XHAL_OK) << run.error;
    Call back = backward();
    ASSERT_EQ(back.run(threads), XHAL_OK) << back.error;

    const double scale = c.scale != 0 ? c.scale : 1 / std::sqrt(static_cast<double>(c.d));
    std::vector<double> o(static_cast<size_t>(out.count())), l, gq(static_cast<size_t>(dq.count())),
        gk(static_cast<size_t>(dk.count())), gv(static_cast<size_t>(dv.count()));
    const int64_t per_key = c.h / c.hk;
    for (int64_t b = 0; b < c.b; ++b)
      for (int64_t h = 0; h < c.h; ++h)
        for (int64_t i = 0; i < c.s; ++i) {
          const int64_t hk = h / per_key;
          std::vector<double> p(static_cast<size_t>(c.t));
          double max = -INFINITY, sum = 0;
          for (int64_t j = 0; j < c.t; ++j) {
            double score = 0;
            for (int64_t e = 0; e < c.d; ++e) score += q.at({b, h, i, e}) * k.at({b, hk, j, e});
            score *= scale;
            if (c.mask == 1 && mask.at({b, h, i, j}) == 0) score = -INFINITY;
            if (c.mask == 2) score += mask.at({b, h, i, j});
            if (c.causal && j > i) score = -INFINITY;
            p[static_cast<size_t>(j)] = score;
            max = std::max(max, score);
          }
          for (double& x : p) x = max == -INFINITY ? 0 : std::exp(x - max), sum += x;
          l.push_back(sum == 0 ? -INFINITY : max + std::log(sum));
          const auto row = static_cast<size_t>((b * c.h + h) * c.s + i);
          double delta = 0;
          std::vector<double> dp(static_cast<size_t>(c.t));
          for (int64_t j = 0; j < c.t; ++j) {
            const auto at = static_cast<size_t>(j);
            p[at] = sum == 0 ? 0 : p[at] / sum;
            const double kept = keep[row * static_cast<size_t>(c.t) + at];
            for (int64_t e = 0; e < c.dv; ++e) {
              o[row * static_cast<size_t>(c.dv) + static_cast<size_t>(e)] +=
                  p[at] * kept * v.at({b, hk, j, e});
              dp[at] += grad.at({b, h, i, e}) * v.at({b, hk, j, e}) * kept;
              gv[static_cast<size_t>(((b * c.hk + hk) * c.t + j) * c.dv + e)] +=
                  p[at] * kept * grad.at({b, h, i, e});
            }
            delta += p[at] * dp[at];
          }
          for (int64_t j = 0; j < c.t; ++j) {
            const double ds =
                p[static_cast<size_t>(j)] * (dp[static_cast<size_t>(j)] - delta) * scale;
            for (int64_t e = 0; e < c.d; ++e) {
              gq[row * static_cast<size_t>(c.d) + static_cast<size_t>(e)] +=
                  ds * k.at({b, hk, j, e});
              gk[static_cast<size_t>(((b * c.hk + hk) * c.t + j) * c.d + e)] +=
                  ds * q.at({b, h, i, e});
            }
          }
        }
    const double spread = c.dropout > 0 ? 4 : 2;
    compare(out, o, spread, "out");
    for (int64_t i = 0; i < log_sum.count(); ++i)
      if (std::isfinite(l[static_cast<size_t>(i)])) {
        ASSERT_NEAR(log_sum[i], l[static_cast<size_t>(i)], 1e-5);
      } else {
        ASSERT_EQ(log_sum[i], -INFINITY);
      }
    compare(dq, gq, spread * 2, "dq");
    compare(dk, gk, spread * 4 * std::sqrt(static_cast<double>(per_key)), "dk");
    compare(dv, gv, spread * 4 * std::sqrt(static_cast<double>(per_key)), "dv");
  }
};

class AttentionTest : public testing::TestWithParam<DType> {
 protected:
  void check(const Case& c) {
    for_each_isa([&] { Attention(c, GetParam()).check(2); });
  }
};
INSTANTIATE_TEST_SUITE_P(, AttentionTest, testing::Values(DType::f32, DType::bf16, DType::f16),
                         dtype_name);

TEST_P(AttentionTest, AgreesWithTheDefinition) {
  check({2, 3, 3, 40, 40, 16, 16});
  check({1, 1, 1, 1, 1, 1, 1});
  check({1, 2, 2, 33, 65, 17, 9});
  check({1, 1, 1, 5, 300, 80, 40});
}

TEST_P(AttentionTest, CausalMasksAboveTheDiagonalWhateverTheSizes) {
  check({2, 2, 2, 70, 70, 32, 32, true});
  check({1, 1, 1, 300, 300, 8, 8, true});
  check({1, 2, 2, 20, 50, 16, 16, true});
  check({1, 2, 2, 50, 20, 16, 16, true});
}

TEST_P(AttentionTest, SeveralQueryHeadsShareAKey) {
  check({2, 6, 2, 33, 33, 16, 16, true});
  check({1, 4, 1, 160, 40, 16, 16});
}

TEST_P(AttentionTest, LongSequencesAreCutIntoParts) {
  check({1, 1, 1, 530, 290, 8, 8});
  check({1, 2, 1, 400, 400, 8, 8, true});
}

TEST_P(AttentionTest, TakesBoolAndFloatMasksThatAreBroadcast) {
  check({2, 2, 2, 35, 45, 16, 16, false, 1});
  check({2, 2, 2, 35, 45, 16, 16, false, 2});
  check({2, 2, 2, 40, 40, 16, 16, true, 2});
}

TEST_P(AttentionTest, TakesAScale) { check({1, 2, 2, 20, 20, 16, 16, false, 0, 0.1}); }

TEST_P(AttentionTest, ARowThatSeesNothingGivesZeroAndHasNoGradient) {
  Attention a({1, 1, 1, 3, 4, 8, 8, false, 1}, GetParam());
  a.mask.fill([](int64_t i) { return i / 4 != 1; });
  a.check(1);
  for (int64_t e = 0; e < 8; ++e) EXPECT_EQ(a.dq.at({0, 0, 1, e}), 0);
}

TEST_P(AttentionTest, DropoutIsTheSameInBothDirectionsAndAFunctionOfItsPlace) {
  Attention a({2, 2, 1, 40, 300, 8, 8, false, 0, 0, 0.3}, GetParam());
  // With v the unit vectors, out shows which probabilities were kept.
  Tensor uniform(DType::f32, {2, 2, 40, 300});
  Call random(XHAL_OP_dropout);
  Tensor ones(DType::f32, uniform.sizes()), kept(DType::boolean, uniform.sizes());
  ones.fill([](int64_t) { return 1; });
  random.add(ones).add(uniform).add(kept).scalar(0.3).scalar(77).scalar(5);
  const xhal_status status = random.run();
  if (status == XHAL_ERR_UNSUPPORTED) GTEST_SKIP() << random.error;
  ASSERT_EQ(status, XHAL_OK) << random.error;
  for (int64_t i = 0; i < kept.count(); ++i)
    a.keep[static_cast<size_t>(i)] = kept[i] != 0 ? 1 / 0.7 : 0;
  a.check(2);
}

TEST_P(AttentionTest, GivesTheSameBitsWithAnyNumberOfThreads) {
  std::vector<std::vector<char>> first;
  for (int threads = 1; threads <= 3; ++threads) {
    Attention a({2, 2, 2, 300, 300, 16, 16, true}, GetParam());
    Call run = a.forward();
    ASSERT_EQ(run.run(threads), XHAL_OK) << run.error;
    Call back = a.backward();
    ASSERT_EQ(back.run(threads), XHAL_OK) << back.error;
    const std::vector<std::vector<char>> bytes = {a.out.bytes(), a.log_sum.bytes(), a.dq.bytes(),
                                                  a.dk.bytes(), a.dv.bytes()};
    if (threads == 1) first = bytes;
    EXPECT_EQ(bytes, first) << threads << " threads";
  }
}

TEST(AttentionEdges, TakesEmptyBatchesRowsAndKeys) {
  for (const Case& c :
       {Case{0, 2, 2, 3, 3, 4, 4}, Case{1, 2, 2, 0, 3, 4, 4}, Case{1, 2, 2, 3, 0, 4, 4}}) {
    Attention a(c, DType::f32);
    a.out.fill([](int64_t) { return 5; });
    a.check(1);
  }
}

TEST(AttentionEdges, RefusesHeadsThatDoNotDivide) {
  Attention a({1, 4, 2, 3, 3, 4, 4}, DType::f32);
  a.k = Tensor(DType::f32, {1, 3, 3, 4});
  a.v = a.k;
  Call call = a.forward();
  EXPECT_EQ(call.run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(call.error, "sdpa: q's heads must be a multiple of k's");
}

}  // namespace
}  // namespace xhal::cpu::test
