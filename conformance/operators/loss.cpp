// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Problem;
using ref::Sizes;
using ref::Tensor;
using Problems = std::vector<Problem>;

constexpr int64_t kIgnored = -100;

Problems softmax_problems(Maker& m) {
  Problems problems;
  for (const int64_t dim : {int64_t{-1}, int64_t{0}, int64_t{1}}) {
    auto sizes = m.shape({6, 4, 40}, dim == 0 ? 1 : 0);
    Problem p;
    p.note = "dim " + std::to_string(dim);
    p.attributes = {integer(0, dim)};
    p.inputs = {{m.real(sizes, -5, 5)}};
    p.outputs = {{output(m.dtype, sizes)}};
    problems.push_back(p);
    if (m.dtype != DType::f32 && !m.is(Case::aliased)) {
      p.note += ", out is f32";
      p.outputs[0][0].dtype = DType::f32;
      problems.push_back(p);
    }
  }
  if (m.is(Case::odd)) {
    Problem p;
    p.note = "long rows";
    p.inputs = {{m.real({3, 5003}, -5, 5)}};
    p.outputs = {{output(m.dtype, {3, 5003})}};
    problems.push_back(p);
  }
  return problems;
}

Problems softmax_grad_problems(Maker& m, bool log) {
  Problems problems;
  for (const int64_t dim : {int64_t{-1}, int64_t{0}, int64_t{1}}) {
    const auto sizes = m.shape({6, 4, 40}, dim == 0 ? 1 : 0);
    Problem forward;
    forward.op = log ? XHAL_OP_log_softmax : XHAL_OP_softmax;
    forward.attributes = {integer(0, dim)};
    forward.inputs = {{m.real(sizes)}};
    forward.outputs = {{output(m.dtype, sizes)}};
    auto out = ref::softmax(forward).outputs[0][0];
    for (auto& v : out.values) v = ref::round_to(m.dtype, v);
    Problem p;
    p.note = "dim " + std::to_string(dim);
    p.attributes = {integer(0, dim)};
    p.inputs = {{m.real(sizes)}, {out}};
    p.outputs = {{output(m.dtype, sizes)}};
    problems.push_back(p);
  }
  return problems;
}

// Classes in [0, classes); every fourth row is left out when `some_ignored`.
Tensor targets(Maker& m, int64_t rows, int64_t classes, bool some_ignored) {
  auto t = m.integers(DType::i64, {rows}, 0, classes - 1);
  for (size_t i = 3; i < t.values.size() && some_ignored; i += 4)
    t.values[i] = static_cast<double>(kIgnored);
  t.broadcast_dim = Tensor::kNoDim;
  return t;
}

struct LossVariant {
  int64_t reduction;
  bool weighted, some_ignored;
  double smoothing;
};
const LossVariant kVariants[] = {
    {1, false, false, 0}, {1, true, true, 0.1}, {2, true, false, 0}, {0, false, true, 0.1}};

std::string note_of(const LossVariant& v) {
  return "reduction " + std::to_string(v.reduction) + (v.weighted ? ", weighted" : "") +
         (v.some_ignored ? ", some ignored" : "");
}

Sizes loss_sizes(int64_t reduction, int64_t rows) { return reduction == 0 ? Sizes{rows} : Sizes{}; }

Tensor gradient_of_loss(Maker& m, int64_t reduction, int64_t rows) {
  auto grad = m.real(loss_sizes(reduction, rows), 0.5, 2);
  grad.broadcast_dim = reduction == 0 ? 0 : Tensor::kNoDim;
  return grad;
}

Problems nll_problems(Maker& m, bool backward) {
  Problems problems;
  for (const auto& v : kVariants) {
    const auto shape = m.shape({12, 30});
    if (m.is(Case::empty) && v.reduction == 1) continue;  // the mean of nothing
    const int64_t rows = shape[0], classes = shape[1];
    const auto target = targets(m, rows, classes, v.some_ignored);
    Problem p;
    p.note = note_of(v);
    p.attributes = {integer(0, v.reduction), integer(1, kIgnored)};
    ref::Group weight;
    if (v.weighted) weight = {m.real({classes}, 0.5, 2)};
    if (!backward) {
      p.inputs = {{m.real(shape, -5, 0)}, {target}, weight};
      p.outputs = {{output(m.dtype, loss_sizes(v.reduction, rows))}, {output(m.dtype, {})}};
      problems.push_back(p);
      continue;
    }
    Tensor total(m.dtype, {});
    total.values[0] = ref::round_to(m.dtype, static_cast<double>(rows) * 0.8);
    p.inputs = {{gradient_of_loss(m, v.reduction, rows)}, {target}, weight, {total}};
    p.outputs = {{output(m.dtype, shape)}};
    problems.push_back(p);
  }
  if (!backward && !m.is(Case::empty) && !m.is(Case::broadcast)) {
    Problem p;
    p.note = "one row";
    p.inputs = {{m.real({30}, -5, 0)}, {m.integers(DType::i64, {}, 0, 29)}, {}};
    p.outputs = {{output(m.dtype, {})}, {output(m.dtype, {})}};
    problems.push_back(p);
  }
  return problems;
}

Problems cross_entropy_problems(Maker& m, bool backward) {
  Problems problems;
  std::vector<Sizes> shapes = {m.shape({12, 30})};
  if (m.is(Case::odd)) shapes.push_back({5, 2003});
  for (const auto& shape : shapes) {
    for (const auto& v : kVariants) {
      if (m.is(Case::empty) && v.reduction == 1) continue;
      const auto target = targets(m, shape[0], shape[1], v.some_ignored);
      auto in = m.real(shape, -5, 5);
      Problem p;
      p.note = note_of(v);
      p.attributes = {integer(0, v.reduction), integer(1, kIgnored), number(2, v.smoothing)};
      if (!backward) {
        p.inputs = {{in}, {target}};
        p.outputs = {{output(m.dtype, loss_sizes(v.reduction, shape[0]))},
                     {output(DType::f32, {shape[0]})}};
        problems.push_back(p);
        continue;
      }
      in.broadcast_dim = Tensor::kNoDim;
      Problem forward = p;
      forward.inputs = {{in}, {target}};
      forward.outputs = {{output(m.dtype, loss_sizes(v.reduction, shape[0]))},
                         {output(DType::f32, {shape[0]})}};
      auto log_sum = ref::cross_entropy(forward).outputs[1][0];
      for (auto& x : log_sum.values) x = ref::round_to(DType::f32, x);
      log_sum.broadcast_dim = Tensor::kNoDim;
      p.inputs = {{gradient_of_loss(m, v.reduction, shape[0])}, {in}, {target}, {log_sum}};
      p.outputs = {{output(m.dtype, shape)}};
      problems.push_back(p);
    }
  }
  return problems;
}

Problems mse_problems(Maker& m, bool backward) {
  Problems problems;
  for (const int64_t reduction : {0, 1, 2}) {
    const auto sizes = m.shape({6, 40});
    if (m.is(Case::empty) && reduction == 1) continue;
    Problem p;
    p.note = "reduction " + std::to_string(reduction);
    p.attributes = {integer(0, reduction)};
    const auto a = m.real(sizes), b = m.real(sizes);
    const Sizes loss = reduction == 0 ? sizes : Sizes{};
    p.inputs = {{a}, {b}};
    p.outputs = {{output(m.dtype, backward ? sizes : loss)}};
    if (backward) p.inputs = {{m.real(loss, 0.5, 2)}, {a}, {b}};
    problems.push_back(p);
  }
  return problems;
}

}  // namespace

void add_loss_tests(OpTests& tests) {
  const auto& floats = dtypes_of('F');
  const auto forward = [](auto function) {
    return [function](Maker& m) { return function(m, false); };
  };
  const auto backward = [](auto function) {
    return [function](Maker& m) { return function(m, true); };
  };
  tests.push_back({XHAL_OP_softmax, floats, softmax_problems, ref::softmax, kAllCases, false, {}});
  tests.push_back(
      {XHAL_OP_log_softmax, floats, softmax_problems, ref::softmax, kAllCases, false, {}});
  tests.push_back({XHAL_OP_softmax_grad,
                   floats,
                   forward(softmax_grad_problems),
                   ref::softmax_grad,
                   kAllCases,
                   false,
                   {}});
  tests.push_back({XHAL_OP_log_softmax_grad,
                   floats,
                   backward(softmax_grad_problems),
                   ref::softmax_grad,
                   kAllCases,
                   false,
                   {}});
  tests.push_back(
      {XHAL_OP_nll_loss, floats, forward(nll_problems), ref::nll_loss, kAllCases, false, {}});
  tests.push_back({XHAL_OP_nll_loss_grad,
                   floats,
                   backward(nll_problems),
                   ref::nll_loss_grad,
                   kAllCases,
                   false,
                   {}});
  tests.push_back({XHAL_OP_cross_entropy,
                   floats,
                   forward(cross_entropy_problems),
                   ref::cross_entropy,
                   kAllCases,
                   false,
                   {}});
  tests.push_back({XHAL_OP_cross_entropy_grad,
                   floats,
                   backward(cross_entropy_problems),
                   ref::cross_entropy_grad,
                   kAllCases,
                   false,
                   {}});
  tests.push_back(
      {XHAL_OP_mse_loss, floats, forward(mse_problems), ref::mse_loss, kAllCases, false, {}});
  tests.push_back({XHAL_OP_mse_loss_grad,
                   floats,
                   backward(mse_problems),
                   ref::mse_loss_grad,
                   kAllCases,
                   false,
                   {}});
}

}  // namespace xhal::cts
