// SPDX-License-Identifier: Apache-2.0
// dtype.hpp: the element formats of the catalogue, and their rounding. Values are doubles
// everywhere in the reference.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace xhal::ref {

enum class DType : uint8_t { f32, bf16, f16, i8, u8, i16, i32, i64, u32, boolean, f64 };

size_t size_of(DType type);
std::string_view name_of(DType type);
uint8_t code_of(DType type);  // XHAL_CODE_*
constexpr bool is_float(DType t) {
  return t == DType::f32 || t == DType::bf16 || t == DType::f16 || t == DType::f64;
}
constexpr bool is_unsigned(DType t) {
  return t == DType::u8 || t == DType::u32 || t == DType::boolean;
}

// The nearest value of the format: floats round to nearest even and overflow to infinity, integers
// wrap, bool tests for non-zero. Floats given to an integer format are truncated to i64 first,
// where NaN and what no i64 holds are the least one.
double round_to(DType type, double value);

// Elements in memory. `encode` expects a value that round_to has made.
void encode(DType type, double value, void* bytes);
double decode(DType type, const void* bytes);

}  // namespace xhal::ref
