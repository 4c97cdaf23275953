// SPDX-License-Identifier: Apache-2.0
// rows.cpp: rows and flat lists of elements of any layout and float dtype, as dense f32.
#include "rows.hpp"

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace xhal::cpu {

float* thread_scratch(size_t floats) {
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<float, Free> memory;
  thread_local size_t capacity = 0;
  if (floats <= capacity) return memory.get();
  const size_t rounded = (floats + 1023) / 1024 * 1024;
  memory.reset(static_cast<float*>(std::aligned_alloc(64, rounded * sizeof(float))));
  capacity = memory != nullptr ? rounded : 0;
  return memory.get();
}

RowView::RowView(const xhal_tensor_desc& t, uint32_t operand, uint32_t first, uint32_t count)
    : operand_(operand), size_(static_cast<int64_t>(size_of(dtype_of(t)))), type_(dtype_of(t)) {
  const int64_t* inner[] = {t.strides + first};
  inner_ = plan_iteration(count, t.sizes + first, inner, true);
  std::array<int64_t, XHAL_MAX_DIMENSIONS> sizes{}, strides{};
  uint32_t dims = 0;
  for (uint32_t d = 0; d < t.ndim; ++d) {
    if (d >= first && d < first + count) continue;
    sizes[dims] = t.sizes[d];
    strides[dims++] = t.strides[d];
  }
  const int64_t* outer[] = {strides.data()};
  outer_ = plan_iteration(dims, sizes.data(), outer, true);
  dense_ = inner_.inner_stride(0) == 1 && inner_.ndim <= 1;
  direct_ = dense_ && type_ == DType::f32;
  load_ = loader<float>(type_, inner_.inner_stride(0) == 1);
  store_ = storer<float>(type_, inner_.inner_stride(0) == 1);
  aligned_ = true;
  for (int d = 0; d < outer_.ndim; ++d) aligned_ &= outer_.strides[0][d] * size_ % 64 == 0;
  // Short rows: further ahead than the next one.
  const int64_t row_bytes = std::max<int64_t>(1, inner_.count * size_);
  if (dense_)
    ahead_bytes_ = outer_.inner_stride(0) * size_ * std::max<int64_t>(1, 2048 / row_bytes);
}

bool RowView::streams(void* const* pointers) const {
  return direct_ && aligned_ && reinterpret_cast<uintptr_t>(pointers[operand_]) % 64 == 0 &&
         worth_streaming(inner_.count * outer_.count * size_);
}

DType settle_rows(std::span<RowView* const> views) {
  DType common = DType::other;
  for (const RowView* view : views) {
    if (!view->present()) continue;
    if (common == DType::other) common = view->type_;
    if (!view->dense_ || view->type_ != common) common = DType::f32;
  }
  for (RowView* view : views) view->direct_ = view->dense_ && view->type_ == common;
  return common;
}

const float* RowView::gather(const char* from, float* buffer) const {
  IterPosition at(inner_, 0);
  for (int64_t done = 0; done < inner_.count;) {
    const int64_t n = at.left();
    load_(from + at.offset(0) * size_, inner_.inner_stride(0), static_cast<size_t>(n),
          buffer + done);
    at.advance(n);
    done += n;
  }
  return buffer;
}

void RowView::scatter(const float* buffer, char* to) const {
  IterPosition at(inner_, 0);
  for (int64_t done = 0; done < inner_.count;) {
    const int64_t n = at.left();
    store_(buffer + done, static_cast<size_t>(n), to + at.offset(0) * size_,
           inner_.inner_stride(0));
    at.advance(n);
    done += n;
  }
}

FlatView::FlatView(const xhal_tensor_desc& t, uint32_t operand)
    : operand_(operand), size_(static_cast<int64_t>(size_of(dtype_of(t)))) {
  const int64_t* strides[] = {t.strides};
  plan_ = plan_iteration(t.ndim, t.sizes, strides, true);
  const bool dense = plan_.inner_stride(0) == 1;
  direct_ = dense && plan_.ndim <= 1 && dtype_of(t) == DType::f32;
  load_ = loader<float>(dtype_of(t), dense);
  store_ = storer<float>(dtype_of(t), dense);
}

const float* FlatView::read(void* const* pointers, int64_t first, int64_t n, float* buffer) const {
  const char* base = static_cast<const char*>(pointers[operand_]);
  if (direct_) return reinterpret_cast<const float*>(base) + first;
  IterPosition at(plan_, first);
  for (int64_t done = 0; done < n;) {
    const int64_t k = std::min(n - done, at.left());
    load_(base + at.offset(0) * size_, plan_.inner_stride(0), static_cast<size_t>(k),
          buffer + done);
    at.advance(k);
    done += k;
  }
  return buffer;
}

void FlatView::write(void* const* pointers, int64_t first, int64_t n, const float* values) const {
  char* base = static_cast<char*>(pointers[operand_]);
  IterPosition at(plan_, first);
  for (int64_t done = 0; done < n;) {
    const int64_t k = std::min(n - done, at.left());
    store_(values + done, static_cast<size_t>(k), base + at.offset(0) * size_,
           plan_.inner_stride(0));
    at.advance(k);
    done += k;
  }
}

xhal_status row_status(bool failed, int64_t length, const Launch& launch) {
  if (!failed) return XHAL_OK;
  *launch.error = text("no memory for rows of ", length, " elements");
  return XHAL_ERR_OUT_OF_MEMORY;
}

FlatView flat_view(const OpRequest& request, uint32_t group) {
  const xhal_tensor_desc* t = request.operand(group);
  return t == nullptr ? FlatView() : FlatView(*t, request.first_operand(group));
}

}  // namespace xhal::cpu
