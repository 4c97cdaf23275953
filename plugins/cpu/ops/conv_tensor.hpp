// SPDX-License-Identifier: Apache-2.0
// conv_tensor.hpp: an operand of a convolution, brought into a form oneDNN takes.
#pragma once

#include "index.hpp"
#include "op.hpp"

namespace xhal::cpu {

// A tensor that is used as it is, or staged: copied to dense memory of dtype `used` before a kernel
// reads it, or from there after a kernel has written it. Staged are dtypes that oneDNN does not
// compute in, and strides that are not positive.
class ConvTensor {
 public:
  xhal_tensor_desc desc{};

  ConvTensor() = default;
  ConvTensor(const xhal_tensor_desc& t, uint32_t operand, DType used);

  const Strides& used_strides() const { return strides_; }
  uint64_t staged_bytes() const { return staged_bytes_; }
  bool channels_last() const;

  // Where kernels find it: the operand, or `memory`, filled if `read`.
  char* stage(const Launch& launch, char* memory, bool read) const;
  void unstage(const Launch& launch, const char* memory) const;
  void fill_zero(const Launch& launch) const;

  // The elements in row-major order as f32.
  void load_dense(const Launch& launch, float* to) const;
  void store_dense(const Launch& launch, const float* from) const;
  // sums[c] = sum of [n, c, ...] over all but c, in row-major order.
  void sum_channels(const Launch& launch, const ConvTensor& sums) const;

 private:
  uint32_t operand_ = 0;
  DType type_ = DType::f32;
  size_t used_size_ = sizeof(float);  // bytes of an element where kernels find it
  Strides strides_{};
  uint64_t staged_bytes_ = 0;
  IterPlan plan_;  // {tensor, dense} in row-major order
};

}  // namespace xhal::cpu
