// SPDX-License-Identifier: Apache-2.0
// copy.h: moving tensors: on a device, between devices, to and from the host.
#pragma once

#include <ATen/core/Tensor.h>

namespace xhal_torch {

// dst = src on one device, any strides, converting. Both have the same sizes. Asynchronous on
// the current stream.
void copy_on_device(const at::Tensor& src, const at::Tensor& dst);

// dst = src for any pair of devices; sizes broadcast. Waits for the result when the host takes
// part, unless `non_blocking` and the host memory is pinned, or is the source and small.
void copy_tensor(const at::Tensor& src, const at::Tensor& dst, bool non_blocking);

// A contiguous copy on the CPU.
at::Tensor to_host(const at::Tensor& tensor);
// A copy on a device that keeps the strides of a dense tensor.
at::Tensor to_device(const at::Tensor& host, c10::Device device);

}  // namespace xhal_torch
