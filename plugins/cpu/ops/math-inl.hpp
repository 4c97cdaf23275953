// SPDX-License-Identifier: Apache-2.0
// math-inl.hpp: for one instruction set: elementary functions of f32 vectors. Errors are in ulp of
// the f32 result, the largest seen over all tested inputs with fused multiply-add; without it they
// are up to half an ulp larger. NaN gives NaN.
#include "vec-inl.hpp"

#if defined(XHAL_CPU_MATH_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef XHAL_CPU_MATH_INL
#undef XHAL_CPU_MATH_INL
#else
#define XHAL_CPU_MATH_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {

constexpr float kLn2Hi = 0.693359375f, kLn2Lo = -2.12194440e-4f, kLog2e = 1.44269504f;

// v * 2^n for integral n in [-300, 300], rounded once; gradual underflow, overflow to infinity.
HWY_INLINE V scale_by_power(V v, V n) {
#if HWY_TARGET == HWY_AVX3
  return V{_mm512_scalef_ps(v.raw, n.raw)};
#else
  const DI di;
  const VI whole = hn::NearestInt(n);
  const VI half = hn::ShiftRight<1>(whole);
  const VI bias = hn::Set(di, 127);
  const V a = hn::BitCast(D(), hn::ShiftLeft<23>(hn::Add(half, bias)));
  const V b = hn::BitCast(D(), hn::ShiftLeft<23>(hn::Add(hn::Sub(whole, half), bias)));
  return hn::Mul(hn::Mul(v, a), b);
#endif
}

// x = n*ln2 + r with integral n and |r| <= ln2/2.
HWY_INLINE V reduce_by_ln2(V x, V& n) {
  const V magic = set(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  n = hn::Sub(hn::MulAdd(x, set(kLog2e), magic), magic);
  return hn::NegMulAdd(n, set(kLn2Lo), hn::NegMulAdd(n, set(kLn2Hi), x));
}

// e^r for |r| <= ln2/2, relative error of the polynomial 3e-9.
HWY_INLINE V exp_reduced(V r) {
  const V q = horner(r, 0.0013814433f, 0.0083687967f, 0.0416683958f, 0.1666652f, 0.499999934f);
  return hn::Add(hn::MulAdd(q, hn::Mul(r, r), r), set(1.0f));
}

// e^r - 1 for |r| <= ln2/2, relative error of the polynomial 2e-10.
HWY_INLINE V expm1_reduced(V r) {
  const V q =
      horner(r, 0.000198458871f, 0.00139407438f, 0.00833338962f, 0.0416663595f, 0.166666664f, 0.5f);
  return hn::MulAdd(q, hn::Mul(r, r), r);
}

// 1 ulp; denormal results too.
HWY_INLINE V exp(V x) {
  V n;
  const V r = reduce_by_ln2(at_most(at_least(x, -104.0f), 89.0f), n);
  return scale_by_power(exp_reduced(r), n);
}

#if HWY_TARGET == HWY_AVX3
constexpr float kLeastExponent = -104.0f;  // e^-104 rounds to 0
#else
constexpr float kLeastExponent = -87.0f;  // what follows gives 0 instead of subnormals
#endif

// e^(x + lost) for x in [kLeastExponent, 0] or NaN and a tiny `lost`; 0 for the least x.
HWY_INLINE V exp_bounded(V x, V lost) {
  V n;
  const V e = exp_reduced(hn::Add(reduce_by_ln2(x, n), lost));
#if HWY_TARGET == HWY_AVX3
  return scale_by_power(e, n);
#else
  const VI bits = hn::Add(hn::BitCast(DI(), e), hn::ShiftLeft<23>(hn::NearestInt(n)));
  const V result = hn::IfThenElse(hn::IsNaN(x), x, hn::BitCast(D(), bits));
  return hn::IfThenZeroElse(hn::Le(x, set(kLeastExponent)), result);
#endif
}

// e^x for x <= 0 (or NaN): 1 ulp; results below 2^-126 may be 0.
HWY_INLINE V exp_nonpositive(V x) {
  return exp_bounded(at_least(x, kLeastExponent), hn::Zero(D()));
}

// e^(x - top) for x <= top, as if the difference were not rounded (exactly so where |x| <=
// |top|): 1 ulp.
HWY_INLINE V exp_below(V x, V top) {
  const V difference = at_least(hn::Sub(x, top), kLeastExponent);
  // Very negative where the difference was, and of no effect there if kept tiny.
  const V lost = at_least(hn::Sub(x, hn::Add(difference, top)), -1e-5f);
  return exp_bounded(difference, lost);
}

// 2^n for integral n in [-126, 127].
HWY_INLINE V power_of_two(V n) {
#if HWY_TARGET == HWY_AVX3
  return V{_mm512_scalef_ps(set(1.0f).raw, n.raw)};
#else
  return hn::BitCast(D(), hn::ShiftLeft<23>(hn::Add(hn::NearestInt(n), hn::Set(DI(), 127))));
#endif
}

// e^x - 1 for x in [-30, 60] or NaN, 2 ulp.
HWY_INLINE V expm1_bounded(V x) {
  V n;
  const V r = reduce_by_ln2(x, n);
  const V power = power_of_two(n);
  return hn::MulAdd(power, expm1_reduced(r), hn::Sub(power, set(1.0f)));
}

// 2 ulp.
HWY_INLINE V expm1(V x) {
  const V result = expm1_bounded(at_most(at_least(x, -30.0f), 60.0f));
  const V kept = hn::IfThenElse(hn::Eq(x, hn::Zero(D())), x, result);
  return hn::IfThenElse(hn::Gt(x, set(60.0f)), exp(x), kept);
}

// log(x) = e*ln2 + log(1 + f) for positive finite x, |f| <= 0.414.
HWY_INLINE V split_log(V x, V& e) {
  const DI di;
  const auto tiny = hn::Lt(x, set(1.17549435e-38f));
  x = hn::IfThenElse(tiny, hn::Mul(x, set(8388608.0f)), x);
  const VI bits = hn::BitCast(di, x);
  const VI shifted = hn::Sub(bits, hn::Set(di, 0x3f3504f3));  // sqrt(1/2)
  const VI exponent = hn::ShiftRight<23>(shifted);
  e = hn::Sub(hn::ConvertTo(D(), exponent), hn::IfThenElseZero(tiny, set(23.0f)));
  const V m = hn::BitCast(D(), hn::Sub(bits, hn::ShiftLeft<23>(exponent)));
  return hn::Sub(m, set(1.0f));
}

// log(1 + f) - f, relative to log(1 + f): 1e-9.
HWY_INLINE V log_tail(V f) {
  const V p = horner(f, 0.0674663825f, -0.116756512f, 0.11888163f, -0.124055891f, 0.142195523f,
                     -0.166679958f, 0.200021187f, -0.250000096f, 0.333333126f);
  const V f2 = hn::Mul(f, f);
  return hn::MulAdd(hn::Mul(f2, f), p, hn::Mul(f2, set(-0.5f)));
}

HWY_INLINE V log_edges(V x, V result) {
  const V inf = set(__builtin_inff());
  result = hn::IfThenElse(hn::Lt(x, inf), result, x);  // infinity and NaN
  result = hn::IfThenElse(hn::Lt(x, hn::Zero(D())), set(__builtin_nanf("")), result);
  return hn::IfThenElse(hn::Eq(x, hn::Zero(D())), hn::Neg(inf), result);
}

// 1 ulp.
HWY_INLINE V log(V x) {
  V e;
  const V f = split_log(x, e);
  const V low = hn::MulAdd(e, set(kLn2Lo), log_tail(f));
  return log_edges(x, hn::MulAdd(e, set(kLn2Hi), hn::Add(f, low)));
}

// a * b - product exactly, product being a * b rounded.
HWY_INLINE V product_error(V a, V b, V product) {
#if HWY_TARGET == HWY_SCALAR
  const double exact = static_cast<double>(hn::GetLane(a)) * static_cast<double>(hn::GetLane(b));
  return set(static_cast<float>(exact - static_cast<double>(hn::GetLane(product))));
#else
  return hn::MulSub(a, b, product);
#endif
}

// 2 ulp.
HWY_INLINE V log2(V x) {
  V e;
  const V f = split_log(x, e);
  // log2(e) in two parts, so that the product keeps the bits of f.
  const V tail = log_tail(f);
  const V low = hn::MulAdd(f, set(1.92596303e-8f), hn::Mul(tail, set(1.44269502f)));
  const V high = hn::Mul(f, set(1.44269502f));
  const V lost = product_error(f, set(1.44269502f), high);
  return log_edges(x, hn::Add(e, hn::Add(high, hn::Add(low, lost))));
}

// 2 ulp.
HWY_INLINE V log1p(V x) {
  const V one = set(1.0f);
  const V u = hn::Add(one, x);
  const V lost = hn::Sub(x, hn::Sub(u, one));
  V e;
  const V f = split_log(u, e);
  const V low = hn::Add(hn::MulAdd(e, set(kLn2Lo), log_tail(f)), hn::Div(lost, u));
  const V result = hn::MulAdd(e, set(kLn2Hi), hn::Add(f, low));
  const V edged = log_edges(u, result);
  return hn::IfThenElse(hn::Lt(hn::Abs(x), set(1e-8f)), x, edged);
}

// (e^2x - 1) / (e^2x + 1), 3 ulp; -0 stays -0.
HWY_INLINE V tanh(V x) {
  const V bounded = at_most(at_least(x, -10.0f), 10.0f);
  const V em1 = expm1_bounded(hn::Add(bounded, bounded));
  return hn::CopySign(hn::Div(em1, hn::Add(em1, set(2.0f))), x);
}

// 1 / (1 + e^-x), 2 ulp; 0 below -88.7.
HWY_INLINE V sigmoid(V x) { return hn::Div(set(1.0f), hn::Add(set(1.0f), exp(hn::Neg(x)))); }

// 2 ulp.
HWY_INLINE V erf(V x) {
  const V a = at_most(hn::Abs(x), 6.0f);
  const V p = horner(hn::Mul(x, x), -9.64151744e-06f, 0.000112569484f, -0.000848282892f,
                     0.00522094544f, -0.0268654f, 0.11283782f, -0.376126384f, 0.128379166f);
  const V near = hn::MulAdd(x, p, x);
  // 1 - e^(-a^2) * t * P(t), t = 1 / (1 + 0.35a)
  const V t = hn::Div(set(1.0f), hn::MulAdd(a, set(0.35f), set(1.0f)));
  const V q = horner(t, 0.0386859199f, -0.16052224f, 0.185334477f, -0.0330610827f, 0.0916538343f,
                     0.14344277f, 0.152129136f, 0.187689395f, 0.197165506f, 0.197482292f);
  const V far = hn::NegMulAdd(exp_nonpositive(hn::Neg(hn::Mul(a, a))), hn::Mul(t, q), set(1.0f));
  return hn::IfThenElse(hn::Lt(a, set(1.0f)), near, hn::CopySign(far, x));
}

// The upper tail of the normal distribution function, 1 - Phi(a), for a in [0, 17] or NaN, as
// e^(-a^2/2) * t * P(t) with t = 1 / (1 + 0.2475a): 5 ulp up to a = 14.2, then below 1e-45.
// gauss = e^(-a^2/2).
HWY_INLINE V normal_tail(V a, V& gauss) {
  const V t = hn::Div(set(1.0f), hn::MulAdd(a, set(0.2475f), set(1.0f)));
  const V p = horner(t, 0.0192181231f, -0.0795511319f, 0.0909460612f, -0.0142080255f, 0.0438459456f,
                     0.072813841f, 0.0756753152f, 0.0939363703f, 0.0985767193f, 0.0987467853f);
  const V half = hn::Mul(a, set(-0.5f));
  const V exponent = hn::Mul(half, a);
  V n;
  const V r = hn::Add(reduce_by_ln2(exponent, n), product_error(half, a, exponent));
  gauss = scale_by_power(exp_reduced(r), n);
  return hn::Mul(gauss, hn::Mul(t, p));
}

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#endif
