// SPDX-License-Identifier: Apache-2.0
#include "reference/dtype.hpp"

#include <cmath>
#include <cstring>

#include "xhal/base.h"

namespace xhal::ref {
namespace {

// Rounds to `mantissa` explicit bits with exponents down to `min_exponent`; beyond
// `max` lies infinity.
double round_float(double value, int mantissa, int min_exponent, double max) {
  if (std::isnan(value) || std::isinf(value) || value == 0) return value;
  int exponent = 0;
  std::frexp(value, &exponent);  // value = m * 2^exponent, 0.5 <= |m| < 1
  const int lowest_bit = std::max(exponent - 1, min_exponent) - mantissa;
  // nearbyint rounds to nearest even, the default mode.
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, -lowest_bit)), lowest_bit);
  return std::fabs(rounded) > max ? std::copysign(INFINITY, value) : rounded;
}

double to_i64(double value) {
  const double truncated = std::trunc(value);
  return truncated >= -0x1p63 && truncated < 0x1p63 ? truncated : -0x1p63;
}

int64_t wrapped(double value, int bits, bool is_signed) {
  const double truncated = to_i64(value);
  const double modulus = std::ldexp(1.0, bits);
  double rest = std::fmod(truncated, modulus);
  if (is_signed && rest >= modulus / 2) rest -= modulus;
  if (is_signed && rest < -modulus / 2) rest += modulus;
  if (!is_signed && rest < 0) rest += modulus;
  return static_cast<int64_t>(rest);
}

struct Format {
  std::string_view name;
  size_t size;
  uint8_t code;
};

const Format& format_of(DType type) {
  static constexpr Format kFormats[] = {
      {"f32", 4, XHAL_CODE_FLOAT}, {"bf16", 2, XHAL_CODE_BFLOAT}, {"f16", 2, XHAL_CODE_FLOAT},
      {"i8", 1, XHAL_CODE_INT},    {"u8", 1, XHAL_CODE_UINT},     {"i16", 2, XHAL_CODE_INT},
      {"i32", 4, XHAL_CODE_INT},   {"i64", 8, XHAL_CODE_INT},     {"u32", 4, XHAL_CODE_UINT},
      {"bool", 1, XHAL_CODE_BOOL}, {"f64", 8, XHAL_CODE_FLOAT}};
  return kFormats[static_cast<size_t>(type)];
}

uint16_t half_bits(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return sign | 0x7e00;
  if (std::isinf(value)) return sign | 0x7c00;
  const double magnitude = std::fabs(value);
  if (magnitude < std::ldexp(1.0, -14))
    return sign | static_cast<uint16_t>(std::ldexp(magnitude, 24));
  int exponent = 0;
  const double fraction = std::frexp(magnitude, &exponent);
  const auto mantissa = static_cast<uint16_t>(std::ldexp(fraction, 11)) & 0x3ff;
  return sign | static_cast<uint16_t>((exponent + 14) << 10) | mantissa;
}

double half_value(uint16_t bits) {
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  const int exponent = bits >> 10 & 0x1f, mantissa = bits & 0x3ff;
  if (exponent == 0x1f) return mantissa != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

}  // namespace

size_t size_of(DType type) { return format_of(type).size; }
std::string_view name_of(DType type) { return format_of(type).name; }
uint8_t code_of(DType type) { return format_of(type).code; }

double round_to(DType type, double value) {
  switch (type) {
    case DType::f32:
      return static_cast<float>(value);
    case DType::f64:
      return value;
    case DType::bf16:
      return round_float(value, 7, -126, 0x1.fep127);
    case DType::f16:
      return round_float(value, 10, -14, 65504);
    case DType::boolean:
      return value != 0;
    case DType::i64:
      return to_i64(value);
    default:
      break;
  }
  return static_cast<double>(
      wrapped(value, static_cast<int>(size_of(type) * 8), !is_unsigned(type)));
}

void encode(DType type, double value, void* bytes) {
  const auto put = [bytes](auto element) { std::memcpy(bytes, &element, sizeof element); };
  switch (type) {
    case DType::f32:
      return put(static_cast<float>(value));
    case DType::f64:
      return put(value);
    case DType::bf16: {
      const auto wide = static_cast<float>(value);
      uint32_t bits;
      std::memcpy(&bits, &wide, sizeof bits);
      return put(static_cast<uint16_t>(bits >> 16));
    }
    case DType::f16:
      return put(half_bits(value));
    case DType::i8:
      return put(static_cast<int8_t>(value));
    case DType::u8:
      return put(static_cast<uint8_t>(value));
    case DType::i16:
      return put(static_cast<int16_t>(value));
    case DType::i32:
      return put(static_cast<int32_t>(value));
    case DType::u32:
      return put(static_cast<uint32_t>(value));
    case DType::i64:
      return put(static_cast<int64_t>(value));
    case DType::boolean:
      return put(static_cast<uint8_t>(value != 0));
  }
}

double decode(DType type, const void* bytes) {
  const auto get = [bytes]<class T>(T element) {
    std::memcpy(&element, bytes, sizeof element);
    return element;
  };
  switch (type) {
    case DType::f32:
      return get(float{});
    case DType::f64:
      return get(double{});
    case DType::bf16: {
      const uint32_t bits = uint32_t{get(uint16_t{})} << 16;
      float wide;
      std::memcpy(&wide, &bits, sizeof wide);
      return wide;
    }
    case DType::f16:
      return half_value(get(uint16_t{}));
    case DType::i8:
      return get(int8_t{});
    case DType::u8:
      return get(uint8_t{});
    case DType::i16:
      return get(int16_t{});
    case DType::i32:
      return get(int32_t{});
    case DType::u32:
      return get(uint32_t{});
    case DType::i64:
      return static_cast<double>(get(int64_t{}));
    case DType::boolean:
      return get(uint8_t{});
  }
  return 0;
}

}  // namespace xhal::ref
