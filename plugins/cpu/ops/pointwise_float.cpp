// SPDX-License-Identifier: Apache-2.0
// pointwise_float.cpp: pointwise kernels that compute in f32.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/pointwise_float.cpp"
#include "hwy/foreach_target.h"
//
#include <cmath>

#include "math-inl.hpp"
#include "pointwise.hpp"

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {
namespace {

template <int kInputs, class F>
HWY_INLINE V call(const F& f, const V* x) {
  if constexpr (kInputs == 1) return f(x[0]);
  if constexpr (kInputs == 2) return f(x[0], x[1]);
  if constexpr (kInputs == 3) return f(x[0], x[1], x[2]);
}

template <class F, int kInputs>
void map(const float* const* in, const size_t* inc, float* const* out, size_t n,
         const float* params) {
  const F f(params);
  const size_t step = lanes();
  const float* p[kInputs];
  size_t move[kInputs];
  for (int k = 0; k < kInputs; ++k) {
    p[k] = in[k];
    move[k] = inc[k] * step;
  }
  float* to = out[0];
  V x[kInputs];
  for (; n >= step; n -= step) {
    for (int k = 0; k < kInputs; ++k) {
      x[k] = load(p[k]);
      p[k] += move[k];
    }
    store(call<kInputs>(f, x), to);
    to += step;
  }
  if (n == 0) return;
  for (int k = 0; k < kInputs; ++k) x[k] = load_some(p[k], n);
  store_some(call<kInputs>(f, x), to, n);
}

// The same by scalar code: functions of the C library that are rare or hard.
template <class F, int kInputs>
void map_scalar(const float* const* in, const size_t* inc, float* const* out, size_t n,
                const float*) {
  for (size_t i = 0; i < n; ++i) {
    if constexpr (kInputs == 1) out[0][i] = F::apply(in[0][i * inc[0]]);
    if constexpr (kInputs == 2) out[0][i] = F::apply(in[0][i * inc[0]], in[1][i * inc[1]]);
  }
}

HWY_INLINE V truth(M m) { return hn::IfThenElseZero(m, set(1.0f)); }
// Highway 1.0's Ne is the ordered comparison: NaN != NaN must be true.
HWY_INLINE M not_zero(V x) { return hn::Not(hn::Eq(x, hn::Zero(D()))); }

struct NoParams {
  explicit NoParams(const float*) {}
};

#define XHAL_MAP1(Name, expression)                           \
  struct Name : NoParams {                                    \
    using NoParams::NoParams;                                 \
    HWY_INLINE V operator()(V x) const { return expression; } \
  };
#define XHAL_MAP2(Name, expression)                                \
  struct Name : NoParams {                                         \
    using NoParams::NoParams;                                      \
    HWY_INLINE V operator()(V a, V b) const { return expression; } \
  };

XHAL_MAP1(Copy, x)
XHAL_MAP1(Neg, hn::Neg(x))
XHAL_MAP1(Abs, hn::Abs(x))
XHAL_MAP1(Sign, hn::Sub(truth(hn::Gt(x, hn::Zero(D()))), truth(hn::Lt(x, hn::Zero(D())))))
XHAL_MAP1(Exp, exp(x))
XHAL_MAP1(Expm1, expm1(x))
XHAL_MAP1(Log, log(x))
XHAL_MAP1(Log1p, log1p(x))
XHAL_MAP1(Log2, log2(x))
XHAL_MAP1(Sqrt, hn::Sqrt(x))
XHAL_MAP1(Rsqrt, hn::Div(set(1.0f), hn::Sqrt(x)))
XHAL_MAP1(Reciprocal, hn::Div(set(1.0f), x))
XHAL_MAP1(Tanh, tanh(x))
XHAL_MAP1(Sigmoid, sigmoid(x))
XHAL_MAP1(Erf, erf(x))
XHAL_MAP1(Relu, at_least(x, 0.0f))
XHAL_MAP1(Silu, hn::Div(x, hn::Add(set(1.0f), exp(hn::Neg(x)))))
XHAL_MAP1(Floor, hn::CopySign(hn::Floor(x), x))  // SSE2's loses that of -0
XHAL_MAP1(Ceil, hn::Ceil(x))
XHAL_MAP1(Trunc, hn::Trunc(x))
XHAL_MAP1(Round, hn::Round(x))
XHAL_MAP1(LogicalNot, truth(hn::Eq(x, hn::Zero(D()))))
XHAL_MAP1(IsNan, truth(hn::IsNaN(x)))
XHAL_MAP1(IsFinite, truth(hn::Lt(hn::Abs(x), set(__builtin_inff()))))
XHAL_MAP1(Square, hn::Mul(x, x))
XHAL_MAP1(Cube, hn::Mul(hn::Mul(x, x), x))
// As pow(x, 0.5): +inf for -inf, +0 for -0.
XHAL_MAP1(PowHalf, hn::IfThenElse(hn::Eq(x, set(-__builtin_inff())), hn::Abs(x),
                                  hn::Add(hn::Sqrt(x), hn::Zero(D()))))

// x * Phi(x) = max(x, 0) - |x| * (1 - Phi(|x|))
HWY_INLINE V gelu(V x) {
  V gauss;
  const V a = at_most(hn::Abs(x), 17.0f);
  return hn::NegMulAdd(a, normal_tail(a, gauss), at_least(x, 0.0f));
}
XHAL_MAP1(Gelu, gelu(x))

// 2u for gelu's u = sqrt(2/pi) * (x + 0.044715 x^3); tanh(u) = 2*sigmoid(2u) - 1.
HWY_INLINE V gelu_tanh_argument(V x) {
  const V x2 = hn::Mul(x, x);
  return hn::Mul(x, hn::MulAdd(x2, set(0.0713548163f), set(1.59576912f)));
}
XHAL_MAP1(GeluTanh,
          hn::Div(at_least(x, -1e18f), hn::Add(set(1.0f), exp(hn::Neg(gelu_tanh_argument(x))))))

XHAL_MAP2(Mul, hn::Mul(a, b))
XHAL_MAP2(Div, hn::Div(a, b))
XHAL_MAP2(DivTrunc, hn::Trunc(hn::Div(a, b)))
HWY_INLINE V or_nan(V a, V b, V result) {
  return hn::IfThenElse(hn::Or(hn::IsNaN(a), hn::IsNaN(b)), hn::Add(a, b), result);
}
XHAL_MAP2(Minimum, or_nan(a, b, hn::Min(a, b)))
XHAL_MAP2(Maximum, or_nan(a, b, hn::Max(a, b)))
XHAL_MAP2(Equal, truth(hn::Eq(a, b)))
XHAL_MAP2(NotEqual, truth(hn::Not(hn::Eq(a, b))))
XHAL_MAP2(Less, truth(hn::Lt(a, b)))
XHAL_MAP2(LessEqual, truth(hn::Le(a, b)))
XHAL_MAP2(Greater, truth(hn::Gt(a, b)))
XHAL_MAP2(GreaterEqual, truth(hn::Ge(a, b)))
XHAL_MAP2(LogicalAnd, truth(hn::And(not_zero(a), not_zero(b))))
XHAL_MAP2(LogicalOr, truth(hn::Or(not_zero(a), not_zero(b))))
XHAL_MAP2(LogicalXor, truth(hn::Xor(not_zero(a), not_zero(b))))
XHAL_MAP2(SquareDifference, hn::Mul(hn::Sub(a, b), hn::Sub(a, b)))
XHAL_MAP2(TanhGrad, hn::Mul(a, hn::NegMulAdd(b, b, set(1.0f))))
XHAL_MAP2(SigmoidGrad, hn::Mul(hn::Mul(a, b), hn::Sub(set(1.0f), b)))

// Phi(x) + x * phi(x)
HWY_INLINE V gelu_slope(V x) {
  V gauss;
  const V a = at_most(hn::Abs(x), 17.0f);
  const V tail = normal_tail(a, gauss);
  const V cdf = hn::IfThenElse(hn::Lt(x, hn::Zero(D())), tail, hn::Sub(set(1.0f), tail));
  const V density = hn::Mul(gauss, set(0.398942280f));
  return hn::MulAdd(hn::CopySign(a, x), density, cdf);
}
XHAL_MAP2(GeluGrad, hn::Mul(a, gelu_slope(b)))

HWY_INLINE V gelu_tanh_slope(V x) {
  x = at_most(at_least(x, -1e6f), 1e6f);
  const V s = sigmoid(gelu_tanh_argument(x));
  const V slope = hn::MulAdd(hn::Mul(x, x), set(0.214064449f), set(1.59576912f));
  return hn::MulAdd(hn::Mul(x, slope), hn::Mul(s, hn::Sub(set(1.0f), s)), s);
}
XHAL_MAP2(GeluTanhGrad, hn::Mul(a, gelu_tanh_slope(b)))

HWY_INLINE V silu_slope(V x, V s) {
  x = at_most(at_least(x, -1e18f), 1e18f);
  return hn::Mul(s, hn::MulAdd(x, hn::Sub(set(1.0f), s), set(1.0f)));
}
XHAL_MAP2(SiluGrad, hn::Mul(a, silu_slope(b, sigmoid(b))))
XHAL_MAP2(Swiglu, hn::Mul(hn::Div(a, hn::Add(set(1.0f), exp(hn::Neg(a)))), b))
#undef XHAL_MAP1
#undef XHAL_MAP2

struct IsInf {  // of the sign of params[0], or of any if that is 0
  V sign;
  explicit IsInf(const float* p) : sign(set(p[0])) {}
  HWY_INLINE V operator()(V x) const {
    const auto fits = hn::Ge(hn::Mul(hn::CopySign(set(1.0f), x), sign), hn::Zero(D()));
    return truth(hn::And(hn::Eq(hn::Abs(x), set(__builtin_inff())), fits));
  }
};

struct ScaleShift {
  V scale, shift;
  explicit ScaleShift(const float* p) : scale(set(p[0])), shift(set(p[1])) {}
  HWY_INLINE V operator()(V x) const { return hn::MulAdd(scale, x, shift); }
};
struct Axpby {
  V alpha, beta;
  explicit Axpby(const float* p) : alpha(set(p[0])), beta(set(p[1])) {}
  HWY_INLINE V operator()(V x, V y) const { return hn::MulAdd(alpha, x, hn::Mul(beta, y)); }
};
struct Add {
  V alpha;
  explicit Add(const float* p) : alpha(set(p[0])) {}
  HWY_INLINE V operator()(V a, V b) const { return hn::MulAdd(alpha, b, a); }
};
struct Sub {
  V alpha;
  explicit Sub(const float* p) : alpha(set(p[0])) {}
  HWY_INLINE V operator()(V a, V b) const { return hn::NegMulAdd(alpha, b, a); }
};
struct ThresholdGrad {
  V threshold;
  explicit ThresholdGrad(const float* p) : threshold(set(p[0])) {}
  HWY_INLINE V operator()(V grad, V x) const {
    return hn::IfThenZeroElse(hn::Le(x, threshold), grad);
  }
};
struct Clamp : NoParams {
  using NoParams::NoParams;
  HWY_INLINE V operator()(V x, V lo, V hi) const {
    const V raised = hn::IfThenElse(hn::Lt(x, lo), lo, x);
    const V result = hn::IfThenElse(hn::Gt(raised, hi), hi, raised);
    return hn::IfThenElse(hn::IsNaN(lo), lo, hn::IfThenElse(hn::IsNaN(hi), hi, result));
  }
};
struct Where : NoParams {
  using NoParams::NoParams;
  HWY_INLINE V operator()(V condition, V a, V b) const {
    return hn::IfThenElse(not_zero(condition), a, b);
  }
};
struct Addcmul {
  V value;
  explicit Addcmul(const float* p) : value(set(p[0])) {}
  HWY_INLINE V operator()(V x, V a, V b) const { return hn::MulAdd(hn::Mul(value, a), b, x); }
};
struct Addcdiv {
  V value;
  explicit Addcdiv(const float* p) : value(set(p[0])) {}
  HWY_INLINE V operator()(V x, V a, V b) const { return hn::Add(x, hn::Div(hn::Mul(value, a), b)); }
};
// From the nearer end, so that weight 1 gives b exactly.
struct Lerp : NoParams {
  using NoParams::NoParams;
  HWY_INLINE V operator()(V a, V b, V w) const {
    const V span = hn::Sub(b, a);
    const V from_b = hn::NegMulAdd(span, hn::Sub(set(1.0f), w), b);
    return hn::IfThenElse(hn::Lt(hn::Abs(w), set(0.5f)), hn::MulAdd(w, span, a), from_b);
  }
};
struct DropoutGrad {
  V scale;
  explicit DropoutGrad(const float* p) : scale(set(p[0])) {}
  HWY_INLINE V operator()(V grad, V mask) const { return hn::Mul(hn::Mul(grad, mask), scale); }
};

struct Mul3 : NoParams {
  using NoParams::NoParams;
  HWY_INLINE V operator()(V a, V b, V c) const { return hn::Mul(hn::Mul(a, b), c); }
};
struct MseGrad {
  V scale;
  explicit MseGrad(const float* p) : scale(set(p[0])) {}
  HWY_INLINE V operator()(V grad, V a, V b) const {
    return hn::Mul(hn::Mul(scale, hn::Sub(a, b)), grad);
  }
};

struct Sin {
  static float apply(float x) { return std::sin(x); }
};
struct Cos {
  static float apply(float x) { return std::cos(x); }
};
struct Pow {
  static float apply(float a, float b) { return std::pow(a, b); }
};
struct Fmod {
  static float apply(float a, float b) { return std::fmod(a, b); }
};
struct Remainder {  // of the sign of b
  static float apply(float a, float b) {
    const float r = std::fmod(a, b);
    return r != 0 && (b < 0) != (r < 0) ? r + b : r;
  }
};
struct DivFloor {  // Python's a // b: floor of the exact quotient, not of the rounded one
  static float apply(float a, float b) {
    if (b == 0) return a / b;
    const float r = std::fmod(a, b);
    float quotient = (a - r) / b;
    if (r != 0 && (b < 0) != (r < 0)) quotient -= 1;
    if (quotient == 0) return std::copysign(0.0f, a / b);
    const float down = std::floor(quotient);
    return quotient - down > 0.5f ? down + 1 : down;
  }
};

// in: grad, gate, up; out: dgate, dup
void swiglu_grad(const float* const* in, const size_t* inc, float* const* out, size_t n,
                 const float*) {
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    const bool whole = k == lanes();
    V x[3];
    for (int o = 0; o < 3; ++o) {
      const float* p = in[o] + i * inc[o];
      x[o] = whole ? load(p) : load_some(p, k);
    }
    const V s = sigmoid(x[1]);
    const V dgate = hn::Mul(hn::Mul(x[0], x[2]), silu_slope(x[1], s));
    const V dup = hn::Mul(x[0], hn::Mul(x[1], s));
    if (whole) {
      store(dgate, out[0] + i);
      store(dup, out[1] + i);
    } else {
      store_some(dgate, out[0] + i, k);
      store_some(dup, out[1] + i, k);
    }
  });
}

}  // namespace

PointwiseFn<float> pick_float(Kernel kernel) {
  switch (kernel) {
    case Kernel::copy:
      return map<Copy, 1>;
    case Kernel::neg:
      return map<Neg, 1>;
    case Kernel::abs:
      return map<Abs, 1>;
    case Kernel::sign:
      return map<Sign, 1>;
    case Kernel::exp:
      return map<Exp, 1>;
    case Kernel::expm1:
      return map<Expm1, 1>;
    case Kernel::log:
      return map<Log, 1>;
    case Kernel::log1p:
      return map<Log1p, 1>;
    case Kernel::log2:
      return map<Log2, 1>;
    case Kernel::sqrt:
      return map<Sqrt, 1>;
    case Kernel::rsqrt:
      return map<Rsqrt, 1>;
    case Kernel::reciprocal:
      return map<Reciprocal, 1>;
    case Kernel::sin:
      return map_scalar<Sin, 1>;
    case Kernel::cos:
      return map_scalar<Cos, 1>;
    case Kernel::tanh:
      return map<Tanh, 1>;
    case Kernel::sigmoid:
      return map<Sigmoid, 1>;
    case Kernel::erf:
      return map<Erf, 1>;
    case Kernel::relu:
      return map<Relu, 1>;
    case Kernel::gelu:
      return map<Gelu, 1>;
    case Kernel::gelu_tanh:
      return map<GeluTanh, 1>;
    case Kernel::silu:
      return map<Silu, 1>;
    case Kernel::floor:
      return map<Floor, 1>;
    case Kernel::ceil:
      return map<Ceil, 1>;
    case Kernel::trunc:
      return map<Trunc, 1>;
    case Kernel::round:
      return map<Round, 1>;
    case Kernel::logical_not:
      return map<LogicalNot, 1>;
    case Kernel::is_nan:
      return map<IsNan, 1>;
    case Kernel::is_inf:
      return map<IsInf, 1>;
    case Kernel::is_finite:
      return map<IsFinite, 1>;
    case Kernel::square:
      return map<Square, 1>;
    case Kernel::cube:
      return map<Cube, 1>;
    case Kernel::pow_half:
      return map<PowHalf, 1>;
    case Kernel::scale_shift:
      return map<ScaleShift, 1>;
    case Kernel::axpby:
      return map<Axpby, 2>;
    case Kernel::add:
      return map<Add, 2>;
    case Kernel::sub:
      return map<Sub, 2>;
    case Kernel::mul:
      return map<Mul, 2>;
    case Kernel::div:
      return map<Div, 2>;
    case Kernel::div_trunc:
      return map<DivTrunc, 2>;
    case Kernel::div_floor:
      return map_scalar<DivFloor, 2>;
    case Kernel::remainder:
      return map_scalar<Remainder, 2>;
    case Kernel::fmod:
      return map_scalar<Fmod, 2>;
    case Kernel::pow:
      return map_scalar<Pow, 2>;
    case Kernel::minimum:
      return map<Minimum, 2>;
    case Kernel::maximum:
      return map<Maximum, 2>;
    case Kernel::eq:
      return map<Equal, 2>;
    case Kernel::ne:
      return map<NotEqual, 2>;
    case Kernel::lt:
      return map<Less, 2>;
    case Kernel::le:
      return map<LessEqual, 2>;
    case Kernel::gt:
      return map<Greater, 2>;
    case Kernel::ge:
      return map<GreaterEqual, 2>;
    case Kernel::logical_and:
      return map<LogicalAnd, 2>;
    case Kernel::logical_or:
      return map<LogicalOr, 2>;
    case Kernel::logical_xor:
      return map<LogicalXor, 2>;
    case Kernel::square_difference:
      return map<SquareDifference, 2>;
    case Kernel::tanh_grad:
      return map<TanhGrad, 2>;
    case Kernel::sigmoid_grad:
      return map<SigmoidGrad, 2>;
    case Kernel::threshold_grad:
      return map<ThresholdGrad, 2>;
    case Kernel::gelu_grad:
      return map<GeluGrad, 2>;
    case Kernel::gelu_tanh_grad:
      return map<GeluTanhGrad, 2>;
    case Kernel::silu_grad:
      return map<SiluGrad, 2>;
    case Kernel::swiglu:
      return map<Swiglu, 2>;
    case Kernel::dropout_grad:
      return map<DropoutGrad, 2>;
    case Kernel::clamp:
      return map<Clamp, 3>;
    case Kernel::where:
      return map<Where, 3>;
    case Kernel::addcmul:
      return map<Addcmul, 3>;
    case Kernel::addcdiv:
      return map<Addcdiv, 3>;
    case Kernel::mul3:
      return map<Mul3, 3>;
    case Kernel::mse_grad:
      return map<MseGrad, 3>;
    case Kernel::lerp:
      return map<Lerp, 3>;
    case Kernel::swiglu_grad:
      return swiglu_grad;
    case Kernel::bitwise_not:
    case Kernel::add_bool:
    case Kernel::bitwise_and:
    case Kernel::bitwise_or:
    case Kernel::bitwise_xor:
    case Kernel::shift_left:
    case Kernel::shift_right:
      break;
  }
  return nullptr;
}

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace xhal::cpu {
HWY_EXPORT(pick_float);
PointwiseFn<float> float_kernel(Kernel kernel) { return HWY_DYNAMIC_DISPATCH(pick_float)(kernel); }
}  // namespace xhal::cpu
#endif
