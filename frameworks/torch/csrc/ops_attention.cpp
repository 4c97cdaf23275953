// SPDX-License-Identifier: Apache-2.0
// Fused attention: torch asks which kernel to use, and "overrideable" is ours.
#include <ATen/core/Tensor.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_fused_sdp_choice_ops.h>
#include <ATen/ops/_scaled_dot_product_fused_attention_overrideable_backward_ops.h>
#include <ATen/ops/_scaled_dot_product_fused_attention_overrideable_ops.h>
#include <ATen/ops/empty.h>

#include "generator.h"
#include "native.h"
#include "op_call.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;
enum Choice : int64_t { kMath = 0, kOverrideable = 4 };  // sdp::SDPBackend

bool fused(const Tensor& q, const Tensor& k, const Tensor& v, const OptTensor& mask,
           std::optional<double> scale, bool grouped) {
  if (q.dim() != 4 || k.dim() != 4 || v.dim() != 4 || !is_float(q.scalar_type()) ||
      q.numel() == 0 || k.numel() == 0) {
    return false;
  }
  if (mask && mask->defined() && mask->requires_grad()) return false;  // no gradient for the mask
  // The catalogue's 0 is the usual scale; torch's is 0.
  if (scale && *scale == 0) return false;
  // Fewer heads of keys are shared when that is asked for; one is broadcast. Torch refuses the
  // rest.
  if (q.size(1) != k.size(1) && !grouped && k.size(1) != 1) return false;
  return q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type() &&
         q.size(3) == k.size(3) && k.size(1) == v.size(1) && k.size(2) == v.size(2) &&
         k.size(1) > 0 && q.size(1) % k.size(1) == 0 && q.size(0) == k.size(0) &&
         q.size(0) == v.size(0);
}

int64_t choose(const Tensor& q, const Tensor& k, const Tensor& v, const OptTensor& mask, double,
               bool, std::optional<double> scale, bool grouped) {
  return fused(q, k, v, mask, scale, grouped) ? kOverrideable : kMath;
}

// The mask as the operator reads it: of the input's type or bool, one entry for each score.
OptTensor scores_mask(const OptTensor& mask, const Tensor& q, const Tensor& k) {
  if (!mask || !mask->defined()) return std::nullopt;
  const bool as_is = mask->scalar_type() == at::kBool || mask->scalar_type() == q.scalar_type();
  return (as_is ? *mask : mask->to(q.scalar_type()))
      .expand({q.size(0), q.size(1), q.size(2), k.size(2)});
}

// [b, h, s, d] that lies as [b, s, h, d]: the transposition that every model does
// next costs nothing.
Tensor heads_inside(const Tensor& like, int64_t d) {
  return new_like(like, {like.size(0), like.size(2), like.size(1), d}).transpose(1, 2);
}

// The random state travels to the gradient in torch's "philox_seed".
Tensor saved(const Philox& random) {
  Tensor state = at::empty({4}, at::TensorOptions().dtype(at::kLong));
  auto* words = state.mutable_data_ptr<int64_t>();
  words[0] = static_cast<int64_t>(random.seed);
  words[1] = static_cast<int64_t>(random.offset);
  words[2] = static_cast<int64_t>(random.seed_address);
  words[3] = static_cast<int64_t>(random.offset_address);
  return state;
}
Philox restored(const Tensor& state) {
  const auto* words = state.const_data_ptr<int64_t>();
  return {static_cast<uint64_t>(words[0]), static_cast<uint64_t>(words[1]),
          static_cast<uint64_t>(words[2]), static_cast<uint64_t>(words[3])};
}

void expect_a_scale(std::optional<double> scale) {
  TORCH_CHECK_NOT_IMPLEMENTED(!scale || *scale != 0,
                              "fused attention cannot scale by 0; "
                              "scaled_dot_product_attention computes it without");
}

using Forward =
    std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>;

Forward attention(const Tensor& q, const Tensor& k, const Tensor& v, const OptTensor& bias,
                  double dropout, bool causal, bool, std::optional<double> scale) {
  expect_a_scale(scale);
  const Tensor out = heads_inside(q, v.size(3));
  const Tensor log_sum = new_tensor({q.size(0), q.size(1), q.size(2)}, at::kFloat, q.device());
  const OptTensor mask = scores_mask(bias, q, k);
  Philox random{0, 0};
  if (dropout > 0) {
    random = take_random(std::nullopt, q.device().index(),
                         q.size(0) * q.size(1) * q.size(2) * k.size(2));
  }
  OpCall call(XHAL_OP_sdpa, q);
  call.attr("causal", causal).attr("scale", scale.value_or(0)).attr("dropout", dropout);
  call.in(q).in(k).in(v).in(mask).out(out).out(log_sum).random(random);
  TORCH_CHECK_NOT_IMPLEMENTED(
      call.run(),
      "scaled_dot_product_attention: the device has no fused attention for this: ", call.refusal(),
      "\n  Use: with torch.nn.attention.sdpa_kernel(SDPBackend.MATH)");
  return {out,       log_sum,       Tensor(), Tensor(), q.size(2),
          k.size(2), saved(random), Tensor(), Tensor()};
}

using Backward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Backward attention_backward(const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v,
                            const Tensor& bias, std::array<bool, 4> wanted, const Tensor& out,
                            const Tensor& log_sum, const Tensor&, const Tensor&, int64_t, int64_t,
                            double dropout, bool causal, const Tensor& state, const Tensor&,
                            std::optional<double> scale) {
  expect_a_scale(scale);
  TORCH_CHECK_NOT_IMPLEMENTED(!wanted[3] || !bias.defined(),
                              "fused attention has no gradient for the mask");
  const Tensor dq = heads_inside(q, q.size(3)), dk = heads_inside(k, k.size(3)),
               dv = heads_inside(v, v.size(3));
  const OptTensor mask = scores_mask(bias.defined() ? OptTensor(bias) : std::nullopt, q, k);
  OpCall call(XHAL_OP_sdpa_grad, q);
  call.attr("causal", causal).attr("scale", scale.value_or(0)).attr("dropout", dropout);
  call.in(grad).in(q).in(k).in(v).in(out).in(log_sum).in(mask).out(dq).out(dk).out(dv);
  call.random(restored(state));
  TORCH_CHECK_NOT_IMPLEMENTED(call.run(),
                              "scaled_dot_product_attention backward: ", call.refusal());
  return {dq, dk, dv, Tensor()};
}

int64_t choice_op(const Tensor& q, const Tensor& k, const Tensor& v, const OptTensor& mask,
                  double dropout, bool causal, std::optional<double> scale, bool grouped) {
  return choose(q, k, v, mask, dropout, causal, scale, grouped);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<_fused_sdp_choice, &choice_op>(m);
  native<_scaled_dot_product_fused_attention_overrideable, &attention>(m);
  native<_scaled_dot_product_fused_attention_overrideable_backward, &attention_backward>(m);
}

}  // namespace xhal_torch

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &xhal_torch::choose)
}
