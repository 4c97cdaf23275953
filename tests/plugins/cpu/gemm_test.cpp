// SPDX-License-Identifier: Apache-2.0
// gemm_test.cpp: matrix products against float64, element by element within the bound of
// an inner product.
#include <gtest/gtest.h>

#include "kernel_harness.hpp"

namespace xhal::cpu::test {
namespace {

struct Problem {
  Tensor a, b, out;
  Tensor c, bias;
  bool has_c = false, has_bias = false;
  int activation = 0;
  double alpha = 1, beta = 1;
};

double activated(double x, int activation) {
  switch (activation) {
    case 1:
      return std::max(x, 0.0);
    case 2:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case 3:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    default:
      return x;
  }
}

Call call_of(const Problem& p) {
  Call call(XHAL_OP_gemm);
  call.add(p.a).add(p.b);
  p.has_c ? call.add(p.c) : call.absent();
  p.has_bias ? call.add(p.bias) : call.absent();
  call.add(p.out);
  call.attr(0, p.activation).scalar(p.alpha).scalar(p.beta);
  return call;
}

// Runs it and compares; c may be out.
void expect_correct(Problem p, int threads = 1) {
  const size_t first = p.out.sizes().size() - 2;
  const int64_t m = p.out.size(first), n = p.out.size(first + 1), k = p.a.size(first + 1);
  const int64_t batch = first == 0 ? 1 : p.out.size(0);
  const auto c = p.has_c ? p.c.values() : std::vector<double>();
  Call call = call_of(p);
  ASSERT_EQ(call.run(threads), XHAL_OK) << call.error;
  for (int64_t g = 0; g < batch; ++g)
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0, magnitude = 0;
        for (int64_t e = 0; e < k; ++e) {
          const double product = p.a[(g * m + i) * k + e] * p.b[(g * k + e) * n + j];
          sum += product;
          magnitude += std::abs(product);
        }
        sum *= p.alpha;
        magnitude *= std::abs(p.alpha);
        const int64_t at = (g * m + i) * n + j;
        if (p.has_c && p.beta != 0) sum += p.beta * c[at], magnitude += std::abs(p.beta * c[at]);
        if (p.has_bias) sum += p.bias[j], magnitude += std::abs(p.bias[j]);
        const double want = activated(sum, p.activation);
        const double bound = (static_cast<double>(k) + 8) * 0x1p-23 * magnitude +
                             2 * unit_roundoff(p.out.type()) * std::abs(want) + 1e-6;
        ASSERT_NEAR(p.out[at], want, bound) << "at " << g << ", " << i << ", " << j;
      }
}

Problem matrices(DType type, int64_t m, int64_t n, int64_t k) {
  Problem p;
  p.a = Tensor::random(type, {m, k}, 1);
  p.b = Tensor::random(type, {k, n}, 2);
  p.out = Tensor(type, {m, n});
  return p;
}

class GemmTest : public testing::TestWithParam<DType> {};

std::string dtype_name(const testing::TestParamInfo<DType>& info) {
  return std::string(name_of(info.param));
}
INSTANTIATE_TEST_SUITE_P(, GemmTest, testing::Values(DType::f32, DType::bf16, DType::f16),
                         dtype_name);

TEST_P(GemmTest, MultipliesMatricesOfOddSizes) {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                                {1, 7, 3},
                                {17, 1, 5},
                                {33, 31, 29},
                                {130, 65, 67},
                                {257, 129, 31},
                                {3, 700, 65}})
    expect_correct(matrices(GetParam(), m, n, k), 2);
}

TEST_P(GemmTest, TakesEmptyMatricesAndGivesZeroForAnEmptySum) {
  expect_correct(matrices(GetParam(), 0, 5, 3));
  expect_correct(matrices(GetParam(), 5, 0, 3));
  expect_correct(matrices(GetParam(), 5, 4, 0));
  Problem p = matrices(GetParam(), 5, 4, 0);
  p.has_c = p.has_bias = true;
  p.c = Tensor::random(GetParam(), {5, 4}, 3);
  p.bias = Tensor::random(GetParam(), {4}, 4);
  expect_correct(p);
}

TEST_P(GemmTest, TakesEveryCombinationOfStrides) {
  const auto layouts = [](const Tensor& t) {
    return std::vector<Tensor>{
        t,           t.stored_as({1, 0}),           t.spread(0),
        t.spread(1), t.spread(1).stored_as({1, 0}), t.stored_as({1, 0}).spread(0, 3)};
  };
  const Problem plain = matrices(GetParam(), 150, 70, 41);
  for (const Tensor& a : layouts(plain.a))
    for (const Tensor& b : layouts(plain.b)) {
      Problem p = plain;
      p.a = a;
      p.b = b;
      expect_correct(p);
    }
  for (const Tensor& out : layouts(plain.out)) {
    Problem p = plain;
    p.out = out;
    expect_correct(p);
    p.has_bias = true;
    p.bias = Tensor::random(GetParam(), {70}, 9).spread(0);
    expect_correct(p);
  }
}

TEST_P(GemmTest, TakesPartsOfATransposedMatrixTimesATransposedMatrix) {
  Problem p = matrices(GetParam(), 600, 64, 96);
  p.a = p.a.stored_as({1, 0});
  p.b = p.b.stored_as({1, 0});
  expect_correct(p, 2);
}

TEST_P(GemmTest, TakesNegativeAndZeroStrides) {
  Problem p = matrices(GetParam(), 20, 30, 40);
  p.a = p.a.sliced(0, 19, 20, -1);
  p.b = p.b.sliced(1, 0, 1).expanded(1, 30);
  expect_correct(p);
}

TEST_P(GemmTest, MultipliesBatchesAlsoOnesThatAreBroadcast) {
  Problem p;
  p.a = Tensor::random(GetParam(), {5, 33, 20}, 1);
  p.b = Tensor::random(GetParam(), {5, 20, 17}, 2);
  p.out = Tensor(GetParam(), {5, 33, 17});
  expect_correct(p, 2);
  p.b = Tensor::random(GetParam(), {1, 20, 17}, 2).expanded(0, 5);
  expect_correct(p, 2);
  p.a = Tensor::random(GetParam(), {1, 33, 20}, 2).expanded(0, 5);
  expect_correct(p, 2);
  p.b = Tensor::random(GetParam(), {5, 20, 17}, 2).stored_as({1, 0, 2});
  p.out = Tensor(GetParam(), {5, 33, 17}).stored_as({1, 0, 2});
  expect_correct(p, 2);
  p.b = Tensor::random(GetParam(), {5, 20, 17}, 2).stored_as({0, 2, 1});
  expect_correct(p, 2);
}

TEST_P(GemmTest, AddsBiasAndAppliesTheActivation) {
  for (int activation = 0; activation < 4; ++activation)
    for (const DType bias : {GetParam(), DType::f32}) {
      Problem p = matrices(GetParam(), 70, 50, 30);
      p.has_bias = true;
      p.bias = Tensor::random(bias, {50}, 5);
      p.activation = activation;
      expect_correct(p);
    }
}

TEST_P(GemmTest, ScalesAndAddsC) {
  for (const auto& [alpha, beta] :
       {std::pair{1.0, 1.0}, {0.5, 1.0}, {1.0, -2.0}, {0.125, 0.0}, {0.0, 1.0}})
    for (const bool alias : {false, true}) {
      Problem p = matrices(GetParam(), 140, 50, 30);
      p.has_c = true;
      p.c = Tensor::random(GetParam(), {140, 50}, 6);
      if (alias) p.out = p.c;
      p.alpha = alpha;
      p.beta = beta;
      p.has_bias = beta == 1.0;
      p.bias = Tensor::random(GetParam(), {50}, 7);
      expect_correct(p);
    }
}

TEST_P(GemmTest, AddsACThatIsBroadcast) {
  Problem p = matrices(GetParam(), 40, 50, 30);
  p.has_c = true;
  p.c = Tensor::random(GetParam(), {1, 50}, 6).expanded(0, 40);
  expect_correct(p);
  p.c = Tensor::random(GetParam(), {40, 1}, 6).expanded(1, 50);
  expect_correct(p);
}

TEST_P(GemmTest, DoesNotReadCWhenBetaIsZero) {
  Problem p = matrices(GetParam(), 20, 20, 20);
  p.has_c = true;
  p.c = Tensor(GetParam(), {20, 20});
  p.c.fill([](int64_t) { return NAN; });
  p.beta = 0;
  expect_correct(p);
}

TEST_P(GemmTest, AccumulatesGradientsInF32) {
  Problem p = matrices(GetParam(), 140, 50, 300);
  p.out = Tensor::random(DType::f32, {140, 50}, 8);
  p.has_c = true;
  p.c = p.out;
  expect_correct(p, 2);
}

TEST_P(GemmTest, GivesTheSameBitsWithAnyNumberOfThreads) {
  std::vector<char> first;
  for (int threads = 1; threads <= 3; ++threads) {
    Problem p = matrices(GetParam(), 700, 300, 129);
    Call call = call_of(p);
    ASSERT_EQ(call.run(threads), XHAL_OK) << call.error;
    if (threads == 1) first = p.out.bytes();
    EXPECT_EQ(p.out.bytes(), first) << threads << " threads";
  }
}

TEST(GemmRefusal, NamesTheOperandThatDoesNotFit) {
  Problem p = matrices(DType::f32, 4, 5, 6);
  p.b = Tensor(DType::f32, {7, 5});
  Call call = call_of(p);
  EXPECT_EQ(call.run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(call.error,
            "`b` of `gemm` has sizes [7, 5] instead of [6, n] (B,k,n, where m = 4, k = 6, B = [])");

  p = matrices(DType::bf16, 4, 5, 6);
  p.b = Tensor(DType::f32, {6, 5});
  Call mixed = call_of(p);
  EXPECT_EQ(mixed.run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(mixed.refusal.operand, 2u);
}

}  // namespace
}  // namespace xhal::cpu::test
