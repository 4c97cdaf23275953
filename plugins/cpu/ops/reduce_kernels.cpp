// SPDX-License-Identifier: Apache-2.0
// reduce_kernels.cpp: inner loops of reductions.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/reduce_kernels.cpp"
#include "hwy/foreach_target.h"
//
#include <cmath>
#include <limits>

#include "reduce.hpp"
#include "vec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

HWY_INLINE V or_nan(V a, V b, V result) {
  return hn::IfThenElse(hn::Or(hn::IsNaN(a), hn::IsNaN(b)), hn::Add(a, b), result);
}
// NaN counts as not zero; Highway 1.0's Ne would say otherwise.
HWY_INLINE V not_zero(V x) { return hn::IfThenZeroElse(hn::Eq(x, hn::Zero(D())), set(1.0f)); }

struct Plus {
  static constexpr float kStart = 0;
  static HWY_INLINE V join(V a, V b) { return hn::Add(a, b); }
  static HWY_INLINE double reduce(V v) { return sum_lanes(v); }
};
struct Times {
  static constexpr float kStart = 1;
  static HWY_INLINE V join(V a, V b) { return hn::Mul(a, b); }
  static double reduce(V v) {
    HWY_ALIGN float lane[HWY_MAX_BYTES / sizeof(float)];
    store(v, lane);
    double p = 1;
    for (size_t i = 0; i < lanes(); ++i) p *= lane[i];
    return p;
  }
};
struct Largest {
  static constexpr float kStart = -kInf;
  static HWY_INLINE V join(V a, V b) { return or_nan(a, b, hn::Max(a, b)); }
  static double reduce(V v) {
    if (!hn::AllFalse(D(), hn::IsNaN(v))) return std::numeric_limits<double>::quiet_NaN();
    return max_lanes(v);
  }
};
struct Smallest {
  static constexpr float kStart = kInf;
  static HWY_INLINE V join(V a, V b) { return or_nan(a, b, hn::Min(a, b)); }
  static double reduce(V v) {
    if (!hn::AllFalse(D(), hn::IsNaN(v))) return std::numeric_limits<double>::quiet_NaN();
    return min_lanes(v);
  }
};

struct Same {
  static HWY_INLINE V map(V x, V) { return x; }
};
struct Squared {
  static HWY_INLINE V map(V x, V) { return hn::Mul(x, x); }
};
struct Magnitude {
  static HWY_INLINE V map(V x, V) { return hn::Abs(x); }
};
struct NotZero {
  static HWY_INLINE V map(V x, V) { return not_zero(x); }
};
struct Centered {
  static HWY_INLINE V map(V x, V mean) {
    const V d = hn::Sub(x, mean);
    return hn::Mul(d, d);
  }
};

template <class Join, class Map>
double fold_run(const float* x, size_t n, float param) {
  const V p = set(param), start = set(Join::kStart);
  const size_t step = lanes();
  V a = start, b = start, c = start, d = start;
  size_t i = 0;
  for (; i + 4 * step <= n; i += 4 * step) {
    a = Join::join(a, Map::map(load(x + i), p));
    b = Join::join(b, Map::map(load(x + i + step), p));
    c = Join::join(c, Map::map(load(x + i + 2 * step), p));
    d = Join::join(d, Map::map(load(x + i + 3 * step), p));
  }
  for (; i + step <= n; i += step) a = Join::join(a, Map::map(load(x + i), p));
  if (i < n) {
    const V last = Map::map(load_some(x + i, n - i), p);
    b = Join::join(b, hn::IfThenElse(hn::FirstN(D(), n - i), last, start));
  }
  return Join::reduce(Join::join(Join::join(a, b), Join::join(c, d)));
}

template <class Join, class Map, bool kParamEach = false>
void fold_rows(const float* const* rows, size_t count, size_t n, float* acc, const float* param) {
  const V one = set(param == nullptr ? 0.0f : param[0]);
  const size_t step = lanes();
  size_t i = 0;
  for (; i + step <= n; i += step) {
    const V p = kParamEach ? load(param + i) : one;
    V a = load(acc + i);
    for (size_t k = 0; k < count; ++k) a = Join::join(a, Map::map(load(rows[k] + i), p));
    store(a, acc + i);
  }
  if (i == n) return;
  const V p = kParamEach ? load_some(param + i, n - i) : one;
  V a = load_some(acc + i, n - i);
  for (size_t k = 0; k < count; ++k) a = Join::join(a, Map::map(load_some(rows[k] + i, n - i), p));
  store_some(a, acc + i, n - i);
}

// |x|^p for a general p: rare, so by the C library.
double power_run(const float* x, size_t n, float p) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i)
    sum += std::pow(std::fabs(static_cast<double>(x[i])), static_cast<double>(p));
  return sum;
}
void power_rows(const float* const* rows, size_t count, size_t n, float* acc, const float* p) {
  for (size_t k = 0; k < count; ++k)
    for (size_t i = 0; i < n; ++i) acc[i] += std::pow(std::fabs(rows[k][i]), *p);
}

template <class Join, class Map, bool kParamEach = false>
FoldFns<float> fns() {
  return {&fold_run<Join, Map>, &fold_rows<Join, Map, kParamEach>};
}

using I = int64_t;
struct IntSum {
  static constexpr I kStart = 0;
  static I step(I a, I x) {
    return static_cast<I>(static_cast<uint64_t>(a) + static_cast<uint64_t>(x));
  }
};
struct IntProduct {
  static constexpr I kStart = 1;
  static I step(I a, I x) {
    return static_cast<I>(static_cast<uint64_t>(a) * static_cast<uint64_t>(x));
  }
};
struct IntMax {
  static constexpr I kStart = INT64_MIN;
  static I step(I a, I x) { return a > x ? a : x; }
};
struct IntMin {
  static constexpr I kStart = INT64_MAX;
  static I step(I a, I x) { return a < x ? a : x; }
};
struct IntAny {
  static constexpr I kStart = 0;
  static I step(I a, I x) { return a | (x != 0); }
};
struct IntAll {
  static constexpr I kStart = 1;
  static I step(I a, I x) { return a & (x != 0); }
};

template <class F>
I int_run(const I* x, size_t n, float) {
  I a = F::kStart;
  for (size_t i = 0; i < n; ++i) a = F::step(a, x[i]);
  return a;
}
template <class F>
void int_rows(const I* const* rows, size_t count, size_t n, I* acc, const float*) {
  for (size_t k = 0; k < count; ++k)
    for (size_t i = 0; i < n; ++i) acc[i] = F::step(acc[i], rows[k][i]);
}
template <class F>
FoldFns<I> int_fns() {
  return {&int_run<F>, &int_rows<F>};
}

}  // namespace

FoldFns<float> pick_float_fold(Fold fold) {
  switch (fold) {
    case Fold::sum:
      return fns<Plus, Same>();
    case Fold::product:
      return fns<Times, Same>();
    case Fold::max:
      return fns<Largest, Same>();
    case Fold::min:
      return fns<Smallest, Same>();
    case Fold::any:
      return fns<Largest, NotZero>();
    case Fold::all:
      return fns<Smallest, NotZero>();
    case Fold::sum_squares:
      return fns<Plus, Squared>();
    case Fold::sum_abs:
      return fns<Plus, Magnitude>();
    case Fold::sum_powers:
      return {&power_run, &power_rows};
    case Fold::count:
      return fns<Plus, NotZero>();
    case Fold::max_abs:
      return fns<Largest, Magnitude>();
    case Fold::min_abs:
      return fns<Smallest, Magnitude>();
    case Fold::sum_centered_squares:
      return fns<Plus, Centered, true>();
  }
  return {};
}

FoldFns<int64_t> pick_int_fold(Fold fold) {
  switch (fold) {
    case Fold::sum:
      return int_fns<IntSum>();
    case Fold::product:
      return int_fns<IntProduct>();
    case Fold::max:
      return int_fns<IntMax>();
    case Fold::min:
      return int_fns<IntMin>();
    case Fold::any:
      return int_fns<IntAny>();
    case Fold::all:
      return int_fns<IntAll>();
    default:
      return {};
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace xhal::cpu {
HWY_EXPORT(pick_float_fold);
HWY_EXPORT(pick_int_fold);
FoldFns<float> float_fold(Fold fold) { return HWY_DYNAMIC_DISPATCH(pick_float_fold)(fold); }
FoldFns<int64_t> int_fold(Fold fold) { return HWY_DYNAMIC_DISPATCH(pick_int_fold)(fold); }

template <class A>
A fold_start(Fold fold) {
  constexpr bool kInt = std::is_same_v<A, int64_t>;
  constexpr auto kInfinity = std::numeric_limits<double>::infinity();
  switch (fold) {
    case Fold::product:
    case Fold::all:
      return 1;
    case Fold::max:
    case Fold::max_abs:
      return kInt ? static_cast<A>(INT64_MIN) : static_cast<A>(kInt ? 0 : -kInfinity);
    case Fold::min:
    case Fold::min_abs:
      return kInt ? static_cast<A>(INT64_MAX) : static_cast<A>(kInt ? 0 : kInfinity);
    default:
      return 0;
  }
}

template <class A>
A fold_join(Fold fold, A a, A b) {
  switch (fold) {
    case Fold::product:
      if constexpr (std::is_same_v<A, int64_t>)
        return static_cast<A>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
      return a * b;
    case Fold::max:
    case Fold::max_abs:
    case Fold::any:
      return b > a || b != b ? b : a;
    case Fold::min:
    case Fold::min_abs:
    case Fold::all:
      return b < a || b != b ? b : a;
    default:
      if constexpr (std::is_same_v<A, int64_t>)
        return static_cast<A>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
      return a + b;
  }
}

template <class T>
void fold_join_all(Fold fold, AccumulatorOf<T>* to, const T* from, size_t n) {
  using A = AccumulatorOf<T>;
  switch (fold) {
    case Fold::product:
    case Fold::max:
    case Fold::max_abs:
    case Fold::any:
    case Fold::min:
    case Fold::min_abs:
    case Fold::all:
      for (size_t i = 0; i < n; ++i) to[i] = fold_join(fold, to[i], static_cast<A>(from[i]));
      return;
    default:
      for (size_t i = 0; i < n; ++i) to[i] = fold_join(Fold::sum, to[i], static_cast<A>(from[i]));
  }
}

template void fold_join_all<float>(Fold, double*, const float*, size_t);
template void fold_join_all<int64_t>(Fold, int64_t*, const int64_t*, size_t);
template double fold_start<double>(Fold);
template int64_t fold_start<int64_t>(Fold);
template double fold_join<double>(Fold, double, double);
template int64_t fold_join<int64_t>(Fold, int64_t, int64_t);

}  // namespace xhal::cpu
#endif
