// SPDX-License-Identifier: Apache-2.0
// The rules of numbers at the head of ops.inc, where plugins are most likely to differ: what a
// scalar becomes beside integers, how one dtype becomes another, which dtypes are an error. Written
// out, not computed: each line is what the contract says. What a plugin does not have, it refuses.
#include <cmath>
#include <limits>

#include "harness/cts.hpp"
#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Problem;
using ref::Tensor;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kLeast = -0x1p63;  // of the i64

Tensor vector_of(DType type, std::vector<double> values) {
  Tensor t(type, {static_cast<int64_t>(values.size())});
  t.values = std::move(values);
  return t;
}

// Compares the only output, element by element.
void expect_values(const Problem& p, const Outcome& outcome, const std::vector<double>& wanted) {
  ASSERT_EQ(outcome.outputs.size(), 1u) << p.note;
  const auto& got = outcome.outputs[0][0].values;
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    const bool same = std::isnan(wanted[i]) ? std::isnan(got[i]) : got[i] == wanted[i];
    EXPECT_TRUE(same) << p.note << "[" << i << "]: " << got[i] << ", but ops.inc (arithmetic, "
                      << "conversion) says " << wanted[i];
  }
}

void expect_result(Problem p, const std::vector<double>& wanted) {
  const auto outcome = run_problem(p, nullptr, {});
  if (outcome.refused) GTEST_SKIP() << "refused: " << outcome.reason;
  expect_values(p, outcome, wanted);
}

Problem problem_of(uint32_t op, std::vector<ref::Group> inputs, DType to, size_t count,
                   std::vector<ref::Scalar> scalars = {}) {
  Problem p;
  p.op = op;
  p.note = operator_of(op).name + " to " + std::string(ref::name_of(to));
  p.inputs = std::move(inputs);
  p.inputs.resize(operator_of(op).inputs.size());
  p.scalars = std::move(scalars);
  p.outputs = {{output(to, {static_cast<int64_t>(count)})}};
  return p;
}

class Conversion : public testing::Test {
 protected:
  static void convert(DType from, DType to, const std::vector<double>& values,
                      const std::vector<double>& wanted) {
    expect_result(problem_of(XHAL_OP_strided_copy, {{vector_of(from, values)}}, to, values.size()),
                  wanted);
  }
};

TEST(Arithmetic, AFractionalScalarBesideIntegersIsTruncatedFirst) {
  for (const DType type : {DType::i32, DType::i64}) {
    expect_result(problem_of(XHAL_OP_axpby, {{vector_of(type, {3, -7})}, {vector_of(type, {5, 9})}},
                             type, 2, {0.5, 0.5}),
                  {0, 0});
    expect_result(problem_of(XHAL_OP_axpby, {{vector_of(type, {3, -7})}, {vector_of(type, {5, 9})}},
                             type, 2, {2.75, -1.5}),
                  {1, -23});
  }
}

TEST(Arithmetic, IntegersAreNotComputedByWayOfFloats) {
  // 2^53 + 2 - (2^53 + 1): an f64 holds the first but not the second.
  expect_result(problem_of(XHAL_OP_axpby, {{vector_of(DType::i64, {0x1p53 + 2})}}, DType::i64, 1,
                           {int64_t{1}, -(int64_t{1} << 53) - 1}),
                {1});
}

TEST(Arithmetic, IntegersWrapToTheirWidth) {
  expect_result(problem_of(XHAL_OP_axpby, {{vector_of(DType::i8, {100, -100})}}, DType::i8, 2,
                           {int64_t{2}, int64_t{0}}),
                {-56, 56});
  expect_result(problem_of(XHAL_OP_axpby, {{vector_of(DType::u8, {200, 1})}}, DType::u8, 2,
                           {int64_t{1}, int64_t{-2}}),
                {198, 255});
}

TEST(Arithmetic, AddingFlagsIsOrAndAlphaSwitchesTheSecondOff) {
  const auto a = vector_of(DType::boolean, {0, 0, 1, 1});
  const auto b = vector_of(DType::boolean, {0, 1, 0, 1});
  const ref::Scalar none = int64_t{0};
  expect_result(problem_of(XHAL_OP_add, {{a}, {b}}, DType::boolean, 4), {0, 1, 1, 1});
  expect_result(problem_of(XHAL_OP_add, {{a}, {b}}, DType::boolean, 4, {none, none, int64_t{0}}),
                {0, 0, 1, 1});
  expect_result(problem_of(XHAL_OP_add, {{a}, {b}}, DType::boolean, 4, {none, none, int64_t{-1}}),
                {0, 1, 1, 1});
}

TEST_F(Conversion, FloatsBecomeIntegersByTruncation) {
  for (const DType from : {DType::f32, DType::f64}) {
    convert(from, DType::i32, {2.9, -2.9, 0.5, -0.5, 1e9}, {2, -2, 0, 0, 1e9});
    convert(from, DType::i64, {2.9, -2.9, 0x1p40, -0x1p63}, {2, -2, 0x1p40, kLeast});
    convert(from, DType::u8, {2.9, 255.9, 0.9}, {2, 255, 0});
  }
}

TEST_F(Conversion, FloatsOutOfRangeWrapAsTheI64TheyAre) {
  for (const DType from : {DType::f32, DType::f64}) {
    convert(from, DType::i8, {128, 300, -129, -1}, {-128, 44, 127, -1});
    convert(from, DType::u8, {-1, 256, 257}, {255, 0, 1});
    convert(from, DType::i32, {0x1p31, -0x1p33, 0x1p32 + 512}, {-0x1p31, 0, 512});
    convert(from, DType::u32, {-1, 0x1p32}, {0xffffffffp0, 0});
  }
}

TEST_F(Conversion, NaNAndWhatNoI64HoldsAreTheLeastI64) {
  const std::vector<double> values = {kNaN, kInfinity, -kInfinity, 0x1p63, 1e30, -1e30};
  for (const DType from : {DType::f32, DType::f64}) {
    convert(from, DType::i64, values, std::vector<double>(6, kLeast));
    for (const DType to : {DType::i8, DType::u8, DType::i16, DType::i32, DType::u32})
      convert(from, to, values, std::vector<double>(6, 0.0));
  }
}

TEST_F(Conversion, NaNIsTrue) {
  convert(DType::f32, DType::boolean, {kNaN, 0, -0.0, 0.25, -kInfinity}, {1, 0, 0, 1, 1});
  convert(DType::f64, DType::boolean, {kNaN, 0, -0.0, 1e-300}, {1, 0, 0, 1});
}

// 1 + 2^-8 + 2^-40: just above the middle of two bf16; rounded to f32 first it would be the middle,
// and go to the even one below.
TEST_F(Conversion, F64IsRoundedToSixteenBitsOnce) {
  convert(DType::f64, DType::bf16, {1 + 0x1p-8 + 0x1p-40, 1 + 0x1p-8, 1 + 3 * 0x1p-8 - 0x1p-40},
          {1 + 0x1p-7, 1, 1 + 0x1p-7});
  convert(DType::f64, DType::f16, {1 + 0x1p-11 + 0x1p-40, 1 + 0x1p-11, -1 - 0x1p-11 - 0x1p-40},
          {1 + 0x1p-10, 1, -1 - 0x1p-10});
  convert(DType::f64, DType::bf16, {1e300, -1e300, kNaN}, {kInfinity, -kInfinity, kNaN});
  convert(DType::f64, DType::f16, {65519.999, 65520, 0x1p-25 + 0x1p-60, 0x1p-25},
          {65504, kInfinity, 0x1p-24, 0});
}

TEST_F(Conversion, LargeIntegersAreRoundedToSixteenBitsOnce) {
  const double middle = 0x1p30 + 0x1p22;  // of two bf16
  convert(DType::i32, DType::bf16, {middle + 1, middle, middle - 1},
          {0x1p30 + 0x1p23, 0x1p30, 0x1p30});
  const double far = 0x1p50 + 0x1p42;
  convert(DType::i64, DType::bf16, {far + 1, far, -far - 1},
          {0x1p50 + 0x1p43, 0x1p50, -0x1p50 - 0x1p43});
  convert(DType::u32, DType::bf16, {0x1p31 + 0x1p23 + 1, 0x1p31 + 0x1p23},
          {0x1p31 + 0x1p24, 0x1p31});
}

TEST_F(Conversion, F64AndI64KeepWhatAFloatWouldLose) {
  convert(DType::f64, DType::f64, {0.1, 1 + 0x1p-52}, {0.1, 1 + 0x1p-52});
  convert(DType::f64, DType::i64, {0x1p53 - 1}, {0x1p53 - 1});
  convert(DType::i64, DType::f64, {0x1p53 - 1}, {0x1p53 - 1});
  convert(DType::i64, DType::i64, {0x1p53 - 1}, {0x1p53 - 1});
  convert(DType::u32, DType::f64, {0xffffffffp0}, {0xffffffffp0});
  convert(DType::u32, DType::i64, {0xffffffffp0}, {0xffffffffp0});
}

// Some pairs may be refused: those that every device has are not.
TEST_F(Conversion, SignedIntegersKeepTheirSignInEveryWidth) {
  const std::vector<double> values = {-1, -128, 127, -2, 0};
  for (const DType from : {DType::i8, DType::i16, DType::i32, DType::i64}) {
    for (const DType to : {DType::i8, DType::i16, DType::i32, DType::i64}) {
      auto p = problem_of(XHAL_OP_strided_copy, {{vector_of(from, values)}}, to, values.size());
      p.note = "strided_copy from " + std::string(ref::name_of(from)) + " to " +
               std::string(ref::name_of(to));
      const auto outcome = run_problem(p, nullptr, {});
      if (!outcome.refused) expect_values(p, outcome, values);
    }
  }
}

TEST_F(Conversion, FillWritesF64AndU32) {
  expect_result(problem_of(XHAL_OP_fill, {}, DType::f64, 3, {0.1}), {0.1, 0.1, 0.1});
  expect_result(problem_of(XHAL_OP_fill, {}, DType::f64, 1, {int64_t{7}}), {7});
  expect_result(problem_of(XHAL_OP_fill, {}, DType::u32, 2, {int64_t{0xfffffff0}}),
                {0xfffffff0p0, 0xfffffff0p0});
  expect_result(problem_of(XHAL_OP_fill, {}, DType::u32, 1, {-1.5}), {0xffffffffp0});
  expect_result(problem_of(XHAL_OP_fill, {}, DType::boolean, 2, {0.5}), {1, 1});
  expect_result(problem_of(XHAL_OP_fill, {}, DType::i32, 1, {kNaN}), {0});
}

// ---- which requests are errors, and which are only more than a plugin has

xhal_status prepare(uint32_t id, const std::vector<std::vector<xhal_tensor_desc>>& groups) {
  std::vector<uint32_t> sizes;
  std::vector<xhal_tensor_desc> operands;
  for (const auto& group : groups) {
    sizes.push_back(static_cast<uint32_t>(group.size()));
    operands.insert(operands.end(), group.begin(), group.end());
  }
  xhal_op* op = nullptr;
  const auto status = prepare_operator(id, sizes, operands, &op);
  if (status == XHAL_OK) {
    EXPECT_TRUE(ok(xhal_op_destroy(op)));
  }
  return status;
}

TEST(Dtypes, OneThatTheCatalogueDoesNotGiveAGroupIsAnInvalidArgument) {
  struct Format {
    uint8_t code, bits;
  };
  for (const auto [code, bits] :
       {Format{XHAL_CODE_COMPLEX, 64}, Format{XHAL_CODE_FLOAT8_E5M2, 8},
        Format{XHAL_CODE_FLOAT, 24}, Format{77, 32}, Format{XHAL_CODE_UINT, 64}}) {
    auto t = floats_of(4);
    t.code = code;
    t.bits = bits;
    EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare(XHAL_OP_strided_copy, {{t}, {t}})))
        << "code " << int{code} << ", " << int{bits} << " bits";
    EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare(XHAL_OP_fill, {{t}})));
  }
  auto flag = floats_of(4);
  flag.code = XHAL_CODE_BOOL;
  flag.bits = 8;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare(XHAL_OP_axpby, {{flag}, {}, {flag}})))
      << "axpby is for numbers (N), bool is none";
}

TEST(Dtypes, AStepOfAdamHasOneElement) {
  const auto param = floats_of(8);
  const auto run = [&](const xhal_tensor_desc& step) {
    return prepare(
        XHAL_OP_multi_adamw,
        {{param}, {param}, {param}, {param}, {}, {step}, {}, {param}, {param}, {param}, {}, {}});
  };
  auto scalar = floats_of(1);
  scalar.ndim = 0;
  const auto status = run(scalar);
  if (status == XHAL_ERR_UNSUPPORTED) GTEST_SKIP() << "refused: " << last_error_text();
  EXPECT_TRUE(ok(status));
  EXPECT_TRUE(ok(run(floats_of(1))));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, run(floats_of(8))));
}

}  // namespace
}  // namespace xhal::cts
