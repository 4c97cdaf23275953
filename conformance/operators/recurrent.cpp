// SPDX-License-Identifier: Apache-2.0
#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::Group;
using ref::Problem;
using Problems = std::vector<Problem>;

Problems cell_problems(Maker& m, int64_t gates, bool lstm) {
  Problems problems;
  for (const bool biased : {true, false}) {
    const auto shape = m.shape({6, 16});
    const int64_t n = shape[0], hidden = shape[1];
    Problem p;
    p.note = biased ? "with biases" : "without biases";
    p.inputs = {{m.real({n, gates * hidden}, -2, 2)},
                {m.real({n, gates * hidden}, -2, 2)},
                {m.real({n, hidden}, -2, 2)},
                {},
                {}};
    if (biased) p.inputs[3] = p.inputs[4] = {m.real({gates * hidden}, -1, 1)};
    p.outputs = {{output(m.dtype, {n, hidden})}};
    if (lstm) p.outputs.push_back({output(m.dtype, {n, hidden})});
    p.outputs.push_back({output(m.dtype, {n, (lstm ? 4 : 5) * hidden})});
    problems.push_back(p);
  }
  return problems;
}

Problems lstm_grad_problems(Maker& m) {
  Problems problems;
  for (int absent = -1; absent < 2; ++absent) {
    const auto shape = m.shape({6, 16});
    const int64_t n = shape[0], hidden = shape[1];
    auto gates = m.real({n, 4 * hidden}, 0, 1);
    gates.broadcast_dim = ref::Tensor::kNoDim;
    Problem p;
    p.note = absent < 0 ? "" : absent == 0 ? "dhy absent" : "dcy absent";
    p.inputs = {
        {m.real(shape)}, {m.real(shape)}, {m.real(shape, -2, 2)}, {m.real(shape, -2, 2)}, {gates}};
    if (absent >= 0) p.inputs[static_cast<size_t>(absent)].clear();
    p.outputs = {{output(m.dtype, {n, 4 * hidden})}, {output(m.dtype, shape)}};
    problems.push_back(p);
  }
  return problems;
}

Problems gru_grad_problems(Maker& m) {
  const auto shape = m.shape({6, 16});
  const int64_t n = shape[0], hidden = shape[1];
  Problem p;
  p.inputs = {{m.real(shape)}, {m.real({n, 5 * hidden}, 0, 1)}};
  p.inputs[1][0].broadcast_dim = 0;
  p.outputs = {{output(m.dtype, {n, 3 * hidden})},
               {output(m.dtype, {n, 3 * hidden})},
               {output(m.dtype, shape)}};
  return {p};
}

}  // namespace

void add_recurrent_tests(OpTests& tests) {
  const auto& floats = dtypes_of('F');
  tests.push_back({XHAL_OP_lstm_cell,
                   floats,
                   [](Maker& m) { return cell_problems(m, 4, true); },
                   ref::lstm_cell,
                   kAllCases,
                   false,
                   {}});
  tests.push_back({XHAL_OP_lstm_cell_grad,
                   floats,
                   lstm_grad_problems,
                   ref::lstm_cell_grad,
                   kAllCases,
                   false,
                   {}});
  tests.push_back({XHAL_OP_gru_cell,
                   floats,
                   [](Maker& m) { return cell_problems(m, 3, false); },
                   ref::gru_cell,
                   kAllCases,
                   false,
                   {}});
  tests.push_back(
      {XHAL_OP_gru_cell_grad, floats, gru_grad_problems, ref::gru_cell_grad, kAllCases, false, {}});
}

}  // namespace xhal::cts
