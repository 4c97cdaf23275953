// SPDX-License-Identifier: Apache-2.0
// norm.cpp: layer and rms normalisation over the last dimensions, and their gradients.
#include <algorithm>
#include <atomic>

#include "norm.hpp"

namespace xhal::cpu {
namespace {

size_t padded(int64_t n) { return (static_cast<size_t>(n) + 15) / 16 * 16; }

// The dims from `axis` on are normalised; axis counts from the end when negative.
bool first_normalised(const OpRequest& request, const xhal_tensor_desc& in, uint32_t& first) {
  int64_t axis = request.attribute_int("axis");
  if (axis < 0) axis += in.ndim;
  first = static_cast<uint32_t>(axis);
  return axis >= 0 && axis < in.ndim;
}

RowView row_view(const OpRequest& request, uint32_t group, uint32_t first) {
  const xhal_tensor_desc* t = request.operand(group);
  return t == nullptr ? RowView()
                      : RowView(*t, request.first_operand(group), first, t->ndim - first);
}

class NormOp final : public Op {
 public:
  NormOp(const OpRequest& request, uint32_t first, bool centered)
      : centered_(centered), eps_(request.attribute_float("eps")) {
    in_ = row_view(request, 0, first);
    weight_ = flat_view(request, 1);
    const uint32_t out = centered ? 3 : 2;
    if (centered) bias_ = flat_view(request, 2);
    out_ = row_view(request, out, first);
    if (centered) mean_ = flat_view(request, out + 1);
    rstd_ = flat_view(request, centered ? out + 2 : out + 1);
    RowView* const rows[] = {&in_, &out_};
    kernels_ = &row_kernels(settle_rows(rows));
  }

  xhal_status run(const Launch& launch) const override {
    const int64_t length = in_.length();
    const auto n = static_cast<size_t>(length);
    const bool stream = out_.streams(launch.pointers) &&
                        launch.pointers[in_.operand()] != launch.pointers[out_.operand()];
    std::atomic<bool> failed{false};
    launch.pool.parallel_for(in_.rows(), row_grain(length), [&](int64_t begin, int64_t end) {
      float* memory = thread_scratch(4 * padded(length));
      if (memory == nullptr) return failed.store(true, std::memory_order_relaxed);
      float* const in_row = memory;
      float* const out_row = in_row + padded(length);
      const float* weight = nullptr;
      const float* bias = nullptr;
      if (weight_.present())
        weight = weight_.read(launch.pointers, 0, length, out_row + padded(length));
      if (bias_.present())
        bias = bias_.read(launch.pointers, 0, length, out_row + 2 * padded(length));
      RowView::Cursor from(in_, launch.pointers, begin), to(out_, launch.pointers, begin);
      for (int64_t row = begin; row < end; ++row, from.next(), to.next()) {
        void* y = to.target(out_row);
        const RowStats stats = kernels_->norm(from.read(in_row), weight, bias, centered_, eps_, y,
                                              n, {{from.ahead()}, stream});
        to.commit(y);
        if (mean_.present()) mean_.set(launch.pointers, row, stats.mean);
        if (rstd_.present()) rstd_.set(launch.pointers, row, stats.rstd);
      }
      if (stream) finish_streaming();
    });
    return row_status(failed, length, launch);
  }

 private:
  const RowKernels* kernels_;
  bool centered_;
  double eps_;
  RowView in_, out_;
  FlatView weight_, bias_, mean_, rstd_;
};

// Chunks of rows, as many as the sizes say, add to rows of dweight and dbias of their own; these
// are summed in order.
class NormGradOp final : public Op {
 public:
  NormGradOp(const OpRequest& request, uint32_t first, bool centered) : centered_(centered) {
    grad_ = row_view(request, 0, first);
    in_ = row_view(request, 1, first);
    uint32_t group = 2;
    if (centered) mean_ = flat_view(request, group++);
    rstd_ = flat_view(request, group++);
    weight_ = flat_view(request, group++);
    din_ = row_view(request, group++, first);
    dweight_ = flat_view(request, group++);
    if (centered) dbias_ = flat_view(request, group);
    RowView* const rows[] = {&grad_, &in_, &din_};
    kernels_ = &row_kernels(settle_rows(rows));
    chunks_ = std::clamp<int64_t>(in_.rows() / 64, 1, 32);
    chunk_rows_ = (in_.rows() + chunks_ - 1) / chunks_;
    const int64_t sums = dweight_.present() || dbias_.present() ? 2 : 0;
    stride_ = padded(in_.length());
    workspace_bytes = static_cast<uint64_t>(chunks_ * sums) * stride_ * sizeof(float);
  }

  xhal_status run(const Launch& launch) const override {
    const int64_t length = in_.length();
    std::atomic<bool> failed{false};
    auto* sums = static_cast<float*>(launch.workspace);
    const bool stream = din_.present() && din_.streams(launch.pointers) &&
                        launch.pointers[din_.operand()] != launch.pointers[grad_.operand()];
    const bool has_sums = dweight_.present() || dbias_.present();
    float* weight_sums = has_sums ? sums : nullptr;
    float* bias_sums = has_sums ? sums + chunks_ * static_cast<int64_t>(stride_) : nullptr;
    launch.pool.parallel_for(
        chunks_, std::max<int64_t>(1, row_grain(length) / std::max<int64_t>(1, chunk_rows_)),
        [&](int64_t begin, int64_t end) {
          for (int64_t chunk = begin; chunk < end; ++chunk)
            if (!run_chunk(launch, chunk, stream, weight_sums, bias_sums))
              failed.store(true, std::memory_order_relaxed);
        });
    if (failed) return row_status(failed, length, launch);
    write_sums(launch, dweight_, weight_sums);
    write_sums(launch, dbias_, bias_sums);
    return XHAL_OK;
  }

 private:
  bool run_chunk(const Launch& launch, int64_t chunk, bool stream, float* weight_sums,
                 float* bias_sums) const {
    const int64_t length = in_.length();
    const auto n = static_cast<size_t>(length);
    float* memory = thread_scratch(4 * stride_);
    if (memory == nullptr) return false;
    const float* weight = nullptr;
    if (weight_.present()) weight = weight_.read(launch.pointers, 0, length, memory + 3 * stride_);
    float* dweight = weight_sums == nullptr ? nullptr : weight_sums + chunk * stride_;
    float* dbias = bias_sums == nullptr ? nullptr : bias_sums + chunk * stride_;
    if (dweight != nullptr) std::fill_n(dweight, stride_, 0.0f);
    if (dbias != nullptr) std::fill_n(dbias, stride_, 0.0f);
    const int64_t begin = chunk * chunk_rows_, end = std::min(in_.rows(), begin + chunk_rows_);
    if (begin >= end) return true;
    RowView::Cursor grad(grad_, launch.pointers, begin), in(in_, launch.pointers, begin);
    RowView::Cursor din(din_, launch.pointers, begin);
    for (int64_t row = begin; row < end; ++row, grad.next(), in.next(), din.next()) {
      const RowStats stats{centered_ ? mean_.at(launch.pointers, row) : 0.0f,
                           rstd_.at(launch.pointers, row)};
      void* dx = din_.present() ? din.target(memory + 2 * stride_) : nullptr;
      kernels_->norm_grad(grad.read(memory), in.read(memory + stride_), stats, weight, centered_,
                          dx, dweight, dbias, n, {{grad.ahead(), in.ahead()}, stream});
      if (dx != nullptr) din.commit(dx);
    }
    if (stream) finish_streaming();
    return true;
  }

  void write_sums(const Launch& launch, const FlatView& to, const float* sums) const {
    if (!to.present()) return;
    constexpr int64_t kColumns = 256;
    launch.pool.parallel_for(in_.length(), 4096, [&](int64_t begin, int64_t end) {
      float row[kColumns];
      for (int64_t i = begin; i < end; i += kColumns) {
        const int64_t n = std::min(kColumns, end - i);
        channel_kernels().sum_rows(sums + i, static_cast<size_t>(chunks_), stride_, row,
                                   static_cast<size_t>(n));
        to.write(launch.pointers, i, n, row);
      }
    });
  }

  const RowKernels* kernels_;
  bool centered_;
  RowView grad_, in_, din_;
  FlatView mean_, rstd_, weight_, dweight_, dbias_;
  int64_t chunks_, chunk_rows_;
  size_t stride_;
};

template <class T, bool kCentered>
Prepared prepare_norm(const OpRequest& request, Refusal& refusal) {
  const xhal_tensor_desc& in = *request.operand(std::is_same_v<T, NormGradOp> ? 1 : 0);
  uint32_t first = 0;
  if (!first_normalised(request, in, first))
    return refuse(
        refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
        text("`", op_name(request.id()), "` has no dimension ", request.attribute_int("axis")));
  return std::make_unique<T>(request, first, kCentered);
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_layer_norm, prepare_norm<NormOp, true>},
    {XHAL_OP_layer_norm_grad, prepare_norm<NormGradOp, true>},
    {XHAL_OP_rms_norm, prepare_norm<NormOp, false>},
    {XHAL_OP_rms_norm_grad, prepare_norm<NormGradOp, false>},
    {XHAL_OP_group_norm, prepare_group_norm},
    {XHAL_OP_group_norm_grad, prepare_group_norm_grad},
    {XHAL_OP_batch_norm, prepare_batch_norm},
    {XHAL_OP_batch_norm_grad, prepare_batch_norm_grad},
};

}  // namespace

std::span<const KernelEntry> norm_ops() { return kOps; }

}  // namespace xhal::cpu
