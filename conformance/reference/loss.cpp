// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "reference/operators.hpp"
#include "xhal/catalog.h"

namespace xhal::ref {
namespace {

struct Row {
  double highest = -INFINITY, log_sum = 0;
};

Row log_sum_of(const Tensor& in, const Sizes& at, int64_t dim) {
  Row row;
  const int64_t n = in.sizes[static_cast<size_t>(dim)];
  for (int64_t i = 0; i < n; ++i) row.highest = std::max(row.highest, in(with(at, dim, i)));
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(in(with(at, dim, i)) - row.highest);
  row.log_sum = row.highest + std::log(sum);
  return row;
}

Sizes rows_of(Sizes sizes, int64_t dim) {
  sizes[static_cast<size_t>(dim)] = 1;
  return sizes;
}

enum Reduction { kNone = 0, kMean = 1, kSum = 2 };

}  // namespace

Results softmax(const Problem& p) {
  auto results = empty_results(p);
  const auto& in = p.in(0);
  auto& out = results.outputs[0][0];
  const int64_t dim = positive_dim(p.integer(0, -1), in.ndim());
  out.magnitude.resize(out.values.size());
  out.terms = static_cast<double>(in.sizes[static_cast<size_t>(dim)]);
  for (Position at(rows_of(in.sizes, dim)); !at.done(); at.next()) {
    const auto row = log_sum_of(in, at.at(), dim);
    for (int64_t i = 0; i < in.sizes[static_cast<size_t>(dim)]; ++i) {
      const auto place = with(at.at(), dim, i);
      const double x = in(place);
      const double log_probability = x - row.log_sum;
      const auto j = static_cast<size_t>(out.index_of(place));
      if (p.op == XHAL_OP_log_softmax) {
        out.values[j] = log_probability;
        out.magnitude[j] =
            std::fabs(x) + std::fabs(row.highest) + std::fabs(row.log_sum - row.highest);
      } else {
        out.values[j] = std::exp(log_probability);
        // The exponent is a difference: its rounding is relative to how far below the
        // highest it lies.
        out.magnitude[j] = out.values[j] * (1 + row.highest - x);
      }
    }
  }
  return results;
}

Results softmax_grad(const Problem& p) {
  auto results = empty_results(p);
  const auto &grad = p.in(0), &out = p.in(1);
  auto& din = results.outputs[0][0];
  const int64_t dim = positive_dim(p.integer(0, -1), grad.ndim()),
                n = grad.sizes[static_cast<size_t>(dim)];
  const bool log = p.op == XHAL_OP_log_softmax_grad;
  din.magnitude.resize(din.values.size());
  din.terms = static_cast<double>(n);
  for (Position at(rows_of(grad.sizes, dim)); !at.done(); at.next()) {
    double sum = 0, terms = 0;
    for (int64_t i = 0; i < n; ++i) {
      const auto place = with(at.at(), dim, i);
      const double term = log ? grad(place) : grad(place) * out(place);
      sum += term;
      terms += std::fabs(term);
    }
    for (int64_t i = 0; i < n; ++i) {
      const auto place = with(at.at(), dim, i);
      const auto j = static_cast<size_t>(din.index_of(place));
      const double g = grad(place), o = out(place);
      din.values[j] = log ? g - std::exp(o) * sum : o * (g - sum);
      din.magnitude[j] = log ? std::fabs(g) + std::exp(o) * terms * (1 + std::fabs(o))
                             : std::fabs(o) * (std::fabs(g) + terms);
    }
  }
  return results;
}

// Attributes: reduction, ignore_index. Inputs: in [n, c] or [c], target, weight.
Results nll_loss(const Problem& p) {
  auto results = empty_results(p);
  const auto &in = p.in(0), &target = p.in(1);
  const auto* weight = p.maybe(2);
  auto &out = results.outputs[0][0], &total = results.outputs[1][0];
  const auto reduction = p.integer(0, kMean), ignored = p.integer(1, -100);
  const int64_t classes = in.sizes.back(), rows = in.ndim() == 1 ? 1 : in.sizes[0];
  double sum = 0, terms = 0, weights = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const auto t = static_cast<int64_t>(target.values[static_cast<size_t>(i)]);
    double loss = 0;
    if (t != ignored) {
      const double w = weight != nullptr ? weight->values[static_cast<size_t>(t)] : 1;
      loss = -w * in.values[static_cast<size_t>(i * classes + t)];
      weights += w;
    }
    sum += loss;
    terms += std::fabs(loss);
    if (reduction == kNone) out.values[static_cast<size_t>(i)] = loss;
  }
  total.values[0] = weights;
  total.terms = out.terms = static_cast<double>(rows);
  if (reduction == kNone) {
    total.defined = 0;  // of no use without a mean
    return results;
  }
  out.values[0] = reduction == kMean ? sum / weights : sum;
  out.magnitude = {reduction == kMean ? terms / weights : terms};
  return results;
}

Results nll_loss_grad(const Problem& p) {
  auto results = empty_results(p);
  const auto &grad = p.in(0), &target = p.in(1), &total = p.in(3);
  const auto* weight = p.maybe(2);
  auto& din = results.outputs[0][0];
  const auto reduction = p.integer(0, kMean), ignored = p.integer(1, -100);
  const int64_t classes = din.sizes.back();
  for (size_t i = 0; i < target.values.size(); ++i) {
    const auto t = static_cast<int64_t>(target.values[i]);
    if (t == ignored) continue;
    const double w = weight != nullptr ? weight->values[static_cast<size_t>(t)] : 1;
    const double g = grad.values[reduction == kNone ? i : 0];
    din.values[i * static_cast<size_t>(classes) + static_cast<size_t>(t)] =
        -w * g / (reduction == kMean ? total.values[0] : 1);
  }
  return results;
}

// Attributes: reduction, ignore_index, smoothing.
Results cross_entropy(const Problem& p) {
  auto results = empty_results(p);
  const auto &in = p.in(0), &target = p.in(1);
  auto &out = results.outputs[0][0], &log_sums = results.outputs[1][0];
  const auto reduction = p.integer(0, kMean), ignored = p.integer(1, -100);
  const double smoothing = p.number(2, 0);
  const int64_t rows = in.sizes[0], classes = in.sizes[1];
  log_sums.magnitude.resize(log_sums.values.size());
  log_sums.terms = static_cast<double>(classes);
  out.terms = static_cast<double>(classes + (reduction == kNone ? 0 : rows));
  out.magnitude.resize(out.values.size());
  double sum = 0, terms = 0, used = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const auto row = log_sum_of(in, {i, 0}, 1);
    log_sums.values[static_cast<size_t>(i)] = row.log_sum;
    log_sums.magnitude[static_cast<size_t>(i)] = std::fabs(row.highest) + std::fabs(row.log_sum);
    const auto t = static_cast<int64_t>(target.values[static_cast<size_t>(i)]);
    double loss = 0, magnitude = 0;
    if (t != ignored) {
      ++used;
      loss = (1 - smoothing) * (row.log_sum - in({i, t}));
      magnitude = std::fabs(row.log_sum) + std::fabs(row.highest) + std::fabs(in({i, t}));
      for (int64_t j = 0; j < classes; ++j) {
        loss += smoothing / static_cast<double>(classes) * (row.log_sum - in({i, j}));
        magnitude += smoothing / static_cast<double>(classes) *
                     (std::fabs(row.log_sum) + std::fabs(in({i, j})));
      }
    }
    sum += loss;
    terms += magnitude;
    if (reduction != kNone) continue;
    out.values[static_cast<size_t>(i)] = loss;
    out.magnitude[static_cast<size_t>(i)] = magnitude;
  }
  if (reduction == kNone) return results;
  out.values[0] = reduction == kMean ? sum / used : sum;
  out.magnitude[0] = reduction == kMean ? terms / used : terms;
  return results;
}

// Inputs: grad, in, target, log_sum.
Results cross_entropy_grad(const Problem& p) {
  auto results = empty_results(p);
  const auto &grad = p.in(0), &in = p.in(1), &target = p.in(2), &log_sum = p.in(3);
  auto& din = results.outputs[0][0];
  const auto reduction = p.integer(0, kMean), ignored = p.integer(1, -100);
  const double smoothing = p.number(2, 0);
  const int64_t rows = in.sizes[0], classes = in.sizes[1];
  double used = 0;
  for (const double t : target.values) used += static_cast<int64_t>(t) != ignored;
  din.magnitude.resize(din.values.size());
  for (int64_t i = 0; i < rows; ++i) {
    const auto t = static_cast<int64_t>(target.values[static_cast<size_t>(i)]);
    if (t == ignored) continue;
    const double g = grad.values[reduction == kNone ? static_cast<size_t>(i) : 0] /
                     (reduction == kMean ? used : 1);
    for (int64_t j = 0; j < classes; ++j) {
      const double exponent = in({i, j}) - log_sum.values[static_cast<size_t>(i)];
      const double probability = std::exp(exponent);
      const double wanted = (j == t ? 1 - smoothing : 0) + smoothing / static_cast<double>(classes);
      const auto place = static_cast<size_t>(din.index_of({i, j}));
      din.values[place] = g * (probability - wanted);
      din.magnitude[place] =
          std::fabs(g) * (probability * (1 + std::fabs(in({i, j})) +
                                         std::fabs(log_sum.values[static_cast<size_t>(i)])) +
                          wanted);
    }
  }
  return results;
}

Results mse_loss(const Problem& p) {
  auto results = empty_results(p);
  const auto &a = p.in(0), &b = p.in(1);
  auto& out = results.outputs[0][0];
  const auto reduction = p.integer(0, kMean);
  double sum = 0;
  for (size_t i = 0; i < a.values.size(); ++i) {
    const double square = (a.values[i] - b.values[i]) * (a.values[i] - b.values[i]);
    sum += square;
    if (reduction == kNone) out.values[i] = square;
  }
  if (reduction == kNone) return results;
  out.values[0] = reduction == kMean ? sum / static_cast<double>(a.values.size()) : sum;
  out.terms = static_cast<double>(a.values.size());
  return results;
}

Results mse_loss_grad(const Problem& p) {
  auto results = empty_results(p);
  const auto &grad = p.in(0), &a = p.in(1), &b = p.in(2);
  auto& da = results.outputs[0][0];
  const auto reduction = p.integer(0, kMean);
  const double divisor = reduction == kMean ? static_cast<double>(a.values.size()) : 1;
  for (size_t i = 0; i < a.values.size(); ++i) {
    da.values[i] =
        2 * (a.values[i] - b.values[i]) * grad.values[reduction == kNone ? i : 0] / divisor;
  }
  return results;
}

}  // namespace xhal::ref
