// SPDX-License-Identifier: Apache-2.0
// random_test.cpp: the random words are Philox's, and what is made of them has
// the promised distribution.
#include <gmock/gmock.h>

#include <set>

#include "isa_levels.hpp"

namespace xhal::cpu::test {
namespace {

// Philox4x32-10, counter (counter, 0), written down from the published algorithm once more.
std::array<uint32_t, 4> philox(uint64_t seed, uint64_t counter, uint64_t upper = 0) {
  std::array<uint32_t, 4> c = {uint32_t(counter), uint32_t(counter >> 32), uint32_t(upper),
                               uint32_t(upper >> 32)};
  auto k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = 0xD2511F53ull * c[0], p1 = 0xCD9E8D57ull * c[2];
    c = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k1,
         uint32_t(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// The known answers published with the algorithm (Random123).
TEST(Philox, KnownAnswers) {
  const auto zero = philox(0, 0);
  EXPECT_EQ(zero, (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const auto ones = philox(~0ull, ~0ull, ~0ull);
  EXPECT_EQ(ones, (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  const auto pi = philox(0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x0370734413198a2eull);
  EXPECT_EQ(pi, (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

Call seeded(uint32_t id, const Tensor& out, std::initializer_list<double> parameters, int64_t seed,
            int64_t offset) {
  Call call(id);
  call.add(out);
  for (double p : parameters) call.scalar(p);
  call.scalar(double(seed)).scalar(double(offset));
  return call;
}

TEST(Random, UniformElementsAreTheUpperBitsOfTheirWords) {
  for_each_isa([] {
    for (int64_t n : {0, 1, 5, 1023, 5001})
      for (int64_t offset : Sizes{0, 7, 4294967290}) {
        const Tensor out(DType::f32, {n});
        ASSERT_EQ(seeded(XHAL_OP_uniform, out, {0, 1}, 1234567890123, offset).run(2), XHAL_OK);
        for (int64_t i = 0; i < n; ++i) {
          const auto words = philox(1234567890123, static_cast<uint64_t>(offset + i / 4));
          ASSERT_EQ(out[i], (words[i % 4] >> 8) * 0x1p-24);
        }
      }
  });
}

TEST(Random, TheLayoutOfTheTensorDoesNotMatter) {
  const Tensor dense(DType::f32, {30, 50}), turned = Tensor(DType::f32, {50, 30}).transposed(0, 1);
  ASSERT_EQ(seeded(XHAL_OP_normal, dense, {0, 1}, 5, 6).run(), XHAL_OK);
  ASSERT_EQ(seeded(XHAL_OP_normal, turned, {0, 1}, 5, 6).run(3), XHAL_OK);
  EXPECT_EQ(turned.values(), dense.values());
}

TEST(Random, InstructionSetsAgree) {
  std::vector<std::vector<double>> results;
  for_each_isa([&] {
    const Tensor out(DType::f32, {4000});
    ASSERT_EQ(seeded(XHAL_OP_normal, out, {0, 1}, 5, 6).run(), XHAL_OK);
    results.push_back(out.values());
  });
  for (const auto& r : results)
    for (size_t i = 0; i < r.size(); ++i) ASSERT_NEAR(r[i], results[0][i], 2e-6);
}

struct Moments {
  double mean = 0, variance = 0, low = INFINITY, high = -INFINITY, fourth = 0;
};
Moments moments_of(const Tensor& t) {
  Moments m;
  const auto v = t.values();
  for (double x : v)
    m.mean += x / double(v.size()), m.low = std::min(m.low, x), m.high = std::max(m.high, x);
  for (double x : v)
    m.variance += std::pow(x - m.mean, 2) / double(v.size()),
        m.fourth += std::pow(x - m.mean, 4) / double(v.size());
  return m;
}

TEST(Random, DistributionsHaveTheirMoments) {
  for_each_isa([] {
    const Tensor out(DType::f32, {400000});
    ASSERT_EQ(seeded(XHAL_OP_normal, out, {3, 2}, 11, 0).run(), XHAL_OK);
    Moments m = moments_of(out);
    EXPECT_NEAR(m.mean, 3, 0.015);
    EXPECT_NEAR(m.variance, 4, 0.04);
    EXPECT_NEAR(m.fourth / (m.variance * m.variance), 3, 0.06);
    EXPECT_GT(m.high, 3 + 2 * 4.2);
    ASSERT_EQ(seeded(XHAL_OP_uniform, out, {-2, 6}, 12, 0).run(), XHAL_OK);
    m = moments_of(out);
    EXPECT_NEAR(m.mean, 2, 0.02);
    EXPECT_NEAR(m.variance, 64.0 / 12, 0.05);
    EXPECT_GE(m.low, -2);
    EXPECT_LT(m.high, 6);
    ASSERT_EQ(seeded(XHAL_OP_exponential, out, {4}, 13, 0).run(), XHAL_OK);
    m = moments_of(out);
    EXPECT_NEAR(m.mean, 0.25, 0.003);
    EXPECT_NEAR(m.variance, 1.0 / 16, 0.002);
    EXPECT_GE(m.low, 0);
  });
}

TEST(Random, NarrowFloatsStayBelowTheUpperBound) {
  for (DType type : {DType::bf16, DType::f16})
    for (double to : {1.0, 3.0, 0.7}) {
      const Tensor out(type, {100000});
      ASSERT_EQ(seeded(XHAL_OP_uniform, out, {0, to}, 3, 0).run(), XHAL_OK);
      const Moments m = moments_of(out);
      EXPECT_LT(m.high, to);
      EXPECT_NEAR(m.mean, to / 2, 0.02);
    }
}

TEST(Random, IntegersCoverTheirRangeEvenly) {
  for (DType type : {DType::i64, DType::i32, DType::u8, DType::f32}) {
    const Tensor out(type, {70000});
    ASSERT_EQ(seeded(XHAL_OP_random_int, out, {3, 10}, 21, 0).run(), XHAL_OK);
    std::map<double, int> count;
    for (double x : out.values()) ++count[x];
    ASSERT_EQ(count.size(), 7u);
    EXPECT_EQ(count.begin()->first, 3);
    for (const auto& [value, n] : count) EXPECT_NEAR(n, 10000, 500) << value;
  }
  const Tensor wide(DType::i64, {50000});
  ASSERT_EQ(seeded(XHAL_OP_random_int, wide, {-1e15, 1e15}, 21, 0).run(), XHAL_OK);
  const Moments m = moments_of(wide);
  EXPECT_NEAR(m.mean, 0, 2e13);
  EXPECT_LT(m.low, -0.99e15);
  EXPECT_GT(m.high, 0.99e15);
}

TEST(Random, BernoulliByScalarAndByTensor) {
  for (DType type : {DType::f32, DType::boolean, DType::i64}) {
    const Tensor out(type, {100000});
    ASSERT_EQ(Call(XHAL_OP_bernoulli).absent().add(out).scalar(0.3).scalar(1).run(2), XHAL_OK);
    EXPECT_NEAR(moments_of(out).mean, 0.3, 0.01);
  }
  const Tensor p = Tensor::random(DType::bf16, {1000}, 1, 0, 1).copy(), out(DType::f32, {1000});
  Tensor sure = p;
  for (int64_t i = 0; i < 500; ++i) sure.set(i, i % 2);
  ASSERT_EQ(Call(XHAL_OP_bernoulli).add(sure).add(out).scalar(0.5).scalar(1).run(), XHAL_OK);
  for (int64_t i = 0; i < 500; ++i) ASSERT_EQ(out[i], i % 2);
}

TEST(Random, DropoutKeepsScalesAndTellsTheMask) {
  for_each_isa([] {
    for (DType type : {DType::f32, DType::bf16, DType::f16}) {
      const Tensor in = Tensor::random(type, {301, 7}, 1, 1, 2), out(type, {301, 7}),
                   mask(DType::boolean, {301, 7});
      ASSERT_EQ(
          Call(XHAL_OP_dropout).add(in).add(out).add(mask).scalar(0.25).scalar(9).scalar(4).run(2),
          XHAL_OK);
      int64_t kept = 0;
      for (int64_t i = 0; i < in.count(); ++i) {
        const double u = (philox(9, static_cast<uint64_t>(4 + i / 4))[i % 4] >> 8) * 0x1p-24;
        ASSERT_EQ(mask[i], u >= 0.25);
        ASSERT_NEAR(out[i], mask[i] * in[i] / 0.75, 2 * unit_roundoff(type) * out[i]);
        kept += mask[i] != 0;
      }
      EXPECT_NEAR(double(kept) / double(in.count()), 0.75, 0.04);
      const Tensor grad = Tensor::random(type, {301, 7}, 2), din(type, {301, 7});
      ASSERT_EQ(Call(XHAL_OP_dropout_grad).add(grad).add(mask).add(din).scalar(1 / 0.75).run(),
                XHAL_OK);
      for (int64_t i = 0; i < in.count(); ++i)
        ASSERT_NEAR(din[i], mask[i] * grad[i] / 0.75, 2 * unit_roundoff(type));
      ASSERT_EQ(Call(XHAL_OP_dropout).add(in).add(in).add(mask).scalar(1).run(), XHAL_OK);
      for (int64_t i = 0; i < in.count(); ++i) ASSERT_EQ(in[i], 0);
    }
  });
}

TEST(Random, PermutationsHoldEveryNumberOnceAndDifferBySeed) {
  for (DType type : {DType::i64, DType::i32, DType::f32}) {
    const Tensor a(type, {5000}), b(type, {5000});
    ASSERT_EQ(seeded(XHAL_OP_randperm, a, {}, 1, 0).run(), XHAL_OK);
    ASSERT_EQ(seeded(XHAL_OP_randperm, b, {}, 2, 0).run(), XHAL_OK);
    const auto v = a.values();
    EXPECT_EQ(std::set<double>(v.begin(), v.end()).size(), 5000u);
    EXPECT_EQ(*std::max_element(v.begin(), v.end()), 4999);
    EXPECT_NE(v, b.values());
  }
  const Tensor empty(DType::i64, {0});
  EXPECT_EQ(seeded(XHAL_OP_randperm, empty, {}, 1, 0).run(), XHAL_OK);
}

}  // namespace
}  // namespace xhal::cpu::test
