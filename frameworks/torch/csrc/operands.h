// SPDX-License-Identifier: Apache-2.0
// operands.h: what every operator asks of its operands before it touches memory: one device, and
// no memory that is written twice or read after it was written.
//
// Texts are torch's own: a program that expects the CPU's or another accelerator's refusal gets it.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

namespace xhal_torch {

// Raises torch's error for operands on two devices. As far as the caller knows them: the name of
// the `argument` that is on the other one, and of the operator.
[[noreturn]] void refuse_devices(c10::Device one, c10::Device other, std::string_view argument = {},
                                 std::string_view op = {});

inline void expect_device(const at::TensorBase& tensor, c10::Device device,
                          std::string_view argument = {}, std::string_view op = {}) {
  if (tensor.device() != device) [[unlikely]]
    refuse_devices(device, tensor.device(), argument, op);
}

// Indices may be on the CPU; on another device they are refused.
void expect_index_device(const at::TensorBase& index, c10::Device indexed);

// Whether the memory that two tensors span has a byte in common.
bool share_memory(const at::TensorBase& one, const at::TensorBase& other);

// `input`, or a copy of it where writing `out` would change it before it is read.
at::Tensor apart_from(const at::Tensor& out, const at::Tensor& input);

// The elements of an expanded tensor, each once.
at::Tensor without_repeats(const at::Tensor& tensor);

// Whether writing the tensors of `out` one after another, each from the inputs of its position, is
// the same as writing all of them at once. `may_lie_on`: an output may lie on such an input, if
// wholly.
bool independent(at::TensorList out, std::initializer_list<at::TensorList> inputs, bool may_lie_on);

}  // namespace xhal_torch
