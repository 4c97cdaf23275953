// SPDX-License-Identifier: Apache-2.0
// xhal/dtype.hpp: the element formats of the operator catalogue, and what a tensor description says
// about its elements. Header only, C++20; for plugins and bridges alike.
#ifndef XHAL_DTYPE_HPP
#define XHAL_DTYPE_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "xhal/base.h"
#include "xhal/op.h"

namespace xhal {

// `other` is every format the catalogue does not compute with (complex numbers, fp8, u16, u64).
enum class DType : uint8_t { f32, bf16, f16, f64, i8, u8, i16, i32, u32, i64, boolean, other };

struct DTypeInfo {
  std::string_view name;
  uint8_t code;  // XHAL_CODE_*
  uint8_t bits;
};

// By DType; `other` has no row.
inline constexpr DTypeInfo kDTypes[] = {
    {"f32", XHAL_CODE_FLOAT, 32}, {"bf16", XHAL_CODE_BFLOAT, 16}, {"f16", XHAL_CODE_FLOAT, 16},
    {"f64", XHAL_CODE_FLOAT, 64}, {"i8", XHAL_CODE_INT, 8},       {"u8", XHAL_CODE_UINT, 8},
    {"i16", XHAL_CODE_INT, 16},   {"i32", XHAL_CODE_INT, 32},     {"u32", XHAL_CODE_UINT, 32},
    {"i64", XHAL_CODE_INT, 64},   {"bool", XHAL_CODE_BOOL, 8}};
inline constexpr size_t kDTypeCount = sizeof kDTypes / sizeof kDTypes[0];
static_assert(kDTypeCount == static_cast<size_t>(DType::other));

namespace detail {
inline constexpr size_t kCodes = XHAL_CODE_BOOL + 1;
// By code and by bytes - 1.
inline constexpr auto kByFormat = [] {
  std::array<std::array<DType, 8>, kCodes> table{};
  for (auto& row : table) row.fill(DType::other);
  for (size_t i = 0; i < kDTypeCount; ++i)
    table[kDTypes[i].code][kDTypes[i].bits / 8 - 1] = static_cast<DType>(i);
  return table;
}();
}  // namespace detail

constexpr DType dtype_of(uint8_t code, uint8_t bits) {
  if (code >= detail::kCodes || bits == 0 || bits > 64 || bits % 8 != 0) return DType::other;
  return detail::kByFormat[code][bits / 8 - 1];
}
constexpr DType dtype_of(const xhal_tensor_desc& t) { return dtype_of(t.code, t.bits); }

// Bytes of an element; 0 for `other`.
constexpr size_t size_of(DType type) {
  return type == DType::other ? 0 : kDTypes[static_cast<size_t>(type)].bits / 8u;
}
constexpr std::string_view name_of(DType type) {
  return type == DType::other ? "other" : kDTypes[static_cast<size_t>(type)].name;
}
constexpr bool is_float(DType t) {
  return t == DType::f32 || t == DType::bf16 || t == DType::f16 || t == DType::f64;
}

// A float as an integer, as the catalogue converts: truncated towards zero; NaN, the infinities and
// what no i64 holds give the least i64. Narrower integers are cut from that.
constexpr int64_t to_integer(double x) {
  constexpr double kEdge = 0x1p63;
  return x >= -kEdge && x < kEdge ? static_cast<int64_t>(x) : INT64_MIN;
}

constexpr int64_t element_count(const xhal_tensor_desc& t) {
  int64_t count = 1;
  for (uint32_t i = 0; i < t.ndim; ++i) count *= t.sizes[i];
  return count;
}

// Row-major without gaps. Strides of dims of size 1 do not count, and a tensor without elements is
// contiguous whatever its strides.
constexpr bool is_contiguous(const xhal_tensor_desc& t) {
  int64_t expected = 1;
  bool dense = true;
  for (uint32_t i = t.ndim; i-- > 0;) {
    if (t.sizes[i] == 0) return true;
    if (t.sizes[i] != 1 && t.strides[i] != expected) dense = false;
    expected *= t.sizes[i];
  }
  return dense;
}

constexpr bool same_sizes(const xhal_tensor_desc& a, const xhal_tensor_desc& b) {
  if (a.ndim != b.ndim) return false;
  for (uint32_t i = 0; i < a.ndim; ++i)
    if (a.sizes[i] != b.sizes[i]) return false;
  return true;
}

}  // namespace xhal

#endif
