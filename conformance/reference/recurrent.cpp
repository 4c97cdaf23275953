// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "reference/operators.hpp"

namespace xhal::ref {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void put(Tensor& to, const Sizes& at, double value, double magnitude) {
  to.magnitude.resize(to.values.size());
  to(at) = value;
  to.magnitude[static_cast<size_t>(to.index_of(at))] = magnitude;
}

// The sum of gate `j` of a row, before its activation, and the magnitudes of what is summed.
struct Gate {
  double value = 0, terms = 0;
  void add(double x) {
    value += x;
    terms += std::fabs(x);
  }
};

}  // namespace

// input_gates hidden_gates cx input_bias hidden_bias -> hy cy workspace
Results lstm_cell(const Problem& p) {
  auto results = empty_results(p);
  auto &hy = results.outputs[0][0], &cy = results.outputs[1][0], &workspace = results.outputs[2][0];
  const int64_t hidden = hy.sizes[1];
  for (Position at(hy.sizes); !at.done(); at.next()) {
    const int64_t n = at.at()[0], h = at.at()[1];
    double active[4], unsure[4];
    for (int64_t g = 0; g < 4; ++g) {
      const int64_t j = g * hidden + h;
      Gate gate;
      gate.add(p.in(0)({n, j}));
      gate.add(p.in(1)({n, j}));
      if (p.maybe(3) != nullptr) gate.add(p.in(3)({j}));
      if (p.maybe(4) != nullptr) gate.add(p.in(4)({j}));
      active[g] = g == 2 ? std::tanh(gate.value) : sigmoid(gate.value);
      unsure[g] = 1 + gate.terms;
      put(workspace, {n, j}, active[g], (g == 2 ? 1.0 : active[g]) * unsure[g]);
    }
    const double kept = active[1] * p.in(2)(at.at()), fresh = active[0] * active[2];
    const double terms = std::fabs(kept) * unsure[1] + active[0] * unsure[0] * unsure[2];
    put(cy, at.at(), kept + fresh, terms);
    put(hy, at.at(), active[3] * std::tanh(kept + fresh), active[3] * (unsure[3] + terms));
  }
  return results;
}

// dhy dcy cx cy workspace -> dgates dcx
Results lstm_cell_grad(const Problem& p) {
  auto results = empty_results(p);
  auto &dgates = results.outputs[0][0], &dcx = results.outputs[1][0];
  const auto &cx = p.in(2), &cy = p.in(3), &workspace = p.in(4);
  const int64_t hidden = cx.sizes[1];
  for (Position at(cx.sizes); !at.done(); at.next()) {
    const int64_t n = at.at()[0], h = at.at()[1];
    const auto gate = [&](int64_t g) { return workspace({n, g * hidden + h}); };
    const double i = gate(0), f = gate(1), g = gate(2), o = gate(3), t = std::tanh(cy(at.at()));
    const double dhy = p.maybe(0) != nullptr ? p.in(0)(at.at()) : 0,
                 dcy = p.maybe(1) != nullptr ? p.in(1)(at.at()) : 0;
    const double through = dhy * o * (1 - t * t) + dcy;
    const double terms = std::fabs(dhy * o) * (1 + t * t) + std::fabs(dcy);
    const auto set = [&](int64_t which, double value, double magnitude) {
      put(dgates, {n, which * hidden + h}, value, magnitude);
    };
    set(0, through * g * i * (1 - i), terms * std::fabs(g * i) * (1 + i));
    set(1, through * cx(at.at()) * f * (1 - f), terms * std::fabs(cx(at.at()) * f) * (1 + f));
    set(2, through * i * (1 - g * g), terms * std::fabs(i) * (1 + g * g));
    set(3, dhy * t * o * (1 - o), std::fabs(dhy * t * o) * (1 + o));
    put(dcx, at.at(), through * f, terms * std::fabs(f));
  }
  return results;
}

// input_gates hidden_gates hx input_bias hidden_bias -> hy workspace (r, z, n, hx, the hidden
// part of n)
Results gru_cell(const Problem& p) {
  auto results = empty_results(p);
  auto &hy = results.outputs[0][0], &workspace = results.outputs[1][0];
  const int64_t hidden = hy.sizes[1];
  for (Position at(hy.sizes); !at.done(); at.next()) {
    const int64_t n = at.at()[0], h = at.at()[1];
    Gate input[3], recurrent[3];
    for (int64_t g = 0; g < 3; ++g) {
      const int64_t j = g * hidden + h;
      input[g].add(p.in(0)({n, j}));
      recurrent[g].add(p.in(1)({n, j}));
      if (p.maybe(3) != nullptr) input[g].add(p.in(3)({j}));
      if (p.maybe(4) != nullptr) recurrent[g].add(p.in(4)({j}));
    }
    const double r = sigmoid(input[0].value + recurrent[0].value),
                 z = sigmoid(input[1].value + recurrent[1].value);
    const double fresh = std::tanh(input[2].value + r * recurrent[2].value), hx = p.in(2)(at.at());
    const double unsure_r = 1 + input[0].terms + recurrent[0].terms,
                 unsure_z = 1 + input[1].terms + recurrent[1].terms;
    const double unsure_n = 1 + input[2].terms + recurrent[2].terms * r * unsure_r;
    const auto keep = [&](int64_t which, double value, double magnitude) {
      put(workspace, {n, which * hidden + h}, value, magnitude);
    };
    keep(0, r, r * unsure_r);
    keep(1, z, z * unsure_z);
    keep(2, fresh, unsure_n);
    keep(3, hx, std::fabs(hx));
    keep(4, recurrent[2].value, recurrent[2].terms);
    put(hy, at.at(), (1 - z) * fresh + z * hx,
        unsure_n + z * unsure_z * (std::fabs(hx) + std::fabs(fresh)));
  }
  return results;
}

// dhy workspace -> dinput_gates dhidden_gates dhx
Results gru_cell_grad(const Problem& p) {
  auto results = empty_results(p);
  auto &dinput = results.outputs[0][0], &dhidden = results.outputs[1][0],
       &dhx = results.outputs[2][0];
  const auto &dhy = p.in(0), &workspace = p.in(1);
  const int64_t hidden = dhy.sizes[1];
  for (Position at(dhy.sizes); !at.done(); at.next()) {
    const int64_t n = at.at()[0], h = at.at()[1];
    const auto part = [&](int64_t which) { return workspace({n, which * hidden + h}); };
    const double r = part(0), z = part(1), fresh = part(2), hx = part(3), recurrent = part(4),
                 grad = dhy(at.at());
    const double dn = grad * (1 - z) * (1 - fresh * fresh),
                 dn_terms = std::fabs(grad) * (1 + z) * (1 + fresh * fresh);
    const double dz = grad * (hx - fresh) * z * (1 - z);
    const double dz_terms =
        std::fabs(grad) * (std::fabs(hx) + std::fabs(fresh)) * std::fabs(z) * (1 + z);
    const double dr = dn * recurrent * r * (1 - r),
                 dr_terms = dn_terms * std::fabs(recurrent * r) * (1 + r);
    for (auto* to : {&dinput, &dhidden}) {
      put(*to, {n, h}, dr, dr_terms);
      put(*to, {n, hidden + h}, dz, dz_terms);
    }
    put(dinput, {n, 2 * hidden + h}, dn, dn_terms);
    put(dhidden, {n, 2 * hidden + h}, dn * r, dn_terms * std::fabs(r));
    put(dhx, at.at(), grad * z, std::fabs(grad * z));
  }
  return results;
}

}  // namespace xhal::ref
