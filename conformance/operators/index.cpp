// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Problem;
using ref::Scalar;
using ref::Sizes;
using ref::Tensor;
using Problems = std::vector<Problem>;

std::string dim_note(int64_t dim) { return "dim " + std::to_string(dim); }

// Indices are i64 in most cases and i32 in the odd one.
DType index_dtype(const Maker& m) { return m.is(Case::odd) ? DType::i32 : DType::i64; }

Tensor indices(Maker& m, const Sizes& sizes, int64_t bound) {
  return m.integers(index_dtype(m), sizes, 0, bound - 1);
}

// A dim that is empty in the empty case but is not the one indexed.
Sizes shape_beside(Maker& m, int64_t dim) { return m.shape({6, 8, 10}, dim == 0 ? 1 : 0); }

constexpr int64_t kDims[] = {0, 1, -1};

Problems index_select_problems(Maker& m) {
  Problems problems;
  for (const int64_t dim : kDims) {
    const auto sizes = shape_beside(m, dim);
    const auto d = ref::positive_dim(dim, 3);
    Problem p;
    p.note = dim_note(dim);
    p.attributes = {integer(0, dim)};
    p.inputs = {{m.any(sizes)}, {indices(m, {7}, sizes[static_cast<size_t>(d)])}};
    p.outputs = {{output(m.dtype, ref::with(sizes, d, 7))}};
    problems.push_back(p);
  }
  if (m.is(Case::empty)) {
    Problem p;
    p.note = "no index";
    p.inputs = {{m.any({5, 4})}, {indices(m, {0}, 5)}};
    p.outputs = {{output(m.dtype, {0, 4})}};
    problems.push_back(p);
  }
  return problems;
}

Problems embedding_grad_problems(Maker& m) {
  Problems problems;
  for (const int64_t padding : {-1, 2}) {
    const auto shape = m.shape({24, 16});
    Problem p;
    p.note = "padding " + std::to_string(padding);
    p.attributes = {integer(0, padding)};
    p.inputs = {{m.real(shape)}, {indices(m, {shape[0]}, 9)}};
    p.outputs = {{output(m.dtype, {9, shape[1]})}};
    problems.push_back(p);
  }
  return problems;
}

Problems gather_problems(Maker& m) {
  Problems problems;
  for (const int64_t dim : kDims) {
    const auto sizes = shape_beside(m, dim);
    const auto d = ref::positive_dim(dim, 3);
    const auto out = ref::with(sizes, d, 5);
    Problem p;
    p.note = dim_note(dim);
    p.attributes = {integer(0, dim)};
    p.inputs = {{m.any(sizes)}, {indices(m, out, sizes[static_cast<size_t>(d)])}};
    p.outputs = {{output(m.dtype, out)}};
    problems.push_back(p);
  }
  return problems;
}

// Indices along `dim` that name each place at most once: what is set twice has no right answer
// but the order.
Tensor distinct_indices(Maker& m, const Sizes& sizes, int64_t dim, int64_t bound) {
  Tensor t(index_dtype(m), sizes);
  std::vector<int64_t> order(static_cast<size_t>(bound));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::reverse(order.begin(), order.end());
  for (ref::Position at(sizes); !at.done(); at.next()) {
    const int64_t row = at.at()[static_cast<size_t>(dim)];
    t(at.at()) = static_cast<double>(order[static_cast<size_t>((row * 3 + 1) % bound)]);
  }
  t.broadcast_dim = Tensor::kNoDim;
  return t;
}

Scalar number_like(const Maker& m, double value) {
  return m.real_numbers() ? Scalar(value)
                          : Scalar(static_cast<int64_t>(m.dtype == DType::boolean ? 1 : value));
}

Problems scatter_problems(Maker& m) {
  Problems problems;
  for (const int64_t dim : kDims) {
    for (const int64_t reduce : {0, 1, 2}) {
      for (const bool with_src : {true, false}) {
        if (m.dtype == DType::boolean && reduce != 0) continue;
        auto sizes = shape_beside(m, dim);
        const auto d = ref::positive_dim(dim, 3);
        sizes[static_cast<size_t>(d)] = 11;  // 3 has no common divisor with it
        const auto chosen = ref::with(sizes, d, 5);
        Problem p;
        p.note = dim_note(dim) + ", reduce " + std::to_string(reduce) + (with_src ? "" : ", value");
        p.attributes = {integer(0, dim), integer(1, reduce)};
        p.scalars = {number_like(m, 3)};
        const auto where =
            reduce == 1 ? indices(m, chosen, 11) : distinct_indices(m, chosen, d, 11);
        p.inputs = {{m.any(sizes)}, {where}, {}};
        if (with_src) p.inputs[2] = {m.any(chosen)};
        p.outputs = {{output(m.dtype, sizes)}};
        problems.push_back(p);
      }
    }
  }
  return problems;
}

struct Indexing {
  std::vector<int64_t> dims;
  Sizes broadcast;
};
const Indexing kIndexings[] = {{{0}, {5}},    {{1}, {2, 3}},    {{2}, {4}},
                               {{0, 1}, {7}}, {{1, 2}, {2, 2}}, {{0, 1, 2}, {9}}};

Sizes indexed_sizes(const Sizes& in, const Indexing& i) {
  Sizes out(in.begin(), in.begin() + i.dims[0]);
  out.insert(out.end(), i.broadcast.begin(), i.broadcast.end());
  out.insert(out.end(), in.begin() + i.dims[0] + static_cast<int64_t>(i.dims.size()), in.end());
  return out;
}

ref::Group advanced_indices(Maker& m, const Sizes& in, const Indexing& i, bool distinct) {
  ref::Group group;
  for (size_t k = 0; k < i.dims.size(); ++k) {
    const int64_t bound = in[static_cast<size_t>(i.dims[k])];
    auto t = m.integers(index_dtype(m), i.broadcast, -bound, bound - 1);
    if (distinct) {
      // Rising and without wrapping: no two of them name the same element.
      for (size_t e = 0; e < t.values.size(); ++e)
        t.values[e] = static_cast<double>(k == 0 ? static_cast<int64_t>(e) % bound
                                                 : static_cast<int64_t>(e) /
                                                       in[static_cast<size_t>(i.dims[0])] % bound);
      t.broadcast_dim = Tensor::kNoDim;
    }
    group.push_back(t);
  }
  return group;
}

Problems index_problems(Maker& m) {
  Problems problems;
  for (const auto& i : kIndexings) {
    const bool last_is_indexed = i.dims.back() == 2;
    if (m.is(Case::empty) && last_is_indexed && i.dims.front() == 0) continue;
    const auto sizes = m.shape({6, 8, 10}, i.dims.front() == 0 ? 2 : 0);
    Problem p;
    p.note = "from " + dim_note(i.dims[0]) + ", " + std::to_string(i.dims.size()) + " indices";
    p.attributes = {list(0, i.dims)};
    p.inputs = {{m.any(sizes)}, advanced_indices(m, sizes, i, false)};
    p.outputs = {{output(m.dtype, indexed_sizes(sizes, i))}};
    problems.push_back(p);
  }
  return problems;
}

Problems index_put_problems(Maker& m) {
  Problems problems;
  for (const auto& i : kIndexings) {
    for (const int64_t accumulate : {0, 1}) {
      if (m.dtype == DType::boolean && accumulate == 1) continue;
      if (m.is(Case::empty) && i.dims.back() == 2 && i.dims.front() == 0) continue;
      const auto sizes = m.shape({6, 8, 10}, i.dims.front() == 0 ? 2 : 0);
      Problem p;
      p.note = "from " + dim_note(i.dims[0]) + ", " + std::to_string(i.dims.size()) + " indices" +
               (accumulate ? ", added" : "");
      p.attributes = {list(0, i.dims), integer(1, accumulate)};
      const bool distinct =
          accumulate == 0 && ref::count_of(i.broadcast) <= sizes[static_cast<size_t>(i.dims[0])];
      if (accumulate == 0 && !distinct && i.dims.size() == 1) continue;
      p.inputs = {{m.any(sizes)},
                  {m.any(indexed_sizes(sizes, i))},
                  advanced_indices(m, sizes, i, accumulate == 0)};
      p.outputs = {{output(m.dtype, sizes)}};
      problems.push_back(p);
    }
  }
  return problems;
}

Problems index_add_problems(Maker& m) {
  Problems problems;
  for (const int64_t dim : kDims) {
    const auto sizes = shape_beside(m, dim);
    const auto d = ref::positive_dim(dim, 3);
    Problem p;
    p.note = dim_note(dim);
    p.attributes = {integer(0, dim)};
    p.scalars = {number_like(m, 2)};
    p.inputs = {{m.any(sizes)},
                {indices(m, {9}, sizes[static_cast<size_t>(d)])},
                {m.any(ref::with(sizes, d, 9))}};
    p.outputs = {{output(m.dtype, sizes)}};
    problems.push_back(p);
  }
  return problems;
}

Problems cat_problems(Maker& m) {
  Problems problems;
  for (const int64_t dim : kDims) {
    const auto sizes = shape_beside(m, dim);
    const auto d = ref::positive_dim(dim, 3);
    Problem p;
    p.note = dim_note(dim);
    p.attributes = {integer(0, dim)};
    p.inputs = {{}};
    int64_t total = 0;
    for (const int64_t part : {3, 1, 0, 8, 5}) {
      auto t = m.any(ref::with(sizes, d, part));
      p.inputs[0].push_back(t);
      total += part;
    }
    p.outputs = {{output(m.dtype, ref::with(sizes, d, total))}};
    problems.push_back(p);
  }
  return problems;
}

Problems triangle_problems(Maker& m) {
  Problems problems;
  for (const int64_t diagonal : {0, 2, -3, 50, -50}) {
    for (const bool batched : {false, true}) {
      const auto sizes = batched ? m.shape({3, 8, 12}) : m.shape({12, 8});
      Problem p;
      p.note = "diagonal " + std::to_string(diagonal);
      p.attributes = {integer(0, diagonal)};
      p.inputs = {{m.any(sizes)}};
      p.outputs = {{output(m.dtype, sizes)}};
      problems.push_back(p);
    }
  }
  return problems;
}

Problems arange_problems(Maker& m) {
  Problems problems;
  for (const int64_t step : {1, 2}) {
    const auto sizes = m.shape({30});
    Problem p;
    p.note = "step " + std::to_string(step);
    p.scalars = {number_like(m, 3), m.real_numbers() && step == 2
                                        ? Scalar(0.25)
                                        : number_like(m, static_cast<double>(step))};
    p.outputs = {{output(m.dtype, sizes)}};
    problems.push_back(p);
  }
  return problems;
}

Problems flip_problems(Maker& m) {
  Problems problems;
  for (const auto& dims : std::vector<std::vector<int64_t>>{{0}, {-1}, {0, 2}, {0, 1, 2}, {}}) {
    const auto sizes = m.shape({4, 6, 16});
    Problem p;
    p.note = std::to_string(dims.size()) + " dims";
    p.attributes = {list(0, dims)};
    p.inputs = {{m.any(sizes)}};
    p.outputs = {{output(m.dtype, sizes)}};
    problems.push_back(p);
  }
  return problems;
}

Problems order_problems(Maker& m, bool topk) {
  Problems problems;
  for (const int64_t dim : kDims) {
    for (const int64_t variant : {0, 1, 2}) {
      if (variant == 2 && (!topk || dim != -1)) continue;
      const int64_t upwards = variant != 0, k = variant == 2 ? 1 : 3;  // the last: all by default
      const auto sizes = shape_beside(m, dim);
      const auto d = ref::positive_dim(dim, 3);
      auto in = m.any(sizes);
      if (upwards == 1) m.sprinkle_specials(in);
      Problem p;
      p.note = dim_note(dim) + ", " + (topk ? "largest " : "descending ") + std::to_string(upwards);
      p.attributes =
          topk ? std::vector<ref::Attribute>{integer(0, k), integer(1, dim), integer(2, upwards)}
               : std::vector<ref::Attribute>{integer(0, dim), integer(1, upwards)};
      const auto out = topk ? ref::with(sizes, d, k) : sizes;
      p.inputs = {{in}};
      p.outputs = {{output(m.dtype, out)}, {output(DType::i64, out)}};
      problems.push_back(p);
    }
  }
  return problems;
}

Problems nonzero_problems(Maker& m) {
  Problems problems;
  for (const auto& given : std::vector<Sizes>{{40}, {6, 10}, {3, 4, 6}}) {
    const auto sizes = m.shape(given);
    auto in = m.any(sizes);
    for (size_t i = 0; i < in.values.size(); i += 3) in.values[i] = 0;
    Problem p;
    p.note = std::to_string(sizes.size()) + " dims";
    p.inputs = {{in}};
    p.outputs = {{{DType::i64, {ref::count_of(sizes), static_cast<int64_t>(sizes.size())}, true}},
                 {output(DType::i64, {})}};
    problems.push_back(p);
  }
  return problems;
}

// Blocks that fit the row, that do not, and one that is longer than it.
Problems block_problems(Maker& m, bool forwards) {
  Problems problems;
  for (const int64_t block : {32, 7, 100}) {
    const auto sizes = m.shape({3, 64});
    const auto scales = ref::with(sizes, 1, (sizes[1] + block - 1) / block);
    Problem p;
    p.note = "block " + std::to_string(block);
    p.attributes = {integer(0, block)};
    if (forwards) {
      auto in = m.any(sizes);
      if (block == 7) m.sprinkle_specials(in);
      if (block == 32 && !m.is(Case::empty)) std::fill_n(in.values.begin(), 32, 0.0);
      p.inputs = {{in}};
      p.outputs = {{output(DType::i8, sizes)}, {output(DType::f32, scales)}};
    } else {
      p.inputs = {{m.integers(DType::i8, sizes, -127, 127)}, {m.real(DType::f32, scales, 0, 0.1)}};
      p.outputs = {{output(m.dtype, sizes)}};
    }
    problems.push_back(p);
  }
  return problems;
}

}  // namespace

void add_index_tests(OpTests& tests) {
  const auto add = [&](uint32_t id, char types, auto problems, ref::Reference reference,
                       unsigned cases = kAllCases) {
    tests.push_back({id, dtypes_of(types), problems, reference, cases, false, {}});
  };
  add(XHAL_OP_index_select, 'A', index_select_problems, ref::index_select);
  add(XHAL_OP_embedding_grad, 'F', embedding_grad_problems, ref::embedding_grad);
  add(XHAL_OP_gather, 'A', gather_problems, ref::gather);
  add(XHAL_OP_scatter, 'A', scatter_problems, ref::scatter);
  add(XHAL_OP_index, 'A', index_problems, ref::index);
  add(XHAL_OP_index_put, 'A', index_put_problems, ref::index_put);
  add(XHAL_OP_index_add, 'N', index_add_problems, ref::index_add);
  add(XHAL_OP_cat, 'A', cat_problems, ref::cat);
  add(XHAL_OP_tril, 'A', triangle_problems, ref::triangle);
  add(XHAL_OP_triu, 'A', triangle_problems, ref::triangle);
  add(XHAL_OP_arange, 'N', arange_problems, ref::arange, kNoBroadcast);
  add(XHAL_OP_flip, 'A', flip_problems, ref::flip);
  add(
      XHAL_OP_topk, 'N', [](Maker& m) { return order_problems(m, true); }, ref::sort);
  add(
      XHAL_OP_sort, 'A', [](Maker& m) { return order_problems(m, false); }, ref::sort);
  add(XHAL_OP_nonzero, 'A', nonzero_problems, ref::nonzero);
  add(
      XHAL_OP_quantise_block, 'F', [](Maker& m) { return block_problems(m, true); },
      ref::quantise_block);
  add(
      XHAL_OP_dequantise_block, 'F', [](Maker& m) { return block_problems(m, false); },
      ref::quantise_block);
}

}  // namespace xhal::cts
