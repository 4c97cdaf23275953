// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numeric>

#include "reference/operators.hpp"
#include "xhal/catalog.h"

namespace xhal::ref {
namespace {

int64_t integer_at(const Tensor& t, const Sizes& at) { return static_cast<int64_t>(t(at)); }

void add_to(Tensor& out, const Sizes& at, double value) {
  if (out.magnitude.empty()) {
    for (const double v : out.values) out.magnitude.push_back(std::fabs(v));
  }
  out(at) += value;
  out.magnitude[static_cast<size_t>(out.index_of(at))] += std::fabs(value);
  out.terms = std::max(out.terms, 1.0) + 1;
}

// The positions of `in` that advanced indexing reads, in the order of the result.
std::vector<Sizes> indexed_positions(const Tensor& in, const Group& indices,
                                     const std::vector<int64_t>& dims) {
  const auto first = static_cast<size_t>(dims[0]);
  const Sizes& broadcast = indices[0].sizes;
  Sizes shape(in.sizes.begin(), in.sizes.begin() + static_cast<int64_t>(first));
  shape.insert(shape.end(), broadcast.begin(), broadcast.end());
  shape.insert(shape.end(), in.sizes.begin() + static_cast<int64_t>(first + dims.size()),
               in.sizes.end());
  std::vector<Sizes> positions;
  for (Position at(shape); !at.done(); at.next()) {
    const auto& a = at.at();
    Sizes from(a.begin(), a.begin() + static_cast<int64_t>(first));
    const Sizes chosen(a.begin() + static_cast<int64_t>(first),
                       a.begin() + static_cast<int64_t>(first + broadcast.size()));
    for (size_t i = 0; i < dims.size(); ++i) {
      int64_t k = integer_at(indices[i], chosen);
      if (k < 0) k += in.sizes[first + i];
      from.push_back(k);
    }
    from.insert(from.end(), a.begin() + static_cast<int64_t>(first + broadcast.size()), a.end());
    positions.push_back(std::move(from));
  }
  return positions;
}

// NaN counts as largest.
bool comes_before(double a, double b, bool descending) {
  if (std::isnan(a) || std::isnan(b))
    return descending ? std::isnan(a) && !std::isnan(b) : !std::isnan(a) && std::isnan(b);
  return descending ? a > b : a < b;
}

}  // namespace

Results index_select(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const auto &in = p.in(0), &chosen = p.in(1);
  const int64_t dim = positive_dim(p.integer(0, 0), in.ndim());
  for (Position at(out.sizes); !at.done(); at.next()) {
    out(at.at()) = in(with(at.at(), dim, integer_at(chosen, {at.at()[static_cast<size_t>(dim)]})));
  }
  return results;
}

Results embedding_grad(const Problem& p) {
  auto results = empty_results(p);
  auto& dweight = results.outputs[0][0];
  const auto &grad = p.in(0), &chosen = p.in(1);
  const int64_t d = dweight.sizes[1], padding = p.integer(0, -1);
  for (int64_t i = 0; i < chosen.count(); ++i) {
    const auto row = static_cast<int64_t>(chosen.values[static_cast<size_t>(i)]);
    if (row == padding) continue;
    for (int64_t j = 0; j < d; ++j)
      add_to(dweight, {row, j}, grad.values[static_cast<size_t>(i * d + j)]);
  }
  dweight.terms = static_cast<double>(chosen.count());
  return results;
}

Results gather(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const auto &in = p.in(0), &chosen = p.in(1);
  const int64_t dim = positive_dim(p.integer(0, 0), in.ndim());
  for (Position at(out.sizes); !at.done(); at.next())
    out(at.at()) = in(with(at.at(), dim, integer_at(chosen, at.at())));
  return results;
}

Results scatter(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const auto &in = p.in(0), &chosen = p.in(1);
  const auto* src = p.maybe(2);
  const int64_t dim = positive_dim(p.integer(0, 0), in.ndim()), reduce = p.integer(1, 0);
  out.values = in.values;
  out.terms = 0;
  for (Position at(chosen.sizes); !at.done(); at.next()) {
    const auto to = with(at.at(), dim, integer_at(chosen, at.at()));
    const double value = src == nullptr ? p.scalar(0, 0) : (*src)(at.at());
    if (reduce == 1) add_to(out, to, value);
    if (reduce == 2) out(to) *= value;
    if (reduce == 0) out(to) = value;
  }
  return results;
}

Results index(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const auto positions = indexed_positions(p.in(0), p.inputs[1], p.integers(0));
  for (size_t i = 0; i < positions.size(); ++i) out.values[i] = p.in(0)(positions[i]);
  return results;
}

Results index_put(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  out.values = p.in(0).values;
  const auto& values = p.in(1);
  const auto positions = indexed_positions(p.in(0), p.inputs[2], p.integers(0));
  for (size_t i = 0; i < positions.size(); ++i) {
    if (p.integer(1, 0) != 0) {
      add_to(out, positions[i], values.values[i]);
    } else {
      out(positions[i]) = values.values[i];
    }
  }
  return results;
}

Results index_add(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const auto &in = p.in(0), &chosen = p.in(1), &src = p.in(2);
  const int64_t dim = positive_dim(p.integer(0, 0), in.ndim());
  out.values = in.values;
  for (Position at(src.sizes); !at.done(); at.next()) {
    const int64_t row = integer_at(chosen, {at.at()[static_cast<size_t>(dim)]});
    add_to(out, with(at.at(), dim, row), p.scalar(0, 1) * src(at.at()));
  }
  return results;
}

Results cat(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const int64_t dim = positive_dim(p.integer(0, 0), out.ndim());
  int64_t begin = 0;
  for (const auto& in : p.inputs[0]) {
    for (Position at(in.sizes); !at.done(); at.next()) {
      out(with(at.at(), dim, begin + at.at()[static_cast<size_t>(dim)])) = in(at.at());
    }
    begin += in.sizes[static_cast<size_t>(dim)];
  }
  return results;
}

Results triangle(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const int64_t diagonal = p.integer(0, 0);
  for (Position at(out.sizes); !at.done(); at.next()) {
    const int64_t row = at.at()[at.at().size() - 2], column = at.at().back();
    const bool kept = p.op == XHAL_OP_tril ? column - row <= diagonal : column - row >= diagonal;
    out(at.at()) = kept ? p.in(0)(at.at()) : 0;
  }
  return results;
}

Results arange(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const double start = p.scalar(0, 0), step = p.scalar(1, 1);
  for (size_t i = 0; i < out.values.size(); ++i) {
    out.values[i] = start + static_cast<double>(i) * step;
    out.magnitude.push_back(std::fabs(start) + std::fabs(static_cast<double>(i) * step));
  }
  return results;
}

Results flip(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  for (Position at(out.sizes); !at.done(); at.next()) {
    Sizes from = at.at();
    for (const int64_t given : p.integers(0)) {
      const auto d = static_cast<size_t>(positive_dim(given, out.ndim()));
      from[d] = out.sizes[d] - 1 - from[d];
    }
    out(at.at()) = p.in(0)(from);
  }
  return results;
}

// topk: attributes k, dim, largest.  sort: dim, descending.
Results sort(const Problem& p) {
  auto results = empty_results(p);
  const auto& in = p.in(0);
  auto &value = results.outputs[0][0], &index = results.outputs[1][0];
  const bool topk = p.op == XHAL_OP_topk;
  const int64_t dim = positive_dim(p.integer(topk ? 1 : 0, -1), in.ndim());
  const bool descending = topk ? p.integer(2, 1) != 0 : p.integer(1, 0) != 0;
  Sizes rows = in.sizes;
  rows[static_cast<size_t>(dim)] = 1;
  if (count_of(in.sizes) == 0) return results;
  for (Position at(rows); !at.done(); at.next()) {
    std::vector<int64_t> order(static_cast<size_t>(in.sizes[static_cast<size_t>(dim)]));
    std::iota(order.begin(), order.end(), int64_t{0});
    const auto element = [&](int64_t i) { return in(with(at.at(), dim, i)); };
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return comes_before(element(a), element(b), descending);
    });
    for (int64_t i = 0; i < value.sizes[static_cast<size_t>(dim)]; ++i) {
      value(with(at.at(), dim, i)) = element(order[static_cast<size_t>(i)]);
      index(with(at.at(), dim, i)) = static_cast<double>(order[static_cast<size_t>(i)]);
    }
  }
  return results;
}

Results nonzero(const Problem& p) {
  auto results = empty_results(p);
  const auto& in = p.in(0);
  auto &index = results.outputs[0][0], &count = results.outputs[1][0];
  int64_t row = 0;
  for (Position at(in.sizes); !at.done(); at.next()) {
    if (in(at.at()) == 0) continue;
    for (int64_t d = 0; d < in.ndim(); ++d)
      index({row, d}) = static_cast<double>(at.at()[static_cast<size_t>(d)]);
    ++row;
  }
  index.defined = row * in.ndim();
  count.values[0] = static_cast<double>(row);
  return results;
}

// The catalogue's divisions and products are in f32, and so they are here.
Results quantise_block(const Problem& p) {
  auto results = empty_results(p);
  const bool forwards = p.op == XHAL_OP_quantise_block;
  const auto& in = p.in(0);
  const int64_t block = p.integer(0, 32), last = in.ndim() - 1;
  Tensor scales = forwards ? results.outputs[1][0] : p.in(1);
  const auto block_of = [&](const Sizes& at) {
    return with(at, last, at[static_cast<size_t>(last)] / block);
  };
  if (forwards) {
    for (Position at(in.sizes); !at.done(); at.next()) {
      double& largest = scales(block_of(at.at()));
      const double magnitude = std::fabs(in(at.at()));
      if (magnitude > largest || std::isnan(magnitude)) largest = magnitude;
    }
    for (auto& scale : scales.values) scale = static_cast<float>(scale) / 127.0f;
    results.outputs[1][0] = scales;
  }
  auto& out = results.outputs[0][0];
  for (Position at(in.sizes); !at.done(); at.next()) {
    const auto value = static_cast<float>(in(at.at()));
    const auto scale = static_cast<float>(scales(block_of(at.at())));
    if (!forwards) {
      out(at.at()) = value * scale;
    } else if (scale != 0 && std::isfinite(scale)) {
      out(at.at()) = std::clamp(std::nearbyint(value / scale), -127.0f, 127.0f);
    }
  }
  return results;
}

}  // namespace xhal::ref
