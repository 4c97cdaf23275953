// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "reference/operators.hpp"
#include "xhal/catalog.h"

namespace xhal::ref {
namespace {

std::vector<int64_t> pair_of(const Problem& p, uint32_t index, std::vector<int64_t> otherwise) {
  auto values = p.integers(index);
  return values.empty() ? otherwise : values;
}

// One window of an average: rows and columns of the input, and what its sum is divided by.
struct Window {
  int64_t begin[2], end[2];
  double divisor;
};

bool is_adaptive(const Problem& p) {
  return p.op == XHAL_OP_adaptive_avg_pool || p.op == XHAL_OP_adaptive_avg_pool_grad;
}

Window window_of(const Problem& p, const Sizes& in, const Sizes& out, int64_t row, int64_t column) {
  Window w{};
  const int64_t at[2] = {row, column};
  if (is_adaptive(p)) {
    for (size_t d = 0; d < 2; ++d) {
      w.begin[d] = at[d] * in[2 + d] / out[2 + d];
      w.end[d] = ((at[d] + 1) * in[2 + d] + out[2 + d] - 1) / out[2 + d];
    }
    w.divisor = static_cast<double>((w.end[0] - w.begin[0]) * (w.end[1] - w.begin[1]));
    return w;
  }
  const auto kernel = p.integers(0);
  const auto stride = pair_of(p, 1, kernel), padding = pair_of(p, 2, {0, 0});
  double padded = 1, inside = 1;
  for (size_t d = 0; d < 2; ++d) {
    const int64_t begin = at[d] * stride[d] - padding[d];
    const int64_t end = std::min(begin + kernel[d], in[2 + d] + padding[d]);
    padded *= static_cast<double>(end - begin);
    w.begin[d] = std::max<int64_t>(begin, 0);
    w.end[d] = std::min(end, in[2 + d]);
    inside *= static_cast<double>(w.end[d] - w.begin[d]);
  }
  const auto divisor = p.integer(5, 0);
  w.divisor = divisor != 0 ? static_cast<double>(divisor) : p.integer(4, 1) != 0 ? padded : inside;
  return w;
}

}  // namespace

// Attributes: kernel, stride, padding, dilation, ceil.
Results max_pool(const Problem& p) {
  auto results = empty_results(p);
  const auto& in = p.in(0);
  auto& out = results.outputs[0][0];
  const auto kernel = p.integers(0);
  const auto stride = pair_of(p, 1, kernel), padding = pair_of(p, 2, {0, 0}),
             dilation = pair_of(p, 3, {1, 1});
  for (Position at(out.sizes); !at.done(); at.next()) {
    const auto& a = at.at();
    double best = -INFINITY;
    int64_t where = -1;
    for (Position tap({kernel[0], kernel[1]}); !tap.done(); tap.next()) {
      const int64_t y = a[2] * stride[0] - padding[0] + tap.at()[0] * dilation[0];
      const int64_t x = a[3] * stride[1] - padding[1] + tap.at()[1] * dilation[1];
      if (y < 0 || y >= in.sizes[2] || x < 0 || x >= in.sizes[3]) continue;
      const double value = in({a[0], a[1], y, x});
      if (where >= 0 && !(value > best)) continue;
      best = value;
      where = y * in.sizes[3] + x;
    }
    out(a) = best;
    if (!results.outputs[1].empty()) results.outputs[1][0](a) = static_cast<double>(where);
  }
  return results;
}

Results max_pool_grad(const Problem& p) {
  auto results = empty_results(p);
  const auto &grad = p.in(0), &index = p.in(1);
  auto& din = results.outputs[0][0];
  din.magnitude.resize(din.values.size());
  for (Position at(grad.sizes); !at.done(); at.next()) {
    const auto flat = static_cast<int64_t>(index(at.at()));
    const Sizes to = {at.at()[0], at.at()[1], flat / din.sizes[3], flat % din.sizes[3]};
    din(to) += grad(at.at());
    din.magnitude[static_cast<size_t>(din.index_of(to))] += std::fabs(grad(at.at()));
  }
  din.terms = 9;
  return results;
}

// Attributes: kernel, stride, padding, ceil, count_padding, divisor; the adaptive pair has none.
Results avg_pool(const Problem& p) {
  auto results = empty_results(p);
  auto& result = results.outputs[0][0];
  const bool backward = p.op == XHAL_OP_avg_pool_grad || p.op == XHAL_OP_adaptive_avg_pool_grad;
  const auto& given = p.in(0);
  const Sizes& in = backward ? result.sizes : given.sizes;
  const Sizes& out = backward ? given.sizes : result.sizes;
  result.magnitude.resize(result.values.size());
  for (Position at(out); !at.done(); at.next()) {
    const auto& a = at.at();
    const auto w = window_of(p, in, out, a[2], a[3]);
    for (int64_t y = w.begin[0]; y < w.end[0]; ++y) {
      for (int64_t x = w.begin[1]; x < w.end[1]; ++x) {
        const Sizes inside = {a[0], a[1], y, x};
        const Sizes& from = backward ? a : inside;
        const Sizes& to = backward ? inside : a;
        result(to) += given(from) / w.divisor;
        result.magnitude[static_cast<size_t>(result.index_of(to))] +=
            std::fabs(given(from) / w.divisor);
      }
    }
    result.terms = std::max(result.terms,
                            static_cast<double>((w.end[0] - w.begin[0]) * (w.end[1] - w.begin[1])));
  }
  return results;
}

Results upsample_nearest(const Problem& p) {
  auto results = empty_results(p);
  auto& result = results.outputs[0][0];
  const auto& given = p.in(0);
  const bool backward = p.op == XHAL_OP_upsample_nearest_grad;
  const Sizes& in = backward ? result.sizes : given.sizes;
  const Sizes& out = backward ? given.sizes : result.sizes;
  result.magnitude.resize(result.values.size());
  for (Position at(out); !at.done(); at.next()) {
    const auto& a = at.at();
    const Sizes from = {a[0], a[1], a[2] * in[2] / out[2], a[3] * in[3] / out[3]};
    if (backward) {
      result(from) += given(a);
      result.magnitude[static_cast<size_t>(result.index_of(from))] += std::fabs(given(a));
    } else {
      result(a) = given(from);
      result.magnitude[static_cast<size_t>(result.index_of(a))] = std::fabs(given(from));
    }
  }
  result.terms = static_cast<double>(out[2] * out[3]) /
                     static_cast<double>(std::max<int64_t>(in[2] * in[3], 1)) +
                 1;
  return results;
}

Results upsample_bilinear(const Problem& p) {
  auto results = empty_results(p);
  auto& result = results.outputs[0][0];
  const auto& given = p.in(0);
  const bool backward = p.op == XHAL_OP_upsample_bilinear_grad, corners = p.integer(0, 0) != 0;
  const Sizes& in = backward ? result.sizes : given.sizes;
  const Sizes& out = backward ? given.sizes : result.sizes;
  result.magnitude.resize(result.values.size());
  for (Position at(out); !at.done(); at.next()) {
    const auto& a = at.at();
    int64_t low[2], high[2];
    double above[2];  // weight of the higher neighbour
    for (size_t d = 0; d < 2; ++d) {
      const auto to = static_cast<double>(a[2 + d]), n = static_cast<double>(in[2 + d]),
                 m = static_cast<double>(out[2 + d]);
      const double from =
          corners ? (m > 1 ? to * (n - 1) / (m - 1) : 0) : std::max((to + 0.5) * n / m - 0.5, 0.0);
      low[d] = std::min(static_cast<int64_t>(from), in[2 + d] - 1);
      high[d] = std::min(low[d] + 1, in[2 + d] - 1);
      above[d] = from - static_cast<double>(low[d]);
    }
    for (int corner = 0; corner < 4; ++corner) {
      const bool up = (corner & 1) != 0, right = (corner & 2) != 0;
      const double weight = (up ? above[0] : 1 - above[0]) * (right ? above[1] : 1 - above[1]);
      const Sizes from = {a[0], a[1], up ? high[0] : low[0], right ? high[1] : low[1]};
      // A weight is a difference of positions: its rounding is relative to the position.
      const double unsure = static_cast<double>(1 + low[0] + low[1]);
      const auto& to = backward ? from : a;
      const double value = given(backward ? a : from);
      result(to) += weight * value;
      result.magnitude[static_cast<size_t>(result.index_of(to))] += std::fabs(value) * unsure;
    }
  }
  result.terms = 4 * (static_cast<double>(out[2] * out[3]) /
                          static_cast<double>(std::max<int64_t>(in[2] * in[3], 1)) +
                      1);
  return results;
}

}  // namespace xhal::ref
