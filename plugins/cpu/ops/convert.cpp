// convert.cpp: conversion between dtypes, run by run.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/convert.cpp"
#include "hwy/foreach_target.h"
// (the order matters: the targets first)
#include "convert.hpp"
#include "vec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {
namespace {

struct Bool {
  uint8_t value;
};

template <class R>
int64_t truncated(R x) {
  constexpr R kEdge = static_cast<R>(9223372036854775808.0);
  return x >= -kEdge && x < kEdge ? static_cast<int64_t>(x) : INT64_MIN;
}

template <class To, class From>
To convert(From x) {
  if constexpr (std::is_same_v<From, Bool>) {
    return convert<To>(static_cast<int64_t>(x.value != 0));
  } else if constexpr (std::is_same_v<From, Bf16> || std::is_same_v<From, F16>) {
    return convert<To>(to_float(x));
  } else if constexpr (std::is_same_v<To, Bool>) {
    return {static_cast<uint8_t>(x != From{})};
  } else if constexpr (std::is_same_v<To, Bf16>) {
    return to_bf16(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, F16>) {
    return to_f16(static_cast<float>(x));
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

}  // namespace xhal::cpu
#endif
