// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "reference/operators.hpp"

namespace xhal::ref {
namespace {

bool overflow_found(const Problem& p, size_t group) {
  return p.maybe(group) != nullptr && p.in(group).values[0] != 0;
}

void put(Tensor& to, size_t i, double value, double magnitude) {
  to.magnitude.resize(to.values.size());
  to.values[i] = value;
  to.magnitude[i] = magnitude;
}

}  // namespace

// param grad exp_avg exp_avg_sq max_exp_avg_sq step found_inf -> the first, third, fourth, fifth
// and sixth, changed. Attributes: amsgrad, maximize, decoupled. Scalars: lr beta1 beta2
// weight_decay eps grad_scale.
Results multi_adamw(const Problem& p) {
  auto results = empty_results(p);
  const bool amsgrad = p.integer(0, 0) != 0, maximize = p.integer(1, 0) != 0,
             decoupled = p.integer(2, 1) != 0;
  const double lr = p.scalar(0, 1e-3), beta1 = p.scalar(1, 0.9), beta2 = p.scalar(2, 0.999);
  const double decay = p.scalar(3, 0), eps = p.scalar(4, 1e-8), grad_scale = p.scalar(5, 1);
  if (overflow_found(p, 6)) {
    const size_t sources[] = {0, 2, 3, 4, 5};
    for (size_t out = 0; out < 5; ++out) {
      for (size_t t = 0; t < results.outputs[out].size(); ++t)
        results.outputs[out][t].values = p.inputs[sources[out]][t].values;
    }
    return results;
  }
  for (size_t t = 0; t < p.inputs[0].size(); ++t) {
    const double step = p.inputs[5][t].values[0] + 1;
    results.outputs[4][t].values[0] = step;
    const double correction1 = 1 - std::pow(beta1, step),
                 correction2 = std::sqrt(1 - std::pow(beta2, step));
    for (size_t i = 0; i < p.inputs[0][t].values.size(); ++i) {
      double param = p.inputs[0][t].values[i];
      double grad = p.inputs[1][t].values[i] / grad_scale * (maximize ? -1 : 1);
      double grad_terms = std::fabs(grad);
      if (decoupled) {
        param *= 1 - lr * decay;
      } else {
        grad += decay * param;
        grad_terms += std::fabs(decay * param);
      }
      const double m0 = p.inputs[2][t].values[i], v0 = p.inputs[3][t].values[i];
      const double m = beta1 * m0 + (1 - beta1) * grad, m_terms = 2 * std::fabs(m0) + grad_terms;
      const double v = beta2 * v0 + (1 - beta2) * grad * grad,
                   v_terms = std::fabs(v0) + grad_terms * grad_terms * (1 - beta2);
      double used = v;
      if (amsgrad) {
        used = std::max(p.inputs[4][t].values[i], v);
        put(results.outputs[3][t], i, used, std::max(used, v_terms));
      }
      const double update = lr / correction1 * m / (std::sqrt(used) / correction2 + eps);
      // The bias corrections are differences from 1 of powers near 1.
      const double unsure = 8 + 1 / correction1 + 1 / (correction2 * correction2);
      const double update_terms =
          lr / correction1 * m_terms / (std::sqrt(used) / correction2 + eps) * unsure;
      put(results.outputs[0][t], i, param - update, std::fabs(param) + update_terms);
      put(results.outputs[1][t], i, m, m_terms);
      put(results.outputs[2][t], i, v, v_terms);
    }
  }
  return results;
}

// param grad momentum found_inf -> param momentum. Attributes: nesterov maximize first.
// Scalars: lr momentum dampening weight_decay grad_scale.
Results multi_sgd(const Problem& p) {
  auto results = empty_results(p);
  const bool nesterov = p.integer(0, 0) != 0, maximize = p.integer(1, 0) != 0,
             first = p.integer(2, 0) != 0;
  const double lr = p.scalar(0, 1e-3), momentum = p.scalar(1, 0), dampening = p.scalar(2, 0);
  const double decay = p.scalar(3, 0), grad_scale = p.scalar(4, 1);
  for (size_t t = 0; t < p.inputs[0].size(); ++t) {
    for (size_t i = 0; i < p.inputs[0][t].values.size(); ++i) {
      const double param = p.inputs[0][t].values[i];
      const bool has_momentum = !p.inputs[2].empty();
      if (overflow_found(p, 3)) {
        put(results.outputs[0][t], i, param, 0);
        if (has_momentum) put(results.outputs[1][t], i, p.inputs[2][t].values[i], 0);
        continue;
      }
      double grad = p.inputs[1][t].values[i] / grad_scale * (maximize ? -1 : 1);
      grad += decay * param;
      double terms = std::fabs(grad) + 2 * std::fabs(decay * param);
      if (has_momentum) {
        const double before = p.inputs[2][t].values[i];
        const double buffer = first ? grad : momentum * before + (1 - dampening) * grad;
        terms += first ? 0 : std::fabs(momentum * before);
        put(results.outputs[1][t], i, buffer, terms);
        grad = nesterov ? grad + momentum * buffer : buffer;
        terms *= 2;
      }
      put(results.outputs[0][t], i, param - lr * grad, std::fabs(param) + std::fabs(lr) * terms);
    }
  }
  return results;
}

// in found_inf inv_scale -> out found_inf
Results multi_unscale(const Problem& p) {
  auto results = empty_results(p);
  double found = p.in(1).values[0];
  for (size_t t = 0; t < p.inputs[0].size(); ++t) {
    for (size_t i = 0; i < p.inputs[0][t].values.size(); ++i) {
      const double value = p.inputs[0][t].values[i];
      if (!std::isfinite(value)) found = 1;
      results.outputs[0][t].values[i] = value * p.in(2).values[0];
    }
  }
  results.outputs[1][0].values[0] = found;
  return results;
}

// scale growth_tracker found_inf -> scale growth_tracker. Scalars: growth backoff interval.
Results update_scale(const Problem& p) {
  auto results = empty_results(p);
  auto &scale = results.outputs[0][0].values[0], &tracker = results.outputs[1][0].values[0];
  scale = p.in(0).values[0];
  tracker = 0;
  if (p.in(2).values[0] != 0) {
    scale *= p.scalar(1, 0.5);
    return results;
  }
  const double good_steps = p.in(1).values[0] + 1;
  if (good_steps == p.scalar(2, 2000)) {
    scale *= p.scalar(0, 2);
  } else {
    tracker = good_steps;
  }
  return results;
}

}  // namespace xhal::ref
