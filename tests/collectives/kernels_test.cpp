// SPDX-License-Identifier: Apache-2.0
// The reductions at every processor level that this machine has, against scalar arithmetic.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "elements.hpp"
#include "engine/kernels/reduce.hpp"

namespace xcoll::testing {
namespace {

using kernels::Table;

struct TypePair {
  kernels::Type type;
  xcoll_dtype dtype;
};
constexpr TypePair kTypePairs[] = {
    {kernels::kI8, XCOLL_I8},     {kernels::kI32, XCOLL_I32},  {kernels::kI64, XCOLL_I64},
    {kernels::kU8, XCOLL_U8},     {kernels::kU32, XCOLL_U32},  {kernels::kU64, XCOLL_U64},
    {kernels::kF16, XCOLL_F16},   {kernels::kF32, XCOLL_F32},  {kernels::kF64, XCOLL_F64},
    {kernels::kBF16, XCOLL_BF16}, {kernels::kBool, XCOLL_BOOL}};

class KernelsTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    table_ = kernels::table_of(GetParam());
    if (!table_) GTEST_SKIP() << "this processor has no " << GetParam();
  }
  const Table* table_ = nullptr;
};

TEST_P(KernelsTest, EveryReductionOfEveryTypeEqualsTheReference) {
  for (const auto& [type, dtype] : kTypePairs) {
    for (const xcoll_reduction reduction : kAllReductions) {
      const kernels::Combine combine = table_->combine[type][reduction];
      ASSERT_EQ(combine != nullptr, is_defined(dtype, reduction));
      if (!combine) continue;
      for (const uint32_t ranks : {1u, 2u, 3u, 7u}) {
        for (const uint64_t count : {0u, 1u, 15u, 64u, 513u, 2000u}) {
          std::vector<Bytes> inputs;
          std::vector<const void*> sources;
          for (uint32_t r = 0; r < ranks; ++r) {
            inputs.push_back(input_of(static_cast<int32_t>(r), count, dtype));
          }
          for (const Bytes& input : inputs) sources.push_back(input.data());
          Bytes out(count * xcoll_dtype_bytes(dtype) + 1, 0xa5);
          combine(out.data(), sources.data(), ranks, count);
          ASSERT_EQ(difference(reduced(inputs, dtype, reduction), out.data(), dtype), "equal")
              << name_of(dtype) << " " << name_of_reduction(reduction) << " " << ranks << " ranks";
          ASSERT_EQ(out.back(), 0xa5) << "wrote behind the end";
        }
      }
    }
  }
}

TEST_P(KernelsTest, TheResultMayBeAnyOfTheInputs) {
  for (const uint32_t ranks : {2u, 3u, 5u}) {
    for (uint32_t target = 0; target < ranks; ++target) {
      std::vector<Bytes> inputs;
      for (uint32_t r = 0; r < ranks; ++r) {
        inputs.push_back(input_of(static_cast<int32_t>(r), 1500, XCOLL_BF16));
      }
      const Bytes expected = reduced(inputs, XCOLL_BF16, XCOLL_SUM);
      std::vector<const void*> sources;
      for (const Bytes& input : inputs) sources.push_back(input.data());
      table_->combine[kernels::kBF16][kernels::kSum](inputs[target].data(), sources.data(), ranks,
                                                     1500);
      EXPECT_EQ(difference(expected, inputs[target].data(), XCOLL_BF16), "equal");
    }
  }
}

TEST_P(KernelsTest, EveryHalfSurvivesLoadingAndStoring) {
  std::vector<uint16_t> halves(65536), out(65536);
  for (uint32_t bits = 0; bits < 65536; ++bits) halves[bits] = static_cast<uint16_t>(bits);
  const void* source = halves.data();
  table_->combine[kernels::kF16][kernels::kSum](out.data(), &source, 1, halves.size());
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const bool nan = (bits & 0x7c00) == 0x7c00 && (bits & 0x3ff) != 0;
    if (nan) {
      ASSERT_TRUE((out[bits] & 0x7c00) == 0x7c00 && (out[bits] & 0x3ff) != 0) << bits;
    } else {
      ASSERT_EQ(out[bits], bits);
    }
  }
}

TEST_P(KernelsTest, HalvesAreAddedInFloatAndRoundedToNearestEven) {
  std::mt19937 random(7);
  std::vector<uint16_t> a(200'000), b(a.size()), out(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<uint16_t>(random());
    b[i] = static_cast<uint16_t>(random());
  }
  const void* sources[] = {a.data(), b.data()};
  table_->combine[kernels::kF16][kernels::kSum](out.data(), sources, 2, a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    _Float16 x, y, z;
    std::memcpy(&x, &a[i], 2);
    std::memcpy(&y, &b[i], 2);
    std::memcpy(&z, &out[i], 2);
    const _Float16 expected = static_cast<_Float16>(static_cast<float>(x) + static_cast<float>(y));
    const auto wide = static_cast<float>(expected), got = static_cast<float>(z);
    ASSERT_TRUE(wide == got || (std::isnan(wide) && std::isnan(got)))
        << static_cast<float>(x) << " + " << static_cast<float>(y) << " gave " << got;
  }
}

TEST_P(KernelsTest, BrainFloatsKeepNanAndInfinity) {
  const uint16_t values[] = {0x7f80, 0xff80, 0x7fc0, 0x7f81, 0x7f7f, 0x0001};
  uint16_t out[6];
  const void* source = values;
  table_->combine[kernels::kBF16][kernels::kSum](out, &source, 1, 6);
  EXPECT_EQ(out[0], 0x7f80);
  EXPECT_EQ(out[1], 0xff80);
  EXPECT_GT(out[2] & 0x7fff, 0x7f80);
  EXPECT_GT(out[3] & 0x7fff, 0x7f80);
  EXPECT_EQ(out[4], 0x7f7f);
  EXPECT_EQ(out[5], 0x0001);
}

TEST_P(KernelsTest, MinimumAndMaximumHandNanOn) {
  const float nan = std::nanf("");
  const float a[] = {nan, 1, 2}, b[] = {1, nan, 3};
  const void* sources[] = {a, b};
  float out[3];
  table_->combine[kernels::kF32][kernels::kMin](out, sources, 2, 3);
  EXPECT_TRUE(std::isnan(out[0]) && std::isnan(out[1]));
  EXPECT_EQ(out[2], 2);
  table_->combine[kernels::kF32][kernels::kMax](out, sources, 2, 3);
  EXPECT_TRUE(std::isnan(out[0]) && std::isnan(out[1]));
  EXPECT_EQ(out[2], 3);
}

INSTANTIATE_TEST_SUITE_P(Levels, KernelsTest, ::testing::Values("baseline", "avx2", "avx512"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace xcoll::testing
