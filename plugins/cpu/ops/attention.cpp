// SPDX-License-Identifier: Apache-2.0
// attention.cpp: sdpa, and what it shares with its gradient.
#include "attention.hpp"

#include <cmath>

#include "convert.hpp"
#include "random.hpp"
#include "scratch.hpp"

namespace xhal::cpu {

bool AttentionShape::read(const OpRequest& request, uint32_t first, uint32_t mask_group,
                          Refusal& refusal) {
  const auto& tq = *request.operand(first);
  const auto& tk = *request.operand(first + 1);
  const auto& tv = *request.operand(first + 2);
  const auto* tm = request.operand(mask_group);
  const auto invalid = [&](uint32_t group, std::string_view why) {
    refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(group),
           text("sdpa: ", why));
    return false;
  };
  b = tq.sizes[0], h = tq.sizes[1], s = tq.sizes[2], d = tq.sizes[3];
  hk = tk.sizes[1], t = tk.sizes[2], dv = tv.sizes[3];
  if (hk == 0 ? h != 0 : h % hk != 0)
    return invalid(first + 1, "q's heads must be a multiple of k's");
  if (dtype_of(tk) != dtype_of(tq) || dtype_of(tv) != dtype_of(tq))
    return invalid(first + 1, "q, k and v must have the same dtype");
  if (tm != nullptr) {
    const DType type = dtype_of(*tm);
    if (type != DType::boolean && type != DType::f32 && type != dtype_of(tq))
      return invalid(mask_group, "the mask must be bool, f32 or of q's dtype");
    mask = HeadTensor(*tm, request.first_operand(mask_group));
    has_mask = true;
  }
  q = HeadTensor(tq, request.first_operand(first));
  k = HeadTensor(tk, request.first_operand(first + 1));
  v = HeadTensor(tv, request.first_operand(first + 2));
  causal = request.attribute_int("causal") != 0;
  scale = static_cast<float>(request.attribute_float("scale"));
  if (scale == 0.0f) scale = d == 0 ? 1.0f : 1.0f / std::sqrt(static_cast<float>(d));
  dropout = static_cast<float>(request.attribute_float("dropout"));
  if (!(dropout >= 0.0f && dropout <= 1.0f)) return invalid(first, "dropout must be in [0, 1]");
  return true;
}

int64_t AttentionShape::rows_per_unit() const {
  constexpr int64_t kWanted = 16, kLeast = 128;
  const int64_t parts = std::max<int64_t>(1, kWanted / std::max<int64_t>(1, b * hk));
  const int64_t rows = std::max(kLeast, (s + parts - 1) / parts);
  return (rows + kPanel - 1) / kPanel * kPanel;
}

void load_rows(const HeadTensor& x, void* const* pointers, int64_t b, int64_t h, int64_t first,
               int64_t count, int64_t width, float factor, float* to, int64_t pitch) {
  const int64_t stride = x.strides[3];
  const auto load = loader<float>(x.type, stride == 1);
  const auto& kernels = attention_kernels();
  for (int64_t i = 0; i < count; ++i, to += pitch) {
    load(x.row(pointers, b, h, first + i), stride, static_cast<size_t>(width), to);
    if (factor != 1.0f) kernels.scale(to, width, factor);
    std::fill(to + width, to + pitch, 0.0f);
  }
}

void store_rows(const HeadTensor& x, void* const* pointers, int64_t b, int64_t h, int64_t first,
                int64_t count, int64_t width, const float* from, int64_t pitch) {
  const int64_t stride = x.strides[3];
  const auto store = storer<float>(x.type, stride == 1);
  for (int64_t i = 0; i < count; ++i, from += pitch)
    store(from, static_cast<size_t>(width), x.row(pointers, b, h, first + i), stride);
}

void load_transposed(const HeadTensor& x, void* const* pointers, int64_t b, int64_t h,
                     int64_t count, int64_t width, float* panels, float* buffer) {
  const int64_t pitch = pitch_of(width);
  for (int64_t first = 0; first < count; first += kPanel, panels += width * kPanel) {
    const int64_t n = std::min(kPanel, count - first);
    load_rows(x, pointers, b, h, first, n, width, 1.0f, buffer, pitch);
    std::fill(buffer + n * pitch, buffer + kPanel * pitch, 0.0f);
    attention_kernels().transpose(buffer, pitch, width, panels);
  }
}

void add_mask(const AttentionShape& shape, void* const* pointers, int64_t b, int64_t h, int64_t i,
              int64_t first, int64_t n, float* scores, float* buffer) {
  const HeadTensor& mask = shape.mask;
  const int64_t stride = mask.strides[3];
  const char* from =
      mask.row(pointers, b, h, i) + first * stride * static_cast<int64_t>(size_of(mask.type));
  loader<float>(mask.type, stride == 1)(from, stride, static_cast<size_t>(n), buffer);
  if (mask.type == DType::boolean) {
    for (int64_t e = 0; e < n; ++e) scores[e] = buffer[e] != 0.0f ? scores[e] : -INFINITY;
  } else {
    for (int64_t e = 0; e < n; ++e) scores[e] += buffer[e];
  }
}

void fill_keep(const AttentionShape& shape, uint64_t seed, uint64_t offset, int64_t b, int64_t h,
               int64_t i, int64_t first, int64_t n, float* keep) {
  constexpr int64_t kBlock = 256;
  const float kept = shape.dropout < 1.0f ? 1.0f / (1.0f - shape.dropout) : 0.0f;
  uint32_t words[kBlock + 4];
  float unit[kBlock];
  const auto place = static_cast<uint64_t>(((b * shape.h + h) * shape.s + i) * shape.t + first);
  for (int64_t at = 0; at < n; at += kBlock) {
    const int64_t count = std::min(kBlock, n - at);
    const uint64_t element = place + static_cast<uint64_t>(at), skip = element % 4;
    random_kernels().words(seed, offset + element / 4, words,
                           (static_cast<size_t>(count) + skip + 3) / 4);
    random_kernels().unit(words + skip, unit, static_cast<size_t>(count), 24);
    for (int64_t e = 0; e < count; ++e) keep[at + e] = unit[e] >= shape.dropout ? kept : 0.0f;
  }
}

namespace {

constexpr int64_t kRows = 32, kColumns = 256;

class SdpaOp final : public Op {
 public:
  AttentionShape shape;
  HeadTensor out, log_sum;

  void plan() {
    keys_ = whole_panels(shape.t) * shape.d;
    values_ = shape.t * pitch_of(shape.dv);
    queries_ = kRows * pitch_of(shape.d);
    scores_ = kRows * kColumns;
    result_ = kRows * pitch_of(shape.dv);
    buffer_ = std::max(kColumns, kPanel * pitch_of(shape.d));
    area_bytes_ = static_cast<uint64_t>(keys_ + values_ + queries_ + scores_ + result_ + buffer_) *
                  sizeof(float);
    areas_ = ScratchAreas::count_for(units());
    workspace_bytes = static_cast<uint64_t>(areas_) * area_bytes_;
  }

  xhal_status run(const Launch& launch) const override {
    ScratchAreas scratch(launch.workspace, area_bytes_, areas_);
    launch.pool.parallel_for(units(), 1, [&](int64_t begin, int64_t end) {
      const ScratchAreas::Loan area(scratch);
      for (int64_t unit = begin; unit < end; ++unit)
        run_unit(launch, unit, reinterpret_cast<float*>(area.data()));
    });
    return XHAL_OK;
  }

 private:
  struct Buffers {
    float *keys, *values, *queries, *scores, *result, *buffer;
  };

  int64_t units() const { return shape.b * shape.hk * shape.parts(); }
  void run_unit(const Launch& launch, int64_t unit, float* memory) const;
  void run_rows(const Launch& launch, const Buffers& m, int64_t b, int64_t h, int64_t first,
                int64_t rows) const;

  int64_t keys_ = 0, values_ = 0, queries_ = 0, scores_ = 0, result_ = 0, buffer_ = 0;  // floats
  uint64_t area_bytes_ = 0;
  int areas_ = 1;
};

void SdpaOp::run_unit(const Launch& launch, int64_t unit, float* memory) const {
  Buffers m;
  m.keys = memory;
  m.values = m.keys + keys_;
  m.queries = m.values + values_;
  m.scores = m.queries + queries_;
  m.result = m.scores + scores_;
  m.buffer = m.result + result_;

  const int64_t part = unit % shape.parts(), head = unit / shape.parts() % shape.hk,
                b = unit / shape.parts() / shape.hk;
  const int64_t begin = part * shape.rows_per_unit(),
                end = std::min(shape.s, begin + shape.rows_per_unit());
  const int64_t seen = shape.visible(end - 1);
  load_transposed(shape.k, launch.pointers, b, head, seen, shape.d, m.keys, m.buffer);
  load_rows(shape.v, launch.pointers, b, head, 0, seen, shape.dv, 1.0f, m.values,
            pitch_of(shape.dv));
  const int64_t group = shape.h / shape.hk;
  for (int64_t h = head * group; h < (head + 1) * group; ++h)
    for (int64_t first = begin; first < end; first += kRows)
      run_rows(launch, m, b, h, first, std::min(kRows, end - first));
}

void SdpaOp::run_rows(const Launch& launch, const Buffers& m, int64_t b, int64_t h, int64_t first,
                      int64_t rows) const {
  const auto& kernels = attention_kernels();
  const int64_t d = shape.d, dv = shape.dv, pitch = pitch_of(d), out_pitch = pitch_of(dv);
  const auto seed = static_cast<uint64_t>(launch.scalars[0].as_int()),
             offset = static_cast<uint64_t>(launch.scalars[1].as_int());
  float max[kRows], sum[kRows];
  std::fill_n(max, kRows, -INFINITY);
  std::fill_n(sum, kRows, 0.0f);
  std::fill_n(m.result, rows * out_pitch, 0.0f);
  load_rows(shape.q, launch.pointers, b, h, first, rows, d, shape.scale, m.queries, pitch);

  const int64_t seen = shape.visible(first + rows - 1);
  for (int64_t at = 0; at < seen; at += kColumns) {
    const int64_t n = std::min(kColumns, seen - at), padded = whole_panels(n);
    kernels.product({m.queries, pitch, 1}, {m.keys + at * d, kPanel, d * kPanel}, d, m.scores,
                    kColumns, rows, n, false);
    for (int64_t i = 0; i < rows; ++i) {
      float* scores = m.scores + i * kColumns;
      const int64_t valid = std::clamp<int64_t>(shape.visible(first + i) - at, 0, n);
      if (shape.has_mask)
        add_mask(shape, launch.pointers, b, h, first + i, at, valid, scores, m.buffer);
      const float correction = kernels.softmax_row(scores, valid, padded, max + i, sum + i);
      if (correction != 1.0f && at > 0) kernels.scale(m.result + i * out_pitch, dv, correction);
      if (shape.dropout > 0.0f) {
        fill_keep(shape, seed, offset, b, h, first + i, at, valid, m.buffer);
        for (int64_t e = 0; e < valid; ++e) scores[e] *= m.buffer[e];
      }
    }
    kernels.product({m.scores, kColumns, 1}, {m.values + at * out_pitch, out_pitch, kPanel}, n,
                    m.result, out_pitch, rows, dv, true);
  }
  for (int64_t i = 0; i < rows; ++i) {
    if (sum[i] != 0.0f) kernels.scale(m.result + i * out_pitch, dv, 1.0f / sum[i]);
    const float log = max[i] == -INFINITY ? -INFINITY : max[i] + std::log(sum[i]);
    *reinterpret_cast<float*>(log_sum.row(launch.pointers, b, h, first + i)) = log;
  }
  store_rows(out, launch.pointers, b, h, first, rows, dv, m.result, out_pitch);
}

Prepared prepare_sdpa(const OpRequest& request, Refusal& refusal) {
  auto op = std::make_unique<SdpaOp>();
  AttentionShape& shape = op->shape;
  if (!shape.read(request, 0, 3, refusal)) return nullptr;
  op->out = HeadTensor(*request.operand(4), request.first_operand(4));
  op->log_sum = HeadTensor(*request.operand(5), request.first_operand(5));
  if (op->out.type != shape.q.type)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(4),
                  "sdpa: out must have q's dtype");
  op->plan();
  const double scores =
      static_cast<double>(shape.b * shape.h * shape.s) * static_cast<double>(shape.t);
  op->flops = 2 * scores * static_cast<double>(shape.d + shape.dv);
  op->bytes = static_cast<double>(size_of(shape.q.type)) * static_cast<double>(shape.b) *
              static_cast<double>(shape.h * shape.s + shape.hk * shape.t) *
              static_cast<double>(shape.d + shape.dv);
  return op;
}

constexpr KernelEntry kOps[] = {{XHAL_OP_sdpa, prepare_sdpa},
                                {XHAL_OP_sdpa_grad, prepare_sdpa_grad}};

}  // namespace

std::span<const KernelEntry> attention_ops() { return kOps; }

}  // namespace xhal::cpu
