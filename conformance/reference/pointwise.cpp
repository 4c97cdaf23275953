// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <map>

#include "reference/operators.hpp"
#include "xhal/catalog.h"

namespace xhal::ref {
namespace {

// The elements of one position, group by group, and how to ask for attributes and scalars.
struct Elements {
  const Problem& p;
  double x[4] = {};
  bool integer = false;  // of the first input
  DType out = DType::f32;

  double operator[](size_t group) const { return x[group]; }
  int64_t i(size_t group) const { return static_cast<int64_t>(x[group]); }
};

struct Result {
  Result(double v) : value(v), magnitude(std::fabs(v)) {}
  Result(double v, double m) : value(v), magnitude(std::max(std::fabs(v), m)) {}
  double value, magnitude;
};

using Function = Result (*)(const Elements&);

constexpr double kInvSqrt2 = 0.70710678118654752440;
constexpr double kInvSqrt2Pi = 0.39894228040143267794;
constexpr double kSqrt2OverPi = 0.79788456080286535588;
constexpr double kGeluCubic = 0.044715;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double normal_cdf(double x) { return 0.5 * std::erfc(-x * kInvSqrt2); }
double normal_pdf(double x) { return kInvSqrt2Pi * std::exp(-0.5 * x * x); }

Result gelu(const Elements& e) {
  const double x = e[0];
  const double terms = std::fabs(x) * 0.5 * (1 + std::fabs(std::erf(x * kInvSqrt2)));
  if (e.p.integer(0, 0) == 0) return {x * normal_cdf(x), terms};
  return {0.5 * x * (1 + std::tanh(kSqrt2OverPi * (x + kGeluCubic * x * x * x))), terms};
}

Result gelu_grad(const Elements& e) {
  const double grad = e[0], x = e[1];
  if (e.p.integer(0, 0) == 0) {
    const double slope = normal_cdf(x) + x * normal_pdf(x);
    return {grad * slope, std::fabs(grad) * (1 + std::fabs(x) * normal_pdf(x) * (1 + x * x))};
  }
  const double inner = kSqrt2OverPi * (x + kGeluCubic * x * x * x);
  const double inner_slope = kSqrt2OverPi * (1 + 3 * kGeluCubic * x * x);
  const double t = std::tanh(inner);
  const double slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner_slope;
  return {grad * slope, std::fabs(grad) * (1 + 0.5 * std::fabs(x) * inner_slope)};
}

Result silu_grad(const Elements& e) {
  const double grad = e[0], x = e[1], s = sigmoid(x);
  return {grad * s * (1 + x * (1 - s)), std::fabs(grad) * s * (1 + std::fabs(x) * (2 - s))};
}

Result round_quotient(const Elements& e) {
  const auto rounding = e.p.integer(0, 0);
  if (e.integer) {
    if (e[1] == 0) return 0;
    const double quotient = e[0] / e[1];
    return rounding == 1 ? std::trunc(quotient) : std::floor(quotient);
  }
  const double quotient = e[0] / e[1];
  if (rounding == 1) return std::trunc(quotient);
  return rounding == 2 ? std::floor(quotient) : quotient;
}

Result remainder(const Elements& e) {
  if (e.integer && e[1] == 0) return 0;
  const double rest = std::fmod(e[0], e[1]);
  const bool as_c = e.p.integer(0, 0) != 0;
  return as_c || rest == 0 || std::signbit(rest) == std::signbit(e[1]) ? rest : rest + e[1];
}

// The larger and the smaller; a NaN wins.
double larger(double a, double b) { return std::isnan(a) ? a : std::isnan(b) ? b : std::max(a, b); }
double smaller(double a, double b) {
  return std::isnan(a) ? a : std::isnan(b) ? b : std::min(a, b);
}

Result clamp(const Elements& e) {
  double value = e[0];
  if (std::isnan(value)) return value;
  // A limit is a tensor when it is there, else the scalar when the attribute says so.
  const bool has_lo = e.p.maybe(1) != nullptr || e.p.integer(0, 0) != 0;
  const bool has_hi = e.p.maybe(2) != nullptr || e.p.integer(1, 0) != 0;
  if (has_lo) value = std::max(value, e.p.maybe(1) != nullptr ? e[1] : e.p.scalar(0, 0));
  if (has_hi) value = std::min(value, e.p.maybe(2) != nullptr ? e[2] : e.p.scalar(1, 0));
  return value;
}

Result shift_left(const Elements& e) {
  const int64_t width = static_cast<int64_t>(size_of(e.out) * 8);
  if (e.i(1) < 0 || e.i(1) >= width) return 0;
  return static_cast<double>(static_cast<int64_t>(static_cast<uint64_t>(e.i(0)) << e.i(1)));
}

Result shift_right(const Elements& e) {
  const int64_t width = static_cast<int64_t>(size_of(e.out) * 8);
  if (e.i(1) < 0 || e.i(1) >= width) return 0;
  return static_cast<double>(e.i(0) >> e.i(1));
}

Result power(const Elements& e) {
  const double value = std::pow(e[0], e[1]);
  return {value, std::fabs(value)};
}

Result sign(const Elements& e) { return e[0] > 0 ? 1.0 : e[0] < 0 ? -1.0 : 0.0; }

const std::map<uint32_t, Function>& functions() {
  static const std::map<uint32_t, Function> table = {
      {XHAL_OP_fill, [](const Elements& e) -> Result { return e.p.scalar(0, 0); }},
      {XHAL_OP_strided_copy, [](const Elements& e) -> Result { return e[0]; }},
      {XHAL_OP_axpby,
       [](const Elements& e) -> Result {
         const double ax = e.p.scalar(0, 1) * e[0];
         const double by = e.p.scalar(1, 1) * (e.p.maybe(1) != nullptr ? e[1] : 1.0);
         return {ax + by, std::fabs(ax) + std::fabs(by)};
       }},
      {XHAL_OP_neg, [](const Elements& e) -> Result { return -e[0]; }},
      {XHAL_OP_abs, [](const Elements& e) -> Result { return std::fabs(e[0]); }},
      {XHAL_OP_sign, sign},
      {XHAL_OP_exp, [](const Elements& e) -> Result { return std::exp(e[0]); }},
      {XHAL_OP_expm1, [](const Elements& e) -> Result { return std::expm1(e[0]); }},
      {XHAL_OP_log, [](const Elements& e) -> Result { return std::log(e[0]); }},
      {XHAL_OP_log1p, [](const Elements& e) -> Result { return std::log1p(e[0]); }},
      {XHAL_OP_log2, [](const Elements& e) -> Result { return std::log2(e[0]); }},
      {XHAL_OP_sqrt, [](const Elements& e) -> Result { return std::sqrt(e[0]); }},
      {XHAL_OP_rsqrt, [](const Elements& e) -> Result { return 1 / std::sqrt(e[0]); }},
      {XHAL_OP_reciprocal, [](const Elements& e) -> Result { return 1 / e[0]; }},
      {XHAL_OP_sin, [](const Elements& e) -> Result { return std::sin(e[0]); }},
      {XHAL_OP_cos, [](const Elements& e) -> Result { return std::cos(e[0]); }},
      {XHAL_OP_tanh, [](const Elements& e) -> Result { return std::tanh(e[0]); }},
      {XHAL_OP_sigmoid, [](const Elements& e) -> Result { return sigmoid(e[0]); }},
      {XHAL_OP_erf, [](const Elements& e) -> Result { return std::erf(e[0]); }},
      {XHAL_OP_relu,
       [](const Elements& e) -> Result { return std::isnan(e[0]) ? e[0] : std::max(e[0], 0.0); }},
      {XHAL_OP_gelu, gelu},
      {XHAL_OP_silu, [](const Elements& e) -> Result { return e[0] * sigmoid(e[0]); }},
      {XHAL_OP_floor, [](const Elements& e) -> Result { return std::floor(e[0]); }},
      {XHAL_OP_ceil, [](const Elements& e) -> Result { return std::ceil(e[0]); }},
      {XHAL_OP_trunc, [](const Elements& e) -> Result { return std::trunc(e[0]); }},
      {XHAL_OP_round, [](const Elements& e) -> Result { return std::nearbyint(e[0]); }},
      {XHAL_OP_logical_not, [](const Elements& e) -> Result { return e[0] == 0; }},
      {XHAL_OP_bitwise_not,
       [](const Elements& e) -> Result {
         return e.out == DType::boolean ? e[0] == 0 : static_cast<double>(~e.i(0));
       }},
      {XHAL_OP_is_nan, [](const Elements& e) -> Result { return std::isnan(e[0]); }},
      {XHAL_OP_is_inf,
       [](const Elements& e) -> Result {
         const auto wanted = e.p.integer(0, 0);
         return std::isinf(e[0]) && (wanted == 0 || (wanted > 0) == (e[0] > 0));
       }},
      {XHAL_OP_is_finite, [](const Elements& e) -> Result { return std::isfinite(e[0]); }},
      {XHAL_OP_clamp, clamp},
      {XHAL_OP_add,
       [](const Elements& e) -> Result {
         const double b = e.p.scalar(2, 1) * e[1];
         return e.out == DType::boolean ? Result(e[0] != 0 || (e[1] != 0 && e.p.scalar(2, 1) != 0))
                                        : Result(e[0] + b, std::fabs(e[0]) + std::fabs(b));
       }},
      {XHAL_OP_sub,
       [](const Elements& e) -> Result {
         const double b = e.p.scalar(2, 1) * e[1];
         return {e[0] - b, std::fabs(e[0]) + std::fabs(b)};
       }},
      {XHAL_OP_mul, [](const Elements& e) -> Result { return e[0] * e[1]; }},
      {XHAL_OP_div, round_quotient},
      {XHAL_OP_remainder, remainder},
      {XHAL_OP_pow, power},
      {XHAL_OP_minimum, [](const Elements& e) -> Result { return smaller(e[0], e[1]); }},
      {XHAL_OP_maximum, [](const Elements& e) -> Result { return larger(e[0], e[1]); }},
      {XHAL_OP_eq, [](const Elements& e) -> Result { return e[0] == e[1]; }},
      {XHAL_OP_ne, [](const Elements& e) -> Result { return e[0] != e[1]; }},
      {XHAL_OP_lt, [](const Elements& e) -> Result { return e[0] < e[1]; }},
      {XHAL_OP_le, [](const Elements& e) -> Result { return e[0] <= e[1]; }},
      {XHAL_OP_gt, [](const Elements& e) -> Result { return e[0] > e[1]; }},
      {XHAL_OP_ge, [](const Elements& e) -> Result { return e[0] >= e[1]; }},
      {XHAL_OP_logical_and, [](const Elements& e) -> Result { return e[0] != 0 && e[1] != 0; }},
      {XHAL_OP_logical_or, [](const Elements& e) -> Result { return e[0] != 0 || e[1] != 0; }},
      {XHAL_OP_logical_xor, [](const Elements& e) -> Result { return (e[0] != 0) != (e[1] != 0); }},
      {XHAL_OP_bitwise_and,
       [](const Elements& e) -> Result { return static_cast<double>(e.i(0) & e.i(1)); }},
      {XHAL_OP_bitwise_or,
       [](const Elements& e) -> Result { return static_cast<double>(e.i(0) | e.i(1)); }},
      {XHAL_OP_bitwise_xor,
       [](const Elements& e) -> Result { return static_cast<double>(e.i(0) ^ e.i(1)); }},
      {XHAL_OP_shift_left, shift_left},
      {XHAL_OP_shift_right, shift_right},
      {XHAL_OP_where, [](const Elements& e) -> Result { return e[0] != 0 ? e[1] : e[2]; }},
      {XHAL_OP_masked_fill,
       [](const Elements& e) -> Result { return e[1] != 0 ? e.p.scalar(0, 0) : e[0]; }},
      {XHAL_OP_addcmul,
       [](const Elements& e) -> Result {
         const double product = e.p.scalar(0, 1) * e[1] * e[2];
         return {e[0] + product, std::fabs(e[0]) + std::fabs(product)};
       }},
      {XHAL_OP_addcdiv,
       [](const Elements& e) -> Result {
         const double quotient = e.p.scalar(0, 1) * e[1] / e[2];
         return {e[0] + quotient, std::fabs(e[0]) + std::fabs(quotient)};
       }},
      {XHAL_OP_lerp,
       [](const Elements& e) -> Result {
         const double weight = e.p.maybe(2) != nullptr ? e[2] : e.p.scalar(0, 0);
         return {e[0] + weight * (e[1] - e[0]),
                 std::fabs(e[0]) + std::fabs(weight) * (std::fabs(e[0]) + std::fabs(e[1]))};
       }},
      {XHAL_OP_tanh_grad,
       [](const Elements& e) -> Result {
         return {e[0] * (1 - e[1] * e[1]), std::fabs(e[0]) * (1 + e[1] * e[1])};
       }},
      {XHAL_OP_sigmoid_grad,
       [](const Elements& e) -> Result {
         return {e[0] * e[1] * (1 - e[1]), std::fabs(e[0] * e[1]) * (1 + std::fabs(e[1]))};
       }},
      {XHAL_OP_threshold_grad,
       [](const Elements& e) -> Result { return e[1] > e.p.scalar(0, 0) ? e[0] : 0.0; }},
      {XHAL_OP_gelu_grad, gelu_grad},
      {XHAL_OP_silu_grad, silu_grad},
      {XHAL_OP_swiglu, [](const Elements& e) -> Result { return e[0] * sigmoid(e[0]) * e[1]; }},
      {XHAL_OP_dropout_grad,
       [](const Elements& e) -> Result { return e[0] * e[1] * e.p.scalar(0, 1); }},
  };
  return table;
}

// Operands of the two-input operators that are not there are the scalars of the same name.
double absent_operand(const Problem& p, size_t group) {
  const bool conditional = p.op == XHAL_OP_where;
  const bool pair = p.op >= XHAL_OP_add && p.op <= XHAL_OP_shift_right;
  if (conditional && group >= 1) return p.scalar(group - 1, 0);
  return pair ? p.scalar(group, 0) : 0;
}

// Beside integers a scalar is one first. Comparisons take it as it is, and fill converts to its
// output, which is the same but for bool.
bool has_integer_scalars(const Problem& p) {
  if (p.op == XHAL_OP_fill || (p.op >= XHAL_OP_eq && p.op <= XHAL_OP_logical_xor)) return false;
  bool floats = false;
  for (const auto& group : p.inputs)
    for (const auto& t : group) floats = floats || is_float(t.dtype);
  for (const auto& group : p.outputs)
    for (const auto& out : group) floats = floats || is_float(out.dtype);
  return !floats;
}

}  // namespace

Results pointwise(const Problem& given) {
  Problem p = given;
  if (has_integer_scalars(p)) {
    for (auto& scalar : p.scalars) {
      if (const auto* f = std::get_if<double>(&scalar)) scalar = round_to(DType::i64, *f);
    }
  }
  auto results = empty_results(p);
  if (p.op == XHAL_OP_swiglu_grad) {
    auto& gate = results.outputs[0][0];
    auto& up = results.outputs[1][0];
    gate.magnitude.resize(gate.values.size());
    for (size_t i = 0; i < gate.values.size(); ++i) {
      const double grad = p.in(0).values[i], g = p.in(1).values[i], u = p.in(2).values[i],
                   s = sigmoid(g);
      gate.values[i] = grad * u * s * (1 + g * (1 - s));
      gate.magnitude[i] = std::fabs(grad * u) * s * (1 + std::fabs(g) * (2 - s));
      up.values[i] = grad * g * s;
    }
    return results;
  }
  const auto function = functions().at(p.op);
  auto& out = results.outputs[0][0];
  out.magnitude.resize(out.values.size());
  Elements e{p};
  e.out = out.dtype;
  for (const auto& group : p.inputs) {
    if (!group.empty()) {
      e.integer = !is_float(group[0].dtype);
      break;
    }
  }
  for (size_t i = 0; i < out.values.size(); ++i) {
    for (size_t g = 0; g < p.inputs.size(); ++g) {
      e.x[g] = p.inputs[g].empty() ? absent_operand(p, g) : p.inputs[g][0].values[i];
    }
    const auto result = function(e);
    out.values[i] = result.value;
    out.magnitude[i] = result.magnitude;
  }
  return results;
}

Results multi_pointwise(const Problem& p) {
  auto results = empty_results(p);
  const auto scalar = [&](size_t i, double otherwise) { return p.scalar(i, otherwise); };
  for (size_t t = 0; t < results.outputs[0].size(); ++t) {
    auto& out = results.outputs[0][t];
    out.magnitude.resize(out.values.size());
    for (size_t i = 0; i < out.values.size(); ++i) {
      const auto x = [&](size_t group) { return p.inputs[group][t].values[i]; };
      const bool second = p.inputs.size() > 1 && !p.inputs[1].empty();
      Result r = 0;
      switch (p.op) {
        case XHAL_OP_multi_axpby: {
          const double ax = scalar(0, 1) * x(0), by = scalar(1, 0) * (second ? x(1) : 1);
          r = {ax + by, std::fabs(ax) + std::fabs(by)};
          break;
        }
        case XHAL_OP_multi_mul: {
          const double factor = p.inputs[2].empty() ? scalar(0, 1) : p.inputs[2][0].values[0];
          r = x(0) * (second ? x(1) : 1) * factor;
          break;
        }
        case XHAL_OP_multi_div:
          r = second ? x(0) / x(1) : x(0) / scalar(0, 1);
          break;
        case XHAL_OP_multi_lerp:
          r = {x(0) + scalar(0, 0) * (x(1) - x(0)),
               std::fabs(x(0)) + std::fabs(scalar(0, 0)) * (std::fabs(x(0)) + std::fabs(x(1)))};
          break;
        case XHAL_OP_multi_addcmul: {
          const double product = scalar(0, 1) * x(1) * x(2);
          r = {x(0) + product, std::fabs(x(0)) + std::fabs(product)};
          break;
        }
        case XHAL_OP_multi_addcdiv: {
          const double quotient = scalar(0, 1) * x(1) / x(2);
          r = {x(0) + quotient, std::fabs(x(0)) + std::fabs(quotient)};
          break;
        }
        case XHAL_OP_multi_sqrt:
          r = std::sqrt(x(0));
          break;
        default:
          r = x(0);
          break;  // multi_copy
      }
      out.values[i] = r.value;
      out.magnitude[i] = r.magnitude;
    }
  }
  return results;
}

}  // namespace xhal::ref
