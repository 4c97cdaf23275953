// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Group;
using ref::Problem;
using ref::Scalar;
using ref::Sizes;
using Problems = std::vector<Problem>;

// Every tensor of a list is contiguous by contract.
constexpr unsigned kListCases =
    bit(Case::plain) | bit(Case::odd) | bit(Case::empty) | bit(Case::aliased);

std::vector<Sizes> list_sizes(const Maker& m) {
  if (m.is(Case::empty)) return {{0}, {4, 0}, {8}};
  if (m.is(Case::odd)) return {{1}, {17}, {3, 33}, {20011}};
  return {{16}, {4, 8}, {}, {256}};
}

Group list_of(Maker& m, double low, double high) {
  Group group;
  for (const auto& sizes : list_sizes(m)) {
    group.push_back(m.dtype == DType::boolean || !m.real_numbers() ? m.any(sizes)
                                                                   : m.real(sizes, low, high));
  }
  return group;
}

std::vector<ref::Output> like(const Group& group, DType type) {
  std::vector<ref::Output> outputs;
  for (const auto& t : group) outputs.push_back(output(type, t.sizes));
  return outputs;
}

ref::Tensor number_tensor(DType type, double value) {
  ref::Tensor t(type, {});
  t.values[0] = value;
  return t;
}

Problems adamw_problems(Maker& m) {
  struct Variant {
    const char* note;
    int64_t amsgrad, maximize, decoupled;
    int found;  // -1: no found_inf
  };
  Problems problems;
  for (const auto& v :
       {Variant{"AdamW", 0, 0, 1, -1}, Variant{"Adam", 0, 0, 0, 0}, Variant{"amsgrad", 1, 0, 1, -1},
        Variant{"maximize", 0, 1, 1, -1}, Variant{"overflow found", 1, 0, 1, 1}}) {
    // Nothing changes then: only in place is that a result.
    if (v.found == 1 && !m.is(Case::aliased)) continue;
    const auto param = list_of(m, -2, 2), grad = list_of(m, -1, 1), average = list_of(m, -1, 1);
    const auto square = list_of(m, 0.01, 1), largest = list_of(m, 0.01, 1);
    Group steps;
    for (size_t i = 0; i < param.size(); ++i)
      steps.push_back(number_tensor(DType::f32, static_cast<double>(3 + i)));
    Problem p;
    p.note = v.note;
    p.attributes = {integer(0, v.amsgrad), integer(1, v.maximize), integer(2, v.decoupled)};
    p.scalars = {0.01, 0.875, 0.96875, 0.125, 0.0009765625, 2.0};
    p.inputs = {param, grad, average, square, v.amsgrad ? largest : Group{}, steps, {}};
    if (v.found >= 0) p.inputs[6] = {number_tensor(DType::f32, v.found)};
    p.outputs = {like(param, m.dtype),
                 like(param, m.dtype),
                 like(param, m.dtype),
                 {},
                 like(steps, DType::f32)};
    if (v.amsgrad) p.outputs[3] = like(param, m.dtype);
    problems.push_back(p);
  }
  return problems;
}

Problems sgd_problems(Maker& m) {
  struct Variant {
    const char* note;
    bool momentum;
    int64_t nesterov, maximize, first;
    int found;
  };
  Problems problems;
  for (const auto& v :
       {Variant{"plain", false, 0, 0, 0, -1}, Variant{"momentum", true, 0, 0, 0, 0},
        Variant{"first", true, 0, 0, 1, -1}, Variant{"nesterov", true, 1, 0, 0, -1},
        Variant{"maximize", true, 0, 1, 0, -1}, Variant{"overflow found", true, 0, 0, 0, 1}}) {
    // Nothing changes then: only in place is that a result.
    if (v.found == 1 && !m.is(Case::aliased)) continue;
    const auto param = list_of(m, -2, 2), grad = list_of(m, -1, 1), momentum = list_of(m, -1, 1);
    Problem p;
    p.note = v.note;
    p.attributes = {integer(0, v.nesterov), integer(1, v.maximize), integer(2, v.first)};
    p.scalars = {0.125, v.momentum ? 0.75 : 0.0, 0.25, 0.0625, 2.0};
    if (v.nesterov) p.scalars[2] = 0.0;
    p.inputs = {param, grad, v.momentum ? momentum : Group{}, {}};
    if (v.found >= 0) p.inputs[3] = {number_tensor(DType::f32, v.found)};
    p.outputs = {like(param, m.dtype), {}};
    if (v.momentum) p.outputs[1] = like(param, m.dtype);
    problems.push_back(p);
  }
  return problems;
}

Problems unscale_problems(Maker& m) {
  Problems problems;
  for (const int bad : {0, 1, 2}) {
    for (const double before : {0.0, 1.0}) {
      auto in = list_of(m, -4, 4);
      if (bad > 0 && !in.back().values.empty()) in.back().values.back() = bad == 1 ? INFINITY : NAN;
      Problem p;
      p.note = bad == 0 ? "all finite" : bad == 1 ? "an infinity" : "a NaN";
      p.inputs = {in, {number_tensor(DType::f32, before)}, {number_tensor(DType::f32, 0.25)}};
      p.outputs = {like(in, m.dtype), {output(DType::f32, {})}};
      problems.push_back(p);
    }
  }
  return problems;
}

Problems update_scale_problems(Maker& m) {
  Problems problems;
  for (const double found : {0.0, 1.0}) {
    for (const double tracker : {0.0, 2.0, 3.0}) {
      Problem p;
      p.note = "found " + std::to_string(found) + ", tracker " + std::to_string(tracker);
      p.scalars = {2.0, 0.5, int64_t{4}};
      const DType whole = m.is(Case::odd) ? DType::i64 : DType::i32;
      p.inputs = {{number_tensor(DType::f32, 1024)},
                  {number_tensor(whole, tracker)},
                  {number_tensor(DType::f32, found)}};
      p.outputs = {{output(DType::f32, {})}, {output(whole, {})}};
      problems.push_back(p);
    }
  }
  return problems;
}

Scalar number_like(const Maker& m, double value) {
  return m.real_numbers() ? Scalar(value) : Scalar(static_cast<int64_t>(value));
}

// out = f(lists): how many list groups there are, and which of them may be left out.
struct ListOperator {
  uint32_t id;
  char types;
  int lists;
  bool last_list_is_optional;
  std::vector<double> scalars;
  bool divides = false, has_factor = false;
};

Problems list_problems(Maker& m, const ListOperator& op) {
  Problems problems;
  for (const bool without_last : {false, true}) {
    if (without_last && !op.last_list_is_optional) continue;
    Problem p;
    p.note = without_last ? "without the last list" : "";
    for (const double s : op.scalars) p.scalars.push_back(number_like(m, s));
    for (int i = 0; i < op.lists; ++i) {
      const bool last = i + 1 == op.lists;
      p.inputs.push_back(last && without_last ? Group{}
                                              : list_of(m,
                                                        last && op.divides            ? 0.5
                                                        : op.id == XHAL_OP_multi_sqrt ? 0
                                                                                      : -4,
                                                        4));
    }
    if (op.has_factor)
      p.inputs.push_back(without_last ? Group{} : Group{number_tensor(m.dtype, 0.75)});
    p.outputs = {like(p.inputs[0], m.dtype)};
    problems.push_back(p);
  }
  return problems;
}

Problems norm_problems(Maker& m) {
  Problems problems;
  for (const double power : {2.0, 1.0, 3.0, static_cast<double>(INFINITY)}) {
    Problem p;
    p.note = "p " + std::to_string(power);
    p.attributes = {number(0, power)};
    p.inputs = {list_of(m, -1, 1)};
    if (std::isinf(power))
      std::erase_if(p.inputs[0], [](const auto& t) { return t.values.empty(); });
    p.outputs = {{}};
    for (size_t i = 0; i < p.inputs[0].size(); ++i) p.outputs[0].push_back(output(m.dtype, {}));
    problems.push_back(p);
  }
  return problems;
}

Problems copy_problems(Maker& m) {
  Problems problems;
  for (const DType to : dtypes_of('A')) {
    Group in;
    for (const auto& sizes : list_sizes(m))
      in.push_back(m.any(sizes, ref::is_unsigned(to) ? 0 : -4, 4));
    Problem p;
    p.note = "to " + std::string(ref::name_of(to));
    p.inputs = {in};
    p.outputs = {like(in, to)};
    problems.push_back(p);
  }
  return problems;
}

}  // namespace

void add_optimizer_tests(OpTests& tests) {
  const auto& floats = dtypes_of('F');
  const auto add = [&](uint32_t id, const std::vector<DType>& types, auto problems,
                       ref::Reference reference) {
    tests.push_back({id, types, problems, reference, kListCases, false, {}});
  };
  add(XHAL_OP_multi_adamw, floats, adamw_problems, ref::multi_adamw);
  add(XHAL_OP_multi_sgd, floats, sgd_problems, ref::multi_sgd);
  add(XHAL_OP_multi_unscale, floats, unscale_problems, ref::multi_unscale);
  tests.push_back({XHAL_OP_update_scale,
                   {DType::f32},
                   update_scale_problems,
                   ref::update_scale,
                   bit(Case::plain) | bit(Case::odd) | bit(Case::aliased),
                   false,
                   {}});
  static const ListOperator kLists[] = {{XHAL_OP_multi_axpby, 'N', 2, true, {3, 2}},
                                        {XHAL_OP_multi_mul, 'F', 2, true, {0.5}, false, true},
                                        {XHAL_OP_multi_div, 'F', 2, true, {4}, true},
                                        {XHAL_OP_multi_lerp, 'F', 2, false, {0.3}},
                                        {XHAL_OP_multi_addcmul, 'F', 3, false, {0.3}},
                                        {XHAL_OP_multi_addcdiv, 'F', 3, false, {0.3}, true},
                                        {XHAL_OP_multi_sqrt, 'F', 1, false, {}}};
  for (const auto& op : kLists)
    add(
        op.id, dtypes_of(op.types), [&op](Maker& m) { return list_problems(m, op); },
        ref::multi_pointwise);
  add(XHAL_OP_multi_norm, floats, norm_problems, ref::multi_norm);
  add(XHAL_OP_multi_copy, dtypes_of('A'), copy_problems, ref::multi_pointwise);
}

}  // namespace xhal::cts
