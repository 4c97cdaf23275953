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

struct Gemm {
  int64_t batch, m, n, k;  // batch 0: no batch dim
  bool with_c, with_bias;
  int64_t activation;
  double alpha, beta;
};

Problems gemm_problems(Maker& m) {
  std::vector<Gemm> list = {
      {0, 16, 32, 24, false, false, 0, 1, 1}, {0, 8, 16, 40, true, false, 0, 0.5, 2},
      {0, 8, 16, 12, true, false, 0, 1, 0},   {0, 24, 16, 16, false, true, 1, 1, 1},
      {0, 24, 16, 16, false, true, 2, 1, 1},  {0, 24, 16, 16, false, true, 3, 1, 1},
      {4, 8, 12, 16, false, false, 0, 1, 1},  {4, 8, 12, 16, true, true, 0, 1, 1}};
  if (m.is(Case::odd)) {
    list.push_back({0, 1, 1, 1, false, false, 0, 1, 1});
    list.push_back({0, 1, 67, 129, false, true, 0, 1, 1});
    list.push_back({0, 131, 1, 33, false, false, 0, 1, 1});
    list.push_back({0, 97, 101, 257, false, false, 0, 1, 1});
    list.push_back({2, 33, 65, 17, false, false, 0, 1, 1});
  }
  Problems problems;
  for (const auto& g : list) {
    // Empty: no rows, then nothing to contract, which leaves beta * c + bias.
    for (int empty = 0; empty < (m.is(Case::empty) ? 2 : 1); ++empty) {
      Sizes shape = m.shape({g.m, g.n, g.k}, empty == 0 ? 0 : 2);
      const auto matrix = [&](int64_t rows, int64_t columns) {
        return g.batch > 0 ? Sizes{g.batch, rows, columns} : Sizes{rows, columns};
      };
      Problem p;
      p.note = "m " + std::to_string(shape[0]) + ", n " + std::to_string(shape[1]) + ", k " +
               std::to_string(shape[2]) + ", batch " + std::to_string(g.batch) +
               (g.with_c ? ", c" : "") + (g.with_bias ? ", bias" : "");
      p.attributes = {integer(0, g.activation)};
      p.scalars = {g.alpha, g.beta};
      p.inputs = {{m.real(matrix(shape[0], shape[2]), -2, 2)},
                  {m.real(matrix(shape[2], shape[1]), -2, 2)},
                  {},
                  {}};
      if (g.with_c) p.inputs[2] = {m.real(matrix(shape[0], shape[1]))};
      if (g.with_bias) p.inputs[3] = {m.real({shape[1]})};
      p.outputs = {{output(m.dtype, matrix(shape[0], shape[1]))}};
      problems.push_back(p);
      if (m.dtype != DType::f32 && !g.with_c && !g.with_bias) {
        p.note += ", out is f32";
        p.outputs[0][0].dtype = DType::f32;
        problems.push_back(p);
      }
    }
  }
  return problems;
}

struct Attention {
  int64_t batch, heads, key_heads, queries, keys, dim;
  bool causal;
  int mask;  // 0 none, 1 bool, 2 added
  double scale;
};

const std::vector<Attention>& attentions() {
  static const std::vector<Attention> list = {
      {2, 2, 2, 8, 8, 16, false, 0, 0}, {1, 4, 2, 6, 10, 8, false, 0, 0.3},
      {2, 2, 1, 8, 8, 16, true, 0, 0},  {1, 2, 2, 8, 12, 8, false, 1, 0},
      {1, 2, 2, 8, 12, 8, false, 2, 0}, {1, 1, 1, 70, 70, 16, true, 0, 0}};
  return list;
}

struct AttentionInputs {
  Tensor q, k, v;
  ref::Group mask;
};

AttentionInputs attention_inputs(Maker& m, const Attention& a, const Sizes& s) {
  AttentionInputs in{m.real({s[0], a.heads, s[1], s[3]}, -2, 2),
                     m.real({s[0], a.key_heads, s[2], s[3]}, -2, 2),
                     m.real({s[0], a.key_heads, s[2], s[3]}, -2, 2),
                     {}};
  const Sizes scores = {s[0], a.heads, s[1], s[2]};
  if (a.mask == 1) {
    auto mask = m.flags(scores);
    for (ref::Position at(scores); !at.done(); at.next()) {
      if (at.at()[3] == 0) mask(at.at()) = 1;  // no row without a key
    }
    mask.broadcast_dim = 1;
    in.mask = {mask};
  }
  if (a.mask == 2) {
    in.mask = {m.real(scores, -1, 1)};
    in.mask[0].broadcast_dim = 0;
  }
  return in;
}

std::vector<ref::Attribute> attention_attributes(const Attention& a) {
  return {integer(0, a.causal), number(1, a.scale), number(2, 0)};
}

Problems sdpa_problems(Maker& m) {
  Problems problems;
  for (const auto& a : attentions()) {
    const auto s = m.shape({a.batch, a.queries, a.keys, a.dim});
    const auto in = attention_inputs(m, a, s);
    Problem p;
    p.note = std::string(a.causal ? "causal, " : "") + "mask " + std::to_string(a.mask) +
             ", heads " + std::to_string(a.heads) + "/" + std::to_string(a.key_heads) + ", s " +
             std::to_string(s[1]);
    p.attributes = attention_attributes(a);
    p.inputs = {{in.q}, {in.k}, {in.v}, in.mask};
    p.outputs = {{output(m.dtype, in.q.sizes)}, {output(DType::f32, {s[0], a.heads, s[1]})}};
    problems.push_back(p);
  }
  return problems;
}

Problems sdpa_grad_problems(Maker& m) {
  Problems problems;
  for (const auto& a : attentions()) {
    const auto s = m.shape({a.batch, a.queries, a.keys, a.dim});
    auto in = attention_inputs(m, a, s);
    // Forward results that fit the inputs: the gradient is asked about them. Only grad
    // may be repeated.
    for (auto* t : {&in.q, &in.k, &in.v}) t->broadcast_dim = Tensor::kNoDim;
    for (auto& t : in.mask) t.broadcast_dim = Tensor::kNoDim;
    Problem forward;
    forward.op = XHAL_OP_sdpa;
    forward.attributes = attention_attributes(a);
    forward.inputs = {{in.q}, {in.k}, {in.v}, in.mask};
    forward.outputs = {{output(m.dtype, in.q.sizes)}, {output(DType::f32, {s[0], a.heads, s[1]})}};
    auto results = ref::sdpa(forward);
    auto &out = results.outputs[0][0], &log_sum = results.outputs[1][0];
    for (auto& v : log_sum.values) v = ref::round_to(DType::f32, v);
    for (auto& v : out.values) v = ref::round_to(m.dtype, v);
    out.broadcast_dim = log_sum.broadcast_dim = Tensor::kNoDim;
    Problem p;
    p.note = std::string(a.causal ? "causal, " : "") + "mask " + std::to_string(a.mask) +
             ", heads " + std::to_string(a.heads) + "/" + std::to_string(a.key_heads) + ", s " +
             std::to_string(s[1]);
    p.attributes = attention_attributes(a);
    p.inputs = {{m.real(in.q.sizes, -2, 2)}, {in.q}, {in.k}, {in.v}, {out}, {log_sum}, in.mask};
    p.outputs = {{output(m.dtype, in.q.sizes)},
                 {output(m.dtype, in.k.sizes)},
                 {output(m.dtype, in.v.sizes)}};
    problems.push_back(p);
  }
  return problems;
}

Problems rope_problems(Maker& m) {
  Problems problems;
  for (const int64_t interleaved : {0, 1}) {
    for (const int64_t inverse : {0, 1}) {
      auto sizes = m.shape({2, 4, 6, 16}, 2);
      sizes[3] = 16;  // pairs
      auto table = sizes;
      table[3] = 8;
      Tensor cosine(m.dtype, table), sine(m.dtype, table);
      for (ref::Position at(table); !at.done(); at.next()) {
        const double angle = static_cast<double>(at.at()[2]) *
                             std::pow(10000.0, -static_cast<double>(at.at()[3]) / 8);
        cosine(at.at()) = ref::round_to(m.dtype, std::cos(angle));
        sine(at.at()) = ref::round_to(m.dtype, std::sin(angle));
      }
      cosine.broadcast_dim = sine.broadcast_dim = 1;
      Problem p;
      p.note = std::string(interleaved ? "interleaved" : "halves") + (inverse ? ", inverse" : "");
      p.attributes = {integer(0, interleaved), integer(1, inverse)};
      p.inputs = {{m.real(sizes)}, {cosine}, {sine}};
      p.outputs = {{output(m.dtype, sizes)}};
      problems.push_back(p);
    }
  }
  return problems;
}

}  // namespace

void add_matrix_tests(OpTests& tests) {
  tests.push_back({XHAL_OP_gemm, dtypes_of('F'), gemm_problems, ref::gemm, kAllCases, false, {}});
  tests.push_back({XHAL_OP_sdpa, dtypes_of('F'), sdpa_problems, ref::sdpa, kAllCases, false, {}});
  tests.push_back({XHAL_OP_sdpa_grad,
                   dtypes_of('F'),
                   sdpa_grad_problems,
                   ref::sdpa_grad,
                   kAllCases,
                   false,
                   {}});
  tests.push_back({XHAL_OP_rope, dtypes_of('F'), rope_problems, ref::rope, kAllCases, false, {}});
}

}  // namespace xhal::cts
