// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Group;
using ref::Problem;
using ref::Sizes;
using ref::Tensor;
using Problems = std::vector<Problem>;

// Statistics are f32 in most cases; in the odd one they have the dtype of the input, and keep
// the reduced dims.
DType statistics_dtype(const Maker& m) { return m.is(Case::odd) ? m.dtype : DType::f32; }

Sizes row_statistics(const Maker& m, const Sizes& in, int64_t axis) {
  Sizes left(in.begin(), in.end() + axis);
  if (m.is(Case::odd)) left.insert(left.end(), static_cast<size_t>(-axis), 1);
  return left;
}

Sizes tail(const Sizes& in, int64_t axis) { return {in.end() + axis, in.end()}; }

Tensor rounded(Tensor t) {
  for (auto& v : t.values) v = ref::round_to(t.dtype, v);
  t.broadcast_dim = Tensor::kNoDim;
  t.magnitude.clear();
  return t;
}

// layer_norm and rms_norm, forward and backward, over one and two dims, with and without
// what is optional.
Problems row_problems(Maker& m, bool layer, bool backward) {
  Problems problems;
  std::vector<Sizes> shapes = {m.shape({6, 4, 40})};
  if (m.is(Case::odd)) shapes.push_back({3, 2, 3001});
  for (const auto& sizes : shapes) {
    for (const int64_t axis : {-1, -2}) {
      for (const bool full : {true, false}) {
        auto in = m.real(sizes, -2, 3);
        auto weight = m.real(tail(sizes, axis), 0.5, 1.5), bias = m.real(tail(sizes, axis), -1, 1);
        const auto statistics = row_statistics(m, sizes, axis);
        const DType narrow = statistics_dtype(m);
        Problem p;
        p.note = "axis " + std::to_string(axis) + (full ? "" : ", nothing optional");
        // Without the rest, an epsilon that shows.
        p.attributes = {integer(0, axis), number(1, full ? 1e-5 : 0.25)};
        if (!backward) {
          p.inputs = {{in}, full ? Group{weight} : Group{}};
          p.outputs = {{output(m.dtype, sizes)}};
          if (layer) p.inputs.push_back(full ? Group{bias} : Group{});
          for (int i = 0; i < (layer ? 2 : 1); ++i) {
            p.outputs.push_back({});
            if (full) p.outputs.back() = {output(narrow, statistics)};
          }
          problems.push_back(p);
          continue;
        }
        in.broadcast_dim = Tensor::kNoDim;
        Problem forward;
        forward.op = layer ? XHAL_OP_layer_norm : XHAL_OP_rms_norm;
        forward.attributes = p.attributes;
        forward.inputs = {{in}, {}, {}};
        forward.outputs = {
            {output(m.dtype, sizes)}, {output(narrow, statistics)}, {output(narrow, statistics)}};
        const auto results = ref::row_norm(forward);
        p.attributes = {integer(0, axis)};
        p.inputs = {{m.real(sizes)}, {in}};
        if (layer) p.inputs.push_back({rounded(results.outputs[1][0])});
        p.inputs.push_back({rounded(results.outputs[layer ? 2 : 1][0])});
        p.inputs.push_back(full ? Group{weight} : Group{});
        p.outputs = {{output(m.dtype, sizes)}};
        for (int i = 0; i < (layer ? 2 : 1); ++i) {
          p.outputs.push_back({});
          if (full) p.outputs.back() = {output(m.dtype, tail(sizes, axis))};
        }
        problems.push_back(p);
      }
    }
  }
  return problems;
}

Problems group_problems(Maker& m, bool backward) {
  Problems problems;
  for (const int64_t groups : {1, 3}) {
    for (const bool full : {true, false}) {
      auto sizes = m.shape({4, 6, 4, 6});
      sizes[1] = 6;
      auto in = m.real(sizes, -2, 3);
      const auto weight = m.real({6}, 0.5, 1.5), bias = m.real({6}, -1, 1);
      const Sizes statistics = {sizes[0], groups};
      Problem p;
      p.note = std::to_string(groups) + " groups" + (full ? "" : ", nothing optional");
      p.attributes = {integer(0, groups), number(1, 1e-5)};
      if (!backward) {
        p.inputs = {{in}, full ? Group{weight} : Group{}, full ? Group{bias} : Group{}};
        p.outputs = {{output(m.dtype, sizes)}, {}, {}};
        if (full) p.outputs[1] = p.outputs[2] = {output(statistics_dtype(m), statistics)};
        problems.push_back(p);
        continue;
      }
      in.broadcast_dim = Tensor::kNoDim;
      Problem forward = p;
      forward.op = XHAL_OP_group_norm;
      forward.inputs = {{in}, {}, {}};
      forward.outputs = {{output(m.dtype, sizes)},
                         {output(statistics_dtype(m), statistics)},
                         {output(statistics_dtype(m), statistics)}};
      const auto results = ref::group_norm(forward);
      p.attributes = {integer(0, groups)};
      p.inputs = {{m.real(sizes)},
                  {in},
                  {rounded(results.outputs[1][0])},
                  {rounded(results.outputs[2][0])},
                  full ? Group{weight} : Group{}};
      p.outputs = {{output(m.dtype, sizes)}, {}, {}};
      if (full) p.outputs[1] = p.outputs[2] = {output(m.dtype, {6})};
      problems.push_back(p);
    }
  }
  return problems;
}

struct BatchVariant {
  bool training, affine, running;
};

Problems batch_problems(Maker& m, bool backward) {
  Problems problems;
  const BatchVariant variants[] = {{true, true, true}, {true, false, false}, {false, true, true}};
  for (const auto& v : variants) {
    for (const bool plane : {true, false}) {
      const auto sizes = plane ? m.shape({4, 6, 4, 6}) : m.shape({16, 6});
      const int64_t channels = sizes[1];
      if (m.is(Case::empty)) continue;
      auto in = m.real(sizes, -2, 3);
      const auto weight = m.real({channels}, 0.5, 1.5), bias = m.real({channels}, -1, 1);
      auto mean = m.real(statistics_dtype(m), {channels}, -1, 1),
           var = m.real(statistics_dtype(m), {channels}, 0.5, 2);
      // Updated in place: they cannot be repeated in memory.
      mean.broadcast_dim = var.broadcast_dim = Tensor::kNoDim;
      const Group running_mean = v.running ? Group{mean} : Group{},
                  running_var = v.running ? Group{var} : Group{};
      const Group given_weight = v.affine ? Group{weight} : Group{},
                  given_bias = v.affine ? Group{bias} : Group{};
      Problem p;
      p.note = std::string(v.training ? "training" : "evaluating") +
               (v.affine ? "" : ", nothing optional") + (plane ? "" : ", no plane");
      p.attributes = {integer(0, v.training), number(1, 1e-5), number(2, 0.2)};
      const bool saves = v.training && v.affine;
      if (!backward) {
        p.inputs = {{in}, given_weight, given_bias, running_mean, running_var};
        p.outputs = {{output(m.dtype, sizes)}, {}, {}};
        if (saves) p.outputs[1] = p.outputs[2] = {output(statistics_dtype(m), {channels})};
        problems.push_back(p);
        continue;
      }
      in.broadcast_dim = Tensor::kNoDim;
      Problem forward;
      forward.op = XHAL_OP_batch_norm;
      forward.attributes = {integer(0, 1), number(1, 1e-5)};
      forward.inputs = {{in}, {}, {}, {}, {}};
      forward.outputs = {{output(m.dtype, sizes)},
                         {output(statistics_dtype(m), {channels})},
                         {output(statistics_dtype(m), {channels})}};
      const auto results = ref::batch_norm(forward);
      p.attributes = {integer(0, v.training), number(1, 1e-5)};
      p.inputs = {{m.real(sizes)}, {in}, given_weight, running_mean, running_var, {}, {}};
      if (v.training) {
        p.inputs[5] = {rounded(results.outputs[1][0])};
        p.inputs[6] = {rounded(results.outputs[2][0])};
      }
      p.outputs = {{output(m.dtype, sizes)}, {}, {}};
      if (v.affine) p.outputs[1] = p.outputs[2] = {output(m.dtype, {channels})};
      problems.push_back(p);
    }
  }
  return problems;
}

}  // namespace

void add_norm_tests(OpTests& tests) {
  const auto& floats = dtypes_of('F');
  const auto rows = [](bool layer, bool backward) {
    return [=](Maker& m) { return row_problems(m, layer, backward); };
  };
  tests.push_back(
      {XHAL_OP_layer_norm, floats, rows(true, false), ref::row_norm, kAllCases, false, {}});
  tests.push_back({XHAL_OP_layer_norm_grad,
                   floats,
                   rows(true, true),
                   ref::row_norm_grad,
                   kAllCases,
                   false,
                   {}});
  tests.push_back(
      {XHAL_OP_rms_norm, floats, rows(false, false), ref::row_norm, kAllCases, false, {}});
  tests.push_back(
      {XHAL_OP_rms_norm_grad, floats, rows(false, true), ref::row_norm_grad, kAllCases, false, {}});
  const auto forward = [](auto function) {
    return [function](Maker& m) { return function(m, false); };
  };
  const auto backward = [](auto function) {
    return [function](Maker& m) { return function(m, true); };
  };
  tests.push_back(
      {XHAL_OP_group_norm, floats, forward(group_problems), ref::group_norm, kAllCases, false, {}});
  tests.push_back({XHAL_OP_group_norm_grad,
                   floats,
                   backward(group_problems),
                   ref::group_norm_grad,
                   kAllCases,
                   false,
                   {}});
  tests.push_back(
      {XHAL_OP_batch_norm, floats, forward(batch_problems), ref::batch_norm, kNotEmpty, false, {}});
  tests.push_back({XHAL_OP_batch_norm_grad,
                   floats,
                   backward(batch_problems),
                   ref::batch_norm_grad,
                   kNotEmpty,
                   false,
                   {}});
}

}  // namespace xhal::cts
