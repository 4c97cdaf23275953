// SPDX-License-Identifier: Apache-2.0
// xhal/half.hpp: 16-bit floats as bits, one value at a time. Every conversion rounds once, to
// nearest even, also from f64 and i64; NaN stays NaN (quiet).
#ifndef XHAL_HALF_HPP
#define XHAL_HALF_HPP

#include <bit>
#include <cstdint>

namespace xhal {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

constexpr float to_float(Bf16 v) {
  return std::bit_cast<float>(static_cast<uint32_t>(v.bits) << 16);
}

constexpr Bf16 to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fc0};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

constexpr float to_float(F16 v) {
  const uint32_t sign = static_cast<uint32_t>(v.bits & 0x8000u) << 16;
  const uint32_t magnitude = v.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity, NaN
    const uint32_t quiet = magnitude > 0x7c00u ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13 | quiet);
  }
  // The exponent is moved by a multiplication with 2^112, which is exact for subnormals too.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

constexpr F16 to_f16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return {static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu))};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // >= 65520
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24 in
                                  // the low bits
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23);
  return {static_cast<uint16_t>(sign | rounded >> 13)};
}

// The float towards zero, its last bit set when that was not exact ("round to odd"): rounding this
// to 16 bits gives what rounding the double itself would, because a float has more than two bits
// to spare. A plain conversion to float first would round twice.
constexpr float to_odd_float(double d) {
  const auto f = static_cast<float>(d);
  const double back = f;
  if (back == d || d != d) return f;
  uint32_t u = std::bit_cast<uint32_t>(f);
  const bool away = d < 0 ? back < d : back > d;
  if (away) --u;  // one step towards zero, from infinity to the largest float
  return std::bit_cast<float>(u | 1u);
}
constexpr float to_odd_float(int64_t i) {
  constexpr int64_t kExact = int64_t{1} << 53;
  if (i >= -kExact && i <= kExact) return to_odd_float(static_cast<double>(i));
  // 12 bits less fit a double; what they held is kept as one bit that says "not exact".
  const int64_t high = i >> 12 | ((i & 0xfff) != 0 ? 1 : 0);
  return to_odd_float(static_cast<double>(high)) * 4096.0f;
}

constexpr Bf16 to_bf16(double d) { return to_bf16(to_odd_float(d)); }
constexpr Bf16 to_bf16(int64_t i) { return to_bf16(to_odd_float(i)); }
constexpr F16 to_f16(double d) { return to_f16(to_odd_float(d)); }
constexpr F16 to_f16(int64_t i) { return to_f16(to_odd_float(i)); }

}  // namespace xhal

#endif
