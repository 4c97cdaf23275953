// SPDX-License-Identifier: Apache-2.0
// row_kernels.cpp: softmax, normalisation and their gradients, row by row. Sums are made of blocks
// of f32 partial sums joined in f64. The last pass over a row fetches the next one, the first pass
// the memory of the output.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/row_kernels.cpp"
#include "hwy/foreach_target.h"
//
#include <algorithm>
#include <cmath>
#include <limits>

#include "math-inl.hpp"
#include "row_kernels.hpp"

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr size_t kBlock = 128 * hn::MaxLanes(D());  // 32 additions a partial sum

template <class T>
HWY_INLINE V get(const T* p, size_t i, size_t k) {
  return k == lanes() ? load(p + i) : load_some(p + i, k);
}
template <bool kStream, class T>
HWY_INLINE void put(V v, T* p, size_t i, size_t k) {
  if (k != lanes()) {
    store_some(v, p + i, k);
  } else if constexpr (kStream) {
    stream(v, p + i);
  } else {
    store(v, p + i);
  }
}
HWY_INLINE V first(V v, size_t k) {
  return k == lanes() ? v : hn::IfThenElseZero(hn::FirstN(D(), k), v);
}
template <class T>
HWY_INLINE void fetch(const void* row, size_t i) {
  __builtin_prefetch(static_cast<const T*>(row) + i);
}
template <class T>
HWY_INLINE void fetch_to_write(const T* row, size_t i) {
  __builtin_prefetch(row + i, 1);
}

// Sum over i of f(i, lanes taken), block by block; f gives zero in lanes that are not taken.
template <class F>
HWY_INLINE double sum_blocks(size_t n, F&& f) {
  const size_t step = lanes();
  double total = 0;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = std::min(n, begin + kBlock);
    V a = hn::Zero(D()), b = a, c = a, d = a;
    size_t i = begin;
    for (; i + 4 * step <= end; i += 4 * step) {
      a = hn::Add(a, f(i, step));
      b = hn::Add(b, f(i + step, step));
      c = hn::Add(c, f(i + 2 * step, step));
      d = hn::Add(d, f(i + 3 * step, step));
    }
    for (; i + step <= end; i += step) a = hn::Add(a, f(i, step));
    if (i < end) b = hn::Add(b, f(i, end - i));
    total += sum_lanes(hn::Add(hn::Add(a, b), hn::Add(c, d)));
  }
  return total;
}

// The largest; NaN may be lost: what follows then gives NaN all the same.
template <class T>
float largest(const T* x, size_t n, const T* to_write) {
  const size_t step = lanes();
  V a = set(-std::numeric_limits<float>::infinity()), b = a, c = a, d = a;
  const V lowest = a;
  size_t i = 0;
  for (; i + 4 * step <= n; i += 4 * step) {
    for (size_t k = 0; k < 4; ++k) fetch_to_write(to_write, i + k * step);
    a = hn::Max(a, load(x + i));
    b = hn::Max(b, load(x + i + step));
    c = hn::Max(c, load(x + i + 2 * step));
    d = hn::Max(d, load(x + i + 3 * step));
  }
  for (; i + step <= n; i += step) a = hn::Max(a, load(x + i));
  if (i < n)
    b = hn::Max(b, hn::IfThenElse(hn::FirstN(D(), n - i), load_some(x + i, n - i), lowest));
  return max_lanes(hn::Max(hn::Max(a, b), hn::Max(c, d)));
}

// Narrow numbers differ exactly in f32 where it matters; of f32 ones the rounding of the difference
// is made good.
template <class T>
HWY_INLINE V exp_from(V x, V top) {
  if constexpr (std::is_same_v<T, float>) {
    return exp_below(x, top);
  } else {
    return exp_nonpositive(hn::Sub(x, top));
  }
}

template <class T, bool kStream>
void softmax_to(const T* x, T* y, size_t n, float* buffer, RowHints hints) {
  const V top = set(largest(x, n, kStream ? x : y));
  const double sum = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    fetch<T>(hints.ahead[0], i);
    const V e = exp_from<T>(get(x, i, k), top);
    put<false>(e, buffer, i, k);
    return first(e, k);
  });
  const V scale = set(static_cast<float>(1.0 / sum));
  for_each_vector(n, [&](size_t i, size_t k)
                         HWY_ATTR { put<kStream>(hn::Mul(get(buffer, i, k), scale), y, i, k); });
}

template <class T>
void softmax(const void* x_row, void* y_row, size_t n, float* buffer, RowHints hints) {
  const T* x = static_cast<const T*>(x_row);
  T* y = static_cast<T*>(y_row);
  if (hints.stream) return softmax_to<T, true>(x, y, n, buffer, hints);
  if constexpr (std::is_same_v<T, float>) buffer = y;
  softmax_to<T, false>(x, y, n, buffer, hints);
}

template <class T>
double exp_sum(const T* x, float top, size_t n, const void* ahead) {
  const V t = set(top);
  return sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    fetch<T>(ahead, i);
    return first(exp_nonpositive(hn::Sub(get(x, i, k), t)), k);
  });
}

template <class T, bool kStream>
void log_softmax_to(const T* x, T* y, size_t n, RowHints hints) {
  const float top = largest(x, n, kStream ? x : y);
  const double log_sum = std::log(exp_sum(x, top, n, hints.ahead[0]));
  const V t = set(top), l = set(static_cast<float>(log_sum));
  for_each_vector(n, [&](size_t i, size_t k)
                         HWY_ATTR { put<kStream>(hn::Sub(hn::Sub(get(x, i, k), t), l), y, i, k); });
}

template <class T>
void log_softmax(const void* x_row, void* y_row, size_t n, float*, RowHints hints) {
  const T* x = static_cast<const T*>(x_row);
  T* y = static_cast<T*>(y_row);
  if (hints.stream) return log_softmax_to<T, true>(x, y, n, hints);
  log_softmax_to<T, false>(x, y, n, hints);
}

template <class T>
float log_sum(const void* x_row, size_t n, RowHints hints) {
  const T* x = static_cast<const T*>(x_row);
  const float top = largest(x, n, x);
  return static_cast<float>(top + std::log(exp_sum(x, top, n, hints.ahead[0])));
}

template <class T, bool kStream>
void softmax_grad_to(const T* grad, const T* y, T* dx, size_t n, RowHints hints) {
  const double dot = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    if constexpr (!kStream) fetch_to_write(dx, i);
    return hn::Mul(get(grad, i, k), get(y, i, k));
  });
  const V d = set(static_cast<float>(dot));
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    fetch<T>(hints.ahead[0], i);
    fetch<T>(hints.ahead[1], i);
    put<kStream>(hn::Mul(get(y, i, k), hn::Sub(get(grad, i, k), d)), dx, i, k);
  });
}

template <class T>
void softmax_grad(const void* grad, const void* y, void* dx, size_t n, RowHints hints) {
  const auto *g = static_cast<const T*>(grad), *p = static_cast<const T*>(y);
  if (hints.stream) return softmax_grad_to<T, true>(g, p, static_cast<T*>(dx), n, hints);
  softmax_grad_to<T, false>(g, p, static_cast<T*>(dx), n, hints);
}

template <class T, bool kStream>
void log_softmax_grad_to(const T* grad, const T* y, T* dx, size_t n, RowHints hints) {
  const double sum = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    if constexpr (!kStream) fetch_to_write(dx, i);
    return get(grad, i, k);
  });
  const V s = set(static_cast<float>(sum));
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    fetch<T>(hints.ahead[0], i);
    fetch<T>(hints.ahead[1], i);
    put<kStream>(hn::NegMulAdd(exp_nonpositive(get(y, i, k)), s, get(grad, i, k)), dx, i, k);
  });
}

template <class T>
void log_softmax_grad(const void* grad, const void* y, void* dx, size_t n, RowHints hints) {
  const auto *g = static_cast<const T*>(grad), *p = static_cast<const T*>(y);
  if (hints.stream) return log_softmax_grad_to<T, true>(g, p, static_cast<T*>(dx), n, hints);
  log_softmax_grad_to<T, false>(g, p, static_cast<T*>(dx), n, hints);
}

template <class T, bool kStream>
void softmax_minus_to(const T* x, float log_sum, float smooth, float scale, T* dx, size_t n,
                      RowHints hints) {
  const V l = set(log_sum), s = set(smooth), f = set(scale);
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    fetch<T>(hints.ahead[0], i);
    put<kStream>(hn::Mul(hn::Sub(exp(hn::Sub(get(x, i, k), l)), s), f), dx, i, k);
  });
}

template <class T>
void softmax_minus(const void* x_row, float log_sum, float smooth, float scale, void* dx_row,
                   size_t n, RowHints hints) {
  const T* x = static_cast<const T*>(x_row);
  T* dx = static_cast<T*>(dx_row);
  if (hints.stream) return softmax_minus_to<T, true>(x, log_sum, smooth, scale, dx, n, hints);
  softmax_minus_to<T, false>(x, log_sum, smooth, scale, dx, n, hints);
}

template <class T>
double sum_of(const T* x, size_t n, const T* to_write) {
  return sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    fetch_to_write(to_write, i);
    return get(x, i, k);
  });
}

template <class T>
double sum(const void* x, size_t n) {
  return sum_blocks(
      n, [&](size_t i, size_t k) HWY_ATTR { return get(static_cast<const T*>(x), i, k); });
}

template <class T>
double centered_squares(const T* x, float mean, size_t n) {
  const V m = set(mean);
  return sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    const V d = hn::Sub(get(x, i, k), m);
    return first(hn::Mul(d, d), k);
  });
}

template <class T>
RowStats stats_of(const T* x, size_t n, double eps, const T* to_write) {
  const double count = static_cast<double>(n);
  const double mean = sum_of(x, n, to_write) / count;
  const auto m = static_cast<float>(mean);
  const double off = static_cast<double>(m) - mean;
  const double variance = centered_squares(x, m, n) / count - off * off;
  return {m, static_cast<float>(1.0 / std::sqrt((variance < 0 ? 0 : variance) + eps))};
}

template <class T>
RowStats stats_without_mean(const T* x, size_t n, double eps, const T* to_write) {
  const double squares = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    fetch_to_write(to_write, i);
    const V v = get(x, i, k);
    return hn::Mul(v, v);
  });
  return {0, static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + eps))};
}

template <class T, bool kWeight, bool kBias, bool kStream>
void normalise(const T* x, RowStats s, const float* weight, const float* bias, T* y, size_t n,
               const void* ahead) {
  const V mean = set(s.mean), rstd = set(s.rstd);
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    fetch<T>(ahead, i);
    V v = hn::Mul(hn::Sub(get(x, i, k), mean), rstd);
    if constexpr (kWeight && kBias) {
      v = hn::MulAdd(v, get(weight, i, k), get(bias, i, k));
    } else if constexpr (kWeight) {
      v = hn::Mul(v, get(weight, i, k));
    } else if constexpr (kBias) {
      v = hn::Add(v, get(bias, i, k));
    }
    put<kStream>(v, y, i, k);
  });
}

template <class T, bool kStream>
RowStats norm_to(const T* x, const float* weight, const float* bias, bool centered, double eps,
                 T* y, size_t n, const void* ahead) {
  const T* to_write = kStream ? x : y;
  const RowStats s =
      centered ? stats_of(x, n, eps, to_write) : stats_without_mean(x, n, eps, to_write);
  if (weight != nullptr && bias != nullptr) {
    normalise<T, true, true, kStream>(x, s, weight, bias, y, n, ahead);
  } else if (weight != nullptr) {
    normalise<T, true, false, kStream>(x, s, weight, bias, y, n, ahead);
  } else if (bias != nullptr) {
    normalise<T, false, true, kStream>(x, s, weight, bias, y, n, ahead);
  } else {
    normalise<T, false, false, kStream>(x, s, weight, bias, y, n, ahead);
  }
  return s;
}

template <class T>
RowStats norm(const void* x_row, const float* weight, const float* bias, bool centered, double eps,
              void* y_row, size_t n, RowHints hints) {
  const T* x = static_cast<const T*>(x_row);
  T* y = static_cast<T*>(y_row);
  if (hints.stream) return norm_to<T, true>(x, weight, bias, centered, eps, y, n, hints.ahead[0]);
  return norm_to<T, false>(x, weight, bias, centered, eps, y, n, hints.ahead[0]);
}

struct GradSums {
  double grad = 0, product = 0;  // of grad * weight, of grad * weight * normal
};

// Adds to dweight and dbias as well.
template <class T, bool kWeight, bool kSums>
GradSums norm_grad_sums(const T* grad, const T* x, V mean, V rstd, const float* weight,
                        float* dweight, float* dbias, size_t n, const T* to_write) {
  const size_t step = lanes();
  GradSums sums;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = std::min(n, begin + kBlock);
    V grads[2] = {hn::Zero(D()), hn::Zero(D())}, products[2] = {grads[0], grads[0]};
    const auto one = [&](size_t i, size_t k, int lane) HWY_ATTR {
      fetch_to_write(to_write, i);
      const V g = get(grad, i, k);
      const V normal = hn::Mul(hn::Sub(get(x, i, k), mean), rstd);
      const V product = first(hn::Mul(g, normal), k);
      if constexpr (kSums) {
        put<false>(hn::Add(get(dweight, i, k), product), dweight, i, k);
        put<false>(hn::Add(get(dbias, i, k), g), dbias, i, k);
      }
      if constexpr (kWeight) {
        const V w = get(weight, i, k);
        grads[lane] = hn::MulAdd(g, w, grads[lane]);
        products[lane] = hn::MulAdd(product, w, products[lane]);
      } else {
        grads[lane] = hn::Add(grads[lane], g);
        products[lane] = hn::Add(products[lane], product);
      }
    };
    size_t i = begin;
    for (; i + 2 * step <= end; i += 2 * step) {
      one(i, step, 0);
      one(i + step, step, 1);
    }
    if (i + step <= end) one(i, step, 0), i += step;
    if (i < end) one(i, end - i, 1);
    sums.grad += sum_lanes(hn::Add(grads[0], grads[1]));
    sums.product += sum_lanes(hn::Add(products[0], products[1]));
  }
  return sums;
}

template <class T, bool kWeight, bool kStream>
void norm_grad_dx(const T* grad, const T* x, V mean, V rstd, const float* weight, V a, V b, T* dx,
                  size_t n, RowHints hints) {
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    fetch<T>(hints.ahead[0], i);
    fetch<T>(hints.ahead[1], i);
    const V normal = hn::Mul(hn::Sub(get(x, i, k), mean), rstd);
    V g = get(grad, i, k);
    if constexpr (kWeight) g = hn::Mul(g, get(weight, i, k));
    put<kStream>(hn::Mul(rstd, hn::NegMulAdd(normal, a, hn::Sub(g, b))), dx, i, k);
  });
}

template <class T, bool kWeight>
void norm_grad_with(const T* grad, const T* x, RowStats s, const float* weight, bool centered,
                    T* dx, float* dweight, float* dbias, size_t n, RowHints hints) {
  const V mean = set(s.mean), rstd = set(s.rstd);
  const T* to_write = dx == nullptr || hints.stream ? x : dx;
  const GradSums sums = dweight != nullptr
                            ? norm_grad_sums<T, kWeight, true>(grad, x, mean, rstd, weight, dweight,
                                                               dbias, n, to_write)
                            : norm_grad_sums<T, kWeight, false>(grad, x, mean, rstd, weight,
                                                                dweight, dbias, n, to_write);
  if (dx == nullptr) return;
  const double count = static_cast<double>(n);
  const V a = set(static_cast<float>(sums.product / count));
  const V b = set(centered ? static_cast<float>(sums.grad / count) : 0.0f);
  if (hints.stream)
    return norm_grad_dx<T, kWeight, true>(grad, x, mean, rstd, weight, a, b, dx, n, hints);
  norm_grad_dx<T, kWeight, false>(grad, x, mean, rstd, weight, a, b, dx, n, hints);
}

template <class T>
void norm_grad(const void* grad, const void* x, RowStats stats, const float* weight, bool centered,
               void* dx, float* dweight, float* dbias, size_t n, RowHints hints) {
  const auto *g = static_cast<const T*>(grad), *p = static_cast<const T*>(x);
  auto* d = static_cast<T*>(dx);
  if (weight != nullptr)
    return norm_grad_with<T, true>(g, p, stats, weight, centered, d, dweight, dbias, n, hints);
  norm_grad_with<T, false>(g, p, stats, weight, centered, d, dweight, dbias, n, hints);
}

template <class T>
constexpr RowKernels kRowKernels = {
    softmax<T>,       log_softmax<T>, softmax_grad<T>, log_softmax_grad<T>, log_sum<T>,
    softmax_minus<T>, sum<T>,         norm<T>,         norm_grad<T>,
};

RowStats mean_rstd(const float* x, size_t n, double eps) { return stats_of(x, n, eps, x); }

void grad_sums(const float* grad, const float* x, float mean, size_t n, double* grad_sum,
               double* product_sum) {
  const V m = set(mean);
  *grad_sum = sum<float>(grad, n);
  *product_sum = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    return hn::Mul(get(grad, i, k), hn::Sub(get(x, i, k), m));
  });
}

void combine(const float* grad, const float* x, float mean, float a, float b, float c, float* dx,
             size_t n) {
  const V m = set(mean), va = set(a), vb = set(b), vc = set(c);
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    const V centered = hn::Sub(get(x, i, k), m);
    put<false>(hn::MulAdd(va, get(grad, i, k), hn::MulAdd(vb, centered, vc)), dx, i, k);
  });
}

void sum_rows(const float* from, size_t rows, size_t stride, float* to, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    double total = 0;
    for (size_t row = 0; row < rows; ++row) total += from[row * stride + i];
    to[i] = static_cast<float>(total);
  }
}

constexpr ChannelKernels kChannelKernels = {mean_rstd, centered_squares<float>, grad_sums, combine,
                                            sum_rows};

}  // namespace

const RowKernels& pick_row_kernels(DType type) {
  return type == DType::bf16  ? kRowKernels<Bf16>
         : type == DType::f16 ? kRowKernels<F16>
                              : kRowKernels<float>;
}
const ChannelKernels& pick_channel_kernels() { return kChannelKernels; }

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace xhal::cpu {
HWY_EXPORT(pick_row_kernels);
HWY_EXPORT(pick_channel_kernels);
const RowKernels& row_kernels(DType type) { return HWY_DYNAMIC_DISPATCH(pick_row_kernels)(type); }
const ChannelKernels& channel_kernels() { return HWY_DYNAMIC_DISPATCH(pick_channel_kernels)(); }
}  // namespace xhal::cpu
#endif
