// SPDX-License-Identifier: Apache-2.0
// copy_task.cpp: the ways to copy: whole rows, element by element, tile by tile when the layouts
// are transposed, and block by block through a computing type when the dtypes differ.
#include <algorithm>
#include <cstring>

#include "copy.hpp"

namespace xhal::cpu {
namespace {

constexpr int64_t kTile = 32;

}  // namespace

CopyTask::CopyTask(const xhal_tensor_desc& to, const xhal_tensor_desc& from) {
  const int64_t* strides[] = {to.strides, from.strides};
  plan_ = plan_iteration(to.ndim, to.sizes, strides);
  const DType to_type = dtype_of(to), from_type = dtype_of(from);
  to_size_ = static_cast<uint8_t>(size_of(to_type));
  from_size_ = static_cast<uint8_t>(size_of(from_type));
  units_ = plan_.count;
  const bool writes_dense = plan_.inner_stride(0) == 1, reads_dense = plan_.inner_stride(1) == 1;
  if (to_type == from_type) {
    if (writes_dense && reads_dense) {
      streams_ = plan_.inner() >= 4096 && worth_streaming(plan_.count * to_size_);
      stream_copy_ = stream_copier();
      return;
    }
    way_ = plan_transposition() ? Way::transposed : Way::strided;
    return;
  }
  way_ = Way::converted;
  compute_ = compute_of(to_type, from_type);
  const DType computing = compute_ == Compute::f32   ? DType::f32
                          : compute_ == Compute::f64 ? DType::f64
                                                     : DType::i64;
  writes_direct_ = writes_dense && to_type == computing;
  reads_direct_ = reads_dense && from_type == computing;
  load_f32_ = loader<float>(from_type, reads_dense);
  load_i64_ = loader<int64_t>(from_type, reads_dense);
  load_f64_ = loader<double>(from_type, reads_dense);
  store_f32_ = storer<float>(to_type, writes_dense);
  store_i64_ = storer<int64_t>(to_type, writes_dense);
  store_f64_ = storer<double>(to_type, writes_dense);
  streams_ = compute_ == Compute::f32 && writes_dense && !writes_direct_ && plan_.inner() >= 4096 &&
             worth_streaming(plan_.count * to_size_);
  if (streams_) store_f32_ = streamer<float>(to_type);
}

bool CopyTask::plan_transposition() {
  const int last = plan_.ndim - 1;
  if (last < 1 || plan_.strides[0][last] != 1 || plan_.strides[1][last] == 0) return false;
  for (int d = 0; d < last; ++d) {
    if (plan_.strides[1][d] != 1 || plan_.sizes[d] < 4 || plan_.sizes[last] < 4) continue;
    across_ = d;
    tiles_across_ = (plan_.sizes[d] + kTile - 1) / kTile;
    tiles_along_ = (plan_.sizes[last] + kTile - 1) / kTile;
    units_ = plan_.count / plan_.sizes[d] / plan_.sizes[last] * tiles_across_ * tiles_along_;
    unit_elements_ = kTile * kTile;
    return true;
  }
  return false;
}

void CopyTask::run(void* to_pointer, const void* from_pointer, int64_t begin, int64_t end) const {
  auto* to = static_cast<char*>(to_pointer);
  const auto* from = static_cast<const char*>(from_pointer);
  const auto by_size = [&](auto&& f) {
    switch (to_size_) {
      case 1:
        return f(uint8_t{});
      case 2:
        return f(uint16_t{});
      case 4:
        return f(uint32_t{});
      default:
        return f(uint64_t{});
    }
  };
  switch (way_) {
    case Way::rows: {
      IterPosition at(plan_, begin);
      while (begin < end) {
        const int64_t n = std::min(end - begin, at.left());
        char* p = to + at.offset(0) * to_size_;
        const char* q = from + at.offset(1) * to_size_;
        if (streams_) {
          stream_copy_(q, p, static_cast<size_t>(n) * to_size_);
        } else {
          std::memcpy(p, q, static_cast<size_t>(n) * to_size_);
        }
        at.advance(n);
        begin += n;
      }
      if (streams_) finish_streaming();
      return;
    }
    case Way::strided:
      return by_size([&](auto t) { run_strided<decltype(t)>(to, from, begin, end); });
    case Way::transposed:
      return by_size([&](auto t) { run_transposed<decltype(t)>(to, from, begin, end); });
    case Way::converted:
      if (compute_ == Compute::f32) return run_converted<float>(to, from, begin, end);
      if (compute_ == Compute::i64) return run_converted<int64_t>(to, from, begin, end);
      return run_converted<double>(to, from, begin, end);
  }
}

template <class T>
void CopyTask::run_converted(char* to, const char* from, int64_t begin, int64_t end) const {
  constexpr int64_t kBlock = 4096 / sizeof(T);
  alignas(64) T block[kBlock];
  LoadFn<T> load;
  StoreFn<T> store;
  if constexpr (std::is_same_v<T, float>) {
    load = load_f32_, store = store_f32_;
  } else if constexpr (std::is_same_v<T, double>) {
    load = load_f64_, store = store_f64_;
  } else {
    load = load_i64_, store = store_i64_;
  }
  const int64_t to_stride = plan_.inner_stride(0), from_stride = plan_.inner_stride(1);
  IterPosition at(plan_, begin);
  while (begin < end) {
    int64_t n = std::min(end - begin, at.left());
    char* p = to + at.offset(0) * to_size_;
    const char* q = from + at.offset(1) * from_size_;
    if (writes_direct_) {
      load(q, from_stride, static_cast<size_t>(n), reinterpret_cast<T*>(p));
    } else if (reads_direct_) {
      store(reinterpret_cast<const T*>(q), static_cast<size_t>(n), p, to_stride);
    } else {
      n = std::min(n, kBlock);
      load(q, from_stride, static_cast<size_t>(n), block);
      store(block, static_cast<size_t>(n), p, to_stride);
    }
    at.advance(n);
    begin += n;
  }
  if (streams_) finish_streaming();
}

template <class T>
void CopyTask::run_strided(char* to, const char* from, int64_t begin, int64_t end) const {
  const int64_t to_stride = plan_.inner_stride(0), from_stride = plan_.inner_stride(1);
  IterPosition at(plan_, begin);
  while (begin < end) {
    const int64_t n = std::min(end - begin, at.left());
    T* p = reinterpret_cast<T*>(to) + at.offset(0);
    const T* q = reinterpret_cast<const T*>(from) + at.offset(1);
    if (to_stride == 1 && from_stride == 0) {
      std::fill_n(p, n, *q);
    } else if (to_stride == 1) {
      for (int64_t i = 0; i < n; ++i) p[i] = q[i * from_stride];
    } else {
      for (int64_t i = 0; i < n; ++i) p[i * to_stride] = q[i * from_stride];
    }
    at.advance(n);
    begin += n;
  }
}

template <class T>
void CopyTask::run_transposed(char* to, const char* from, int64_t begin, int64_t end) const {
  T tile[kTile][kTile];
  const int last = plan_.ndim - 1;
  const int64_t to_across = plan_.strides[0][across_], from_along = plan_.strides[1][last];
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t tile_along = unit % tiles_along_;
    int64_t rest = unit / tiles_along_;
    const int64_t tile_across = rest % tiles_across_;
    rest /= tiles_across_;
    int64_t to_offset = plan_.offsets[0], from_offset = plan_.offsets[1];
    for (int d = last - 1; d >= 0; --d) {
      if (d == across_) continue;
      to_offset += rest % plan_.sizes[d] * plan_.strides[0][d];
      from_offset += rest % plan_.sizes[d] * plan_.strides[1][d];
      rest /= plan_.sizes[d];
    }
    const int64_t x = tile_along * kTile, y = tile_across * kTile;
    const int64_t width = std::min(kTile, plan_.sizes[last] - x);
    const int64_t height = std::min(kTile, plan_.sizes[across_] - y);
    const T* q = reinterpret_cast<const T*>(from) + from_offset + x * from_along + y;
    T* p = reinterpret_cast<T*>(to) + to_offset + y * to_across + x;
    for (int64_t i = 0; i < width; ++i)
      for (int64_t j = 0; j < height; ++j) tile[j][i] = q[i * from_along + j];
    for (int64_t j = 0; j < height; ++j)
      std::memcpy(p + j * to_across, tile[j], static_cast<size_t>(width) * sizeof(T));
  }
}

}  // namespace xhal::cpu
