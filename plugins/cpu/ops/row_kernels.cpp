// row_kernels.cpp: softmax, normalisation and their gradients on dense f32 rows. Sums are made of
// blocks of f32 partial sums joined in f64.
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

HWY_INLINE V get(const float* p, size_t i, size_t k) {
  return k == lanes() ? load(p + i) : load_some(p + i, k);
}
HWY_INLINE void put(V v, float* p, size_t i, size_t k) {
  if (k == lanes()) {
    store(v, p + i);
  } else {
    store_some(v, p + i, k);
  }
}
HWY_INLINE V first(V v, size_t k) {
  return k == lanes() ? v : hn::IfThenElseZero(hn::FirstN(D(), k), v);
}

// The largest; NaN may be lost: what follows then gives NaN all the same.
float largest(const float* x, size_t n) {
  const size_t step = lanes();
  V a = set(-std::numeric_limits<float>::infinity()), b = a, c = a, d = a;
  const V lowest = a;
  size_t i = 0;
  for (; i + 4 * step <= n; i += 4 * step) {
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

void softmax(const float* x, float* y, size_t n) {
  const V top = set(largest(x, n));
  const double sum = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    const V e = exp_below(get(x, i, k), top);
    put(e, y, i, k);
    return first(e, k);
  });
  const V scale = set(static_cast<float>(1.0 / sum));
  for_each_vector(n,
                  [&](size_t i, size_t k) HWY_ATTR { put(hn::Mul(get(y, i, k), scale), y, i, k); });
}

double exp_sum(const float* x, float top, size_t n) {
  const V t = set(top);
  return sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    return first(exp_nonpositive(hn::Sub(get(x, i, k), t)), k);
  });
}

void log_softmax(const float* x, float* y, size_t n) {
  const float top = largest(x, n);
  const double log_sum = std::log(exp_sum(x, top, n));
  const V t = set(top), l = set(static_cast<float>(log_sum));
  for_each_vector(
      n, [&](size_t i, size_t k) HWY_ATTR { put(hn::Sub(hn::Sub(get(x, i, k), t), l), y, i, k); });
}

float log_sum(const float* x, size_t n) {
  const float top = largest(x, n);
  return static_cast<float>(top + std::log(exp_sum(x, top, n)));
}

void softmax_grad(const float* grad, const float* y, float* dx, size_t n) {
  const double dot = sum_blocks(
      n, [&](size_t i, size_t k) HWY_ATTR { return hn::Mul(get(grad, i, k), get(y, i, k)); });
  const V d = set(static_cast<float>(dot));
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    put(hn::Mul(get(y, i, k), hn::Sub(get(grad, i, k), d)), dx, i, k);
  });
}

void log_softmax_grad(const float* grad, const float* y, float* dx, size_t n) {
  const double sum = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR { return get(grad, i, k); });
  const V s = set(static_cast<float>(sum));
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    put(hn::NegMulAdd(exp_nonpositive(get(y, i, k)), s, get(grad, i, k)), dx, i, k);
  });
}

void softmax_minus(const float* x, float log_sum, float smooth, float scale, float* dx, size_t n) {
  const V l = set(log_sum), s = set(smooth), f = set(scale);
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    put(hn::Mul(hn::Sub(exp(hn::Sub(get(x, i, k), l)), s), f), dx, i, k);
  });
}

double sum(const float* x, size_t n) {
  return sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR { return get(x, i, k); });
}

double sum_centered_squares(const float* x, float mean, size_t n) {
  const V m = set(mean);
  return sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    const V d = hn::Sub(get(x, i, k), m);
    return first(hn::Mul(d, d), k);
  });
}

RowStats mean_rstd(const float* x, size_t n, double eps) {
  const double count = static_cast<double>(n);
  const double mean = sum(x, n) / count;
  const auto m = static_cast<float>(mean);
  const double off = static_cast<double>(m) - mean;
  const double variance = sum_centered_squares(x, m, n) / count - off * off;
  return {m, static_cast<float>(1.0 / std::sqrt((variance < 0 ? 0 : variance) + eps))};
}

float inverse_rms(const float* x, size_t n, double eps) {
  const double squares = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    const V v = get(x, i, k);
    return hn::Mul(v, v);
  });
  return static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + eps));
}

void normalise(const float* x, RowStats s, const float* weight, const float* bias, float* y,
               size_t n) {
  const V mean = set(s.mean), rstd = set(s.rstd);
  if (weight != nullptr && bias != nullptr) {
    for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
      const V v = hn::Mul(hn::Sub(get(x, i, k), mean), rstd);
      put(hn::MulAdd(v, get(weight, i, k), get(bias, i, k)), y, i, k);
    });
    return;
  }
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    V v = hn::Mul(hn::Sub(get(x, i, k), mean), rstd);
    if (weight != nullptr) v = hn::Mul(v, get(weight, i, k));
    if (bias != nullptr) v = hn::Add(v, get(bias, i, k));
    put(v, y, i, k);
  });
}

void scale_shift(const float* x, float scale, float shift, float* y, size_t n) {
  const V a = set(scale), b = set(shift);
  for_each_vector(
      n, [&](size_t i, size_t k) HWY_ATTR { put(hn::MulAdd(get(x, i, k), a, b), y, i, k); });
}

void normalise_grad(const float* grad, const float* x, RowStats s, const float* weight,
                    bool centered, float* dx, float* dweight, float* dbias, size_t n) {
  const V mean = set(s.mean), rstd = set(s.rstd);
  double grad_sum = 0;
  const double product_sum = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    const V g = get(grad, i, k);
    const V normal = hn::Mul(hn::Sub(get(x, i, k), mean), rstd);
    const V product = first(hn::Mul(g, normal), k);
    if (dweight != nullptr) put(hn::Add(get(dweight, i, k), product), dweight, i, k);
    if (dbias != nullptr) put(hn::Add(get(dbias, i, k), g), dbias, i, k);
    return weight == nullptr ? product : hn::Mul(product, get(weight, i, k));
  });
  if (dx == nullptr) return;
  if (centered) {
    grad_sum = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
      return weight == nullptr ? get(grad, i, k) : hn::Mul(get(grad, i, k), get(weight, i, k));
    });
  }
  const double count = static_cast<double>(n);
  const V a = set(static_cast<float>(product_sum / count)),
          b = set(static_cast<float>(grad_sum / count));
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    const V normal = hn::Mul(hn::Sub(get(x, i, k), mean), rstd);
    V g = get(grad, i, k);
    if (weight != nullptr) g = hn::Mul(g, get(weight, i, k));
    put(hn::Mul(rstd, hn::NegMulAdd(normal, a, hn::Sub(g, b))), dx, i, k);
  });
}

void grad_sums(const float* grad, const float* x, float mean, size_t n, double* grad_sum,
               double* product_sum) {
  const V m = set(mean);
  *grad_sum = sum(grad, n);
  *product_sum = sum_blocks(n, [&](size_t i, size_t k) HWY_ATTR {
    return hn::Mul(get(grad, i, k), hn::Sub(get(x, i, k), m));
  });
}

void combine(const float* grad, const float* x, float mean, float a, float b, float c, float* dx,
             size_t n) {
  const V m = set(mean), va = set(a), vb = set(b), vc = set(c);
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    const V centered = hn::Sub(get(x, i, k), m);
    put(hn::MulAdd(va, get(grad, i, k), hn::MulAdd(vb, centered, vc)), dx, i, k);
  });
}

void sum_rows(const float* from, size_t rows, size_t stride, float* to, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    double total = 0;
    for (size_t row = 0; row < rows; ++row) total += from[row * stride + i];
    to[i] = static_cast<float>(total);
  }
}

constexpr RowKernels kKernels = {
    softmax,        log_softmax,   softmax_grad, log_softmax_grad,
    log_sum,        softmax_minus, sum,          sum_centered_squares,
    mean_rstd,      inverse_rms,   normalise,    scale_shift,
    normalise_grad, grad_sums,     combine,      sum_rows,
};

}  // namespace

const RowKernels& pick_row_kernels() { return kKernels; }

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace xhal::cpu {
HWY_EXPORT(pick_row_kernels);
const RowKernels& row_kernels() { return HWY_DYNAMIC_DISPATCH(pick_row_kernels)(); }
}  // namespace xhal::cpu
#endif
