// SPDX-License-Identifier: Apache-2.0
// copy_test.cpp: operators that move elements: fill, copies and conversions, cat,
// flip, triangles, arange.
#include <gmock/gmock.h>

#include "isa_levels.hpp"
#include "xhal/half.hpp"

namespace xhal::cpu::test {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f16,    DType::f64,
                            DType::i8,  DType::u8,   DType::i16,    DType::i32,
                            DType::u32, DType::i64,  DType::boolean};

// What a value becomes in a dtype: truncated for integers, non-zero for bool, rounded for floats.
double converted(DType to, double x) {
  if (to == DType::boolean) return x != 0;
  if (is_float(to)) return rounded_to(to, x);
  return std::trunc(x);
}

TEST(Copy, ConvertsBetweenAnyTwoTypesInAnyLayout) {
  for_each_isa([] {
    for (DType from : kTypes)
      for (DType to : kTypes) {
        const double low = from == DType::boolean ? 0 : 0, high = from == DType::boolean ? 1 : 100;
        const Tensor in = Tensor::random(from, {9, 70}, 5, low, high);
        for (const Tensor& x : layouts_of(in))
          for (const Tensor& out : layouts_of(Tensor(to, {9, 70}))) {
            ASSERT_EQ(Call(XHAL_OP_strided_copy).add(x).add(out).run(), XHAL_OK);
            for (int64_t i = 0; i < in.count(); ++i)
              ASSERT_EQ(out[i], converted(to, in[i])) << name_of(from) << " to " << name_of(to);
          }
      }
  });
}

TEST(Copy, NarrowFloatsRoundToNearestEvenAndKeepSpecialValues) {
  for_each_isa([] {
    std::mt19937 generator(3);
    Tensor in(DType::f32, {20000});
    in.fill([&](int64_t) {
      const auto bits = static_cast<uint32_t>(generator());
      return static_cast<double>(std::bit_cast<float>(bits));
    });
    // f16's edges: ties at the largest value, at the least normal and subnormal ones.
    const double edges[] = {65519.99, 65520,   65504,          0x1p-14,   0x1.ffep-15,
                            0x1p-24,  0x1p-25, 0x1.000002p-25, 0x1.8p-24, -0.0};
    for (int64_t i = 0; i < 10; ++i) in.set(i, edges[i]);
    for (DType type : {DType::bf16, DType::f16}) {
      const Tensor narrow(type, {20000}), back(DType::f32, {20000});
      ASSERT_EQ(Call(XHAL_OP_strided_copy).add(in).add(narrow).run(), XHAL_OK);
      ASSERT_EQ(Call(XHAL_OP_strided_copy).add(narrow).add(back).run(), XHAL_OK);
      for (int64_t i = 0; i < in.count(); ++i) {
        const double exact = in[i], got = narrow[i];
        ASSERT_EQ(std::isnan(got), std::isnan(exact));
        if (std::isnan(got)) continue;
        ASSERT_LE(ulps(type, got, exact), 0.5) << exact << " became " << got;
        ASSERT_EQ(std::signbit(got), std::signbit(exact));
        ASSERT_EQ(back[i], got);
      }
    }
  });
}

TEST(Copy, TransposesOfEverySizeAreExact) {
  for (DType type : {DType::u8, DType::bf16, DType::f32, DType::i64})
    for (const Sizes& sizes :
         {Sizes{1, 5}, Sizes{4, 4}, Sizes{33, 64}, Sizes{100, 3}, Sizes{130, 131}}) {
      const Tensor in = Tensor::random(type, sizes, 1, 0, 100).transposed(0, 1),
                   out(type, {sizes[1], sizes[0]});
      ASSERT_EQ(Call(XHAL_OP_strided_copy).add(in).add(out).run(2), XHAL_OK);
      ASSERT_THAT(out.values(), ElementsAreArray(in.values()));
    }
  const Tensor images = Tensor::random(DType::f32, {3, 5, 40, 41}, 1);
  const Tensor last = Tensor(DType::f32, {3, 5, 40, 41}).stored_as({0, 2, 3, 1});
  ASSERT_EQ(Call(XHAL_OP_strided_copy).add(images).add(last).run(3), XHAL_OK);
  EXPECT_EQ(last.values(), images.values());
}

TEST(Copy, ExpandedInputsAreRepeated) {
  const Tensor in = Tensor::random(DType::f32, {1, 7}, 1).expanded(0, 5), out(DType::f32, {5, 7});
  ASSERT_EQ(Call(XHAL_OP_strided_copy).add(in).add(out).run(), XHAL_OK);
  EXPECT_EQ(out.values(), in.values());
  const Tensor one = Tensor::random(DType::i64, {1}, 1).expanded(0, 9), many(DType::i64, {9});
  ASSERT_EQ(Call(XHAL_OP_strided_copy).add(one).add(many).run(), XHAL_OK);
  EXPECT_EQ(many.values(), one.values());
}

TEST(Copy, FillWritesOnlyTheView) {
  for (DType type : kTypes) {
    Tensor memory(type, {6, 10});
    const Tensor view = memory.sliced(1, 2, 3, 2);
    ASSERT_EQ(Call(XHAL_OP_fill).add(view).scalar(1).run(), XHAL_OK);
    for (int64_t i = 0; i < 60; ++i) {
      const int64_t column = i % 10;
      ASSERT_EQ(memory[i], column >= 2 && column <= 6 && column % 2 == 0 ? 1 : 0) << name_of(type);
    }
    ASSERT_EQ(Call(XHAL_OP_fill).add(Tensor(type, {0, 4})).scalar(1).run(), XHAL_OK);
  }
  const Tensor large(DType::f32, {300000});
  ASSERT_EQ(Call(XHAL_OP_fill).add(large).scalar(-2.5).run(3), XHAL_OK);
  for (int64_t i = 0; i < large.count(); i += 997) ASSERT_EQ(large[i], -2.5);
}

TEST(Copy, CatJoinsAlongAnyDimensionAndSkipsEmptyInputs) {
  for (DType type : {DType::f32, DType::bf16, DType::i64, DType::boolean})
    for (int64_t dim : {0, 1, -1}) {
      const auto d = static_cast<size_t>(dim < 0 ? dim + 3 : dim);
      std::vector<Tensor> parts;
      Sizes joined{3, 4, 5};
      joined[d] = 0;
      for (int64_t n : {2, 0, 3, 1}) {
        Sizes sizes{3, 4, 5};
        sizes[d] = n;
        joined[d] += n;
        parts.push_back(Tensor::random(type, sizes, static_cast<uint32_t>(n), 0, 1));
      }
      parts.push_back(Tensor(type, {0}));
      parts[2] = parts[2].stored_as({2, 1, 0});
      const Tensor out = Tensor(type, joined).spread(2);
      Call call(XHAL_OP_cat);
      ASSERT_EQ(call.group(parts).add(out).attr(0, dim).run(2), XHAL_OK) << call.error;
      int64_t at = 0;
      for (const Tensor& part : parts) {
        if (part.count() == 0) continue;
        EXPECT_EQ(out.sliced(d, at, part.size(d)).values(), part.values());
        at += part.size(d);
      }
    }
}

TEST(Copy, CatRefusesPartsThatDoNotFit) {
  Call call(XHAL_OP_cat);
  call.group({Tensor(DType::f32, {2, 3}), Tensor(DType::f32, {2, 4})})
      .add(Tensor(DType::f32, {4, 3}));
  EXPECT_EQ(call.run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(call.refusal.operand, 2u);

  Call flat(XHAL_OP_cat);  // along a dimension that only the output has
  flat.group({Tensor(DType::f32, {2}), Tensor(DType::f32, {2})}).add(Tensor(DType::f32, {2, 2}));
  EXPECT_EQ(flat.attr(0, 1).run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(flat.refusal.operand, 1u);
  Call nothing(XHAL_OP_cat);
  nothing.group({Tensor(DType::f32, {0})}).add(Tensor(DType::f32, {2, 2}));
  EXPECT_EQ(nothing.attr(0, 1).run(), XHAL_ERR_INVALID_ARGUMENT);
}

TEST(Copy, ABlockMayBeLongerThanItsRow) {
  const Tensor in = Tensor::of(DType::f32, {2, 2}, {127, 1, -254, 4});
  const Tensor out(DType::i8, {2, 2}), scale(DType::f32, {2, 1});
  ASSERT_EQ(Call(XHAL_OP_quantise_block).add(in).add(out).add(scale).attr(0, INT64_MAX).run(),
            XHAL_OK);
  EXPECT_EQ(out.values(), (std::vector<double>{127, 1, -127, 2}));
  EXPECT_EQ(scale.values(), (std::vector<double>{1, 2}));
}

TEST(Copy, FlipReversesTheNamedDimensions) {
  const Tensor in = Tensor::random(DType::i32, {3, 4, 5}, 1, 0, 99), out(DType::i32, {3, 4, 5});
  ASSERT_EQ(Call(XHAL_OP_flip).add(in).add(out).attr_list(0, {0, -1}).run(), XHAL_OK);
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 4; ++j)
      for (int64_t k = 0; k < 5; ++k) ASSERT_EQ(out.at({i, j, k}), in.at({2 - i, j, 4 - k}));
}

TEST(Copy, TrianglesKeepOneSideOfTheDiagonal) {
  for (DType type : {DType::f32, DType::bf16, DType::boolean})
    for (int64_t diagonal : {-9, -1, 0, 2, 9})
      for (bool in_place : {false, true})
        for (const Tensor& x : layouts_of(Tensor::random(type, {2, 6, 7}, 1, 1, 1))) {
          const Tensor in = x.copy(), low = in_place ? in : Tensor(type, {2, 6, 7}),
                       high(type, {2, 6, 7});
          ASSERT_EQ(Call(XHAL_OP_triu).add(in).add(high).attr(0, diagonal).run(), XHAL_OK);
          ASSERT_EQ(Call(XHAL_OP_tril).add(in).add(low).attr(0, diagonal).run(), XHAL_OK);
          for (int64_t b = 0; b < 2; ++b)
            for (int64_t i = 0; i < 6; ++i)
              for (int64_t j = 0; j < 7; ++j) {
                ASSERT_EQ(low.at({b, i, j}), j - i <= diagonal ? x.at({b, i, j}) : 0);
                ASSERT_EQ(high.at({b, i, j}), j - i >= diagonal ? x.at({b, i, j}) : 0);
              }
        }
}

TEST(Copy, ArangeCountsWithoutDrift) {
  const Tensor whole(DType::i64, {1000});
  ASSERT_EQ(Call(XHAL_OP_arange).add(whole).scalar(-5).scalar(3).run(), XHAL_OK);
  EXPECT_EQ(whole[999], -5 + 999 * 3);
  const Tensor real = Tensor(DType::f32, {100001}).spread(0);
  ASSERT_EQ(Call(XHAL_OP_arange).add(real).scalar(0.1).scalar(0.1).run(2), XHAL_OK);
  for (int64_t i = 0; i < real.count(); i += 777)
    ASSERT_EQ(real[i], rounded_to(DType::f32, 0.1 + 0.1 * double(i)));
}

TEST(Copy, MultiCopyConvertsEachPair) {
  std::vector<Tensor> in, out;
  for (int64_t n : {0, 1, 70000, 33}) {
    in.push_back(Tensor::random(DType::f32, {n}, static_cast<uint32_t>(n)));
    out.push_back(n == 33 ? Tensor(DType::f32, {n}) : Tensor(DType::bf16, {n}));
  }
  ASSERT_EQ(Call(XHAL_OP_multi_copy).group(in).group(out).run(3), XHAL_OK);
  for (size_t k = 0; k < in.size(); ++k)
    for (int64_t i = 0; i < in[k].count(); ++i)
      ASSERT_EQ(out[k][i], rounded_to(out[k].type(), in[k][i]));
}

// Larger than any cache, so that outputs are written past them; ends that are not whole lines.
TEST(Copy, HugeTensorsAreCopiedConvertedFilledAndMapped) {
  for_each_isa([] {
    constexpr int64_t kCount = (int64_t{1} << 24) + 13;
    const Tensor base(DType::f32, {kCount + 3}), other(DType::f32, {kCount + 3});
    const Tensor narrow_base(DType::bf16, {kCount + 3});
    const Tensor in = base.sliced(0, 3, kCount), out = other.sliced(0, 1, kCount);
    const Tensor narrow = narrow_base.sliced(0, 1, kCount);
    auto* x = static_cast<float*>(in.data());
    for (int64_t i = 0; i < kCount; ++i) x[i] = static_cast<float>(i % 251) - 100;
    const auto* y = static_cast<const float*>(out.data());
    const auto guards = [&] { return std::pair(other[0], other[kCount + 1]); };

    ASSERT_EQ(Call(XHAL_OP_strided_copy).add(in).add(out).run(2), XHAL_OK);
    EXPECT_EQ(std::memcmp(x, y, kCount * sizeof(float)), 0);
    ASSERT_EQ(Call(XHAL_OP_neg).add(in).add(out).run(2), XHAL_OK);
    int64_t wrong = 0;
    for (int64_t i = 0; i < kCount; ++i) wrong += y[i] != -x[i];
    EXPECT_EQ(wrong, 0);
    const Tensor two = Tensor::of(DType::bf16, {1}, {2}).expanded(0, kCount);
    ASSERT_EQ(Call(XHAL_OP_mul).add(in).add(two).add(out).run(2), XHAL_OK);
    for (int64_t i = 0; i < kCount; ++i) wrong += y[i] != 2 * x[i];
    EXPECT_EQ(wrong, 0);
    ASSERT_EQ(Call(XHAL_OP_fill).add(out).scalar(2.5).run(2), XHAL_OK);
    for (int64_t i = 0; i < kCount; ++i) wrong += y[i] != 2.5f;
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(guards(), std::pair(0.0, 0.0));
    ASSERT_EQ(Call(XHAL_OP_strided_copy).add(in).add(narrow).run(2), XHAL_OK);
    const auto* z = static_cast<const Bf16*>(narrow.data());
    for (int64_t i = 0; i < kCount; ++i) wrong += to_float(z[i]) != x[i];
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(narrow_base[0], 0);
    EXPECT_EQ(narrow_base[kCount + 1], 0);
  });
}

}  // namespace
}  // namespace xhal::cpu::test
