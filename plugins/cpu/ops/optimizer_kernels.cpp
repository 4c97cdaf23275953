// SPDX-License-Identifier: Apache-2.0
// optimizer_kernels.cpp: AdamW, SGD and unscaling of gradients, each one pass over memory.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/optimizer_kernels.cpp"
#include "hwy/foreach_target.h"
//
#include "optimizer.hpp"
#include "vec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {
namespace {

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

void adam(const AdamRun& run, const AdamStep& step, size_t n) {
  const AdamRun r = run;
  const V sign = set(step.maximize ? -step.inverse_grad_scale : step.inverse_grad_scale);
  const V weight_decay = set(step.decoupled ? 0.0f : step.weight_decay);
  const V shrink = set(step.decoupled ? 1.0f - step.lr * step.weight_decay : 1.0f);
  const V beta1 = set(1.0f - step.beta1), beta2 = set(step.beta2), rest2 = set(1.0f - step.beta2);
  const V eps = set(step.eps), step_size = set(step.step_size),
          correction = set(step.inverse_root_of_correction2);
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    const V p = get(r.param, i, k);
    const V g = hn::MulAdd(weight_decay, p, hn::Mul(get(r.grad, i, k), sign));
    const V avg_before = get(r.avg, i, k);
    const V avg = hn::MulAdd(beta1, hn::Sub(g, avg_before), avg_before);
    const V sq = hn::MulAdd(beta2, get(r.sq, i, k), hn::Mul(hn::Mul(rest2, g), g));
    V bound = sq;
    if (r.max_sq != nullptr) {
      bound = hn::Max(get(r.max_sq, i, k), sq);
      put(bound, r.max_sq_out, i, k);
    }
    const V denominator = hn::MulAdd(hn::Sqrt(bound), correction, eps);
    put(avg, r.avg_out, i, k);
    put(sq, r.sq_out, i, k);
    put(hn::NegMulAdd(step_size, hn::Div(avg, denominator), hn::Mul(p, shrink)), r.param_out, i, k);
  });
}

void sgd(const float* param, const float* grad, const float* momentum, float* param_out,
         float* momentum_out, const SgdStep& step, size_t n) {
  const V sign = set(step.maximize ? -step.inverse_grad_scale : step.inverse_grad_scale);
  const V weight_decay = set(step.weight_decay), keep = set(step.momentum),
          take = set(1.0f - step.dampening);
  const V lr = set(step.lr);
  const bool first = step.first, nesterov = step.nesterov;
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    const V p = get(param, i, k);
    V g = hn::MulAdd(weight_decay, p, hn::Mul(get(grad, i, k), sign));
    if (momentum_out != nullptr) {
      const V m = first ? g : hn::MulAdd(keep, get(momentum, i, k), hn::Mul(take, g));
      put(m, momentum_out, i, k);
      g = nesterov ? hn::MulAdd(keep, m, g) : m;
    }
    put(hn::NegMulAdd(lr, g, p), param_out, i, k);
  });
}

bool unscale(const float* in, float scale, float* out, size_t n) {
  const V s = set(scale);
  V bad = hn::Zero(D());  // 0 * x is NaN exactly when x is not finite
  for_each_vector(n, [&](size_t i, size_t k) HWY_ATTR {
    const V x = get(in, i, k);
    bad = hn::MulAdd(x, hn::Zero(D()), bad);
    put(hn::Mul(x, s), out, i, k);
  });
  return hn::AllFalse(D(), hn::IsNaN(bad));
}

constexpr OptimizerKernels kKernels = {adam, sgd, unscale};

}  // namespace

const OptimizerKernels& pick_optimizer_kernels() { return kKernels; }

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace xhal::cpu {
HWY_EXPORT(pick_optimizer_kernels);
const OptimizerKernels& optimizer_kernels() {
  return HWY_DYNAMIC_DISPATCH(pick_optimizer_kernels)();
}
}  // namespace xhal::cpu
#endif
