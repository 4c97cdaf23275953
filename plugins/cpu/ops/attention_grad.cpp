// SPDX-License-Identifier: Apache-2.0
// attention_grad.cpp: the gradients of sdpa, with the probabilities computed again from log_sum.
//
//   p = exp(scale q k^T + mask - log_sum), ds = p (grad v^T - rowsum(grad out)), dv = p^T grad, dq
//   = scale ds k, dk = scale ds^T q. Queries are loaded times scale, so dk needs no more; dq is
//   multiplied when it is stored.
#include <cmath>
#include <utility>

#include "attention.hpp"
#include "convert.hpp"
#include "scratch.hpp"

namespace xhal::cpu {
namespace {

constexpr int64_t kRows = 32, kColumns = 128;

class SdpaGradOp final : public Op {
 public:
  AttentionShape shape;
  HeadTensor grad, out, log_sum, dq, dk, dv;

  void plan();
  xhal_status run(const Launch& launch) const override;

 private:
  struct Buffers {
    float *keys_transposed, *values_transposed, *keys, *queries, *grads, *scores, *dscores,
        *dqueries, *buffer;
    float *dkeys, *dvalues;
  };

  int64_t units() const { return shape.b * shape.hk * shape.parts(); }
  void run_unit(const Launch& launch, int64_t unit, float* memory) const;
  void run_rows(const Launch& launch, const Buffers& m, int64_t b, int64_t h, int64_t first,
                int64_t rows) const;
  void join_parts(const Launch& launch) const;

  int64_t pitch_ = 0, value_pitch_ = 0;
  int64_t dkeys_floats_ = 0, dvalues_floats_ = 0;  // of one unit
  uint64_t area_floats_ = 0, partial_floats_ = 0;
  int areas_ = 1;
};

void SdpaGradOp::plan() {
  pitch_ = pitch_of(shape.d);
  value_pitch_ = pitch_of(shape.dv);
  dkeys_floats_ = whole_panels(shape.t) * pitch_;
  dvalues_floats_ = whole_panels(shape.t) * value_pitch_;
  const int64_t widest = std::max(pitch_, value_pitch_);
  int64_t floats = whole_panels(shape.t) * (shape.d + shape.dv)  // transposed keys and values
                   + shape.t * pitch_                            // keys
                   + kRows * (2 * pitch_ + value_pitch_)         // queries, their gradients, grad
                   + 2 * kRows * kColumns                        // scores, their gradients
                   + std::max(kColumns * 2, kPanel * widest);    // buffer
  if (shape.parts() == 1) {
    floats += dkeys_floats_ + dvalues_floats_;
  } else {
    partial_floats_ = static_cast<uint64_t>(units() * (dkeys_floats_ + dvalues_floats_));
  }
  area_floats_ = align64(static_cast<uint64_t>(floats) * sizeof(float)) / sizeof(float);
  areas_ = ScratchAreas::count_for(units());
  workspace_bytes =
      (static_cast<uint64_t>(areas_) * area_floats_ + partial_floats_) * sizeof(float);
}

xhal_status SdpaGradOp::run(const Launch& launch) const {
  auto* memory = static_cast<float*>(launch.workspace) + partial_floats_;
  ScratchAreas scratch(memory, area_floats_ * sizeof(float), areas_);
  launch.pool.parallel_for(units(), 1, [&](int64_t begin, int64_t end) {
    const ScratchAreas::Loan area(scratch);
    for (int64_t unit = begin; unit < end; ++unit)
      run_unit(launch, unit, reinterpret_cast<float*>(area.data()));
  });
  if (shape.parts() != 1) join_parts(launch);
  return XHAL_OK;
}

void SdpaGradOp::run_unit(const Launch& launch, int64_t unit, float* memory) const {
  const int64_t d = shape.d, columns = whole_panels(shape.t);
  Buffers m;
  const auto take = [&memory](int64_t floats) { return std::exchange(memory, memory + floats); };
  m.keys_transposed = take(columns * d);
  m.values_transposed = take(columns * shape.dv);
  m.keys = take(shape.t * pitch_);
  m.queries = take(kRows * pitch_);
  m.dqueries = take(kRows * pitch_);
  m.grads = take(kRows * value_pitch_);
  m.scores = take(kRows * kColumns);
  m.dscores = take(kRows * kColumns);
  m.buffer = take(std::max(kColumns * 2, kPanel * std::max(pitch_, value_pitch_)));
  if (shape.parts() != 1)
    memory = static_cast<float*>(launch.workspace) + unit * (dkeys_floats_ + dvalues_floats_);
  m.dkeys = take(dkeys_floats_);
  m.dvalues = take(dvalues_floats_);

  const int64_t part = unit % shape.parts(), head = unit / shape.parts() % shape.hk,
                b = unit / shape.parts() / shape.hk;
  const int64_t begin = part * shape.rows_per_unit(),
                end = std::min(shape.s, begin + shape.rows_per_unit());
  const int64_t seen = shape.visible(end - 1);
  load_transposed(shape.k, launch.pointers, b, head, seen, d, m.keys_transposed, m.buffer);
  load_transposed(shape.v, launch.pointers, b, head, seen, shape.dv, m.values_transposed, m.buffer);
  load_rows(shape.k, launch.pointers, b, head, 0, seen, d, 1.0f, m.keys, pitch_);
  std::fill_n(m.dkeys, dkeys_floats_, 0.0f);
  std::fill_n(m.dvalues, dvalues_floats_, 0.0f);
  const int64_t group = shape.h / shape.hk;
  for (int64_t h = head * group; h < (head + 1) * group; ++h)
    for (int64_t first = begin; first < end; first += kRows)
      run_rows(launch, m, b, h, first, std::min(kRows, end - first));
  if (shape.parts() != 1) return;
  store_rows(dk, launch.pointers, b, head, 0, shape.t, d, m.dkeys, pitch_);
  store_rows(dv, launch.pointers, b, head, 0, shape.t, shape.dv, m.dvalues, value_pitch_);
}

void SdpaGradOp::run_rows(const Launch& launch, const Buffers& m, int64_t b, int64_t h,
                          int64_t first, int64_t rows) const {
  const auto& kernels = attention_kernels();
  const int64_t d = shape.d, e = shape.dv;
  const auto seed = static_cast<uint64_t>(launch.scalars[0].as_int()),
             offset = static_cast<uint64_t>(launch.scalars[1].as_int());
  load_rows(grad, launch.pointers, b, h, first, rows, e, 1.0f, m.grads, value_pitch_);
  float delta[kRows], log[kRows];
  for (int64_t i = 0; i < rows; ++i) {
    load_rows(out, launch.pointers, b, h, first + i, 1, e, 1.0f, m.buffer, value_pitch_);
    delta[i] = kernels.dot(m.buffer, m.grads + i * value_pitch_, e);
    log[i] = *reinterpret_cast<const float*>(log_sum.row(launch.pointers, b, h, first + i));
  }
  load_rows(shape.q, launch.pointers, b, h, first, rows, d, shape.scale, m.queries, pitch_);
  std::fill_n(m.dqueries, rows * pitch_, 0.0f);

  const int64_t seen = shape.visible(first + rows - 1);
  for (int64_t at = 0; at < seen; at += kColumns) {
    const int64_t n = std::min(kColumns, seen - at), padded = whole_panels(n);
    kernels.product({m.queries, pitch_, 1}, {m.keys_transposed + at * d, kPanel, d * kPanel}, d,
                    m.scores, kColumns, rows, n, false);
    kernels.product({m.grads, value_pitch_, 1}, {m.values_transposed + at * e, kPanel, e * kPanel},
                    e, m.dscores, kColumns, rows, n, false);
    for (int64_t i = 0; i < rows; ++i) {
      float* scores = m.scores + i * kColumns;
      float* keep = nullptr;
      const int64_t valid = std::clamp<int64_t>(shape.visible(first + i) - at, 0, n);
      if (shape.has_mask)
        add_mask(shape, launch.pointers, b, h, first + i, at, valid, scores, m.buffer);
      if (shape.dropout > 0.0f) {
        keep = m.buffer;
        fill_keep(shape, seed, offset, b, h, first + i, at, valid, keep);
        std::fill(keep + valid, keep + padded, 0.0f);
      }
      kernels.grad_row(scores, m.dscores + i * kColumns, keep, valid, padded, log[i], delta[i]);
    }
    kernels.product({m.scores, 1, kColumns}, {m.grads, value_pitch_, kPanel}, rows,
                    m.dvalues + at * value_pitch_, value_pitch_, n, e, true);
    kernels.product({m.dscores, 1, kColumns}, {m.queries, pitch_, kPanel}, rows,
                    m.dkeys + at * pitch_, pitch_, n, d, true);
    kernels.product({m.dscores, kColumns, 1}, {m.keys + at * pitch_, pitch_, kPanel}, n, m.dqueries,
                    pitch_, rows, d, true);
  }
  for (int64_t i = 0; i < rows; ++i) kernels.scale(m.dqueries + i * pitch_, d, shape.scale);
  store_rows(dq, launch.pointers, b, h, first, rows, d, m.dqueries, pitch_);
}

// Sums the parts of dk and dv, in order.
void SdpaGradOp::join_parts(const Launch& launch) const {
  const int64_t parts = shape.parts(), unit_floats = dkeys_floats_ + dvalues_floats_;
  launch.pool.parallel_for(shape.b * shape.hk, 1, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      float* sum = static_cast<float*>(launch.workspace) + at * parts * unit_floats;
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t i = 0; i < unit_floats; ++i) sum[i] += sum[part * unit_floats + i];
      store_rows(dk, launch.pointers, at / shape.hk, at % shape.hk, 0, shape.t, shape.d, sum,
                 pitch_);
      store_rows(dv, launch.pointers, at / shape.hk, at % shape.hk, 0, shape.t, shape.dv,
                 sum + dkeys_floats_, value_pitch_);
    }
  });
}

}  // namespace

Prepared prepare_sdpa_grad(const OpRequest& request, Refusal& refusal) {
  auto op = std::make_unique<SdpaGradOp>();
  AttentionShape& shape = op->shape;
  if (!shape.read(request, 1, 6, refusal)) return nullptr;
  HeadTensor* const tensors[] = {&op->grad, &op->out, &op->log_sum, &op->dq, &op->dk, &op->dv};
  const uint32_t groups[] = {0, 4, 5, 7, 8, 9};
  for (int i = 0; i < 6; ++i) {
    *tensors[i] = HeadTensor(*request.operand(groups[i]), request.first_operand(groups[i]));
    if (tensors[i] != &op->log_sum && tensors[i]->type != shape.q.type)
      return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(groups[i]),
                    "sdpa_grad: all operands but mask and log_sum must have one dtype");
  }
  op->plan();
  const int64_t b = shape.b, h = shape.h, hk = shape.hk, s = shape.s, t = shape.t;
  const double scores = static_cast<double>(b * h * s) * static_cast<double>(t);
  op->flops = scores * static_cast<double>(6 * shape.d + 4 * shape.dv);
  op->bytes = static_cast<double>(size_of(shape.q.type)) * static_cast<double>(b) *
              static_cast<double>(2 * h * s + 2 * hk * t) * static_cast<double>(shape.d + shape.dv);
  return op;
}

}  // namespace xhal::cpu
