// SPDX-License-Identifier: Apache-2.0
// Layers of LSTM with their own gradient: the weights meet all steps in one product each.
//
// torch's composite form multiplies and accumulates the weights' gradients step by step: four
// products and three additions a step, where two products do. What a layer of this form does not
// cover (projections, packed sequences) takes torch's way.
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_thnn_fused_lstm_cell.h>
#include <ATen/ops/_thnn_fused_lstm_cell_backward_impl.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/lstm_native.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "composed.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using OptTensor = std::optional<Tensor>;
using Variables = torch::autograd::variable_list;

// steps x batch x width as (steps * batch) x width.
Tensor rows(const Tensor& x) { return x.reshape({-1, x.size(-1)}); }

// One layer in one direction. Returns the outputs and the last state.
struct LstmLayer : torch::autograd::Function<LstmLayer> {
  static Variables forward(AutogradContext* ctx, const Tensor& x, const Tensor& h0,
                           const Tensor& c0, const Tensor& w_in, const Tensor& w_hidden,
                           const OptTensor& b_in, const OptTensor& b_hidden, bool reverse) {
    const int64_t steps = x.size(0);
    const Tensor gates = rows(x).mm(w_in.t()).view({steps, x.size(1), w_in.size(0)});
    const Tensor across = w_hidden.t();
    std::vector<Tensor> hidden(steps), cells(steps), spaces(steps);
    Tensor h = h0, c = c0;
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t t = reverse ? steps - 1 - i : i;
      std::tie(h, c, spaces[t]) =
          at::_thnn_fused_lstm_cell(gates.select(0, t), h.mm(across), c, b_in, b_hidden);
      hidden[t] = h;
      cells[t] = c;
    }
    const Tensor out = at::stack(hidden);
    Variables saved{x, h0, c0, w_in, w_hidden, out};
    saved.insert(saved.end(), cells.begin(), cells.end());
    saved.insert(saved.end(), spaces.begin(), spaces.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["reverse"] = reverse;
    ctx->saved_data["biased"] = b_in.has_value();
    // The last state is also the outputs' last row: a result of its own for autograd.
    return {out, h.clone(), c.clone()};
  }

  static Variables backward(AutogradContext* ctx, const Variables& grads) {
    const Variables saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &h0 = saved[1], &c0 = saved[2], &w_in = saved[3],
                 &w_hidden = saved[4], &out = saved[5];
    const bool reverse = ctx->saved_data["reverse"].toBool();
    const int64_t steps = x.size(0);
    const auto cell = [&](int64_t t) { return saved[6 + t]; };
    const auto space = [&](int64_t t) { return saved[6 + steps + t]; };
    std::vector<Tensor> gates(steps);
    Tensor dh = grads[1], dc = grads[2];
    for (int64_t i = steps - 1; i >= 0; --i) {
      const int64_t t = reverse ? steps - 1 - i : i, before = reverse ? t + 1 : t - 1;
      const Tensor from = i ? cell(before) : c0;
      std::tie(gates[t], dc, std::ignore) = at::_thnn_fused_lstm_cell_backward_impl(
          grads[0].select(0, t).add(dh), dc, from, cell(t), space(t), /*has_bias=*/false);
      dh = gates[t].mm(w_hidden);
    }
    const Tensor all = rows(at::stack(gates)), across = all.t();
    const Tensor first = h0.unsqueeze(0);
    const Tensor shifted = reverse ? at::cat({out.narrow(0, 1, steps - 1), first})
                                   : at::cat({first, out.narrow(0, 0, steps - 1)});
    const Tensor bias =
        ctx->saved_data["biased"].toBool() ? all.sum(c10::IntArrayRef{0}) : Tensor();
    const Tensor dx = ctx->needs_input_grad(0) ? all.mm(w_in).view(x.sizes()) : Tensor();
    return {dx, dh, dc, across.mm(rows(x)), across.mm(rows(shifted)), bias, bias, Tensor()};
  }
};

// Whether every layer has the plain weights: two matrices, and two biases or none.
bool plain(const Tensor& input, at::TensorList hx, at::TensorList params, bool biased,
           int64_t layers, bool both_ways) {
  const int64_t each = biased ? 4 : 2;
  if (hx.size() != 2 || input.dim() != 3 || input.numel() == 0 || !composable(input)) return false;
  if (static_cast<int64_t>(params.size()) != each * layers * (both_ways ? 2 : 1)) return false;
  return hx[0].size(2) == hx[1].size(2) && hx[0].device() == input.device();
}

std::tuple<Tensor, Tensor, Tensor> lstm(const Tensor& input, at::TensorList hx,
                                        at::TensorList params, bool biased, int64_t layers,
                                        double dropout, bool train, bool both_ways,
                                        bool batch_first) {
  if (!plain(input, hx, params, biased, layers, both_ways)) {
    return at::native::lstm(input, hx, params, biased, layers, dropout, train, both_ways,
                            batch_first);
  }
  // All of a layer is of one type: what autocast says, or what it is.
  const bool autocast = at::autocast::is_autocast_enabled(kXhal);
  const auto typed = [&](const Tensor& tensor) {
    return autocast
               ? at::autocast::cached_cast(at::autocast::get_autocast_dtype(kXhal), tensor, kXhal)
               : tensor;
  };
  const int64_t each = biased ? 4 : 2, ways = both_ways ? 2 : 1;
  Tensor x = typed(batch_first ? input.transpose(0, 1) : input);
  std::vector<Tensor> last_h, last_c;
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::vector<Tensor> outs;
    for (int64_t way = 0; way < ways; ++way) {
      const int64_t at = layer * ways + way;
      const auto weight = [&](int64_t i) { return typed(params[at * each + i]); };
      const auto bias = [&](int64_t i) { return biased ? OptTensor(weight(i)) : std::nullopt; };
      Variables made = LstmLayer::apply(x, typed(hx[0].select(0, at)), typed(hx[1].select(0, at)),
                                        weight(0), weight(1), bias(2), bias(3), way == 1);
      outs.push_back(made[0]);
      last_h.push_back(made[1]);
      last_c.push_back(made[2]);
    }
    x = both_ways ? at::cat(outs, -1) : outs[0];
    if (dropout > 0 && train && layer + 1 < layers) x = at::dropout(x, dropout, true);
  }
  if (batch_first) x = x.transpose(0, 1);
  return {x, at::stack(last_h), at::stack(last_c)};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) { m.impl("lstm.input", TORCH_FN(lstm)); }

}  // namespace xhal_torch
