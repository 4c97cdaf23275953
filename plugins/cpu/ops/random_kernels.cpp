// SPDX-License-Identifier: Apache-2.0
// random_kernels.cpp: counter-based random words, and uniform, normal and exponential
// numbers from them.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/random_kernels.cpp"
#include "hwy/foreach_target.h"
//
#include <algorithm>

#include "math-inl.hpp"
#include "random.hpp"

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {
namespace {

// Sixteen counters at a time, each variable an array of sixteen, so that the compiler makes
// vectors of them.
constexpr size_t kWide = 16;

void philox_wide(uint64_t seed, uint64_t counter, uint32_t (&word)[4][kWide]) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (size_t i = 0; i < kWide; ++i) {
    const uint64_t c = counter + i;
    word[0][i] = static_cast<uint32_t>(c);
    word[1][i] = static_cast<uint32_t>(c >> 32);
    word[2][i] = 0;
    word[3][i] = 0;
  }
  for (int round = 0; round < 10; ++round) {
    for (size_t i = 0; i < kWide; ++i) {
      const uint64_t p0 = uint64_t{kMultiplier0} * word[0][i];
      const uint64_t p1 = uint64_t{kMultiplier1} * word[2][i];
      word[0][i] = static_cast<uint32_t>(p1 >> 32) ^ word[1][i] ^ key0;
      word[2][i] = static_cast<uint32_t>(p0 >> 32) ^ word[3][i] ^ key1;
      word[1][i] = static_cast<uint32_t>(p1);
      word[3][i] = static_cast<uint32_t>(p0);
    }
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
}

void words(uint64_t seed, uint64_t counter, uint32_t* to, size_t counters) {
  for (size_t done = 0; done < counters; done += kWide) {
    uint32_t word[4][kWide];
    philox_wide(seed, counter + done, word);
    const size_t n = std::min(kWide, counters - done);
    for (size_t i = 0; i < n; ++i)
      for (size_t k = 0; k < 4; ++k) to[4 * (done + i) + k] = word[k][i];
  }
}

void unit(const uint32_t* words, float* to, size_t n, int digits) {
  const int shift = 32 - digits;
  const float scale = 1.0f / static_cast<float>(uint32_t{1} << digits);
  for (size_t i = 0; i < n; ++i)
    to[i] = static_cast<float>(static_cast<int32_t>(words[i] >> shift)) * scale;
}

// In (0, 1]: the midpoints of 2^31 steps.
HWY_INLINE V open_unit(const uint32_t* words) {
  const auto w = hn::LoadU(DU(), words);
  const V f = hn::ConvertTo(D(), hn::BitCast(DI(), hn::ShiftRight<1>(w)));
  return hn::MulAdd(f, set(0x1p-31f), set(0x1p-32f));
}

// cos and sin of a full turn times the upper 24 bits of each word: error 1e-7.
HWY_INLINE V turn(const uint32_t* words, V& sine) {
  const DI di;
  const auto w = hn::ShiftRight<8>(hn::LoadU(DU(), words));
  const V quarters = hn::Mul(hn::ConvertTo(D(), hn::BitCast(di, w)), set(0x1p-22f));  // [0, 4)
  const VI quadrant = hn::NearestInt(quarters);
  const V f = hn::Mul(hn::Sub(quarters, hn::ConvertTo(D(), quadrant)), set(1.57079633f));
  const V f2 = hn::Mul(f, f);
  const V s = hn::Mul(f, horner(f2, -1.95152959e-4f, 8.33216087e-3f, -1.66666546e-1f, 1.0f));
  const V c = horner(f2, 2.44331571e-5f, -1.38873162e-3f, 4.16666457e-2f, -0.5f, 1.0f);
  const auto swapped = hn::RebindMask(D(), hn::Ne(hn::And(quadrant, hn::Set(di, 1)), hn::Zero(di)));
  const V sine_sign = hn::BitCast(D(), hn::ShiftLeft<30>(hn::And(quadrant, hn::Set(di, 2))));
  const VI next = hn::Add(quadrant, hn::Set(di, 1));
  const V cosine_sign = hn::BitCast(D(), hn::ShiftLeft<30>(hn::And(next, hn::Set(di, 2))));
  sine = hn::Xor(hn::IfThenElse(swapped, c, s), sine_sign);
  return hn::Xor(hn::IfThenElse(swapped, s, c), cosine_sign);
}

void normal(const uint32_t* words, float* to, size_t n) {
  constexpr size_t kPairs = 128;
  alignas(64) uint32_t first[kPairs], second[kPairs];
  alignas(64) float a[kPairs], b[kPairs];
  for (size_t done = 0; done < n; done += 2 * kPairs) {
    const size_t pairs = std::min(kPairs, (n - done) / 2);
    for (size_t i = 0; i < pairs; ++i) {
      first[i] = words[done + 2 * i];
      second[i] = words[done + 2 * i + 1];
    }
    for (size_t i = pairs; i < (pairs + 15) / 16 * 16; ++i) first[i] = second[i] = 0;
    for (size_t i = 0; i < pairs; i += lanes()) {
      const V radius = hn::Sqrt(hn::Mul(set(-2.0f), log(open_unit(first + i))));
      V sine;
      const V cosine = turn(second + i, sine);
      store(hn::Mul(radius, cosine), a + i);
      store(hn::Mul(radius, sine), b + i);
    }
    for (size_t i = 0; i < pairs; ++i) {
      to[done + 2 * i] = a[i];
      to[done + 2 * i + 1] = b[i];
    }
  }
}

// -log(u) of u in (0, 1]; where u was rounded to 1, of 1 - 2^-25, half a step of f32 below it:
// for the distribution has no 0.
HWY_INLINE V waiting_time(const uint32_t* words) {
  return hn::Max(hn::Neg(log(open_unit(words))), set(0x1p-25f));
}

void exponential(const uint32_t* words, float* to, size_t n) {
  size_t i = 0;
  for (; i + lanes() <= n; i += lanes()) store(waiting_time(words + i), to + i);
  if (i == n) return;
  alignas(64) uint32_t last[HWY_MAX_BYTES / sizeof(uint32_t)] = {};
  std::copy(words + i, words + n, last);
  store_some(waiting_time(last), to + i, n - i);
}

constexpr RandomKernels kKernels = {words, unit, normal, exponential};

}  // namespace

const RandomKernels& pick_random_kernels() { return kKernels; }

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace xhal::cpu {
HWY_EXPORT(pick_random_kernels);
const RandomKernels& random_kernels() { return HWY_DYNAMIC_DISPATCH(pick_random_kernels)(); }
}  // namespace xhal::cpu
#endif
