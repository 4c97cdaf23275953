// SPDX-License-Identifier: Apache-2.0
// softmax.cpp: softmax, log_softmax and their gradients along any dimension.
#include <atomic>

#include "rows.hpp"

namespace xhal::cpu {
namespace {

enum class Kind { softmax, log_softmax, softmax_grad, log_softmax_grad };

class SoftmaxOp final : public Op {
 public:
  SoftmaxOp(Kind kind, const OpRequest& request, uint32_t dim) : kind_(kind) {
    const uint32_t operands = request.info().operand_count;
    RowView* all[3];
    for (uint32_t i = 0; i < operands; ++i) {
      views_[i] = RowView(request.info().operands[i], i, dim, 1);
      all[i] = &views_[i];
    }
    inputs_ = operands - 1;
    kernels_ = &row_kernels(settle_rows({all, operands}));
  }

  xhal_status run(const Launch& launch) const override {
    const RowView& out = views_[inputs_];
    if (out.length() == 0) return XHAL_OK;
    bool stream = out.streams(launch.pointers);
    for (uint32_t i = 0; i < inputs_; ++i) stream &= launch.pointers[i] != launch.pointers[inputs_];
    std::atomic<bool> failed{false};
    launch.pool.parallel_for(out.rows(), row_grain(out.length()), [&](int64_t begin, int64_t end) {
      if (!run_rows(launch, stream, begin, end)) failed.store(true, std::memory_order_relaxed);
    });
    return row_status(failed, out.length(), launch);
  }

 private:
  bool run_rows(const Launch& launch, bool stream, int64_t begin, int64_t end) const {
    const auto n = static_cast<size_t>(views_[0].length());
    const size_t padded = (n + 15) / 16 * 16;
    float* memory = thread_scratch(4 * padded);
    if (memory == nullptr) return false;
    const RowView& second_view = views_[inputs_ == 2 ? 1 : 0];
    RowView::Cursor first(views_[0], launch.pointers, begin);
    RowView::Cursor second(second_view, launch.pointers, begin);
    RowView::Cursor to(views_[inputs_], launch.pointers, begin);
    for (int64_t row = begin; row < end; ++row) {
      const void* x = first.read(memory);
      void* y = to.target(memory + padded);
      const RowHints hints{{first.ahead(), second.ahead()}, stream};
      float* buffer = memory + 2 * padded;
      switch (kind_) {
        case Kind::softmax:
          kernels_->softmax(x, y, n, buffer, hints);
          break;
        case Kind::log_softmax:
          kernels_->log_softmax(x, y, n, buffer, hints);
          break;
        case Kind::softmax_grad:
          kernels_->softmax_grad(x, second.read(buffer), y, n, hints);
          break;
        case Kind::log_softmax_grad:
          kernels_->log_softmax_grad(x, second.read(buffer), y, n, hints);
          break;
      }
      to.commit(y);
      first.next();
      second.next();
      to.next();
    }
    if (stream) finish_streaming();
    return true;
  }

  Kind kind_;
  const RowKernels* kernels_;
  RowView views_[3];
  uint32_t inputs_;
};

template <Kind kKind>
Prepared prepare(const OpRequest& request, Refusal& refusal) {
  const std::span all(request.info().operands, request.info().operand_count);
  const xhal_tensor_desc& out = all.back();
  int64_t dim = request.attribute_int("dim");
  if (dim < 0) dim += out.ndim;
  if (out.ndim == 0 && (dim == 0 || dim == -1)) {  // a single value is a row of one
    xhal_op_info info = request.info();
    xhal_tensor_desc rows[3];
    for (uint32_t i = 0; i < all.size(); ++i) {
      rows[i] = all[i];
      rows[i].ndim = 1;
      rows[i].sizes[0] = rows[i].strides[0] = 1;
    }
    info.operands = rows;
    return std::make_unique<SoftmaxOp>(kKind, OpRequest(info), 0);
  }
  if (dim < 0 || dim >= out.ndim)
    return refuse(
        refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
        text("`", op_name(request.id()), "` has no dimension ", request.attribute_int("dim")));
  return std::make_unique<SoftmaxOp>(kKind, request, static_cast<uint32_t>(dim));
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_softmax, prepare<Kind::softmax>},
    {XHAL_OP_softmax_grad, prepare<Kind::softmax_grad>},
    {XHAL_OP_log_softmax, prepare<Kind::log_softmax>},
    {XHAL_OP_log_softmax_grad, prepare<Kind::log_softmax_grad>},
};

}  // namespace

std::span<const KernelEntry> softmax_ops() { return kOps; }

}  // namespace xhal::cpu
