// SPDX-License-Identifier: Apache-2.0
// convert.hpp: elements of any dtype into and out of the three types kernels compute in: float,
// int64_t and double.
#pragma once

#include <cstddef>

#include "op.hpp"

namespace xhal::cpu {

// Reads n elements of one dtype, `stride` elements apart, into a dense array.
template <class T>
using LoadFn = void (*)(const void* from, int64_t stride, size_t n, T* to);
// Writes a dense array as n elements of one dtype, converted as ops.inc says.
template <class T>
using StoreFn = void (*)(const T* from, size_t n, void* to, int64_t stride);

// For the instruction set chosen at this moment. With `dense`, the function is only called with
// stride 1. Defined for float, int64_t and double; nullptr for DType::other.
template <class T>
LoadFn<T> loader(DType type, bool dense);
template <class T>
StoreFn<T> storer(DType type, bool dense);

// As storer(type, true), with stores past the caches where that is worth it: for outputs that no
// cache would hold anyway. The caller runs finish_streaming() in the same thread before it tells
// others that the work is done.
template <class T>
StoreFn<T> streamer(DType type);
void finish_streaming();
// memcpy in the same way.
using StreamCopyFn = void (*)(const void* from, void* to, size_t bytes);
StreamCopyFn stream_copier();
// Fills with copies of the 64 bytes at `pattern`; `to` is aligned to 64 bytes, `bytes` a
// multiple of 64.
using StreamFillFn = void (*)(const void* pattern, void* to, size_t bytes);
StreamFillFn stream_filler();
// Whether an output of this size should be written past the caches.
bool worth_streaming(int64_t bytes);

// The type by way of which a value of `from` becomes one of `to` with a single rounding.
enum class Compute : uint8_t { f32, i64, f64 };
constexpr Compute compute_of(DType to, DType from) {
  if (to == DType::f64 || from == DType::f64) return Compute::f64;
  if (is_float(from) || to == DType::f32) return Compute::f32;
  if (is_float(to) && size_of(from) < 4) return Compute::f32;  // exact in f32, and faster
  return Compute::i64;
}

}  // namespace xhal::cpu
