// SPDX-License-Identifier: Apache-2.0
// views.h: what changes a tensor's form and not its contents.
#pragma once

#include <ATen/core/Tensor.h>

namespace xhal_torch {

// Gives a storage at least `size_bytes`, keeping its contents.
void resize_storage(c10::StorageImpl* storage, size_t size_bytes);

// The same memory as another type of the same width, and as two elements of half the width in a
// new last dimension.
at::Tensor reinterpret_as(const at::Tensor& tensor, c10::ScalarType type);
at::Tensor reinterpret_as_pairs(const at::Tensor& tensor, c10::ScalarType half);

// Uninitialised tensors without a detour through the dispatcher.
at::Tensor new_tensor(c10::IntArrayRef sizes, c10::ScalarType type, c10::Device device);
at::Tensor new_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType type,
                       c10::Device device);
at::Tensor new_tensor(c10::IntArrayRef sizes, c10::ScalarType type, c10::Device device,
                      at::MemoryFormat format);
inline at::Tensor new_like(const at::TensorBase& like, c10::IntArrayRef sizes) {
  return new_tensor(sizes, like.scalar_type(), like.device());
}
inline at::Tensor new_like(const at::TensorBase& like, c10::IntArrayRef sizes,
                           at::MemoryFormat format) {
  return new_tensor(sizes, like.scalar_type(), like.device(), format);
}
// Contiguous, or dense with the strides of `like`.
at::Tensor new_dense_like(const at::TensorBase& like, c10::ScalarType type);
inline at::Tensor new_dense_like(const at::TensorBase& like) {
  return new_dense_like(like, like.scalar_type());
}

}  // namespace xhal_torch
