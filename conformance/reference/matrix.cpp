// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "reference/operators.hpp"
#include "xhal/catalog.h"

namespace xhal::ref {
namespace {

double activated(double x, int64_t activation) {
  switch (activation) {
    case 1:
      return std::max(x, 0.0);
    case 2:
      return 0.5 * x * std::erfc(-x * 0.70710678118654752440);
    case 3:
      return 0.5 * x * (1 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    default:
      return x;
  }
}

// Whether the mask of an attention lets query `s` see key `t`, and what it adds to the score.
bool visible(const Problem& p, const Tensor* mask, int64_t b, int64_t h, int64_t s, int64_t t,
             double* added) {
  *added = 0;
  if (p.integer(0, 0) != 0 && t > s) return false;
  if (mask == nullptr) return true;
  const double m = (*mask)({b, h, s, t});
  if (mask->dtype == DType::boolean) return m != 0;
  *added = m;
  return true;
}

struct Attention {
  explicit Attention(const Problem& problem, size_t first)
      : p(problem), q(p.in(first)), k(p.in(first + 1)), v(p.in(first + 2)) {
    scale = p.number(1, 0) != 0 ? p.number(1, 0) : 1 / std::sqrt(static_cast<double>(q.sizes[3]));
    group = q.sizes[1] / k.sizes[1];
  }
  const Problem& p;
  const Tensor &q, &k, &v;
  double scale;
  int64_t group;  // query heads that share a key head

  struct Row {
    std::vector<double> probability;  // of each key
    std::vector<double> score_magnitude;
    double log_sum = 0, score_terms = 0;
  };
  Row row(const Tensor* mask, int64_t b, int64_t h, int64_t s) const {
    const int64_t keys = k.sizes[2], d = q.sizes[3];
    Row r;
    std::vector<double> scores;
    double highest = -INFINITY;
    for (int64_t t = 0; t < keys; ++t) {
      double added = 0, dot = 0, terms = 0;
      const bool seen = visible(p, mask, b, h, s, t, &added);
      for (int64_t i = 0; i < d; ++i) {
        const double product = q({b, h, s, i}) * k({b, h / group, t, i});
        dot += product;
        terms += std::fabs(product);
      }
      scores.push_back(seen ? dot * scale + added : -INFINITY);
      r.score_magnitude.push_back(terms * std::fabs(scale) + std::fabs(added));
      if (seen) r.score_terms = std::max(r.score_terms, r.score_magnitude.back());
      highest = std::max(highest, scores.back());
    }
    double sum = 0;
    for (const double x : scores) sum += std::exp(x - highest);
    r.log_sum = highest + std::log(sum);
    for (const double x : scores) r.probability.push_back(std::exp(x - r.log_sum));
    return r;
  }
};

}  // namespace

Results gemm(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const auto &a = p.in(0), &b = p.in(1);
  const Tensor *c = p.maybe(2), *bias = p.maybe(3);
  const double alpha = p.scalar(0, 1), beta = p.scalar(1, 1);
  const int64_t k = a.sizes.back();
  out.magnitude.resize(out.values.size());
  out.terms = static_cast<double>(k);
  for (Position at(out.sizes); !at.done(); at.next()) {
    const auto to = at.at();
    const int64_t n = to.back();
    double value = 0, terms = 0;
    for (int64_t i = 0; i < k; ++i) {
      Sizes left = to, right = to;
      left[left.size() - 1] = i;
      right[right.size() - 2] = i;
      const double product = a(left) * b(right);
      value += alpha * product;
      terms += std::fabs(alpha * product);
    }
    if (c != nullptr && beta != 0) {
      value += beta * (*c)(to);
      terms += std::fabs(beta * (*c)(to));
    }
    if (bias != nullptr) {
      value += bias->values[static_cast<size_t>(n)];
      terms += std::fabs(bias->values[static_cast<size_t>(n)]);
    }
    const auto i = static_cast<size_t>(out.index_of(to));
    out.values[i] = activated(value, p.integer(0, 0));
    out.magnitude[i] = terms * 1.2;  // gelu's slope is at most 1.13
  }
  return results;
}

Results sdpa(const Problem& p) {
  auto results = empty_results(p);
  auto &out = results.outputs[0][0], &log_sum = results.outputs[1][0];
  const Attention attention(p, 0);
  const Tensor* mask = p.maybe(3);
  out.magnitude.resize(out.values.size());
  log_sum.magnitude.resize(log_sum.values.size());
  out.terms = log_sum.terms = static_cast<double>(attention.q.sizes[3] + attention.k.sizes[2]);
  for (Position at(log_sum.sizes); !at.done(); at.next()) {
    const int64_t b = at.at()[0], h = at.at()[1], s = at.at()[2];
    const auto row = attention.row(mask, b, h, s);
    const auto place = static_cast<size_t>(log_sum.index_of(at.at()));
    log_sum.values[place] = row.log_sum;
    log_sum.magnitude[place] = std::fabs(row.log_sum) + row.score_terms;
    for (int64_t e = 0; e < out.sizes[3]; ++e) {
      double value = 0, terms = 0;
      for (int64_t t = 0; t < attention.k.sizes[2]; ++t) {
        const double product =
            row.probability[static_cast<size_t>(t)] * attention.v({b, h / attention.group, t, e});
        value += product;
        terms += std::fabs(product);
      }
      const auto i = static_cast<size_t>(out.index_of({b, h, s, e}));
      out.values[i] = value;
      out.magnitude[i] = terms * (1 + row.score_terms);
    }
  }
  return results;
}

Results sdpa_grad(const Problem& p) {
  auto results = empty_results(p);
  auto &dq = results.outputs[0][0], &dk = results.outputs[1][0], &dv = results.outputs[2][0];
  const Attention attention(p, 1);
  const Tensor &grad = p.in(0), &out = p.in(4), &log_sum = p.in(5);
  const Tensor* mask = p.maybe(6);
  for (auto* t : {&dq, &dk, &dv}) {
    t->magnitude.resize(t->values.size());
    t->terms = static_cast<double>(attention.q.sizes[3] + attention.k.sizes[2] +
                                   attention.q.sizes[2] * attention.group);
  }
  const int64_t d = attention.q.sizes[3], dim_v = grad.sizes[3], keys = attention.k.sizes[2];
  for (Position at({grad.sizes[0], grad.sizes[1], grad.sizes[2]}); !at.done(); at.next()) {
    const int64_t b = at.at()[0], h = at.at()[1], s = at.at()[2], hk = h / attention.group;
    auto row = attention.row(mask, b, h, s);
    for (auto& probability : row.probability)
      probability *= std::exp(row.log_sum - log_sum(at.at()));
    const double unsure = 1 + row.score_terms + std::fabs(row.log_sum);
    std::vector<double> slope(static_cast<size_t>(keys)), slope_terms(static_cast<size_t>(keys));
    // The mean of the slopes under the probabilities is what grad and the output say of it.
    double mean = 0, mean_terms = 0;
    for (int64_t e = 0; e < dim_v; ++e) {
      const double product = grad({b, h, s, e}) * out({b, h, s, e});
      mean += product;
      mean_terms += std::fabs(product);
    }
    for (int64_t t = 0; t < keys; ++t) {
      const auto i = static_cast<size_t>(t);
      for (int64_t e = 0; e < dim_v; ++e) {
        const double product = grad({b, h, s, e}) * attention.v({b, hk, t, e});
        slope[i] += product;
        slope_terms[i] += std::fabs(product);
      }
      mean_terms += row.probability[i] * slope_terms[i];
    }
    const auto add = [](Tensor& to, const Sizes& where, double value, double magnitude) {
      to(where) += value;
      to.magnitude[static_cast<size_t>(to.index_of(where))] += magnitude;
    };
    for (int64_t t = 0; t < keys; ++t) {
      const auto i = static_cast<size_t>(t);
      const double probability = row.probability[i];
      const double score_grad = probability * (slope[i] - mean) * attention.scale;
      const double score_terms =
          probability * (slope_terms[i] + mean_terms) * std::fabs(attention.scale) * unsure;
      for (int64_t e = 0; e < dim_v; ++e) {
        const double product = probability * grad({b, h, s, e});
        add(dv, {b, hk, t, e}, product, std::fabs(product) * unsure);
      }
      for (int64_t e = 0; e < d; ++e) {
        const double key = attention.k({b, hk, t, e}), query = attention.q({b, h, s, e});
        add(dq, {b, h, s, e}, score_grad * key, score_terms * std::fabs(key));
        add(dk, {b, hk, t, e}, score_grad * query, score_terms * std::fabs(query));
      }
    }
  }
  return results;
}

Results rope(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const auto &in = p.in(0), &cos = p.in(1), &sin = p.in(2);
  const int64_t last = in.ndim() - 1, half = in.sizes.back() / 2;
  const bool interleaved = p.integer(0, 0) != 0;
  const double direction = p.integer(1, 0) != 0 ? -1 : 1;
  out.magnitude.resize(out.values.size());
  Sizes pairs = in.sizes;
  pairs.back() = half;
  for (Position at(pairs); !at.done(); at.next()) {
    const int64_t j = at.at().back();
    const auto first = with(at.at(), last, interleaved ? 2 * j : j);
    const auto second = with(at.at(), last, interleaved ? 2 * j + 1 : j + half);
    const double c = cos(at.at()), s = direction * sin(at.at());
    out(first) = in(first)*c - in(second)*s;
    out(second) = in(second)*c + in(first)*s;
    for (const auto& place : {first, second}) {
      out.magnitude[static_cast<size_t>(out.index_of(place))] =
          std::fabs(in(first)) + std::fabs(in(second));
    }
  }
  return results;
}

}  // namespace xhal::ref
