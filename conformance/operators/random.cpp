// SPDX-License-Identifier: Apache-2.0
// Random numbers have no float64 reference, but laws: the words are Philox's by element number, so
// the layout of memory does not matter, the same seed gives the same numbers, and an offset shifts
// the sequence by four elements.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "operators/operator_test.hpp"
#include "reference/philox.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Group;
using ref::Problem;
using ref::Scalar;
using ref::Sizes;
using ref::Tensor;
using Problems = std::vector<Problem>;

constexpr unsigned kRandomCases =
    bit(Case::plain) | bit(Case::odd) | bit(Case::strided) | bit(Case::empty);
constexpr int64_t kSeed = 0x1234567, kOffset = 9;

std::vector<Sizes> shapes(const Maker& m) {
  if (m.is(Case::empty)) return {{0}, {4, 0}};
  return {m.shape({40, 50}), m.shape({20000})};
}

// The uniform number of element `i`: the upper bits of its word, as many as the dtype holds.
double uniform_of(uint64_t i, int bits = 24) {
  return std::ldexp(ref::random_word(kSeed, kOffset, i) >> (32 - bits), -bits);
}

struct Moments {
  double mean = 0, deviation = 0;
};

Moments moments_of(const Tensor& t) {
  Moments m;
  const auto n = static_cast<double>(t.count());
  for (const double v : t.values) m.mean += v / n;
  for (const double v : t.values) m.deviation += (v - m.mean) * (v - m.mean) / n;
  m.deviation = std::sqrt(m.deviation);
  return m;
}

void expect_moments(const Tensor& t, double mean, double deviation) {
  if (t.count() < 1000) return;
  const auto got = moments_of(t);
  const double root = std::sqrt(static_cast<double>(t.count()));
  EXPECT_NEAR(got.mean, mean, 5 * deviation / root + 1e-2 * deviation);
  EXPECT_NEAR(got.deviation, deviation, 5 * deviation / root + 2e-2 * deviation);
}

Problem drawing(const Maker& m, const Sizes& sizes, std::vector<Scalar> parameters) {
  Problem p;
  p.scalars = std::move(parameters);
  p.scalars.emplace_back(kSeed);
  p.scalars.emplace_back(kOffset);
  p.outputs = {{output(m.dtype, sizes)}};
  return p;
}

auto drawings(std::vector<Scalar> parameters) {
  return [=](Maker& m) {
    Problems problems;
    for (const auto& sizes : shapes(m)) problems.push_back(drawing(m, sizes, parameters));
    return problems;
  };
}

// What a computed element must be within one rounding of f32.
void expect_element(double got, double wanted, double magnitude, DType type, size_t i) {
  Tensor one(type, {}), other(type, {});
  one.values[0] = wanted;
  one.magnitude = {magnitude};
  other.values[0] = got;
  ASSERT_EQ(first_difference(one, other, Tolerance::ulp), "") << "element " << i;
}

void judge_uniform(const Problem& p, const std::vector<Group>& outputs) {
  const auto& out = outputs[0][0];
  const double from = p.scalar(0, 0), to = p.scalar(1, 1);
  const int bits = out.dtype == DType::bf16 ? 8 : out.dtype == DType::f16 ? 11 : 24;
  for (size_t i = 0; i < out.values.size(); ++i) {
    const double wanted = from + (to - from) * uniform_of(i, bits);
    expect_element(out.values[i], wanted, std::fabs(from) + std::fabs(to - from), out.dtype, i);
    if (testing::Test::HasFatalFailure()) return;
  }
}

void judge_normal(const Problem& p, const std::vector<Group>& outputs) {
  expect_moments(outputs[0][0], p.scalar(0, 0), p.scalar(1, 1));
}

void judge_exponential(const Problem& p, const std::vector<Group>& outputs) {
  const double rate = p.scalar(0, 1);
  for (const double v : outputs[0][0].values) ASSERT_GE(v, 0);
  expect_moments(outputs[0][0], 1 / rate, 1 / rate);
}

void judge_integers(const Problem& p, const std::vector<Group>& outputs) {
  const auto& out = outputs[0][0];
  const double from = p.scalar(0, 0), range = p.scalar(1, 1) - from;
  for (size_t i = 0; i < out.values.size(); ++i) {
    ASSERT_EQ(out.values[i],
              from + std::floor(ref::random_word(kSeed, kOffset, i) * range * 0x1p-32))
        << "element " << i;
  }
}

void judge_bernoulli(const Problem& p, const std::vector<Group>& outputs) {
  const auto& out = outputs[0][0];
  for (size_t i = 0; i < out.values.size(); ++i) {
    const double probability = p.maybe(0) != nullptr ? p.in(0).values[i] : p.scalar(0, 0.5);
    const double u = uniform_of(i);
    ASSERT_EQ(out.values[i], u < probability ? 1 : 0)
        << "element " << i << ": u is " << u << ", p " << probability;
  }
}

void judge_dropout(const Problem& p, const std::vector<Group>& outputs) {
  const auto &out = outputs[0][0], &mask = outputs[1][0];
  const double drop = static_cast<float>(p.scalar(0, 0.5));
  for (size_t i = 0; i < out.values.size(); ++i) {
    ASSERT_EQ(mask.values[i], uniform_of(i) >= drop ? 1 : 0) << "mask of element " << i;
    const double wanted = drop == 1 ? 0 : p.in(0).values[i] * mask.values[i] / (1 - drop);
    expect_element(out.values[i], wanted, 0, out.dtype, i);
    if (testing::Test::HasFatalFailure()) return;
  }
}

void judge_permutation(const Problem&, const std::vector<Group>& outputs) {
  auto values = outputs[0][0].values;
  std::sort(values.begin(), values.end());
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], static_cast<double>(i));
}

// The numbers drawn with a later offset are those drawn before, four elements on for each step;
// in any layout.
class ShiftJudge {
 public:
  explicit ShiftJudge(size_t offset_scalar,
                      std::function<void(const Problem&, const std::vector<Group>&)> also)
      : offset_scalar_(offset_scalar), also_(std::move(also)) {}
  void operator()(const Problem& p, const std::vector<Group>& outputs) const {
    also_(p, outputs);
    if (testing::Test::HasFailure()) return;
    Problem later = p;
    later.scalars[offset_scalar_] = kOffset + 2;
    Run dense;
    const auto second = run_problem(later, nullptr, dense);
    const auto& whole = outputs.back()[0].values;
    const auto& shifted = second.outputs.back()[0].values;
    for (size_t i = 0; i + 8 < whole.size(); ++i)
      ASSERT_EQ(shifted[i], whole[i + 8]) << "element " << i << " after offset + 2";
  }

 private:
  size_t offset_scalar_;
  std::function<void(const Problem&, const std::vector<Group>&)> also_;
};

Problems bernoulli_problems(Maker& m) {
  Problems problems;
  for (const auto& sizes : shapes(m)) {
    for (const double p_of_one : {0.3, 0.0, 1.0}) {
      auto p = drawing(m, sizes, {p_of_one});
      p.inputs = {{}};
      problems.push_back(p);
    }
    auto p = drawing(m, sizes, {0.0});
    p.note = "p is a tensor";
    p.inputs = {{m.real(m.real_numbers() ? m.dtype : DType::f32, sizes, 0, 1)}};
    problems.push_back(p);
  }
  return problems;
}

Problems dropout_problems(Maker& m) {
  Problems problems;
  for (const auto& sizes : m.is(Case::aliased) ? std::vector<Sizes>{{40, 50}} : shapes(m)) {
    for (const double drop : {0.25, 0.0, 1.0}) {
      auto p = drawing(m, sizes, {drop});
      p.inputs = {{m.real(sizes)}};
      p.outputs.push_back({output(DType::boolean, sizes)});
      problems.push_back(p);
    }
  }
  return problems;
}

Problems permutation_problems(Maker& m) {
  Problems problems;
  for (const int64_t n : {1, 2, 100, 127}) {
    auto p = drawing(m, {m.is(Case::empty) ? 0 : n}, {});
    problems.push_back(p);
  }
  return problems;
}

}  // namespace

void add_random_tests(OpTests& tests) {
  const auto& floats = dtypes_of('F');
  tests.push_back({XHAL_OP_uniform, floats, drawings({-1.0, 3.0}), nullptr, kRandomCases, false,
                   ShiftJudge(3, judge_uniform)});
  tests.push_back({XHAL_OP_normal, floats, drawings({1.0, 2.0}), nullptr, kRandomCases, false,
                   ShiftJudge(3, judge_normal)});
  tests.push_back({XHAL_OP_exponential, floats, drawings({2.0}), nullptr, kRandomCases, false,
                   ShiftJudge(2, judge_exponential)});
  tests.push_back({XHAL_OP_random_int, dtypes_of('N'), drawings({int64_t{3}, int64_t{19}}), nullptr,
                   kRandomCases, false, ShiftJudge(3, judge_integers)});
  tests.push_back({XHAL_OP_bernoulli, dtypes_of('A'), bernoulli_problems, nullptr, kRandomCases,
                   false, judge_bernoulli});
  tests.push_back({XHAL_OP_dropout, floats, dropout_problems, nullptr,
                   kRandomCases | bit(Case::aliased), false, judge_dropout});
  tests.push_back({XHAL_OP_randperm, dtypes_of('N'), permutation_problems, nullptr, kRandomCases,
                   false, judge_permutation});
}

}  // namespace xhal::cts
