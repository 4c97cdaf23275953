// SPDX-License-Identifier: Apache-2.0
// vec-inl.hpp: for one instruction set: f32 vectors in and out of f32, bf16 and f16 memory.
// Included once per target; the including file has included hwy/highway.h and, for
// dispatch, hwy/foreach_target.h before.
#include <cstddef>
#include <cstring>

#include "hwy/highway.h"
#include "xhal/half.hpp"

#if defined(XHAL_CPU_VEC_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef XHAL_CPU_VEC_INL
#undef XHAL_CPU_VEC_INL
#else
#define XHAL_CPU_VEC_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<D>;
using DU = hn::RebindToUnsigned<D>;
using V = hn::Vec<D>;
using VI = hn::Vec<DI>;
using M = hn::Mask<D>;
using D16 = hn::Rebind<uint16_t, D>;

HWY_INLINE size_t lanes() { return hn::Lanes(D()); }
HWY_INLINE V set(float x) { return hn::Set(D(), x); }

HWY_INLINE V load(const float* p) { return hn::LoadU(D(), p); }
HWY_INLINE void store(V v, float* p) { hn::StoreU(v, D(), p); }

#if HWY_TARGET == HWY_AVX3
// One permutation of 16-bit words moves the halves; the other words are zero or do not matter.
HWY_INLINE V load(const Bf16* p) {
  const __m512i odd = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0,
                                       6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
  const __m512i bits =
      _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return V{_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAAu, odd, bits))};
}
HWY_INLINE hn::Vec<D16> bf16_bits(V v) {
  const __m512i u = _mm512_castps_si512(v.raw);
  const __mmask16 odd = _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x10000));
  const __mmask16 nan = _mm512_cmp_ps_mask(v.raw, v.raw, _CMP_UNORD_Q);
  __m512i rounded = _mm512_add_epi32(u, _mm512_set1_epi32(0x7fff));
  rounded = _mm512_mask_add_epi32(rounded, odd, rounded, _mm512_set1_epi32(1));
  rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000));
  const __m512i upper = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29, 27,
                                         25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return hn::Vec<D16>{_mm512_castsi512_si256(_mm512_permutexvar_epi16(upper, rounded))};
}
#else
HWY_INLINE V load(const Bf16* p) {
  const auto bits = hn::LoadU(D16(), reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(DU(), bits)));
}

HWY_INLINE hn::Vec<D16> bf16_bits(V v) {
  const DU du;
  const auto u = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(u, hn::Set(du, 0x7fff)), odd));
  const auto bits = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), hn::Set(du, 0x7fc0), rounded);
  return hn::DemoteTo(D16(), hn::BitCast(DI(), bits));
}
#endif
HWY_INLINE void store(V v, Bf16* p) {
  hn::StoreU(bf16_bits(v), D16(), reinterpret_cast<uint16_t*>(p));
}

// Stores past the caches; p is aligned to the bytes written.
HWY_INLINE void stream(V v, float* p) { hn::Stream(v, D(), p); }

#if HWY_TARGET == HWY_SCALAR
HWY_INLINE V load(const F16* p) { return set(to_float(*p)); }
HWY_INLINE void store(V v, F16* p) { *p = to_f16(hn::GetLane(v)); }
HWY_INLINE void stream(V v, Bf16* p) { store(v, p); }
HWY_INLINE void stream(V v, F16* p) { store(v, p); }
#else
HWY_INLINE void stream(V v, Bf16* p) {
  hn::Stream(bf16_bits(v), D16(), reinterpret_cast<uint16_t*>(p));
}
HWY_INLINE void stream(V v, F16* p) {
  const hn::Rebind<hwy::float16_t, D> dh;
  const auto half = hn::BitCast(D16(), hn::DemoteTo(dh, v));
  hn::Stream(half, D16(), reinterpret_cast<uint16_t*>(p));
}
HWY_INLINE V load(const F16* p) {
  const hn::Rebind<hwy::float16_t, D> dh;
  return hn::PromoteTo(D(), hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(p)));
}
HWY_INLINE void store(V v, F16* p) {
  const hn::Rebind<hwy::float16_t, D> dh;
  hn::StoreU(hn::DemoteTo(dh, v), dh, reinterpret_cast<hwy::float16_t*>(p));
}
#endif

// The first n < lanes() elements; the other lanes are zero and not read.
HWY_INLINE V load_some(const float* p, size_t n) {
  return hn::MaskedLoad(hn::FirstN(D(), n), D(), p);
}
HWY_INLINE void store_some(V v, float* p, size_t n) {
  hn::BlendedStore(v, hn::FirstN(D(), n), D(), p);
}
template <class T>
HWY_INLINE V load_some(const T* p, size_t n) {
  HWY_ALIGN T padded[HWY_MAX_BYTES / sizeof(float)] = {};
  std::memcpy(padded, p, n * sizeof(T));
  return load(padded);
}
template <class T>
HWY_INLINE void store_some(V v, T* p, size_t n) {
  HWY_ALIGN T padded[HWY_MAX_BYTES / sizeof(float)];
  store(v, padded);
  std::memcpy(p, padded, n * sizeof(T));
}

// Calls f(i, n) for i = 0, lanes(), ... with n = lanes(), the last time perhaps fewer.
template <class F>
HWY_INLINE void for_each_vector(size_t count, F&& f) {
  const size_t step = lanes();
  size_t i = 0;
  for (; i + step <= count; i += step) f(i, step);
  if (i < count) f(i, count - i);
}

// The larger (smaller) of x and bound; NaN in x is kept.
HWY_INLINE V at_least(V x, float bound) {
#if HWY_TARGET == HWY_SCALAR
  return hn::IfThenElse(hn::Lt(x, set(bound)), set(bound), x);
#else
  return hn::Max(set(bound), x);  // x86 gives the second operand when one is NaN
#endif
}

HWY_INLINE V at_most(V x, float bound) {
#if HWY_TARGET == HWY_SCALAR
  return hn::IfThenElse(hn::Gt(x, set(bound)), set(bound), x);
#else
  return hn::Min(set(bound), x);
#endif
}

HWY_INLINE float sum_lanes(V v) { return hn::GetLane(hn::SumOfLanes(D(), v)); }
HWY_INLINE float max_lanes(V v) { return hn::GetLane(hn::MaxOfLanes(D(), v)); }
HWY_INLINE float min_lanes(V v) { return hn::GetLane(hn::MinOfLanes(D(), v)); }

// Coefficients from the highest power down.
template <class... C>
HWY_INLINE V horner(V x, float first, C... rest) {
  V p = set(first);
  ((p = hn::MulAdd(p, x, set(rest))), ...);
  return p;
}

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#endif
