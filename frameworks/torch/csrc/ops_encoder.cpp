// SPDX-License-Identifier: Apache-2.0
// The inference fast path of torch.nn.TransformerEncoderLayer and MultiheadAttention, by the
// operators that the ordinary path uses.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_native_multi_head_attention_ops.h>
#include <ATen/ops/_transformer_encoder_layer_fwd_ops.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <cmath>
#include <limits>

#include "native.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;
using OptInt = std::optional<int64_t>;

struct Heads {
  Tensor q, k, v;  // batch, heads, length, width
};

Tensor split(const Tensor& x, int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, -1}).transpose(1, 2);
}
Tensor join(const Tensor& x) { return x.transpose(1, 2).flatten(2); }

// What masks say to leave out, shaped for the scores: kind 0 is length x length, 1 is padding of
// batch x length, 2 is complete.
OptTensor left_out(const OptTensor& mask, OptInt kind) {
  if (!mask || !mask->defined()) return std::nullopt;
  const Tensor out = mask->to(at::kBool);
  if (kind.value_or(0) == 1) return out.unsqueeze(1).unsqueeze(1);
  return out;
}

Heads project(const Tensor& query, const Tensor& key, const Tensor& value, int64_t heads,
              const Tensor& weight, const Tensor& bias) {
  const auto w = weight.chunk(3), b = bias.chunk(3);
  return {split(at::linear(query, w[0], b[0]), heads), split(at::linear(key, w[1], b[1]), heads),
          split(at::linear(value, w[2], b[2]), heads)};
}

Tensor attend(const Heads& heads, const OptTensor& out) {
  return join(at::scaled_dot_product_attention(heads.q, heads.k, heads.v,
                                               out ? OptTensor(out->logical_not()) : std::nullopt));
}

Tensor encoder_layer(const Tensor& src, int64_t width, int64_t heads, const Tensor& qkv_weight,
                     const Tensor& qkv_bias, const Tensor& proj_weight, const Tensor& proj_bias,
                     bool use_gelu, bool norm_first, double eps, const Tensor& norm_weight_1,
                     const Tensor& norm_bias_1, const Tensor& norm_weight_2,
                     const Tensor& norm_bias_2, const Tensor& ffn_weight_1,
                     const Tensor& ffn_bias_1, const Tensor& ffn_weight_2, const Tensor& ffn_bias_2,
                     const OptTensor& mask, OptInt kind) {
  const auto norm_1 = [&](const Tensor& x) {
    return at::layer_norm(x, {width}, norm_weight_1, norm_bias_1, eps);
  };
  const auto norm_2 = [&](const Tensor& x) {
    return at::layer_norm(x, {width}, norm_weight_2, norm_bias_2, eps);
  };
  const Tensor in = norm_first ? norm_1(src) : src;
  const Tensor seen =
      attend(project(in, in, in, heads, qkv_weight, qkv_bias), left_out(mask, kind));
  Tensor x = at::linear(seen, proj_weight, proj_bias).add_(src);
  if (!norm_first) x = norm_1(x);
  Tensor inner = at::linear(norm_first ? norm_2(x) : x, ffn_weight_1, ffn_bias_1);
  inner = use_gelu ? at::gelu(inner) : inner.relu_();
  x = at::linear(inner, ffn_weight_2, ffn_bias_2).add_(x);
  return norm_first ? x : norm_2(x);
}

std::tuple<Tensor, Tensor> multi_head(const Tensor& query, const Tensor& key, const Tensor& value,
                                      int64_t, int64_t heads, const Tensor& qkv_weight,
                                      const Tensor& qkv_bias, const Tensor& proj_weight,
                                      const Tensor& proj_bias, const OptTensor& mask,
                                      bool need_weights, bool average, OptInt kind) {
  const Heads parts = project(query, key, value, heads, qkv_weight, qkv_bias);
  const OptTensor out = left_out(mask, kind);
  if (!need_weights) return {at::linear(attend(parts, out), proj_weight, proj_bias), Tensor()};
  Tensor scores = parts.q.matmul(parts.k.transpose(-2, -1));
  scores.div_(std::sqrt(static_cast<double>(parts.q.size(3))));
  if (out) scores.masked_fill_(*out, -std::numeric_limits<double>::infinity());
  const Tensor weights = scores.softmax(-1);
  const Tensor seen = at::linear(join(weights.matmul(parts.v)), proj_weight, proj_bias);
  return {seen, average ? weights.mean(1) : weights};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<_transformer_encoder_layer_fwd, &encoder_layer>(m);
  native<_native_multi_head_attention, &multi_head>(m);
}

}  // namespace xhal_torch
