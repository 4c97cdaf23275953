// SPDX-License-Identifier: Apache-2.0
// pointwise_test.cpp: every pointwise operator against a reference in double, for dtypes, layouts
// and instruction sets.
#include <gmock/gmock.h>

#include "isa_levels.hpp"

namespace xhal::cpu::test {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr DType kFloatTypes[] = {DType::f32, DType::bf16, DType::f16};

struct Unary {
  const char* name;
  uint32_t id;
  double low, high;  // of the inputs
  double (*reference)(double);
  double places;  // allowed for f32 before the one rounding
  int64_t attribute = -1;
};

double gelu(double x) { return x * 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
double silu(double x) { return x / (1 + std::exp(-x)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

const Unary kUnary[] = {
    {"neg", XHAL_OP_neg, -9, 9, [](double x) { return -x; }, 0},
    {"abs", XHAL_OP_abs, -9, 9, [](double x) { return std::fabs(x); }, 0},
    {"sign", XHAL_OP_sign, -2, 2, [](double x) { return double((x > 0) - (x < 0)); }, 0},
    {"exp", XHAL_OP_exp, -110, 95, [](double x) { return std::exp(x); }, 2},
    {"expm1 near 0", XHAL_OP_expm1, -1, 1, [](double x) { return std::expm1(x); }, 3},
    {"expm1", XHAL_OP_expm1, -40, 95, [](double x) { return std::expm1(x); }, 3},
    {"log", XHAL_OP_log, -0.5, 30, [](double x) { return std::log(x); }, 2},
    {"log1p near 0", XHAL_OP_log1p, -0.9, 0.9, [](double x) { return std::log1p(x); }, 3},
    {"log1p", XHAL_OP_log1p, -1.5, 5000, [](double x) { return std::log1p(x); }, 3},
    {"log2", XHAL_OP_log2, 0, 3, [](double x) { return std::log2(x); }, 3},
    {"sqrt", XHAL_OP_sqrt, -1, 900, [](double x) { return std::sqrt(x); }, 0.51},
    {"rsqrt", XHAL_OP_rsqrt, 0, 900, [](double x) { return 1 / std::sqrt(x); }, 1.6},
    {"reciprocal", XHAL_OP_reciprocal, -9, 9, [](double x) { return 1 / x; }, 0.51},
    {"sin", XHAL_OP_sin, -100, 100, [](double x) { return std::sin(x); }, 2},
    {"cos", XHAL_OP_cos, -100, 100, [](double x) { return std::cos(x); }, 2},
    {"tanh", XHAL_OP_tanh, -12, 12, [](double x) { return std::tanh(x); }, 3},
    {"tanh near 0", XHAL_OP_tanh, -0.7, 0.7, [](double x) { return std::tanh(x); }, 3},
    {"sigmoid", XHAL_OP_sigmoid, -87, 100, sigmoid, 3},
    {"erf", XHAL_OP_erf, -5, 5, [](double x) { return std::erf(x); }, 3},
    {"relu", XHAL_OP_relu, -9, 9, [](double x) { return x > 0 ? x : 0; }, 0},
    {"gelu", XHAL_OP_gelu, -12, 9, gelu, 6, 0},
    {"gelu by tanh", XHAL_OP_gelu, -4, 9, gelu_tanh, 40, 1},
    {"silu", XHAL_OP_silu, -80, 80, silu, 4},
    {"floor", XHAL_OP_floor, -9, 9, [](double x) { return std::floor(x); }, 0},
    {"ceil", XHAL_OP_ceil, -9, 9, [](double x) { return std::ceil(x); }, 0},
    {"trunc", XHAL_OP_trunc, -9, 9, [](double x) { return std::trunc(x); }, 0},
    {"round", XHAL_OP_round, -9, 9, [](double x) { return std::nearbyint(x); }, 0},
};

Call unary_call(const Unary& op, const Tensor& in, const Tensor& out) {
  Call call(op.id);
  call.add(in).add(out);
  if (op.attribute >= 0) call.attr(0, op.attribute);
  return call;
}

// The largest error in places of `type`, beyond what rounding to a narrower type than f32 adds.
void expect_close(const char* name, const Tensor& out, const std::function<double(int64_t)>& exact,
                  double places) {
  const double allowed = out.type() == DType::f32 ? places
                         : places == 0            ? 0
                                                  : 0.51 + places * 0x1p-12;
  for (int64_t i = 0; i < out.count(); ++i) {
    const double error = ulps(out.type(), out[i], exact(i));
    ASSERT_LE(error, allowed) << name << " of " << name_of(out.type()) << ", element " << i << ": "
                              << out[i] << " instead of " << exact(i);
  }
}

TEST(Pointwise, UnaryOperatorsAreAccurate) {
  for_each_isa([] {
    for (const Unary& op : kUnary) {
      for (DType type : kFloatTypes) {
        const Tensor in = Tensor::random(type, {4001}, 7, op.low, op.high), out(type, {4001});
        Call call = unary_call(op, in, out);
        ASSERT_EQ(call.run(), XHAL_OK) << call.error;
        expect_close(
            op.name, out, [&](int64_t i) { return op.reference(in[i]); }, op.places);
      }
    }
  });
}

TEST(Pointwise, UnaryOperatorsKeepNanAndKnowTheirLimits) {
  for_each_isa([] {
    const Tensor in = Tensor::of(DType::f32, {6}, {kNan, kInf, -kInf, 0.0, -0.0, 3e38});
    for (const Unary& op : kUnary) {
      if (op.id == XHAL_OP_sign) continue;
      if (op.id == XHAL_OP_sin || op.id == XHAL_OP_cos) continue;
      const Tensor out(DType::f32, {6});
      ASSERT_EQ(unary_call(op, in, out).run(), XHAL_OK);
      EXPECT_TRUE(std::isnan(out[0])) << op.name;
      for (int64_t i = 1; i < 6; ++i) {
        double exact = op.reference(in[i]);
        if (std::isnan(exact) && in[i] == -kInf && op.id != XHAL_OP_log)
          exact = 0;                                            // x * 0 at the far end
        if (op.id == XHAL_OP_silu && in[i] == -kInf) continue;  // the limit is 0, the formula NaN
        if (op.id == XHAL_OP_log || op.id == XHAL_OP_log2 || op.id == XHAL_OP_log1p ||
            op.id == XHAL_OP_sqrt || op.id == XHAL_OP_rsqrt)
          exact = op.reference(in[i]);
        EXPECT_LE(ulps(DType::f32, out[i], exact), 8)
            << op.name << "(" << in[i] << ") = " << out[i] << ", not " << exact;
      }
    }
  });
}

TEST(Pointwise, AnyShapeAndLayoutGivesTheSame) {
  for_each_isa([] {
    for (const Sizes& sizes : {Sizes{}, Sizes{0}, Sizes{1}, Sizes{17}, Sizes{3, 5}, Sizes{40, 67},
                               Sizes{2, 3, 4, 5}, Sizes{5, 1, 300}, Sizes{2, 0, 3}, Sizes{33, 2}}) {
      for (DType type : {DType::f32, DType::bf16, DType::i64, DType::i8, DType::boolean}) {
        const double low = type == DType::boolean ? 0 : -20, high = type == DType::boolean ? 1 : 20;
        const Tensor a = Tensor::random(type, sizes, 1, low, high),
                     b = Tensor::random(type, sizes, 2, low, high);
        const Tensor expected(type, sizes);
        ASSERT_EQ(Call(XHAL_OP_maximum).add(a).add(b).add(expected).run(), XHAL_OK);
        for (int64_t i = 0; i < a.count(); ++i) ASSERT_EQ(expected[i], std::max(a[i], b[i]));
        for (const Tensor& x : layouts_of(a))
          for (const Tensor& y : layouts_of(b))
            for (const Tensor& out : layouts_of(Tensor(type, sizes))) {
              ASSERT_EQ(Call(XHAL_OP_maximum).add(x).add(y).add(out).run(), XHAL_OK);
              ASSERT_THAT(out.values(), ElementsAreArray(expected.values()));
            }
      }
    }
  });
}

TEST(Pointwise, BroadcastOperandsAreReadInPlace) {
  for_each_isa([] {
    for (DType type : kFloatTypes) {
      const Tensor row = Tensor::random(type, {1, 37}, 1).expanded(0, 29);
      const Tensor column = Tensor::random(type, {29, 1}, 2).expanded(1, 37);
      const Tensor one = Tensor::random(type, {1, 1}, 3).expanded(0, 29).expanded(1, 37);
      const Tensor all = Tensor::random(type, {29, 37}, 4);
      for (const Tensor& a : {row, column, one, all})
        for (const Tensor& b : {row, column, one, all}) {
          const Tensor out(type, {29, 37});
          ASSERT_EQ(Call(XHAL_OP_mul).add(a).add(b).add(out).run(), XHAL_OK);
          for (int64_t i = 0; i < out.count(); ++i)
            ASSERT_EQ(out[i], rounded_to(type, a[i] * b[i]));
        }
    }
  });
}

TEST(Pointwise, AnOutputMayBeAnInput) {
  for_each_isa([] {
    for (DType type : {DType::f32, DType::f16, DType::i32})
      for (int operand : {0, 1}) {
        const Tensor a = Tensor::random(type, {700}, 1, -9, 9),
                     b = Tensor::random(type, {700}, 2, -9, 9);
        const Tensor x = a.copy(), y = b.copy();
        ASSERT_EQ(Call(XHAL_OP_sub).add(x).add(y).add(operand == 0 ? x : y).run(2), XHAL_OK);
        for (int64_t i = 0; i < 700; ++i)
          ASSERT_EQ((operand == 0 ? x : y)[i], rounded_to(type, a[i] - b[i]));
      }
  });
}

TEST(Pointwise, ScalarsStandForAbsentOperands) {
  for_each_isa([] {
    for (DType type : {DType::f32, DType::bf16, DType::i64, DType::u8}) {
      const Tensor a = Tensor::random(type, {50}, 1, 1, 9), out(type, {50});
      ASSERT_EQ(Call(XHAL_OP_sub).add(a).absent().add(out).scalar(0).scalar(2).scalar(3).run(),
                XHAL_OK);
      for (int64_t i = 0; i < 50; ++i)
        ASSERT_EQ(out[i], rounded_to(type, type == DType::u8 && a[i] < 6 ? a[i] + 250 : a[i] - 6));
      ASSERT_EQ(Call(XHAL_OP_sub).absent().add(a).add(out).scalar(20).run(), XHAL_OK);
      for (int64_t i = 0; i < 50; ++i) ASSERT_EQ(out[i], rounded_to(type, 20 - a[i]));
    }
  });
}

struct Binary {
  const char* name;
  uint32_t id;
  double (*reference)(double, double);
  double places;
  int64_t attribute = -1;
  bool to_bool = false;
};

double remainder_of(double a, double b) {
  const double r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

const Binary kBinary[] = {
    {"add", XHAL_OP_add, [](double a, double b) { return a + b; }, 0.51},
    {"sub", XHAL_OP_sub, [](double a, double b) { return a - b; }, 0.51},
    {"mul", XHAL_OP_mul, [](double a, double b) { return a * b; }, 0.51},
    {"div", XHAL_OP_div, [](double a, double b) { return a / b; }, 0.51, 0},
    {"div truncated", XHAL_OP_div,
     [](double a, double b) { return double(std::trunc(static_cast<float>(a / b))); }, 0, 1},
    {"div floored", XHAL_OP_div, [](double a, double b) { return std::floor(a / b); }, 0, 2},
    {"remainder", XHAL_OP_remainder, remainder_of, 0.51, 0},
    {"fmod", XHAL_OP_remainder, [](double a, double b) { return std::fmod(a, b); }, 0, 1},
    {"minimum", XHAL_OP_minimum, [](double a, double b) { return std::min(a, b); }, 0},
    {"maximum", XHAL_OP_maximum, [](double a, double b) { return std::max(a, b); }, 0},
    {"eq", XHAL_OP_eq, [](double a, double b) { return double(a == b); }, 0, -1, true},
    {"ne", XHAL_OP_ne, [](double a, double b) { return double(a != b); }, 0, -1, true},
    {"lt", XHAL_OP_lt, [](double a, double b) { return double(a < b); }, 0, -1, true},
    {"le", XHAL_OP_le, [](double a, double b) { return double(a <= b); }, 0, -1, true},
    {"gt", XHAL_OP_gt, [](double a, double b) { return double(a > b); }, 0, -1, true},
    {"ge", XHAL_OP_ge, [](double a, double b) { return double(a >= b); }, 0, -1, true},
    {"logical_and", XHAL_OP_logical_and,
     [](double a, double b) { return double(a != 0 && b != 0); }, 0, -1, true},
    {"logical_or", XHAL_OP_logical_or, [](double a, double b) { return double(a != 0 || b != 0); },
     0, -1, true},
    {"logical_xor", XHAL_OP_logical_xor,
     [](double a, double b) { return double((a != 0) != (b != 0)); }, 0, -1, true},
};

TEST(Pointwise, BinaryOperatorsOnFloats) {
  for_each_isa([] {
    for (const Binary& op : kBinary)
      for (DType type : kFloatTypes) {
        Tensor a = Tensor::random(type, {501}, 1, -5, 5), b = Tensor::random(type, {501}, 2, -5, 5);
        for (int64_t i = 0; i < 501; i += 5)
          a.set(i, std::round(a[i])), b.set(i, std::round(b[i]) == 0 ? 1 : std::round(b[i]));
        const Tensor out(op.to_bool ? DType::boolean : type, {501});
        Call call(op.id);
        call.add(a).add(b).add(out);
        if (op.attribute >= 0) call.attr(0, op.attribute);
        ASSERT_EQ(call.run(), XHAL_OK) << call.error;
        if (op.to_bool) {
          for (int64_t i = 0; i < 501; ++i) ASSERT_EQ(out[i], op.reference(a[i], b[i])) << op.name;
        } else {
          expect_close(
              op.name, out, [&](int64_t i) { return op.reference(a[i], b[i]); }, op.places);
        }
      }
  });
}

TEST(Pointwise, BinaryOperatorsOnIntegers) {
  for_each_isa([] {
    for (const Binary& op : kBinary) {
      if (op.id == XHAL_OP_div && op.attribute == 0) continue;
      for (DType type : {DType::i8, DType::u8, DType::i16, DType::i32, DType::i64}) {
        const double low = type == DType::u8 ? 1 : -11;
        Tensor a = Tensor::random(type, {300}, 1, type == DType::u8 ? 12 : low, 23),
               b = Tensor::random(type, {300}, 2, low, 11);
        for (int64_t i = 0; i < 300; ++i)
          if (b[i] == 0 && (op.id == XHAL_OP_div || op.id == XHAL_OP_remainder)) b.set(i, 3);
        const Tensor out(op.to_bool ? DType::boolean : type, {300});
        Call call(op.id);
        call.add(a).add(b).add(out);
        if (op.attribute >= 0) call.attr(0, op.attribute);
        ASSERT_EQ(call.run(), XHAL_OK) << call.error;
        for (int64_t i = 0; i < 300; ++i) {
          double exact = op.reference(a[i], b[i]);
          if (op.attribute == 1 && op.id == XHAL_OP_div) exact = std::trunc(a[i] / b[i]);
          if (type == DType::i8) exact = static_cast<int8_t>(static_cast<int64_t>(exact));
          if (type == DType::u8) exact = static_cast<uint8_t>(static_cast<int64_t>(exact));
          ASSERT_EQ(out[i], exact)
              << op.name << " of " << name_of(type) << ": " << a[i] << ", " << b[i];
        }
      }
    }
  });
}

TEST(Pointwise, IntegerDivisionByZeroIsZeroAndTheLeastNumberWraps) {
  const double least = -9223372036854775808.0;
  const Tensor a = Tensor::of(DType::i64, {4}, {7, -7, 0, least}),
               b = Tensor::of(DType::i64, {4}, {0, 0, 0, -1});
  for (int64_t rounding : {1, 2}) {
    const Tensor out(DType::i64, {4});
    ASSERT_EQ(Call(XHAL_OP_div).add(a).add(b).add(out).attr(0, rounding).run(), XHAL_OK);
    EXPECT_THAT(out.values(), ElementsAreArray({0.0, 0.0, 0.0, least}));
  }
  const Tensor out(DType::i64, {4});
  ASSERT_EQ(Call(XHAL_OP_remainder).add(a).add(b).add(out).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({0.0, 0.0, 0.0, 0.0}));
}

TEST(Pointwise, DivisionOfIntegersWithoutRoundingGivesFloats) {
  const Tensor a = Tensor::of(DType::i64, {3}, {7, -7, 1}),
               b = Tensor::of(DType::i64, {3}, {2, 2, 0}), out(DType::f32, {3});
  ASSERT_EQ(Call(XHAL_OP_div).add(a).add(b).add(out).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({3.5, -3.5, kInf}));
}

TEST(Pointwise, NanWinsMinimumMaximumAndClamp) {
  for_each_isa([] {
    const Tensor a = Tensor::of(DType::f32, {4}, {kNan, 1, kNan, -5}),
                 b = Tensor::of(DType::f32, {4}, {1, kNan, kNan, 2});
    for (uint32_t id : {XHAL_OP_minimum, XHAL_OP_maximum}) {
      const Tensor out(DType::f32, {4});
      ASSERT_EQ(Call(id).add(a).add(b).add(out).run(), XHAL_OK);
      for (int64_t i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(out[i]));
      EXPECT_EQ(out[3], id == XHAL_OP_minimum ? -5 : 2);
    }
    const Tensor out(DType::f32, {4});
    ASSERT_EQ(Call(XHAL_OP_clamp)
                  .add(a)
                  .absent()
                  .absent()
                  .add(out)
                  .attr(0, 1)
                  .attr(1, 1)
                  .scalar(-1)
                  .scalar(0.5)
                  .run(),
              XHAL_OK);
    EXPECT_TRUE(std::isnan(out[0]));
    EXPECT_EQ(out[1], 0.5);
    EXPECT_EQ(out[3], -1);
  });
}

TEST(Pointwise, ClampTakesTensorsScalarsOrOneSide) {
  for_each_isa([] {
    for (DType type : {DType::f32, DType::f16, DType::i32}) {
      const Tensor x = Tensor::random(type, {99}, 1, -9, 9),
                   lo = Tensor::random(type, {99}, 2, -5, 5), out(type, {99});
      ASSERT_EQ(
          Call(XHAL_OP_clamp).add(x).add(lo).absent().add(out).attr(1, 1).scalar(0).scalar(3).run(),
          XHAL_OK);
      for (int64_t i = 0; i < 99; ++i) ASSERT_EQ(out[i], std::min(std::max(x[i], lo[i]), 3.0));
      ASSERT_EQ(Call(XHAL_OP_clamp).add(x).absent().absent().add(out).attr(0, 1).scalar(2).run(),
                XHAL_OK);
      for (int64_t i = 0; i < 99; ++i) ASSERT_EQ(out[i], std::max(x[i], 2.0));
    }
  });
}

TEST(Pointwise, PowerFollowsTheCLibraryWithShortCutsForCommonExponents) {
  for_each_isa([] {
    const Tensor x = Tensor::random(DType::f32, {200}, 1, 0, 30), out(DType::f32, {200});
    for (double exponent : {2.0, 3.0, 1.0, 0.5, -1.0, 2.5, -0.75, 0.0}) {
      ASSERT_EQ(Call(XHAL_OP_pow).add(x).absent().add(out).scalar(0).scalar(exponent).run(),
                XHAL_OK);
      expect_close(
          "pow", out, [&](int64_t i) { return std::pow(x[i], exponent); }, 2);
    }
    const Tensor base = Tensor::of(DType::i64, {4}, {2, -3, 1, 0}),
                 power = Tensor::of(DType::i64, {4}, {10, 3, -5, 0});
    const Tensor whole(DType::i64, {4});
    ASSERT_EQ(Call(XHAL_OP_pow).add(base).add(power).add(whole).run(), XHAL_OK);
    EXPECT_THAT(whole.values(), ElementsAreArray({1024.0, -27.0, 1.0, 1.0}));
  });
}

TEST(Pointwise, IntegersComparedWithAFractionAreComparedAsFloats) {
  const Tensor a = Tensor::of(DType::i64, {3}, {0, 1, 2}), out(DType::boolean, {3});
  ASSERT_EQ(Call(XHAL_OP_ge).add(a).absent().add(out).scalar(0).scalar(0.5).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({0.0, 1.0, 1.0}));
  ASSERT_EQ(Call(XHAL_OP_ge).add(a).absent().add(out).scalar(0).scalar(1).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({0.0, 1.0, 1.0}));
}

TEST(Pointwise, BoolAddsAsOrAndMultipliesAsAnd) {
  const Tensor a = Tensor::of(DType::boolean, {4}, {0, 0, 1, 1}),
               b = Tensor::of(DType::boolean, {4}, {0, 1, 0, 1});
  const Tensor out(DType::boolean, {4});
  ASSERT_EQ(Call(XHAL_OP_add).add(a).add(b).add(out).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({0.0, 1.0, 1.0, 1.0}));
  ASSERT_EQ(Call(XHAL_OP_mul).add(a).add(b).add(out).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({0.0, 0.0, 0.0, 1.0}));
  ASSERT_EQ(Call(XHAL_OP_bitwise_not).add(a).add(out).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({1.0, 1.0, 0.0, 0.0}));
}

TEST(Pointwise, BitOperatorsAndShifts) {
  for (DType type : {DType::i32, DType::u32, DType::i64, DType::u8}) {
    const Tensor a = Tensor::of(type, {4}, {12, 1, 7, 255}),
                 b = Tensor::of(type, {4}, {10, 3, 64, 4}), out(type, {4});
    const int64_t width = 8 * static_cast<int64_t>(size_of(type));
    ASSERT_EQ(Call(XHAL_OP_bitwise_and).add(a).add(b).add(out).run(), XHAL_OK);
    EXPECT_THAT(out.values(), ElementsAreArray({8.0, 1.0, 0.0, 4.0}));
    ASSERT_EQ(Call(XHAL_OP_bitwise_xor).add(a).add(b).add(out).run(), XHAL_OK);
    EXPECT_THAT(out.values(), ElementsAreArray({6.0, 2.0, 71.0, 251.0}));
    ASSERT_EQ(Call(XHAL_OP_shift_left).add(a).add(b).add(out).run(), XHAL_OK);
    EXPECT_EQ(out[1], 8);
    EXPECT_EQ(out[2], width > 64 ? 1 : 0);
    ASSERT_EQ(Call(XHAL_OP_shift_right).add(a).add(b).add(out).run(), XHAL_OK);
    EXPECT_EQ(out[3], 15);
    EXPECT_EQ(out[2], 0);
  }
  const Tensor a = Tensor::of(DType::i32, {2}, {-16, -16}),
               b = Tensor::of(DType::i32, {2}, {2, 40}), out(DType::i32, {2});
  ASSERT_EQ(Call(XHAL_OP_shift_right).add(a).add(b).add(out).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({-4.0, -1.0}));
}

TEST(Pointwise, FloatsHaveNoBitOperators) {
  const Tensor a(DType::f32, {4});
  Call call(XHAL_OP_bitwise_and);
  EXPECT_EQ(call.add(a).add(a).add(a).run(), XHAL_ERR_UNSUPPORTED);
  EXPECT_THAT(call.error, HasSubstr("`bitwise_and` does not compute with floats"));
}

TEST(Pointwise, ClassificationOfFloats) {
  for_each_isa([] {
    const Tensor a = Tensor::of(DType::bf16, {5}, {kNan, kInf, -kInf, 0, 3}),
                 out(DType::boolean, {5});
    ASSERT_EQ(Call(XHAL_OP_is_nan).add(a).add(out).run(), XHAL_OK);
    EXPECT_THAT(out.values(), ElementsAreArray({1.0, 0.0, 0.0, 0.0, 0.0}));
    ASSERT_EQ(Call(XHAL_OP_is_inf).add(a).add(out).run(), XHAL_OK);
    EXPECT_THAT(out.values(), ElementsAreArray({0.0, 1.0, 1.0, 0.0, 0.0}));
    ASSERT_EQ(Call(XHAL_OP_is_inf).add(a).add(out).attr(0, -1).run(), XHAL_OK);
    EXPECT_THAT(out.values(), ElementsAreArray({0.0, 0.0, 1.0, 0.0, 0.0}));
    ASSERT_EQ(Call(XHAL_OP_is_finite).add(a).add(out).run(), XHAL_OK);
    EXPECT_THAT(out.values(), ElementsAreArray({0.0, 0.0, 0.0, 1.0, 1.0}));
    ASSERT_EQ(Call(XHAL_OP_logical_not).add(a).add(out).run(), XHAL_OK);
    EXPECT_THAT(out.values(), ElementsAreArray({0.0, 0.0, 0.0, 1.0, 0.0}));
  });
}

TEST(Pointwise, WhereAndMaskedFillChoose) {
  for_each_isa([] {
    for (DType type : {DType::f32, DType::bf16, DType::i64, DType::boolean}) {
      const Tensor mask = Tensor::random(DType::boolean, {301}, 3, 0, 1);
      const Tensor a = Tensor::random(type, {301}, 1, 0, 1),
                   b = Tensor::random(type, {301}, 2, 0, 1), out(type, {301});
      ASSERT_EQ(Call(XHAL_OP_where).add(mask).add(a).add(b).add(out).run(), XHAL_OK);
      for (int64_t i = 0; i < 301; ++i) ASSERT_EQ(out[i], mask[i] != 0 ? a[i] : b[i]);
      ASSERT_EQ(Call(XHAL_OP_where).add(mask).add(a).absent().add(out).scalar(0).scalar(1).run(),
                XHAL_OK);
      for (int64_t i = 0; i < 301; ++i) ASSERT_EQ(out[i], mask[i] != 0 ? a[i] : 1);
      ASSERT_EQ(Call(XHAL_OP_masked_fill).add(a).add(mask).add(out).scalar(1).run(), XHAL_OK);
      for (int64_t i = 0; i < 301; ++i) ASSERT_EQ(out[i], mask[i] != 0 ? 1 : a[i]);
    }
  });
}

TEST(Pointwise, ThreeOperandFormulas) {
  for_each_isa([] {
    for (DType type : kFloatTypes) {
      const Tensor x = Tensor::random(type, {130}, 1), a = Tensor::random(type, {130}, 2),
                   b = Tensor::random(type, {130}, 3, 1, 2);
      const Tensor out(type, {130});
      const double tolerance = 8 * unit_roundoff(type);
      ASSERT_EQ(Call(XHAL_OP_addcmul).add(x).add(a).add(b).add(out).scalar(0.5).run(), XHAL_OK);
      for (int64_t i = 0; i < 130; ++i) ASSERT_NEAR(out[i], x[i] + 0.5 * a[i] * b[i], tolerance);
      ASSERT_EQ(Call(XHAL_OP_addcdiv).add(x).add(a).add(b).add(out).scalar(0.5).run(), XHAL_OK);
      for (int64_t i = 0; i < 130; ++i) ASSERT_NEAR(out[i], x[i] + 0.5 * a[i] / b[i], tolerance);
      ASSERT_EQ(Call(XHAL_OP_lerp).add(x).add(a).add(b).add(out).run(), XHAL_OK);
      for (int64_t i = 0; i < 130; ++i)
        ASSERT_NEAR(out[i], x[i] + b[i] * (a[i] - x[i]), 2 * tolerance);
      ASSERT_EQ(Call(XHAL_OP_axpby).add(x).add(a).add(out).scalar(2).scalar(-3).run(), XHAL_OK);
      for (int64_t i = 0; i < 130; ++i) ASSERT_NEAR(out[i], 2 * x[i] - 3 * a[i], 2 * tolerance);
      ASSERT_EQ(Call(XHAL_OP_axpby).add(x).absent().add(out).scalar(2).scalar(-3).run(), XHAL_OK);
      for (int64_t i = 0; i < 130; ++i) ASSERT_NEAR(out[i], 2 * x[i] - 3, 2 * tolerance);
    }
  });
}

struct Gradient {
  const char* name;
  uint32_t id;
  double (*reference)(double grad, double x);
  int64_t attribute = -1;
};

double slope(double (*f)(double), double x) {
  const double h = 1e-4;
  return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h);
}

const Gradient kGradients[] = {
    {"tanh_grad", XHAL_OP_tanh_grad, [](double g, double y) { return g * (1 - y * y); }},
    {"sigmoid_grad", XHAL_OP_sigmoid_grad, [](double g, double y) { return g * y * (1 - y); }},
    {"threshold_grad", XHAL_OP_threshold_grad, [](double g, double x) { return x > 0 ? g : 0; }},
    {"gelu_grad", XHAL_OP_gelu_grad, [](double g, double x) { return g * slope(gelu, x); }, 0},
    {"gelu_grad by tanh", XHAL_OP_gelu_grad,
     [](double g, double x) { return g * slope(gelu_tanh, x); }, 1},
    {"silu_grad", XHAL_OP_silu_grad, [](double g, double x) { return g * slope(silu, x); }},
};

TEST(Pointwise, Gradients) {
  for_each_isa([] {
    for (const Gradient& op : kGradients)
      for (DType type : kFloatTypes) {
        const Tensor grad = Tensor::random(type, {600}, 1),
                     x = Tensor::random(type, {600}, 2, -6, 6), out(type, {600});
        Call call(op.id);
        call.add(grad).add(x).add(out);
        if (op.attribute >= 0) call.attr(0, op.attribute);
        ASSERT_EQ(call.run(), XHAL_OK) << call.error;
        for (int64_t i = 0; i < 600; ++i) {
          const double exact = op.reference(grad[i], x[i]);
          ASSERT_NEAR(out[i], exact, std::fabs(exact) * unit_roundoff(type) * 2 + 2e-6)
              << op.name << " " << grad[i] << " " << x[i];
        }
      }
  });
}

TEST(Pointwise, GradientOfReluLetsNanThrough) {
  const Tensor grad = Tensor::of(DType::f32, {3}, {1, 2, 3}),
               x = Tensor::of(DType::f32, {3}, {kNan, 0, 1}), out(DType::f32, {3});
  ASSERT_EQ(Call(XHAL_OP_threshold_grad).add(grad).add(x).add(out).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({1.0, 0.0, 3.0}));
}

TEST(Pointwise, SwigluAndItsGradients) {
  for_each_isa([] {
    for (DType type : kFloatTypes) {
      const Tensor gate = Tensor::random(type, {7, 53}, 1, -4, 4),
                   up = Tensor::random(type, {7, 53}, 2);
      const Tensor grad = Tensor::random(type, {7, 53}, 3), out(type, {7, 53}),
                   dgate(type, {7, 53});
      const Tensor dup = Tensor(type, {53, 7}).transposed(0, 1);
      ASSERT_EQ(Call(XHAL_OP_swiglu).add(gate).add(up).add(out).run(), XHAL_OK);
      ASSERT_EQ(Call(XHAL_OP_swiglu_grad).add(grad).add(gate).add(up).add(dgate).add(dup).run(),
                XHAL_OK);
      for (int64_t i = 0; i < out.count(); ++i) {
        const double tolerance = 4 * unit_roundoff(type) + 1e-6;
        ASSERT_NEAR(out[i], silu(gate[i]) * up[i], 4 * tolerance);
        ASSERT_NEAR(dgate[i], grad[i] * up[i] * slope(silu, gate[i]), 4 * tolerance);
        ASSERT_NEAR(dup[i], grad[i] * silu(gate[i]), 4 * tolerance);
      }
    }
  });
}

TEST(Pointwise, FloatsOfDifferentWidthsMix) {
  for_each_isa([] {
    const Tensor a = Tensor::random(DType::bf16, {77}, 1), b = Tensor::random(DType::f32, {77}, 2),
                 out(DType::f32, {77});
    ASSERT_EQ(Call(XHAL_OP_add).add(a).add(b).add(out).run(), XHAL_OK);
    for (int64_t i = 0; i < 77; ++i) ASSERT_EQ(out[i], rounded_to(DType::f32, a[i] + b[i]));
  });
}

TEST(Pointwise, ThreadsDoNotChangeTheResult) {
  const Tensor x = Tensor::random(DType::f32, {300, 701}, 1, -9, 9);
  const Tensor strided = x.spread(1);
  std::vector<std::vector<double>> results;
  for (int threads : {1, 2, 3})
    for (const Tensor& in : {x, strided}) {
      const Tensor out(DType::f32, {300, 701});
      ASSERT_EQ(Call(XHAL_OP_gelu).add(in).add(out).run(threads), XHAL_OK);
      results.push_back(out.values());
    }
  for (const auto& r : results) EXPECT_EQ(r, results.front());
}

TEST(Pointwise, OddFunctionsKeepTheSignOfZero) {
  for_each_isa([] {
    for (const uint32_t op : {XHAL_OP_tanh, XHAL_OP_expm1, XHAL_OP_log1p, XHAL_OP_sin, XHAL_OP_erf,
                              XHAL_OP_sqrt, XHAL_OP_round, XHAL_OP_floor, XHAL_OP_trunc}) {
      const Tensor in = Tensor::of(DType::f32, {2}, {-0.0, 0.0}), out(DType::f32, {2});
      ASSERT_EQ(Call(op).add(in).add(out).run(), XHAL_OK);
      EXPECT_TRUE(std::signbit(out[0]) && !std::signbit(out[1])) << op_name(op);
    }
  });
}

TEST(Pointwise, SizesThatDifferAreRefusedWithTheOperand) {
  Call call(XHAL_OP_add);
  call.add(Tensor(DType::f32, {4})).add(Tensor(DType::f32, {5})).add(Tensor(DType::f32, {4}));
  EXPECT_EQ(call.run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(call.refusal.operand, 2u);
  EXPECT_THAT(call.error, HasSubstr("`b` of `add` has sizes [5] instead of [4]"));
}

}  // namespace
}  // namespace xhal::cpu::test
