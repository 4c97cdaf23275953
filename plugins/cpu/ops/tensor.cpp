// SPDX-License-Identifier: Apache-2.0
// tensor.cpp: questions about dtypes and tensor descriptors.
#include "op.hpp"

namespace xhal::cpu {

DType dtype_of(uint8_t code, uint8_t bits) {
  switch (code) {
    case XHAL_CODE_FLOAT:
      return bits == 32   ? DType::f32
             : bits == 16 ? DType::f16
             : bits == 64 ? DType::f64
                          : DType::other;
    case XHAL_CODE_BFLOAT:
      return bits == 16 ? DType::bf16 : DType::other;
    case XHAL_CODE_INT:
      return bits == 64   ? DType::i64
             : bits == 32 ? DType::i32
             : bits == 16 ? DType::i16
             : bits == 8  ? DType::i8
                          : DType::other;
    case XHAL_CODE_UINT:
      return bits == 8 ? DType::u8 : bits == 32 ? DType::u32 : DType::other;
    case XHAL_CODE_BOOL:
      return bits == 8 ? DType::boolean : DType::other;
    default:
      return DType::other;
  }
}

size_t size_of(DType type) {
  switch (type) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
    case DType::u32:
      return 4;
    case DType::bf16:
    case DType::f16:
    case DType::i16:
      return 2;
    case DType::i8:
    case DType::u8:
    case DType::boolean:
      return 1;
    case DType::other:
      break;
  }
  return 0;
}

std::string_view name_of(DType type) {
  constexpr std::string_view kNames[] = {"f32", "bf16", "f16", "f64", "i8",   "u8",
                                         "i16", "i32",  "u32", "i64", "bool", "other"};
  return kNames[static_cast<size_t>(type)];
}

int64_t element_count(const xhal_tensor_desc& t) {
  int64_t count = 1;
  for (uint32_t i = 0; i < t.ndim; ++i) count *= t.sizes[i];
  return count;
}

bool is_contiguous(const xhal_tensor_desc& t) {
  int64_t expected = 1;
  for (uint32_t i = t.ndim; i-- > 0;) {
    if (t.sizes[i] == 0) return true;
    if (t.sizes[i] != 1 && t.strides[i] != expected) return false;
    expected *= t.sizes[i];
  }
  return true;
}

bool same_sizes(const xhal_tensor_desc& a, const xhal_tensor_desc& b) {
  if (a.ndim != b.ndim) return false;
  for (uint32_t i = 0; i < a.ndim; ++i)
    if (a.sizes[i] != b.sizes[i]) return false;
  return true;
}

}  // namespace xhal::cpu
