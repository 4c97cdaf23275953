// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Output;
using ref::Problem;
using ref::Scalar;
using ref::Sizes;
using ref::Tensor;
using Problems = std::vector<Problem>;

// Long enough that a device cuts it into pieces; odd, so that the last piece is not whole.
const Sizes kLong = {70001};
const Sizes kCube = {4, 6, 16};

DType bool_or(bool is_bool, DType type) { return is_bool ? DType::boolean : type; }

std::vector<Sizes> shapes(Maker& m) {
  std::vector<Sizes> list = {m.shape(kCube)};
  if (m.is(Case::odd)) list.push_back(kLong);
  if (m.is(Case::plain)) list.push_back({});  // a tensor without dims
  return list;
}

struct Unary {
  uint32_t id;
  char types;
  double low, high;
  bool specials;  // NaN and the infinities have one right answer
  bool to_bool = false;
};

constexpr Unary kUnary[] = {
    {XHAL_OP_neg, 'N', -4, 4, true},          {XHAL_OP_abs, 'N', -4, 4, true},
    {XHAL_OP_sign, 'N', -4, 4, true},         {XHAL_OP_exp, 'F', -10, 10, true},
    {XHAL_OP_expm1, 'F', -2, 4, true},        {XHAL_OP_log, 'F', 0.01, 100, true},
    {XHAL_OP_log1p, 'F', -0.9, 10, true},     {XHAL_OP_log2, 'F', 0.01, 100, true},
    {XHAL_OP_sqrt, 'F', 0, 100, true},        {XHAL_OP_rsqrt, 'F', 0.01, 100, true},
    {XHAL_OP_reciprocal, 'F', 0.1, 10, true}, {XHAL_OP_sin, 'F', -20, 20, false},
    {XHAL_OP_cos, 'F', -20, 20, false},       {XHAL_OP_tanh, 'F', -6, 6, true},
    {XHAL_OP_sigmoid, 'F', -12, 12, true},    {XHAL_OP_erf, 'F', -4, 4, true},
    {XHAL_OP_relu, 'N', -4, 4, true},         {XHAL_OP_silu, 'F', -12, 12, false},
    {XHAL_OP_floor, 'F', -9, 9, true},        {XHAL_OP_ceil, 'F', -9, 9, true},
    {XHAL_OP_trunc, 'F', -9, 9, true},        {XHAL_OP_round, 'F', -9, 9, true},
    {XHAL_OP_is_nan, 'N', -4, 4, true, true}, {XHAL_OP_is_finite, 'N', -4, 4, true, true},
};

Problem unary_problem(Maker& m, const Unary& u, const Sizes& sizes) {
  auto in = m.any(sizes, u.low, u.high);
  if (u.id == XHAL_OP_round && m.real_numbers()) {
    for (size_t i = 0; i < in.values.size(); i += 3)
      in.values[i] = std::floor(in.values[i]) + 0.5;  // ties
  }
  if ((u.id == XHAL_OP_expm1 || u.id == XHAL_OP_log1p || u.id == XHAL_OP_tanh ||
       u.id == XHAL_OP_erf)) {
    for (size_t i = 1; i < in.values.size(); i += 4)
      in.values[i] = ref::round_to(m.dtype, in.values[i] * 1e-3);  // near 0
  }
  if (u.specials) m.sprinkle_specials(in);
  Problem p;
  p.inputs = {{in}};
  p.outputs = {{output(bool_or(u.to_bool, m.dtype), sizes)}};
  return p;
}

void add_unary(OpTests& tests) {
  for (const auto& u : kUnary) {
    tests.push_back({u.id,
                     dtypes_of(u.types),
                     [&u](Maker& m) {
                       Problems problems;
                       for (const auto& sizes : shapes(m))
                         problems.push_back(unary_problem(m, u, sizes));
                       return problems;
                     },
                     ref::pointwise,
                     kAllCases,
                     true,
                     {}});
  }
  const auto with_attribute = [](uint32_t id, std::vector<int64_t> values, bool to_bool,
                                 double range) {
    return [=](Maker& m) {
      Problems problems;
      for (const int64_t value : values) {
        for (const auto& sizes : shapes(m)) {
          Problem p;
          p.note = "attribute " + std::to_string(value);
          p.attributes = {integer(0, value)};
          auto in = m.any(sizes, -range, range);
          if (id == XHAL_OP_is_inf) m.sprinkle_specials(in);
          p.inputs = {{in}};
          p.outputs = {{output(bool_or(to_bool, m.dtype), sizes)}};
          problems.push_back(p);
        }
      }
      return problems;
    };
  };
  tests.push_back({XHAL_OP_gelu,
                   dtypes_of('F'),
                   with_attribute(XHAL_OP_gelu, {0, 1}, false, 6),
                   ref::pointwise,
                   kAllCases,
                   true,
                   {}});
  tests.push_back({XHAL_OP_is_inf,
                   dtypes_of('N'),
                   with_attribute(XHAL_OP_is_inf, {0, 1, -1}, true, 4),
                   ref::pointwise,
                   kAllCases,
                   true,
                   {}});
  const auto logical_not = [](Maker& m) {
    Problems problems;
    for (const auto& sizes : shapes(m)) {
      Problem p;
      p.inputs = {{m.any(sizes, -1, 1)}};
      for (size_t i = 0; i < p.inputs[0][0].values.size(); i += 2) p.inputs[0][0].values[i] = 0;
      p.outputs = {{output(DType::boolean, sizes)}};
      problems.push_back(p);
    }
    return problems;
  };
  auto wider = dtypes_of('A');
  wider.pop_back();  // only bool can be negated in place
  tests.push_back({XHAL_OP_logical_not,
                   wider,
                   logical_not,
                   ref::pointwise,
                   kAllCases & ~bit(Case::aliased),
                   true,
                   {}});
  tests.push_back(
      {XHAL_OP_logical_not, {DType::boolean}, logical_not, ref::pointwise, kAllCases, true, {}});
  tests.push_back(
      {XHAL_OP_bitwise_not,
       {DType::i8, DType::u8, DType::i16, DType::i32, DType::i64, DType::boolean},
       [](Maker& m) {
         return Problems{unary_problem(m, {XHAL_OP_bitwise_not, 'A', 0, 1, false}, m.shape(kCube))};
       },
       ref::pointwise,
       kAllCases,
       true,
       {}});
}

// Which values the operands of a two-input operator take.
enum class Domain { any, exact, divisor, power, shift, bits };

struct Binary {
  uint32_t id;
  const char* types;  // letters of the catalogue, or "I": integers also u32, bool
  Domain domain;
  bool to_bool = false;
  std::vector<int64_t> attributes = {0};
  bool has_alpha = false;
};

std::vector<DType> binary_dtypes(const Binary& b) {
  if (*b.types != 'I') return dtypes_of(*b.types);
  std::vector<DType> types = {DType::i8, DType::u8, DType::i16, DType::i32, DType::i64, DType::u32};
  if (b.domain == Domain::bits) types.push_back(DType::boolean);
  return types;
}

// As large as a product of two that a double still holds.
Tensor wide_integers(Maker& m, const Sizes& sizes) {
  const int64_t high =
      std::min<int64_t>((int64_t{1} << (ref::size_of(m.dtype) * 8 - 2)) - 1, 1 << 22);
  return m.integers(m.dtype, sizes, ref::is_unsigned(m.dtype) ? 0 : -high, high);
}

Tensor operand(Maker& m, const Binary& b, const Sizes& sizes, bool second) {
  const bool is_real = m.real_numbers();
  switch (b.domain) {
    case Domain::any:
      // Integers wrap: in the odd case their sums and products leave the range.
      if (m.is(Case::odd) && !is_real && m.dtype != DType::boolean) return wide_integers(m, sizes);
      return m.any(sizes);
    case Domain::exact:
      return is_real ? m.eighths(sizes, -2, 2) : m.any(sizes);
    case Domain::divisor: {
      if (is_real) return second ? m.eighths(sizes, 0.25, 8) : m.eighths(sizes, -7.875, 7.875);
      auto t = m.any(sizes);
      if (second) {
        for (size_t i = 1; i < t.values.size(); ++i)
          t.values[i] += t.values[i] == 0;  // one division by zero is left
      }
      return t;
    }
    case Domain::power: {
      if (is_real) return second ? m.real(sizes, -3, 3) : m.real(sizes, 0.1, 4);
      const int64_t low = ref::is_unsigned(m.dtype) ? 0 : -4;
      return second ? m.integers(m.dtype, sizes, 0, 3) : m.integers(m.dtype, sizes, low, 4);
    }
    case Domain::shift:
      return m.integers(m.dtype, sizes, 0,
                        second ? static_cast<int64_t>(ref::size_of(m.dtype)) * 8 + 1 : 100);
    case Domain::bits:
      return m.dtype == DType::boolean ? m.flags(sizes) : m.integers(m.dtype, sizes, 0, 127);
  }
  return {};
}

Scalar scalar_like(Maker& m, double value) {
  if (m.real_numbers()) return value;
  return static_cast<int64_t>(m.dtype == DType::boolean ? 1 : value);
}

Problems binary_problems(Maker& m, const Binary& b) {
  Problems problems;
  const DType result = bool_or(b.to_bool, m.dtype);
  for (const int64_t attribute : b.attributes) {
    if (b.id == XHAL_OP_div && attribute == 0 && !m.real_numbers()) continue;
    for (const auto& sizes : shapes(m)) {
      for (int absent = -1; absent < 2; ++absent) {
        Problem p;
        p.note = "attribute " + std::to_string(attribute) +
                 (absent < 0    ? ""
                  : absent == 0 ? ", a is a scalar"
                                : ", b is a scalar");
        if (b.attributes.size() > 1) p.attributes = {integer(0, attribute)};
        const double other = b.domain == Domain::shift ? 3 : 2;
        p.scalars = {scalar_like(m, absent == 0 ? other : 0),
                     scalar_like(m, absent == 1 ? other : 0)};
        if (b.has_alpha && m.dtype != DType::boolean) p.scalars.push_back(scalar_like(m, 3));
        p.inputs = {{operand(m, b, sizes, false)}, {operand(m, b, sizes, true)}};
        const bool compares = b.to_bool || b.id == XHAL_OP_minimum || b.id == XHAL_OP_maximum;
        if (compares) m.sprinkle_specials(p.inputs[0][0]);
        if (absent >= 0) p.inputs[static_cast<size_t>(absent)].clear();
        p.outputs = {{output(result, sizes)}};
        problems.push_back(p);
        if (sizes == kLong) break;
      }
    }
  }
  return problems;
}

void add_binary(OpTests& tests) {
  static const Binary kBinary[] = {
      {XHAL_OP_add, "A", Domain::any, false, {0}, true},
      {XHAL_OP_sub, "N", Domain::any, false, {0}, true},
      {XHAL_OP_mul, "A", Domain::any},
      {XHAL_OP_div, "N", Domain::divisor, false, {0, 1, 2}},
      {XHAL_OP_remainder, "N", Domain::divisor, false, {0, 1}},
      {XHAL_OP_pow, "N", Domain::power},
      {XHAL_OP_minimum, "A", Domain::any},
      {XHAL_OP_maximum, "A", Domain::any},
      {XHAL_OP_eq, "A", Domain::exact, true},
      {XHAL_OP_ne, "A", Domain::exact, true},
      {XHAL_OP_lt, "A", Domain::exact, true},
      {XHAL_OP_le, "A", Domain::exact, true},
      {XHAL_OP_gt, "A", Domain::exact, true},
      {XHAL_OP_ge, "A", Domain::exact, true},
      {XHAL_OP_logical_and, "A", Domain::exact, true},
      {XHAL_OP_logical_or, "A", Domain::exact, true},
      {XHAL_OP_logical_xor, "A", Domain::exact, true},
      {XHAL_OP_bitwise_and, "I", Domain::bits},
      {XHAL_OP_bitwise_or, "I", Domain::bits},
      {XHAL_OP_bitwise_xor, "I", Domain::bits},
      {XHAL_OP_shift_left, "I", Domain::shift},
      {XHAL_OP_shift_right, "I", Domain::shift},
  };
  for (const auto& b : kBinary) {
    tests.push_back({b.id,
                     binary_dtypes(b),
                     [&b](Maker& m) { return binary_problems(m, b); },
                     ref::pointwise,
                     kAllCases,
                     true,
                     {}});
  }
  // Floats of different dtypes may be mixed.
  for (const uint32_t id : {XHAL_OP_add, XHAL_OP_mul}) {
    auto& test =
        *std::find_if(tests.begin(), tests.end(), [&](const OpTest& t) { return t.id == id; });
    test.problems = [inner = test.problems](Maker& m) {
      auto problems = inner(m);
      if ((m.dtype == DType::bf16 || m.dtype == DType::f16) && !m.is(Case::aliased)) {
        Problem p;
        p.note = "b is f32, out is f32";
        const auto sizes = m.shape(kCube);
        p.inputs = {{m.real(sizes)}, {m.real(DType::f32, sizes)}};
        p.outputs = {{output(DType::f32, sizes)}};
        problems.push_back(p);
      }
      return problems;
    };
  }
}

void add_core(OpTests& tests) {
  tests.push_back({XHAL_OP_fill,
                   dtypes_of('A'),
                   [](Maker& m) {
                     Problems problems;
                     for (const auto& sizes : shapes(m)) {
                       for (const double value : {0.0, 1.0, 3.0}) {
                         Problem p;
                         p.scalars = {scalar_like(m, value)};
                         if (m.dtype == DType::boolean)
                           p.scalars = {static_cast<int64_t>(value != 0)};
                         p.outputs = {{output(m.dtype, sizes)}};
                         problems.push_back(p);
                       }
                     }
                     return problems;
                   },
                   ref::pointwise,
                   kNoBroadcast,
                   false,
                   {}});
  tests.push_back({XHAL_OP_strided_copy,
                   dtypes_of('A'),
                   [](Maker& m) {
                     Problems problems;
                     auto targets = dtypes_of('A');
                     targets.insert(targets.end(), {DType::f64, DType::u32});
                     for (const DType to : targets) {
                       for (const auto& sizes : shapes(m)) {
                         Problem p;
                         p.note = "to " + std::string(ref::name_of(to));
                         auto in = m.any(sizes, ref::is_unsigned(to) ? 0 : -100, 100);
                         // Integers wrap. Floats out of an integer's range: core/arithmetic.cpp.
                         if (m.dtype == DType::i16 || m.dtype == DType::i32 ||
                             m.dtype == DType::i64) {
                           in = m.integers(m.dtype, sizes, -700, 700);
                         }
                         p.inputs = {{in}};
                         p.outputs = {{output(to, sizes)}};
                         problems.push_back(p);
                       }
                     }
                     return problems;
                   },
                   ref::pointwise,
                   kAllCases,
                   true,
                   {}});
  tests.push_back(
      {XHAL_OP_axpby,
       dtypes_of('N'),
       [](Maker& m) {
         Problems problems;
         for (const auto& sizes : shapes(m)) {
           for (const bool two : {true, false}) {
             Problem p;
             p.note = two ? "" : "without y";
             p.scalars = {scalar_like(m, 3), m.real_numbers() ? Scalar(0.3) : Scalar(int64_t{2})};
             p.inputs = {{m.any(sizes)}, {}};
             if (two) p.inputs[1] = {m.any(sizes)};
             p.outputs = {{output(m.dtype, sizes)}};
             problems.push_back(p);
           }
         }
         return problems;
       },
       ref::pointwise,
       kAllCases,
       true,
       {}});
}

void add_ternary(OpTests& tests) {
  tests.push_back(
      {XHAL_OP_clamp,
       dtypes_of('N'),
       [](Maker& m) {
         Problems problems;
         for (const auto& sizes : shapes(m)) {
           for (int which = 0; which < 4; ++which) {
             Problem p;
             p.note = which == 0   ? "two scalars"
                      : which == 1 ? "only lo"
                      : which == 2 ? "only hi"
                                   : "two tensors";
             auto in = m.any(sizes);
             m.sprinkle_specials(in);
             p.inputs = {{in}, {}, {}};
             if (which == 3) {
               p.inputs[1] = {m.any(sizes, -3, 0)};
               p.inputs[2] = {m.any(sizes, -1, 3)};
             } else {
               p.attributes = {integer(0, which != 2), integer(1, which != 1)};
               p.scalars = {scalar_like(m, ref::is_unsigned(m.dtype) ? 2 : -1), scalar_like(m, 3)};
             }
             p.outputs = {{output(m.dtype, sizes)}};
             problems.push_back(p);
           }
         }
         return problems;
       },
       ref::pointwise,
       kAllCases,
       true,
       {}});
  tests.push_back({XHAL_OP_where,
                   dtypes_of('A'),
                   [](Maker& m) {
                     Problems problems;
                     for (const auto& sizes : shapes(m)) {
                       for (int absent = 0; absent < 3; ++absent) {
                         Problem p;
                         p.inputs = {{m.flags(sizes)}, {m.any(sizes)}, {m.any(sizes)}};
                         if (absent > 0) p.inputs[static_cast<size_t>(absent)].clear();
                         p.scalars = {scalar_like(m, 1), scalar_like(m, 1)};
                         p.outputs = {{output(m.dtype, sizes)}};
                         problems.push_back(p);
                       }
                     }
                     return problems;
                   },
                   ref::pointwise,
                   kAllCases,
                   true,
                   {}});
  tests.push_back({XHAL_OP_masked_fill,
                   dtypes_of('A'),
                   [](Maker& m) {
                     Problems problems;
                     for (const auto& sizes : shapes(m)) {
                       Problem p;
                       p.inputs = {{m.any(sizes)}, {m.flags(sizes)}};
                       p.scalars = {scalar_like(m, 7)};
                       p.outputs = {{output(m.dtype, sizes)}};
                       problems.push_back(p);
                     }
                     return problems;
                   },
                   ref::pointwise,
                   kAllCases,
                   true,
                   {}});
  const auto three = [](char kind) {
    return [kind](Maker& m) {
      Problems problems;
      for (const auto& sizes : shapes(m)) {
        Problem p;
        p.inputs = {
            {m.any(sizes)}, {m.any(sizes)}, {kind == '/' ? m.real(sizes, 0.5, 3) : m.any(sizes)}};
        p.scalars = {m.real_numbers() ? Scalar(0.3) : Scalar(int64_t{2})};
        p.outputs = {{output(m.dtype, sizes)}};
        problems.push_back(p);
        if (kind != 'l') continue;
        p.note = "weight is a scalar";
        p.inputs[2].clear();
        problems.push_back(p);
      }
      return problems;
    };
  };
  tests.push_back(
      {XHAL_OP_addcmul, dtypes_of('N'), three('*'), ref::pointwise, kAllCases, true, {}});
  tests.push_back(
      {XHAL_OP_addcdiv, dtypes_of('F'), three('/'), ref::pointwise, kAllCases, true, {}});
  tests.push_back({XHAL_OP_lerp, dtypes_of('F'), three('l'), ref::pointwise, kAllCases, true, {}});
}

void add_gradients(OpTests& tests) {
  const auto grad_and = [](double low, double high, std::vector<int64_t> attributes) {
    return [=](Maker& m) {
      Problems problems;
      for (const auto& sizes : shapes(m)) {
        for (const int64_t attribute : attributes) {
          Problem p;
          if (attributes.size() > 1) p.attributes = {integer(0, attribute)};
          p.inputs = {{m.real(sizes)}, {m.real(sizes, low, high)}};
          p.outputs = {{output(m.dtype, sizes)}};
          problems.push_back(p);
        }
      }
      return problems;
    };
  };
  const auto& floats = dtypes_of('F');
  tests.push_back(
      {XHAL_OP_tanh_grad, floats, grad_and(-1, 1, {0}), ref::pointwise, kAllCases, true, {}});
  tests.push_back(
      {XHAL_OP_sigmoid_grad, floats, grad_and(0, 1, {0}), ref::pointwise, kAllCases, true, {}});
  tests.push_back(
      {XHAL_OP_gelu_grad, floats, grad_and(-6, 6, {0, 1}), ref::pointwise, kAllCases, true, {}});
  tests.push_back(
      {XHAL_OP_silu_grad, floats, grad_and(-12, 12, {0}), ref::pointwise, kAllCases, true, {}});
  tests.push_back(
      {XHAL_OP_swiglu, floats, grad_and(-4, 4, {0}), ref::pointwise, kAllCases, true, {}});
  tests.push_back({XHAL_OP_threshold_grad,
                   floats,
                   [grad_and](Maker& m) {
                     auto problems = grad_and(-4, 4, {0})(m);
                     for (auto& p : problems) p.scalars = {0.5};
                     return problems;
                   },
                   ref::pointwise,
                   kAllCases,
                   true,
                   {}});
  tests.push_back({XHAL_OP_dropout_grad,
                   floats,
                   [](Maker& m) {
                     Problems problems;
                     for (const auto& sizes : shapes(m)) {
                       Problem p;
                       p.inputs = {{m.real(sizes)}, {m.flags(sizes)}};
                       p.scalars = {1.25};
                       p.outputs = {{output(m.dtype, sizes)}};
                       problems.push_back(p);
                     }
                     return problems;
                   },
                   ref::pointwise,
                   kAllCases,
                   true,
                   {}});
  tests.push_back({XHAL_OP_swiglu_grad,
                   floats,
                   [](Maker& m) {
                     Problems problems;
                     for (const auto& sizes : shapes(m)) {
                       Problem p;
                       p.inputs = {{m.real(sizes)}, {m.real(sizes)}, {m.real(sizes)}};
                       p.outputs = {{output(m.dtype, sizes)}, {output(m.dtype, sizes)}};
                       problems.push_back(p);
                     }
                     return problems;
                   },
                   ref::pointwise,
                   kAllCases,
                   true,
                   {}});
}

}  // namespace

// The dtypes that the catalogue adds to an operator: f64 where f32 is tested, u32 where i32 is.
void add_more_dtypes(OpTest& test) {
  const auto has = [&](DType type) {
    return std::find(test.dtypes.begin(), test.dtypes.end(), type) != test.dtypes.end();
  };
  const auto& op = operator_of(test.id);
  for (const auto* groups : {&op.inputs, &op.outputs}) {
    for (const auto& group : *groups) {
      for (const auto& name : group.more_types) {
        const DType type = name == "f64" ? DType::f64 : DType::u32;
        if (!has(type) && has(type == DType::f64 ? DType::f32 : DType::i32))
          test.dtypes.push_back(type);
      }
    }
  }
}

void add_pointwise_tests(OpTests& tests) {
  add_core(tests);
  add_unary(tests);
  add_binary(tests);
  add_ternary(tests);
  add_gradients(tests);
  for (auto& test : tests) add_more_dtypes(test);
}

}  // namespace xhal::cts
