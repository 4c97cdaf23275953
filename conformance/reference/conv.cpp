// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "reference/operators.hpp"
#include "xhal/catalog.h"

namespace xhal::ref {
namespace {

// One convolution as the set of all products it sums: for each, where in the input, the weight and
// the output it lies.
struct Geometry {
  Geometry(const Problem& p, const Sizes& in, const Sizes& weight, const Sizes& out)
      : in_(in), weight_(weight), out_(out) {
    const size_t spatial = in.size() - 2;
    const auto list = [&](uint32_t index, int64_t otherwise) {
      auto values = p.integers(index);
      if (values.empty()) values.assign(spatial, otherwise);
      return values;
    };
    stride_ = list(0, 1);
    padding_ = list(1, 0);
    dilation_ = list(2, 1);
    transposed_ = p.integer(3, 0) != 0;
    groups_ = p.integer(5, 1);
  }

  // visit(position in input, in weight, in output)
  template <class Visit>
  void each_product(Visit&& visit) const {
    // A transposed convolution is the same sum with input and output in each other's place.
    const Sizes& small = transposed_ ? in_ : out_;
    const Sizes& large = transposed_ ? out_ : in_;
    const int64_t small_channels = small[1] / groups_, large_channels = large[1] / groups_;
    Sizes loop = small;
    loop.push_back(large_channels);
    loop.insert(loop.end(), weight_.begin() + 2, weight_.end());
    const size_t spatial = small.size() - 2;
    for (Position at(loop); !at.done(); at.next()) {
      const auto& a = at.at();
      const int64_t group = a[1] / small_channels;
      Sizes far = {a[0], group * large_channels + a[2 + spatial]};
      Sizes w = {a[1], a[2 + spatial]};
      bool inside = true;
      for (size_t d = 0; d < spatial; ++d) {
        const int64_t tap = a[3 + spatial + d];
        const int64_t x = a[2 + d] * stride_[d] - padding_[d] + tap * dilation_[d];
        inside &= x >= 0 && x < large[2 + d];
        far.push_back(x);
        w.push_back(tap);
      }
      const Sizes near(a.begin(), a.begin() + 2 + static_cast<int64_t>(spatial));
      if (!inside) continue;
      if (transposed_) {
        visit(near, w, far);
      } else {
        visit(far, w, near);
      }
    }
  }

 private:
  Sizes in_, weight_, out_;
  std::vector<int64_t> stride_, padding_, dilation_;
  bool transposed_;
  int64_t groups_;
};

class Sum {
 public:
  explicit Sum(Tensor& to) : to_(to), counts_(to.values.size(), 0) {
    to_.magnitude.resize(to_.values.size());
  }
  ~Sum() {
    for (const double n : counts_) to_.terms = std::max(to_.terms, n);
  }
  void add(const Sizes& at, double value) {
    const auto i = static_cast<size_t>(to_.index_of(at));
    to_.values[i] += value;
    to_.magnitude[i] += std::fabs(value);
    ++counts_[i];
  }

 private:
  Tensor& to_;
  std::vector<double> counts_;
};

}  // namespace

Results conv(const Problem& p) {
  auto results = empty_results(p);
  auto& out = results.outputs[0][0];
  const auto &in = p.in(0), &weight = p.in(1);
  const auto* bias = p.maybe(2);
  Sum sum(out);
  Geometry(p, in.sizes, weight.sizes, out.sizes)
      .each_product(
          [&](const Sizes& i, const Sizes& w, const Sizes& o) { sum.add(o, in(i)*weight(w)); });
  if (bias == nullptr) return results;
  for (Position at(out.sizes); !at.done(); at.next())
    sum.add(at.at(), bias->values[static_cast<size_t>(at.at()[1])]);
  return results;
}

Results conv_grad_input(const Problem& p) {
  auto results = empty_results(p);
  auto& din = results.outputs[0][0];
  const auto &grad = p.in(0), &weight = p.in(1);
  Sum sum(din);
  Geometry(p, din.sizes, weight.sizes, grad.sizes)
      .each_product(
          [&](const Sizes& i, const Sizes& w, const Sizes& o) { sum.add(i, grad(o) * weight(w)); });
  return results;
}

Results conv_grad_weight(const Problem& p) {
  auto results = empty_results(p);
  auto& dweight = results.outputs[0][0];
  const auto &grad = p.in(0), &in = p.in(1);
  Sum sum(dweight);
  Geometry(p, in.sizes, dweight.sizes, grad.sizes)
      .each_product(
          [&](const Sizes& i, const Sizes& w, const Sizes& o) { sum.add(w, grad(o) * in(i)); });
  if (results.outputs[1].empty()) return results;
  Sum bias(results.outputs[1][0]);
  for (Position at(grad.sizes); !at.done(); at.next()) bias.add({at.at()[1]}, grad(at.at()));
  return results;
}

}  // namespace xhal::ref
