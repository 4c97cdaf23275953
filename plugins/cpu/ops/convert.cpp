// SPDX-License-Identifier: Apache-2.0
// convert.cpp: conversion between dtypes, run by run.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/convert.cpp"
#include "hwy/foreach_target.h"
// (the order matters: the targets first)
#include <unistd.h>

#include <algorithm>

#include "convert.hpp"
#include "hwy/cache_control.h"
#include "vec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {
namespace {

struct Bool {
  uint8_t value;
};

template <class R>
int64_t truncated(R x) {  // to_integer(), in the width of x
  constexpr R kEdge = static_cast<R>(0x1p63);
  return x >= -kEdge && x < kEdge ? static_cast<int64_t>(x) : INT64_MIN;
}

// What a conversion to 16 bits rounds from without a second rounding.
template <class From>
using Exact = std::conditional_t<std::is_floating_point_v<From>, From, int64_t>;

template <class To, class From>
To convert(From x) {
  if constexpr (std::is_same_v<From, Bool> && std::is_floating_point_v<To>) {
    return static_cast<To>(static_cast<int32_t>(x.value != 0));
  } else if constexpr (std::is_same_v<From, Bool>) {
    return convert<To>(static_cast<int64_t>(x.value != 0));
  } else if constexpr (std::is_same_v<From, Bf16> || std::is_same_v<From, F16>) {
    return convert<To>(to_float(x));
  } else if constexpr (std::is_same_v<To, Bool>) {
    return {static_cast<uint8_t>(x != From{})};
  } else if constexpr (std::is_same_v<To, Bf16>) {
    return to_bf16(static_cast<Exact<From>>(x));
  } else if constexpr (std::is_same_v<To, F16>) {
    return to_f16(static_cast<Exact<From>>(x));
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    return static_cast<To>(truncated(x));
  } else {
    return static_cast<To>(x);
  }
}

template <class T, class From>
void load_strided(const void* from, int64_t stride, size_t n, T* to) {
  const auto* p = static_cast<const From*>(from);
  for (size_t i = 0; i < n; ++i, p += stride) to[i] = convert<T>(*p);
}

template <class T, class From>
void load_dense(const void* from, int64_t, size_t n, T* to) {
  const auto* p = static_cast<const From*>(from);
  if constexpr (std::is_same_v<T, From>) {
    std::memcpy(to, p, n * sizeof(T));
  } else if constexpr (std::is_same_v<T, float> &&
                       (std::is_same_v<From, Bf16> || std::is_same_v<From, F16>)) {
    for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
      if (k == lanes()) return store(load(p + i), to + i);
      store_some(load_some(p + i, k), to + i, k);
    });
  } else {
    for (size_t i = 0; i < n; ++i) to[i] = convert<T>(p[i]);
  }
}

template <class T, class To>
void store_strided(const T* from, size_t n, void* to, int64_t stride) {
  auto* p = static_cast<To*>(to);
  for (size_t i = 0; i < n; ++i, p += stride) *p = convert<To>(from[i]);
}

template <class T, class To>
void store_dense(const T* from, size_t n, void* to, int64_t) {
  auto* p = static_cast<To*>(to);
  if constexpr (std::is_same_v<T, To>) {
    std::memcpy(p, from, n * sizeof(T));
  } else if constexpr (std::is_same_v<T, float> &&
                       (std::is_same_v<To, Bf16> || std::is_same_v<To, F16>)) {
    for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
      if (k == lanes()) return store(load(from + i), p + i);
      store_some(load_some(from + i, k), p + i, k);
    });
  } else {
    for (size_t i = 0; i < n; ++i) p[i] = convert<To>(from[i]);
  }
}

// store_dense for floats into floats, with whole aligned vectors past the caches.
template <class To>
void store_streaming(const float* from, size_t n, void* to, int64_t) {
  auto* p = static_cast<To*>(to);
  const size_t step = lanes(), bytes = step * sizeof(To);
  const size_t misfit = reinterpret_cast<uintptr_t>(p) % bytes;
  size_t i = 0;
  if (misfit != 0) {
    i = std::min(n, (bytes - misfit) / sizeof(To));
    store_dense<float, To>(from, i, p, 1);
  }
  for (; i + step <= n; i += step) stream(load(from + i), p + i);
  if (i < n) store_some(load_some(from + i, n - i), p + i, n - i);
}

// The stored type of a dtype, as a value of which only the type matters.
template <class F>
auto with_type(DType type, F&& f) -> decltype(f(float{})) {
  switch (type) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(Bf16{});
    case DType::f16:
      return f(F16{});
    case DType::f64:
      return f(double{});
    case DType::i8:
      return f(int8_t{});
    case DType::u8:
      return f(uint8_t{});
    case DType::i16:
      return f(int16_t{});
    case DType::i32:
      return f(int32_t{});
    case DType::u32:
      return f(uint32_t{});
    case DType::i64:
      return f(int64_t{});
    case DType::boolean:
      return f(Bool{});
    case DType::other:
      break;
  }
  return nullptr;
}

template <class T>
LoadFn<T> pick_load(DType type, bool dense) {
  return with_type(type, [&](auto from) -> LoadFn<T> {
    using From = decltype(from);
    return dense ? &load_dense<T, From> : &load_strided<T, From>;
  });
}

template <class T>
StoreFn<T> pick_store(DType type, bool dense) {
  return with_type(type, [&](auto to) -> StoreFn<T> {
    using To = decltype(to);
    return dense ? &store_dense<T, To> : &store_strided<T, To>;
  });
}

}  // namespace

StoreFn<float> stream_f32(DType type) {
  switch (type) {
    case DType::f32:
      return &store_streaming<float>;
    case DType::bf16:
      return &store_streaming<Bf16>;
    case DType::f16:
      return &store_streaming<F16>;
    default:
      return pick_store<float>(type, true);
  }
}

void stream_copy(const void* from, void* to, size_t bytes) {
#if HWY_TARGET == HWY_SCALAR
  std::memcpy(to, from, bytes);
#else
  constexpr size_t kStep = 4 * sizeof(float) * hn::MaxLanes(D()), kAhead = 4096;
  const auto* p = static_cast<const char*>(from);
  auto* q = static_cast<char*>(to);
  const size_t head = std::min(bytes, -reinterpret_cast<uintptr_t>(q) % 64);
  std::memcpy(q, p, head);
  size_t i = head;
  for (; i + kStep <= bytes; i += kStep) {
    for (size_t k = 0; k < kStep; k += 64) __builtin_prefetch(p + i + kAhead + k);
    V v[4];
    for (size_t k = 0; k < 4; ++k) v[k] = load(reinterpret_cast<const float*>(p + i) + k * lanes());
    for (size_t k = 0; k < 4; ++k) stream(v[k], reinterpret_cast<float*>(q + i) + k * lanes());
  }
  std::memcpy(q + i, p + i, bytes - i);
#endif
}
StreamCopyFn pick_stream_copy() { return &stream_copy; }

void stream_fill(const void* pattern, void* to, size_t bytes) {
  const size_t step = sizeof(float) * lanes();
  const V v = load(static_cast<const float*>(pattern));
  auto* q = static_cast<char*>(to);
  // A vector is a divisor of the pattern, and the pattern's period a divisor of every vector but
  // the scalar one.
#if HWY_TARGET == HWY_SCALAR
  (void)v, (void)step;
  for (size_t i = 0; i < bytes; i += 64) std::memcpy(q + i, pattern, 64);
#else
  for (size_t i = 0; i < bytes; i += step) stream(v, reinterpret_cast<float*>(q + i));
#endif
}
StreamFillFn pick_stream_fill() { return &stream_fill; }

LoadFn<float> load_f32(DType type, bool dense) { return pick_load<float>(type, dense); }
LoadFn<int64_t> load_i64(DType type, bool dense) { return pick_load<int64_t>(type, dense); }
LoadFn<double> load_f64(DType type, bool dense) { return pick_load<double>(type, dense); }
StoreFn<float> store_f32(DType type, bool dense) { return pick_store<float>(type, dense); }
StoreFn<int64_t> store_i64(DType type, bool dense) { return pick_store<int64_t>(type, dense); }
StoreFn<double> store_f64(DType type, bool dense) { return pick_store<double>(type, dense); }

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace xhal::cpu {
HWY_EXPORT(load_f32);
HWY_EXPORT(load_i64);
HWY_EXPORT(load_f64);
HWY_EXPORT(store_f32);
HWY_EXPORT(store_i64);
HWY_EXPORT(store_f64);
HWY_EXPORT(stream_f32);
HWY_EXPORT(pick_stream_copy);
HWY_EXPORT(pick_stream_fill);

StreamCopyFn stream_copier() { return HWY_DYNAMIC_DISPATCH(pick_stream_copy)(); }

StreamFillFn stream_filler() { return HWY_DYNAMIC_DISPATCH(pick_stream_fill)(); }

void finish_streaming() { hwy::FlushStream(); }

bool worth_streaming(int64_t bytes) {
  static const int64_t kLeast = [] {
    const int64_t shared = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return shared > 0 ? std::max<int64_t>(shared / 2, 4 << 20) : 16 << 20;
  }();
  return bytes >= kLeast;
}

template <>
LoadFn<float> loader<float>(DType type, bool dense) {
  return HWY_DYNAMIC_DISPATCH(load_f32)(type, dense);
}
template <>
LoadFn<int64_t> loader<int64_t>(DType type, bool dense) {
  return HWY_DYNAMIC_DISPATCH(load_i64)(type, dense);
}
template <>
LoadFn<double> loader<double>(DType type, bool dense) {
  return HWY_DYNAMIC_DISPATCH(load_f64)(type, dense);
}
template <>
StoreFn<float> storer<float>(DType type, bool dense) {
  return HWY_DYNAMIC_DISPATCH(store_f32)(type, dense);
}
template <>
StoreFn<int64_t> storer<int64_t>(DType type, bool dense) {
  return HWY_DYNAMIC_DISPATCH(store_i64)(type, dense);
}
template <>
StoreFn<double> storer<double>(DType type, bool dense) {
  return HWY_DYNAMIC_DISPATCH(store_f64)(type, dense);
}

template <>
StoreFn<float> streamer<float>(DType type) {
  return HWY_DYNAMIC_DISPATCH(stream_f32)(type);
}
template <>
StoreFn<int64_t> streamer<int64_t>(DType type) {
  return storer<int64_t>(type, true);
}
}  // namespace xhal::cpu
#endif
