// SPDX-License-Identifier: Apache-2.0
// Normalisations: over rows (layer_norm, rms_norm), channel groups and channels. Each is the same
// few lines over another way to cut the input into sets that share their statistics.
#include <cmath>
#include <functional>

#include "reference/operators.hpp"
#include "xhal/catalog.h"

namespace xhal::ref {
namespace {

// Where element `at` of the input belongs: its set, and its place in weight and bias.
struct Cut {
  std::function<size_t(size_t)> set_of;
  std::function<size_t(size_t)> weight_of;
  size_t sets = 0;
  double count = 0;  // of one set
};

Cut by_rows(const Tensor& in, int64_t axis) {
  size_t inner = 1;
  for (size_t d = static_cast<size_t>(positive_dim(axis, in.ndim())); d < in.sizes.size(); ++d) {
    inner *= static_cast<size_t>(in.sizes[d]);
  }
  return {[inner](size_t i) { return i / inner; }, [inner](size_t i) { return i % inner; },
          inner == 0 ? 0 : in.values.size() / inner, static_cast<double>(inner)};
}

size_t plane_of(const Tensor& in) {
  size_t plane = 1;
  for (size_t d = 2; d < in.sizes.size(); ++d) plane *= static_cast<size_t>(in.sizes[d]);
  return plane;
}

Cut by_groups(const Tensor& in, int64_t groups) {
  const auto channels = static_cast<size_t>(in.sizes[1]);
  const size_t plane = plane_of(in), inner = channels / static_cast<size_t>(groups) * plane;
  return {[=](size_t i) { return i / inner; }, [=](size_t i) { return i / plane % channels; },
          static_cast<size_t>(in.sizes[0] * groups), static_cast<double>(inner)};
}

Cut by_channels(const Tensor& in) {
  const auto channels = static_cast<size_t>(in.sizes[1]);
  const size_t plane = plane_of(in);
  const auto channel = [=](size_t i) { return i / plane % channels; };
  return {channel, channel, channels,
          static_cast<double>(in.values.size()) / static_cast<double>(channels)};
}

struct Statistics {
  std::vector<double> mean, rstd, variance;
  std::vector<double> mean_terms, square_terms;  // magnitudes
};

Statistics statistics_of(const Tensor& in, const Cut& cut, double eps, bool centred) {
  Statistics s;
  for (auto* v : {&s.mean, &s.rstd, &s.variance, &s.mean_terms, &s.square_terms})
    v->assign(cut.sets, 0.0);
  for (size_t i = 0; i < in.values.size(); ++i) {
    s.mean[cut.set_of(i)] += in.values[i] / cut.count;
    s.mean_terms[cut.set_of(i)] += std::fabs(in.values[i]) / cut.count;
    s.square_terms[cut.set_of(i)] += in.values[i] * in.values[i] / cut.count;
  }
  if (!centred) s.mean.assign(cut.sets, 0.0);
  for (size_t i = 0; i < in.values.size(); ++i) {
    const double d = in.values[i] - s.mean[cut.set_of(i)];
    s.variance[cut.set_of(i)] += d * d / cut.count;
  }
  for (size_t k = 0; k < cut.sets; ++k) s.rstd[k] = 1 / std::sqrt(s.variance[k] + eps);
  return s;
}

double weight_at(const Tensor* weight, size_t i) {
  return weight == nullptr ? 1 : weight->values[i];
}

Tensor* maybe(Results& r, size_t group) {
  return r.outputs[group].empty() ? nullptr : &r.outputs[group][0];
}

void put(Tensor* to, size_t i, double value, double magnitude, double terms) {
  if (to == nullptr) return;
  to->magnitude.resize(to->values.size());
  to->values[i] = value;
  to->magnitude[i] = std::max(std::fabs(value), magnitude);
  to->terms = terms;
}

void normalise(const Tensor& in, const Cut& cut, const Statistics& s, const Tensor* weight,
               const Tensor* bias, Tensor& out) {
  for (size_t i = 0; i < in.values.size(); ++i) {
    const size_t set = cut.set_of(i), w = cut.weight_of(i);
    const double added = bias == nullptr ? 0 : bias->values[w];
    const double value = (in.values[i] - s.mean[set]) * s.rstd[set] * weight_at(weight, w) + added;
    const double terms = (std::fabs(in.values[i]) + s.mean_terms[set]) * s.rstd[set] *
                         std::fabs(weight_at(weight, w));
    // How unsure the variance is where much cancels when the mean is taken out.
    const double unsure = std::max(1.0, s.square_terms[set] * s.rstd[set] * s.rstd[set]);
    put(&out, i, value, terms * unsure + std::fabs(added), cut.count);
  }
}

void put_statistics(Results& r, size_t mean_group, size_t rstd_group, const Statistics& s,
                    double count) {
  for (size_t k = 0; k < s.mean.size(); ++k) {
    if (mean_group < r.outputs.size() && mean_group != rstd_group)
      put(maybe(r, mean_group), k, s.mean[k], s.mean_terms[k], count);
    const double unsure = std::max(1.0, s.square_terms[k] * s.rstd[k] * s.rstd[k]);
    put(maybe(r, rstd_group), k, s.rstd[k], s.rstd[k] * unsure, count);
  }
}

struct GradInputs {
  const Tensor &grad, &in;
  const Tensor* weight;
  std::vector<double> mean, rstd;  // of each set
  bool centred;                    // whether the mean was taken out
  bool statistics_are_constant;    // batch_norm that does not train
};

// dx = rstd * (dy*w - mean(dy*w) - x^ * mean(dy*w*x^)); without centring the first mean falls away.
void gradients(const GradInputs& g, const Cut& cut, Tensor* din, Tensor* dweight, Tensor* dbias) {
  std::vector<double> sum(cut.sets), sum_hat(cut.sets), sum_terms(cut.sets),
      sum_hat_terms(cut.sets);
  const auto hat = [&](size_t i) {
    return (g.in.values[i] - g.mean[cut.set_of(i)]) * g.rstd[cut.set_of(i)];
  };
  const auto hat_terms = [&](size_t i) {
    return (std::fabs(g.in.values[i]) + std::fabs(g.mean[cut.set_of(i)])) * g.rstd[cut.set_of(i)];
  };
  for (size_t i = 0; i < g.in.values.size(); ++i) {
    const size_t set = cut.set_of(i);
    const double dy = g.grad.values[i] * weight_at(g.weight, cut.weight_of(i));
    sum[set] += dy / cut.count;
    sum_terms[set] += std::fabs(dy) / cut.count;
    sum_hat[set] += dy * hat(i) / cut.count;
    sum_hat_terms[set] += std::fabs(dy) * hat_terms(i) / cut.count;
  }
  for (size_t i = 0; i < g.in.values.size() && din != nullptr; ++i) {
    const size_t set = cut.set_of(i);
    const double dy = g.grad.values[i] * weight_at(g.weight, cut.weight_of(i));
    double value = dy, terms = std::fabs(dy);
    if (!g.statistics_are_constant) {
      value -= hat(i) * sum_hat[set] + (g.centred ? sum[set] : 0);
      terms += hat_terms(i) * sum_hat_terms[set] + (g.centred ? sum_terms[set] : 0);
    }
    put(din, i, g.rstd[set] * value, g.rstd[set] * terms, cut.count);
  }
  for (auto* to : {dweight, dbias}) {
    if (to == nullptr) continue;
    to->magnitude.assign(to->values.size(), 0.0);
    to->terms = static_cast<double>(g.in.values.size()) /
                static_cast<double>(std::max<size_t>(to->values.size(), 1));
    for (size_t i = 0; i < g.in.values.size(); ++i) {
      const double factor = to == dweight ? hat(i) : 1,
                   factor_terms = to == dweight ? hat_terms(i) : 1;
      to->values[cut.weight_of(i)] += g.grad.values[i] * factor;
      to->magnitude[cut.weight_of(i)] += std::fabs(g.grad.values[i]) * factor_terms;
    }
  }
}

std::vector<double> values_or_zero(const Tensor* t, size_t count) {
  return t == nullptr ? std::vector<double>(count, 0.0) : t->values;
}

}  // namespace

// layer_norm: in weight bias -> out mean rstd.  rms_norm: in weight -> out rstd.
// Attributes: axis, eps.
Results row_norm(const Problem& p) {
  auto results = empty_results(p);
  const bool layer = p.op == XHAL_OP_layer_norm;
  const auto cut = by_rows(p.in(0), p.integer(0, -1));
  const auto s = statistics_of(p.in(0), cut, p.number(1, layer ? 1e-5 : 1e-6), layer);
  normalise(p.in(0), cut, s, p.maybe(1), layer ? p.maybe(2) : nullptr, results.outputs[0][0]);
  if (layer) {
    put_statistics(results, 1, 2, s, cut.count);
  } else {
    put_statistics(results, 1, 1, s, cut.count);
  }
  return results;
}

// layer_norm_grad: grad in mean rstd weight -> din dweight dbias.  rms_norm_grad: grad in rstd
// weight -> din dweight.
Results row_norm_grad(const Problem& p) {
  auto results = empty_results(p);
  const bool layer = p.op == XHAL_OP_layer_norm_grad;
  const auto cut = by_rows(p.in(1), p.integer(0, -1));
  const GradInputs g{p.in(0),
                     p.in(1),
                     p.maybe(layer ? 4 : 3),
                     values_or_zero(layer ? &p.in(2) : nullptr, cut.sets),
                     p.in(layer ? 3 : 2).values,
                     layer,
                     false};
  gradients(g, cut, maybe(results, 0), maybe(results, 1), layer ? maybe(results, 2) : nullptr);
  return results;
}

Results group_norm(const Problem& p) {
  auto results = empty_results(p);
  const auto cut = by_groups(p.in(0), p.integer(0, 1));
  const auto s = statistics_of(p.in(0), cut, p.number(1, 1e-5), true);
  normalise(p.in(0), cut, s, p.maybe(1), p.maybe(2), results.outputs[0][0]);
  put_statistics(results, 1, 2, s, cut.count);
  return results;
}

Results group_norm_grad(const Problem& p) {
  auto results = empty_results(p);
  const auto cut = by_groups(p.in(1), p.integer(0, 1));
  const GradInputs g{p.in(0), p.in(1), p.maybe(4), p.in(2).values, p.in(3).values, true, false};
  gradients(g, cut, maybe(results, 0), maybe(results, 1), maybe(results, 2));
  return results;
}

// Inputs: in weight bias running_mean running_var. Attributes: training, eps, momentum.
Results batch_norm(const Problem& p) {
  auto results = empty_results(p);
  const auto cut = by_channels(p.in(0));
  const bool training = p.integer(0, 1) != 0;
  const double eps = p.number(1, 1e-5), momentum = p.number(2, 0.1);
  auto s = statistics_of(p.in(0), cut, eps, true);
  if (training) {
    for (size_t which = 3; which <= 4; ++which) {
      if (p.maybe(which) == nullptr) continue;
      Tensor updated = *p.maybe(which);
      updated.terms = cut.count;
      for (size_t k = 0; k < cut.sets; ++k) {
        const double fresh = which == 3 ? s.mean[k] : s.variance[k] * cut.count / (cut.count - 1);
        const double terms = which == 3 ? s.mean_terms[k] : s.square_terms[k];
        updated.magnitude.push_back(std::fabs(updated.values[k]) + terms);
        updated.values[k] = (1 - momentum) * updated.values[k] + momentum * fresh;
      }
      results.updated.push_back({which, 0, updated});
    }
  } else {
    s.mean = s.mean_terms = p.in(3).values;
    for (auto& m : s.mean_terms) m = std::fabs(m);
    for (size_t k = 0; k < cut.sets; ++k) {
      s.rstd[k] = 1 / std::sqrt(p.in(4).values[k] + eps);
      s.square_terms[k] = 0;
    }
  }
  normalise(p.in(0), cut, s, p.maybe(1), p.maybe(2), results.outputs[0][0]);
  put_statistics(results, 1, 2, s, cut.count);
  return results;
}

// Inputs: grad in weight running_mean running_var mean rstd. Attributes: training, eps.
Results batch_norm_grad(const Problem& p) {
  auto results = empty_results(p);
  const auto cut = by_channels(p.in(1));
  const bool training = p.integer(0, 1) != 0;
  std::vector<double> rstd;
  if (training) {
    rstd = p.in(6).values;
  } else {
    for (const double v : p.in(4).values) rstd.push_back(1 / std::sqrt(v + p.number(1, 1e-5)));
  }
  const GradInputs g{p.in(0), p.in(1), p.maybe(2), p.in(training ? 5 : 3).values,
                     rstd,    true,    !training};
  gradients(g, cut, maybe(results, 0), maybe(results, 1), maybe(results, 2));
  return results;
}

}  // namespace xhal::ref
