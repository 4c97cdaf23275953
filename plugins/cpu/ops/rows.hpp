// SPDX-License-Identifier: Apache-2.0
// rows.hpp: operators that work on whole rows (softmax, normalisation): how rows of any layout and
// float dtype become dense f32 and go back.
#pragma once

#include <span>

#include "convert.hpp"
#include "iterate.hpp"
#include "row_kernels.hpp"

namespace xhal::cpu {

// Dense f32 memory of the calling thread, good until its next call; nullptr when there is
// none. 64-byte aligned.
float* thread_scratch(size_t floats);

// One operand of a row operator: its elements inside a row, and where rows begin.
class RowView {
 public:
  RowView() = default;
  // Row elements are the dims of `t` in [first, first + count), in row-major order; the other dims
  // number the rows.
  RowView(const xhal_tensor_desc& t, uint32_t operand, uint32_t first, uint32_t count);

  bool present() const { return load_ != nullptr; }
  uint32_t operand() const { return operand_; }
  int64_t rows() const { return outer_.count; }
  int64_t length() const { return inner_.count; }
  DType type() const { return type_; }
  // Rows are used as they are in memory; else they are converted to dense f32 and back. Until
  // settle_rows() has been called, only dense f32 is direct.
  bool direct() const { return direct_; }

  class Cursor {
   public:
    Cursor(const RowView& view, void* const* pointers, int64_t row)
        : view_(view),
          position_(view.outer_, row),
          base_(view.present() ? static_cast<char*>(pointers[view.operand_]) : nullptr) {}
    void next() { position_.advance(1); }
    // The row as the kernels take it: the memory itself or, converted, `buffer`.
    const void* read(float* buffer) const {
      return view_.direct_ ? row() : static_cast<const void*>(view_.gather(row(), buffer));
    }
    // Where a kernel is to write the row before commit(): the memory itself or `buffer`.
    void* target(float* buffer) const { return view_.direct_ ? row() : static_cast<void*>(buffer); }
    void commit(const void* written) const {
      if (!view_.direct_) view_.scatter(static_cast<const float*>(written), row());
    }
    // A row to be read soon after this one; a guess that need not be memory of the tensor.
    const void* ahead() const { return row() + view_.ahead_bytes_; }

   private:
    char* row() const { return base_ + position_.offset(0) * view_.size_; }
    const RowView& view_;
    IterPosition position_;
    char* base_;
  };

  // Whether the kernels should write this output past the caches.
  bool streams(void* const* pointers) const;

 private:
  friend DType settle_rows(std::span<RowView* const> views);
  const float* gather(const char* from, float* buffer) const;
  void scatter(const float* buffer, char* to) const;

  IterPlan inner_, outer_;
  LoadFn<float> load_ = nullptr;
  StoreFn<float> store_ = nullptr;
  uint32_t operand_ = 0;
  int64_t size_ = 0, ahead_bytes_ = 0;
  DType type_ = DType::other;
  bool dense_ = false, aligned_ = false, direct_ = false;
};

// The dtype whose kernels fit all the views that are present: their own if they agree and are
// dense, else f32; decides which of them are direct.
DType settle_rows(std::span<RowView* const> views);

// Values that belong to rows (mean, rstd) or to the elements of a row (weight, bias): any tensor,
// in row-major order.
class FlatView {
 public:
  FlatView() = default;
  FlatView(const xhal_tensor_desc& t, uint32_t operand);

  bool present() const { return load_ != nullptr; }
  int64_t count() const { return plan_.count; }
  // One element.
  float at(void* const* pointers, int64_t i) const {
    float value;
    return direct_ ? static_cast<const float*>(pointers[operand_])[i]
                   : *read(pointers, i, 1, &value);
  }
  void set(void* const* pointers, int64_t i, float value) const {
    if (direct_) {
      static_cast<float*>(pointers[operand_])[i] = value;
    } else {
      write(pointers, i, 1, &value);
    }
  }
  // Elements [first, first + n), as the memory itself or converted into `buffer`.
  const float* read(void* const* pointers, int64_t first, int64_t n, float* buffer) const;
  void write(void* const* pointers, int64_t first, int64_t n, const float* values) const;

 private:
  IterPlan plan_;
  LoadFn<float> load_ = nullptr;
  StoreFn<float> store_ = nullptr;
  uint32_t operand_ = 0;
  int64_t size_ = 0;
  bool direct_ = false;
};

FlatView flat_view(const OpRequest& request, uint32_t group);

// XHAL_OK, or out of memory for scratch rows with its text.
xhal_status row_status(bool failed, int64_t length, const Launch& launch);

// Rows of about this many elements together are worth a second thread.
constexpr int64_t kRowGrain = 16384;
inline int64_t row_grain(int64_t length) {
  return length >= kRowGrain ? 1 : kRowGrain / (length > 0 ? length : 1);
}

}  // namespace xhal::cpu
