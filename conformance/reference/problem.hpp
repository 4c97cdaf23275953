// SPDX-License-Identifier: Apache-2.0
// problem.hpp: one request to an operator, with its data: what a plugin is asked and what
// the reference computes.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "reference/tensor.hpp"

namespace xhal::ref {

using Group = std::vector<Tensor>;  // empty = absent

struct Attribute {
  uint32_t index;
  std::variant<int64_t, double, std::vector<int64_t>> value;
};

using Scalar = std::variant<int64_t, double>;

// The output a problem asks for: values come from the reference.
struct Output {
  DType dtype = DType::f32;
  Sizes sizes;
  bool bounded = false;
};

struct Problem {
  uint32_t op = 0;
  std::string note;  // which of several problems of a test this is: "dim=0, ceil"
  std::vector<Attribute> attributes;
  std::vector<Scalar> scalars;  // the catalogue's, from the first on
  std::vector<Group> inputs;    // all groups of the catalogue
  std::vector<std::vector<Output>> outputs;

  const Tensor& in(size_t group) const { return inputs[group].at(0); }
  const Tensor* maybe(size_t group) const {
    return inputs[group].empty() ? nullptr : &inputs[group][0];
  }
  const Output& out(size_t group) const { return outputs[group].at(0); }

  int64_t integer(uint32_t index, int64_t otherwise) const {
    for (const auto& a : attributes) {
      if (a.index == index) return std::get<int64_t>(a.value);
    }
    return otherwise;
  }
  double number(uint32_t index, double otherwise) const {
    for (const auto& a : attributes) {
      if (a.index == index) return std::get<double>(a.value);
    }
    return otherwise;
  }
  std::vector<int64_t> integers(uint32_t index) const {
    for (const auto& a : attributes) {
      if (a.index == index) return std::get<std::vector<int64_t>>(a.value);
    }
    return {};
  }
  double scalar(size_t index, double otherwise) const {
    if (index >= scalars.size()) return otherwise;
    return std::visit([](auto v) { return static_cast<double>(v); }, scalars[index]);
  }
};

// Results, group by group, with sizes and dtype as the problem's outputs ask. Values are not
// yet rounded to the dtype. `updated` names inputs that the operator changes in place, with
// their new values.
struct Results {
  std::vector<Group> outputs;
  struct Updated {
    size_t group, position;
    Tensor values;
  };
  std::vector<Updated> updated;
};

// Empty result tensors as the problem asks for them.
inline Results empty_results(const Problem& p) {
  Results r;
  for (const auto& group : p.outputs) {
    auto& made = r.outputs.emplace_back();
    for (const auto& out : group) made.emplace_back(out.dtype, out.sizes);
  }
  return r;
}

using Reference = Results (*)(const Problem&);

}  // namespace xhal::ref
