// SPDX-License-Identifier: Apache-2.0
// dtype.h: torch's scalar types as the ABI's code and width.
#pragma once

#include <c10/core/ScalarType.h>
#include <xhal/xhal.h>

namespace xhal_torch {

struct Dtype {
  uint8_t code;
  uint8_t bits;  // 0: xHAL has no such type
};

inline Dtype dtype_of(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Float:
      return {XHAL_CODE_FLOAT, 32};
    case c10::ScalarType::BFloat16:
      return {XHAL_CODE_BFLOAT, 16};
    case c10::ScalarType::Half:
      return {XHAL_CODE_FLOAT, 16};
    case c10::ScalarType::Double:
      return {XHAL_CODE_FLOAT, 64};
    case c10::ScalarType::Long:
      return {XHAL_CODE_INT, 64};
    case c10::ScalarType::Int:
      return {XHAL_CODE_INT, 32};
    case c10::ScalarType::Short:
      return {XHAL_CODE_INT, 16};
    case c10::ScalarType::Char:
      return {XHAL_CODE_INT, 8};
    case c10::ScalarType::Byte:
      return {XHAL_CODE_UINT, 8};
    case c10::ScalarType::UInt16:
      return {XHAL_CODE_UINT, 16};
    case c10::ScalarType::UInt32:
      return {XHAL_CODE_UINT, 32};
    case c10::ScalarType::UInt64:
      return {XHAL_CODE_UINT, 64};
    case c10::ScalarType::Bool:
      return {XHAL_CODE_BOOL, 8};
    case c10::ScalarType::ComplexFloat:
      return {XHAL_CODE_COMPLEX, 64};
    case c10::ScalarType::ComplexDouble:
      return {XHAL_CODE_COMPLEX, 128};
    case c10::ScalarType::Float8_e4m3fn:
      return {XHAL_CODE_FLOAT8_E4M3FN, 8};
    case c10::ScalarType::Float8_e5m2:
      return {XHAL_CODE_FLOAT8_E5M2, 8};
    default:
      return {0, 0};
  }
}

// Types the catalogue computes with. The rest is moved (by width) but computed on the host.
inline bool is_float(c10::ScalarType type) {
  return type == c10::ScalarType::Float || type == c10::ScalarType::BFloat16 ||
         type == c10::ScalarType::Half;
}

inline bool is_native(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Float:
    case c10::ScalarType::BFloat16:
    case c10::ScalarType::Half:
    case c10::ScalarType::Long:
    case c10::ScalarType::Int:
    case c10::ScalarType::Short:
    case c10::ScalarType::Char:
    case c10::ScalarType::Byte:
    case c10::ScalarType::Bool:
      return true;
    default:
      return false;
  }
}

// A native type of the same width, for moving elements without looking at them: for every type
// that torch has, known to xHAL or not. Undefined when there is none.
inline c10::ScalarType same_width(c10::ScalarType type) {
  if (is_native(type)) return type;
  switch (c10::elementSize(type)) {
    case 1:
      return c10::ScalarType::Byte;
    case 2:
      return c10::ScalarType::Short;
    case 4:
      return c10::ScalarType::Int;
    case 8:
      return c10::ScalarType::Long;
    default:
      return c10::ScalarType::Undefined;
  }
}

}  // namespace xhal_torch
