// SPDX-License-Identifier: Apache-2.0
// conv_tensor.cpp: staging of convolution operands.
#include "conv_tensor.hpp"

#include <algorithm>
#include <cstring>

#include "convert.hpp"
#include "scratch.hpp"

namespace xhal::cpu {
namespace {
constexpr int64_t kGrain = 16384;
}

ConvTensor::ConvTensor(const xhal_tensor_desc& t, uint32_t operand, DType used)
    : desc(t), operand_(operand), type_(dtype_of(t)), used_size_(size_of(used)) {
  const Strides dense = dense_strides(t.ndim, t.sizes);
  plan_ = make_plan(t.ndim, t.sizes, {t.strides, dense.data()}, true);
  bool as_is = type_ == used;
  for (uint32_t d = 0; d < t.ndim; ++d) as_is &= t.sizes[d] == 1 || t.strides[d] > 0;
  std::copy_n(as_is ? t.strides : dense.data(), t.ndim, strides_.begin());
  for (uint32_t d = 0; as_is && d < t.ndim; ++d)  // a stride that is never taken may be anything
    if (t.sizes[d] == 1) strides_[d] = dense[d];
  if (!as_is) staged_bytes_ = align64(static_cast<uint64_t>(element_count(t)) * size_of(used));
}

bool ConvTensor::channels_last() const {
  if (staged_bytes_ != 0 || desc.sizes[1] == 1) return false;
  int64_t step = desc.sizes[1];
  bool last = desc.strides[1] == 1;
  for (uint32_t d = desc.ndim; d-- > 2; step *= desc.sizes[d])
    last &= desc.sizes[d] == 1 || desc.strides[d] == step;
  return last;
}

char* ConvTensor::stage(const Launch& launch, char* memory, bool read) const {
  if (staged_bytes_ == 0) return static_cast<char*>(launch.pointers[operand_]);
  if (!read) return memory;
  // `used` is f32 whenever it is not the tensor's own dtype.
  if (used_size_ < sizeof(float)) {
    const auto* from = static_cast<const uint16_t*>(launch.pointers[operand_]);
    auto* to = reinterpret_cast<uint16_t*>(memory);
    launch.pool.parallel_for(plan_.count, kGrain, [&](int64_t begin, int64_t end) {
      for_each_run<2>(plan_, begin, end, [&](const auto& at, int64_t n) {
        for (int64_t i = 0; i < n; ++i) to[at[1] + i] = from[at[0] + i * plan_.inner_stride(0)];
      });
    });
    return memory;
  }
  load_dense(launch, reinterpret_cast<float*>(memory));
  return memory;
}

void ConvTensor::unstage(const Launch& launch, const char* memory) const {
  if (staged_bytes_ == 0) return;
  if (used_size_ >= sizeof(float))
    return store_dense(launch, reinterpret_cast<const float*>(memory));
  const auto* from = reinterpret_cast<const uint16_t*>(memory);
  auto* to = static_cast<uint16_t*>(launch.pointers[operand_]);
  launch.pool.parallel_for(plan_.count, kGrain, [&](int64_t begin, int64_t end) {
    for_each_run<2>(plan_, begin, end, [&](const auto& at, int64_t n) {
      for (int64_t i = 0; i < n; ++i) to[at[0] + i * plan_.inner_stride(0)] = from[at[1] + i];
    });
  });
}

void ConvTensor::load_dense(const Launch& launch, float* to) const {
  const int64_t step = plan_.inner_stride(0), item = static_cast<int64_t>(size_of(type_));
  const auto load = loader<float>(type_, step == 1);
  const auto* base = static_cast<const char*>(launch.pointers[operand_]);
  launch.pool.parallel_for(plan_.count, kGrain, [&](int64_t begin, int64_t end) {
    for_each_run<2>(plan_, begin, end, [&](const auto& at, int64_t n) {
      load(base + at[0] * item, step, static_cast<size_t>(n), to + at[1]);
    });
  });
}

void ConvTensor::store_dense(const Launch& launch, const float* from) const {
  const int64_t step = plan_.inner_stride(0), item = static_cast<int64_t>(size_of(type_));
  const auto store = storer<float>(type_, step == 1);
  auto* base = static_cast<char*>(launch.pointers[operand_]);
  launch.pool.parallel_for(plan_.count, kGrain, [&](int64_t begin, int64_t end) {
    for_each_run<2>(plan_, begin, end, [&](const auto& at, int64_t n) {
      store(from + at[1], static_cast<size_t>(n), base + at[0] * item, step);
    });
  });
}

void ConvTensor::fill_zero(const Launch& launch) const {
  const int64_t step = plan_.inner_stride(0), item = static_cast<int64_t>(size_of(type_));
  auto* base = static_cast<char*>(launch.pointers[operand_]);
  for_each_run<2>(plan_, 0, plan_.count, [&](const auto& at, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
      std::memset(base + (at[0] + i * step) * item, 0, static_cast<size_t>(item));
  });
}

void ConvTensor::sum_channels(const Launch& launch, const ConvTensor& sums) const {
  int64_t sizes[XHAL_MAX_DIMENSIONS];
  std::copy_n(desc.sizes, desc.ndim, sizes);
  sizes[1] = 1;
  const IterPlan channel = make_plan(desc.ndim, sizes, {desc.strides}, true);
  const int64_t step = channel.inner_stride(0), item = static_cast<int64_t>(size_of(type_));
  const auto load = loader<float>(type_, step == 1);
  const auto store = storer<float>(sums.type_, true);
  const auto* base = static_cast<const char*>(launch.pointers[operand_]);
  auto* to = static_cast<char*>(launch.pointers[sums.operand_]);
  launch.pool.parallel_for(desc.sizes[1], 1, [&](int64_t begin, int64_t end) {
    constexpr int64_t kBlock = 512;
    float block[kBlock];
    for (int64_t c = begin; c < end; ++c) {
      double total = 0;
      for_each_run<1>(channel, 0, channel.count, [&](const auto& at, int64_t n) {
        for (int64_t first = 0; first < n; first += kBlock) {
          const int64_t count = std::min(kBlock, n - first);
          load(base + (at[0] + c * desc.strides[1] + first * step) * item, step,
               static_cast<size_t>(count), block);
          for (int64_t i = 0; i < count; ++i) total += static_cast<double>(block[i]);
        }
      });
      const auto sum = static_cast<float>(total);
      store(&sum, 1, to + c * sums.desc.strides[0] * static_cast<int64_t>(size_of(sums.type_)), 1);
    }
  });
}

}  // namespace xhal::cpu
