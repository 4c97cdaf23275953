// SPDX-License-Identifier: Apache-2.0
// Cells of recurrent networks, gates already summed. They have no composite form and no CPU
// kernel in torch.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_thnn_fused_gru_cell_backward_ops.h>
#include <ATen/ops/_thnn_fused_gru_cell_ops.h>
#include <ATen/ops/_thnn_fused_lstm_cell_backward_impl_ops.h>
#include <ATen/ops/_thnn_fused_lstm_cell_ops.h>

#include "native.h"
#include "op_call.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;

void run(OpCall& call, const char* what) {
  TORCH_CHECK_NOT_IMPLEMENTED(call.run(), what, ": ", call.refusal(),
                              "\n  torch has no CPU kernel to fall back to.");
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& input_gates, const Tensor& hidden_gates,
                                             const Tensor& cx, const OptTensor& input_bias,
                                             const OptTensor& hidden_bias) {
  const Tensor hy = new_like(cx, cx.sizes()), cy = new_like(cx, cx.sizes());
  const Tensor workspace = new_like(input_gates, input_gates.sizes());
  OpCall call(XHAL_OP_lstm_cell, cx);
  call.in(input_gates)
      .in(hidden_gates)
      .in(cx)
      .in(input_bias)
      .in(hidden_bias)
      .out(hy)
      .out(cy)
      .out(workspace);
  run(call, "_thnn_fused_lstm_cell");
  return {hy, cy, workspace};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell_backward(const OptTensor& grad_hy,
                                                      const OptTensor& grad_cy, const Tensor& cx,
                                                      const Tensor& cy, const Tensor& workspace,
                                                      bool has_bias) {
  const bool any = (grad_hy && grad_hy->defined()) || (grad_cy && grad_cy->defined());
  if (!any) return {};
  const Tensor gates = new_like(workspace, workspace.sizes()), dcx = new_like(cx, cx.sizes());
  OpCall call(XHAL_OP_lstm_cell_grad, cx);
  call.in(grad_hy).in(grad_cy).in(cx).in(cy).in(workspace).out(gates).out(dcx);
  run(call, "_thnn_fused_lstm_cell_backward_impl");
  return {gates, dcx, has_bias ? gates.sum(0) : Tensor()};
}

std::tuple<Tensor, Tensor> gru_cell(const Tensor& input_gates, const Tensor& hidden_gates,
                                    const Tensor& hx, const OptTensor& input_bias,
                                    const OptTensor& hidden_bias) {
  const Tensor hy = new_like(hx, hx.sizes()),
               workspace = new_like(hx, {hx.size(0), 5 * hx.size(1)});
  OpCall call(XHAL_OP_gru_cell, hx);
  call.in(input_gates)
      .in(hidden_gates)
      .in(hx)
      .in(input_bias)
      .in(hidden_bias)
      .out(hy)
      .out(workspace);
  run(call, "_thnn_fused_gru_cell");
  return {hy, workspace};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gru_cell_backward(const Tensor& grad,
                                                                     const Tensor& workspace,
                                                                     bool has_bias) {
  const int64_t n = workspace.size(0), h = workspace.size(1) / 5;
  const Tensor input = new_like(workspace, {n, 3 * h}), hidden = new_like(workspace, {n, 3 * h});
  const Tensor dhx = new_like(workspace, {n, h});
  OpCall call(XHAL_OP_gru_cell_grad, workspace);
  call.in(grad).in(workspace).out(input).out(hidden).out(dhx);
  run(call, "_thnn_fused_gru_cell_backward");
  if (!has_bias) return {input, hidden, dhx, Tensor(), Tensor()};
  return {input, hidden, dhx, input.sum(0), hidden.sum(0)};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<_thnn_fused_lstm_cell, &lstm_cell>(m);
  native<_thnn_fused_lstm_cell_backward_impl, &lstm_cell_backward>(m);
  native<_thnn_fused_gru_cell, &gru_cell>(m);
  native<_thnn_fused_gru_cell_backward, &gru_cell_backward>(m);
}

}  // namespace xhal_torch
