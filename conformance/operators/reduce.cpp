// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Problem;
using ref::Sizes;
using Problems = std::vector<Problem>;

const std::vector<std::vector<int64_t>> kDimLists = {{}, {0}, {1}, {-1}, {0, 2}, {1, 2}, {0, 1, 2}};

Sizes without(const Sizes& sizes, const std::vector<int64_t>& dims, bool keep) {
  std::vector<bool> reduced(sizes.size(), dims.empty());
  for (const int64_t d : dims)
    reduced[static_cast<size_t>(ref::positive_dim(d, static_cast<int64_t>(sizes.size())))] = true;
  Sizes left;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (!reduced[d]) left.push_back(sizes[d]);
    if (reduced[d] && keep) left.push_back(1);
  }
  return left;
}

std::string text_of(const std::vector<int64_t>& dims) {
  std::string text = "dims";
  for (const int64_t d : dims) text += " " + std::to_string(d);
  return text;
}

enum class Result { same, wide, boolean };  // dtype of the output

DType result_dtype(DType in, Result result) {
  if (result == Result::boolean) return DType::boolean;
  if (result == Result::same || ref::is_float(in)) return in;
  return DType::i64;
}

struct Reduction {
  uint32_t id;
  char types;
  Result result;
  double low, high;
};

Problems reduction_problems(Maker& m, const Reduction& r) {
  Problems problems;
  const bool extreme = r.id == XHAL_OP_amax || r.id == XHAL_OP_amin;
  for (const auto& dims : kDimLists) {
    // In the empty case the last dim is empty; extremes of nothing are refused, so they keep
    // what they reduce.
    auto sizes = m.shape({6, 4, 20}, 2);
    if (extreme && m.is(Case::empty) && (dims.empty() || dims.back() == -1 || dims.back() == 2))
      continue;
    for (const bool keep : {false, true}) {
      Problem p;
      p.note = text_of(dims) + (keep ? ", kept" : "");
      p.attributes = {list(0, dims)};
      auto in = m.any(sizes, r.low, r.high);
      if (r.id == XHAL_OP_prod && !m.real_numbers() && m.dtype != DType::boolean) {
        in = m.integers(m.dtype, sizes, 1, 1);  // few are not 1: the product stays in range
        for (size_t k = 5; k < in.values.size(); k += 31) in.values[k] = 2;
      }
      if (r.id == XHAL_OP_all) {
        for (auto& v : in.values)
          v = ref::round_to(m.dtype, v == 0 || m.uniform(0, 1) < 0.95 ? 1 : 0);
      }
      if (r.id == XHAL_OP_any) {
        for (auto& v : in.values) v = m.uniform(0, 1) < 0.95 ? 0 : v;
      }
      if (!keep && (extreme || r.id == XHAL_OP_any || r.id == XHAL_OP_all))
        m.sprinkle_specials(in);  // NaN is not 0
      p.inputs = {{in}};
      p.outputs = {{output(result_dtype(m.dtype, r.result), without(sizes, dims, keep))}};
      problems.push_back(p);
    }
  }
  if (m.is(Case::odd)) {  // long enough that partial results are combined
    Problem p;
    p.note = "long";
    p.inputs = {{m.any({70001}, r.low, r.high)}};
    if (r.id == XHAL_OP_prod)
      p.inputs = {{m.dtype == DType::boolean ? m.flags({333})
                   : m.real_numbers()        ? m.real({333}, 0.9, 1.1)
                                             : m.integers(m.dtype, {333}, 1, 1)}};
    p.outputs = {{output(result_dtype(m.dtype, r.result), {})}};
    // The sum of a narrow float may leave its range.
    if (r.id != XHAL_OP_sum || m.dtype != DType::f16) problems.push_back(p);
  }
  return problems;
}

Problems norm_problems(Maker& m) {
  Problems problems;
  for (const auto& dims : kDimLists) {
    for (const double p_of_norm :
         {2.0, 1.0, 3.0, 0.0, static_cast<double>(INFINITY), -static_cast<double>(INFINITY)}) {
      const auto sizes = m.shape({6, 4, 20}, 0);
      const bool reduces_empty = m.is(Case::empty) && (dims.empty() || dims[0] == 0);
      if (std::isinf(p_of_norm) && reduces_empty) continue;
      Problem p;
      p.note = text_of(dims) + ", p " + std::to_string(p_of_norm);
      p.attributes = {list(0, dims), number(1, p_of_norm)};
      p.inputs = {{m.real(sizes)}};
      p.outputs = {{output(m.dtype, without(sizes, dims, false))}};
      problems.push_back(p);
    }
  }
  return problems;
}

Problems variance_problems(Maker& m) {
  Problems problems;
  for (const auto& dims : kDimLists) {
    for (int variant = 0; variant < 3; ++variant) {
      const auto sizes = m.shape({6, 4, 20}, 0);
      if (m.is(Case::empty) && (dims.empty() || dims[0] == 0)) continue;
      const auto left = without(sizes, dims, variant == 1);
      Problem p;
      p.note = text_of(dims) + ", variant " + std::to_string(variant);
      p.attributes = {list(0, dims), number(1, variant == 1 ? 0 : 1), integer(2, variant == 2)};
      p.inputs = {{m.real(sizes, -2, 3)}};
      p.outputs = {{output(m.dtype, left)}, {}};
      if (variant != 2) p.outputs[1] = {output(m.dtype, left)};
      problems.push_back(p);
    }
  }
  return problems;
}

Problems arg_problems(Maker& m) {
  Problems problems;
  for (const int64_t dim : {int64_t{0}, int64_t{1}, int64_t{-1}}) {
    for (const bool with_value : {true, false}) {
      const auto sizes = m.shape({6, 4, 20}, dim == 0 ? 1 : 0);
      const auto left = without(sizes, {dim}, with_value);
      Problem p;
      p.note = "dim " + std::to_string(dim);
      p.attributes = {integer(0, dim)};
      auto in = m.any(sizes);
      if (with_value) m.sprinkle_specials(in);
      p.inputs = {{in}};
      p.outputs = {{}, {output(DType::i64, left)}};
      if (with_value) p.outputs[0] = {output(m.dtype, left)};
      problems.push_back(p);
    }
  }
  if (!m.is(Case::empty)) {
    Problem p;
    p.note = "all";
    const auto sizes = m.shape({6, 4, 20});
    p.attributes = {integer(1, 1)};
    p.inputs = {{m.any(sizes)}};
    p.outputs = {{}, {output(DType::i64, {})}};
    problems.push_back(p);
  }
  return problems;
}

Problems cumsum_problems(Maker& m) {
  Problems problems;
  const DType result = m.dtype == DType::boolean ? DType::i64 : m.dtype;
  for (const int64_t dim : {int64_t{0}, int64_t{1}, int64_t{-1}}) {
    const auto sizes = m.shape({6, 4, 20}, 0);
    Problem p;
    p.note = "dim " + std::to_string(dim);
    p.attributes = {integer(0, dim)};
    p.inputs = {{m.any(sizes)}};
    p.outputs = {{output(result, sizes)}};
    problems.push_back(p);
  }
  return problems;
}

}  // namespace

void add_reduce_tests(OpTests& tests) {
  static const Reduction kReductions[] = {
      {XHAL_OP_sum, 'A', Result::wide, -4, 4},     {XHAL_OP_mean, 'F', Result::same, -4, 4},
      {XHAL_OP_prod, 'A', Result::wide, 0.7, 1.3}, {XHAL_OP_amax, 'A', Result::same, -4, 4},
      {XHAL_OP_amin, 'A', Result::same, -4, 4},    {XHAL_OP_any, 'A', Result::boolean, -4, 4},
      {XHAL_OP_all, 'A', Result::boolean, -4, 4}};
  for (const auto& r : kReductions) {
    tests.push_back({r.id,
                     dtypes_of(r.types),
                     [&r](Maker& m) { return reduction_problems(m, r); },
                     ref::reduce,
                     kAllCases,
                     true,
                     {}});
  }
  tests.push_back({XHAL_OP_norm, dtypes_of('F'), norm_problems, ref::reduce, kAllCases, true, {}});
  tests.push_back(
      {XHAL_OP_var, dtypes_of('F'), variance_problems, ref::variance, kAllCases, true, {}});
  tests.push_back(
      {XHAL_OP_argmax, dtypes_of('N'), arg_problems, ref::arg_extreme, kAllCases, true, {}});
  tests.push_back(
      {XHAL_OP_argmin, dtypes_of('N'), arg_problems, ref::arg_extreme, kAllCases, true, {}});
  tests.push_back(
      {XHAL_OP_cumsum, dtypes_of('A'), cumsum_problems, ref::cumsum, kAllCases, true, {}});
  auto& scan = tests.back();
  scan.dtypes.pop_back();  // bool cannot run in place: its sum is an i64
  tests.push_back({XHAL_OP_cumsum,
                   {DType::boolean},
                   cumsum_problems,
                   ref::cumsum,
                   kAllCases & ~bit(Case::aliased),
                   true,
                   {}});
}

}  // namespace xhal::cts
