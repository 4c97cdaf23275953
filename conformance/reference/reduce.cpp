// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "reference/operators.hpp"
#include "xhal/catalog.h"

namespace xhal::ref {
namespace {

// For each element of the output, the values of the input that are reduced into it, in row order.
std::vector<std::vector<double>> groups_of(const Tensor& in, std::vector<int64_t> dims) {
  std::vector<bool> reduced(in.sizes.size(), dims.empty());
  for (const int64_t d : dims) reduced[static_cast<size_t>(positive_dim(d, in.ndim()))] = true;
  Sizes kept;
  for (size_t d = 0; d < in.sizes.size(); ++d) kept.push_back(reduced[d] ? 1 : in.sizes[d]);
  const Tensor shape(DType::f32, kept);
  std::vector<std::vector<double>> groups(shape.values.size());
  for (Position at(in.sizes); !at.done(); at.next()) {
    Sizes to = at.at();
    for (size_t d = 0; d < to.size(); ++d) {
      if (reduced[d]) to[d] = 0;
    }
    groups[static_cast<size_t>(shape.index_of(to))].push_back(in(at.at()));
  }
  return groups;
}

struct Sum {
  double value = 0, magnitude = 0;
};

Sum sum_of(const std::vector<double>& values) {
  Sum s;
  for (const double v : values) {
    s.value += v;
    s.magnitude += std::fabs(v);
  }
  return s;
}

double extreme(const std::vector<double>& values, bool largest) {
  double best = values[0];
  for (const double v : values) {
    if (std::isnan(best)) break;
    if (std::isnan(v) || (largest ? v > best : v < best)) best = v;
  }
  return best;
}

Sum norm_of(const std::vector<double>& values, double p) {
  std::vector<double> magnitudes;
  for (const double v : values) magnitudes.push_back(std::fabs(v));
  if (p == 0)
    return {static_cast<double>(
                std::count_if(values.begin(), values.end(), [](double v) { return v != 0; })),
            0};
  if (std::isinf(p)) return {magnitudes.empty() ? 0 : extreme(magnitudes, p > 0), 0};
  double sum = 0;
  for (const double m : magnitudes) sum += std::pow(m, p);
  return {std::pow(sum, 1 / p), 0};
}

Sum one_reduction(const Problem& p, const std::vector<double>& values) {
  switch (p.op) {
    case XHAL_OP_sum:
      return sum_of(values);
    case XHAL_OP_mean: {
      auto s = sum_of(values);
      const auto n = static_cast<double>(values.size());
      return {s.value / n, s.magnitude / n};
    }
    case XHAL_OP_prod: {
      double product = 1;
      for (const double v : values) product *= v;
      return {product, 0};
    }
    case XHAL_OP_amax:
      return {extreme(values, true), 0};
    case XHAL_OP_amin:
      return {extreme(values, false), 0};
    case XHAL_OP_any:
      return {static_cast<double>(
                  std::any_of(values.begin(), values.end(), [](double v) { return v != 0; })),
              0};
    case XHAL_OP_all:
      return {static_cast<double>(
                  std::all_of(values.begin(), values.end(), [](double v) { return v != 0; })),
              0};
    default:
      return norm_of(values, p.number(1, 2));
  }
}

}  // namespace

Results reduce(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const auto groups = groups_of(p.in(0), p.integers(0));
  out.magnitude.resize(out.values.size());
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto sum = one_reduction(p, groups[i]);
    out.values[i] = sum.value;
    out.magnitude[i] = sum.magnitude;
    out.terms = static_cast<double>(groups[i].size());
  }
  return results;
}

Results multi_norm(const Problem& p) {
  auto results = empty_results(p);
  for (size_t t = 0; t < results.outputs[0].size(); ++t) {
    auto& out = results.outputs[0][t];
    out.values[0] = norm_of(p.inputs[0][t].values, p.number(0, 2)).value;
    out.terms = static_cast<double>(p.inputs[0][t].count());
  }
  return results;
}

Results variance(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  Tensor* mean = results.outputs[1].empty() ? nullptr : &results.outputs[1][0];
  const auto groups = groups_of(p.in(0), p.integers(0));
  const bool root = p.integer(2, 0) != 0;
  out.magnitude.resize(out.values.size());
  if (mean != nullptr) mean->magnitude.resize(mean->values.size());
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto n = static_cast<double>(groups[i].size());
    const auto sum = sum_of(groups[i]);
    const double center = sum.value / n, below = n - p.number(1, 1);
    double squares = 0, raw_squares = 0;
    for (const double v : groups[i]) {
      squares += (v - center) * (v - center);
      raw_squares += v * v;
    }
    const double var = squares / below;
    // What cancels when the mean is taken out counts as a term.
    const double terms = raw_squares / below;
    out.values[i] = root ? std::sqrt(var) : var;
    // A root is steep near 0: there the rounding of the variance weighs more.
    out.magnitude[i] = root ? terms / std::sqrt(std::max(var, terms * 0x1p-23)) : terms;
    out.terms = n;
    if (mean == nullptr) continue;
    mean->values[i] = center;
    mean->magnitude[i] = sum.magnitude / n;
    mean->terms = n;
  }
  return results;
}

Results arg_extreme(const Problem& p) {
  auto results = empty_results(p);
  const auto& in = p.in(0);
  const bool largest = p.op == XHAL_OP_argmax, flat = p.integer(1, 0) != 0;
  const std::vector<int64_t> dims =
      flat ? std::vector<int64_t>{} : std::vector<int64_t>{p.integer(0, -1)};
  const auto groups = groups_of(in, dims);
  auto& index = results.outputs[1][0];
  for (size_t i = 0; i < groups.size(); ++i) {
    const double best = extreme(groups[i], largest);
    const auto first = std::find_if(groups[i].begin(), groups[i].end(), [&](double v) {
      return v == best || (std::isnan(v) && std::isnan(best));
    });
    index.values[i] = static_cast<double>(first - groups[i].begin());
    if (!results.outputs[0].empty()) results.outputs[0][0].values[i] = best;
  }
  return results;
}

Results cumsum(const Problem& p) {
  auto results = empty_results(p);
  const auto& in = p.in(0);
  auto& out = results.outputs[0][0];
  const int64_t dim = positive_dim(p.integer(0, -1), in.ndim());
  out.magnitude.resize(out.values.size());
  for (Position at(in.sizes); !at.done(); at.next()) {
    const auto i = static_cast<size_t>(in.index_of(at.at()));
    const int64_t k = at.at()[static_cast<size_t>(dim)];
    out.values[i] = in.values[i];
    out.magnitude[i] = std::fabs(in.values[i]);
    if (k == 0) continue;
    const auto before = static_cast<size_t>(in.index_of(with(at.at(), dim, k - 1)));
    out.values[i] += out.values[before];
    out.magnitude[i] += out.magnitude[before];
  }
  if (in.ndim() > 0) out.terms = static_cast<double>(in.sizes[static_cast<size_t>(dim)]);
  return results;
}

}  // namespace xhal::ref
