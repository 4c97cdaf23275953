// SPDX-License-Identifier: Apache-2.0
#include "elements.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>

namespace xcoll::testing {
namespace {

// Stored form of bf16, which C++20 has no type for.
struct BF16 {
  uint16_t bits;
};

BF16 to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t low = bits & 0xffff;
  uint32_t high = bits >> 16;
  if (low > 0x8000 || (low == 0x8000 && (high & 1) != 0)) ++high;
  return BF16{static_cast<uint16_t>(high)};
}
float from_bf16(BF16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

template <typename T>
T load(const Bytes& bytes, uint64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}
template <typename T>
void store(Bytes& bytes, uint64_t index, T value) {
  std::memcpy(bytes.data() + index * sizeof(T), &value, sizeof(T));
}

// Calls `visit` with a value of the type that `dtype` is stored as.
template <typename Visit>
auto with_type(xcoll_dtype dtype, Visit&& visit) {
  switch (dtype) {
    case XCOLL_F32:
      return visit(float{});
    case XCOLL_F64:
      return visit(double{});
    case XCOLL_F16:
      return visit(_Float16{});
    case XCOLL_BF16:
      return visit(BF16{});
    case XCOLL_I8:
      return visit(int8_t{});
    case XCOLL_I32:
      return visit(int32_t{});
    case XCOLL_U32:
      return visit(uint32_t{});
    case XCOLL_I64:
      return visit(int64_t{});
    case XCOLL_U64:
      return visit(uint64_t{});
    default:
      return visit(uint8_t{});
  }
}

bool is_floating(xcoll_dtype dtype) {
  return dtype == XCOLL_F32 || dtype == XCOLL_F64 || dtype == XCOLL_F16 || dtype == XCOLL_BF16;
}

template <typename T>
T floating(T a, T b, xcoll_reduction reduction) {
  switch (reduction) {
    case XCOLL_MIN:
      return std::min(a, b);
    case XCOLL_MAX:
      return std::max(a, b);
    case XCOLL_PROD:
      return a * b;
    default:
      return a + b;
  }
}

int64_t integral(int64_t a, int64_t b, xcoll_reduction reduction) {
  switch (reduction) {
    case XCOLL_BAND:
      return a & b;
    case XCOLL_BOR:
      return a | b;
    case XCOLL_BXOR:
      return a ^ b;
    default:
      return floating(a, b, reduction);
  }
}

int64_t logical(int64_t a, int64_t b, xcoll_reduction reduction) {
  switch (reduction) {
    case XCOLL_SUM:
    case XCOLL_MAX:
    case XCOLL_BOR:
      return a | b;
    case XCOLL_BXOR:
      return a ^ b;
    default:
      return a & b;
  }
}

// The reduction of one element: in f64 for f64, in f32 for the narrower ones, in 64
// bits for integers.
template <typename T>
T reduced_element(const std::vector<Bytes>& inputs, uint64_t i, xcoll_dtype dtype,
                  xcoll_reduction reduction) {
  if constexpr (std::is_same_v<T, double>) {
    double value = load<double>(inputs[0], i);
    for (size_t r = 1; r < inputs.size(); ++r) {
      value = floating(value, load<double>(inputs[r], i), reduction);
    }
    return reduction == XCOLL_AVG ? value / static_cast<double>(inputs.size()) : value;
  } else if constexpr (std::is_same_v<T, float> || std::is_same_v<T, _Float16> ||
                       std::is_same_v<T, BF16>) {
    const auto at = [&](size_t rank) -> float {
      if constexpr (std::is_same_v<T, BF16>) {
        return from_bf16(load<BF16>(inputs[rank], i));
      } else {
        return static_cast<float>(load<T>(inputs[rank], i));
      }
    };
    float value = at(0);
    for (size_t r = 1; r < inputs.size(); ++r) value = floating(value, at(r), reduction);
    if (reduction == XCOLL_AVG) value /= static_cast<float>(inputs.size());
    if constexpr (std::is_same_v<T, BF16>) {
      return to_bf16(value);
    } else {
      return static_cast<T>(value);
    }
  } else {
    int64_t value = static_cast<int64_t>(load<T>(inputs[0], i));
    for (size_t r = 1; r < inputs.size(); ++r) {
      const int64_t other = static_cast<int64_t>(load<T>(inputs[r], i));
      value = dtype == XCOLL_BOOL ? logical(value, other, reduction)
                                  : integral(value, other, reduction);
    }
    return static_cast<T>(value);
  }
}

}  // namespace

std::string name_of(xcoll_dtype dtype) {
  switch (dtype) {
#define XCOLL_TYPE_NAME(name) \
  case XCOLL_##name:          \
    return #name;
    XCOLL_TYPE_NAME(F32)
    XCOLL_TYPE_NAME(F64)
    XCOLL_TYPE_NAME(F16)
    XCOLL_TYPE_NAME(BF16)
    XCOLL_TYPE_NAME(I8)
    XCOLL_TYPE_NAME(U8)
    XCOLL_TYPE_NAME(I32)
    XCOLL_TYPE_NAME(U32)
    XCOLL_TYPE_NAME(I64)
    XCOLL_TYPE_NAME(U64)
    XCOLL_TYPE_NAME(BOOL)
#undef XCOLL_TYPE_NAME
    default:
      return "unknown";
  }
}

std::string name_of_reduction(xcoll_reduction reduction) {
  constexpr const char* kNames[] = {"Sum", "Avg", "Min", "Max", "Prod", "Band", "Bor", "Bxor"};
  return kNames[reduction];
}

bool is_defined(xcoll_dtype dtype, xcoll_reduction reduction) {
  if (reduction == XCOLL_AVG) return is_floating(dtype);
  const bool bits = reduction == XCOLL_BAND || reduction == XCOLL_BOR || reduction == XCOLL_BXOR;
  return !bits || !is_floating(dtype);
}

Bytes input_of(int32_t rank, uint64_t count, xcoll_dtype dtype, uint64_t seed) {
  Bytes bytes(count * xcoll_dtype_bytes(dtype));
  const bool is_signed = dtype != XCOLL_BOOL && (dtype >> 8) != 1;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t mixed =
        (i * 2654435761u + static_cast<uint64_t>(rank) * 40503u + seed * 97u) >> 3;
    int64_t value = static_cast<int64_t>(mixed % 7);
    if (is_signed) value -= 3;
    if (dtype == XCOLL_BOOL) value = value > 3;
    with_type(dtype, [&](auto type) {
      using T = decltype(type);
      if constexpr (std::is_same_v<T, BF16>) {
        store(bytes, i, to_bf16(static_cast<float>(value)));
      } else {
        store(bytes, i, static_cast<T>(value));
      }
    });
  }
  return bytes;
}

Bytes reduced(const std::vector<Bytes>& inputs, xcoll_dtype dtype, xcoll_reduction reduction) {
  Bytes result(inputs[0].size());
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    for (uint64_t i = 0; i < result.size() / sizeof(T); ++i) {
      store(result, i, reduced_element<T>(inputs, i, dtype, reduction));
    }
  });
  return result;
}

Bytes part(const Bytes& bytes, uint64_t begin, uint64_t count, xcoll_dtype dtype) {
  const uint64_t size = xcoll_dtype_bytes(dtype);
  const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(begin * size);
  return Bytes(first, first + static_cast<std::ptrdiff_t>(count * size));
}

// -0 and 0 are the same number: a minimum may give either. `index` is of any byte of the element.
static bool both_zero(const unsigned char* a, const unsigned char* b, uint64_t index,
                      uint64_t size) {
  const uint64_t begin = index / size * size;
  for (uint64_t i = begin; i < begin + size; ++i) {
    const unsigned char mask = i + 1 == begin + size ? 0x7f : 0xff;
    if (((a[i] | b[i]) & mask) != 0) return false;
  }
  return true;
}

std::string difference(const Bytes& expected, const void* actual, xcoll_dtype dtype) {
  const auto* bytes = static_cast<const unsigned char*>(actual);
  for (uint64_t i = 0; i < expected.size(); ++i) {
    if (bytes[i] == expected[i]) continue;
    if (is_floating(dtype) && both_zero(expected.data(), bytes, i, xcoll_dtype_bytes(dtype))) {
      continue;
    }
    return "element " + std::to_string(i / xcoll_dtype_bytes(dtype)) + " of " +
           std::to_string(expected.size() / xcoll_dtype_bytes(dtype)) + " differs";
  }
  return "equal";
}

}  // namespace xcoll::testing
