// SPDX-License-Identifier: Apache-2.0
// composed.h: composite operators: each is a sequence of the catalogue's kernels.
//
// A composition is a plain function of the operator's arguments that returns a new tensor. It is
// registered for the functional form and, through a copy, for the out= form (torch makes in-place
// forms of structured operators from that). It computes in f32 and rounds once. Types the catalogue
// does not compute with, and mixed types unless the composition promotes them, go to the host,
// counted.
#pragma once

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TypeProperties.h>

#include "dtype.h"
#include "native.h"
#include "operands.h"
#include "runtime.h"

namespace xhal_torch {

inline bool composable(const at::Tensor& tensor) {
  return tensor.device().type() == kXhal && is_float(tensor.scalar_type());
}

// What the tensors among a composition's arguments have in common.
struct Operands {
  c10::ScalarType first = c10::ScalarType::Undefined;
  bool mixed = false;  // of more than one type
  bool native = true;  // all of types the catalogue knows, on a device or mere numbers
  at::native::ResultTypeState promoted;

  void add(const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    const auto type = tensor.scalar_type();
    if (first == c10::ScalarType::Undefined) first = type;
    mixed = mixed || type != first;
    const bool number = tensor.is_cpu() && tensor.dim() == 0;
    native = native && (number || (tensor.device().type() == kXhal && is_native(type)));
    promoted = at::native::update_result_type_state(tensor, promoted);
  }
  void add(const std::optional<at::Tensor>& tensor) {
    if (tensor) add(*tensor);
  }
  template <class T>
  void add(const T&) {}
  template <class... A>
  static Operands of(const A&... arguments) {
    Operands operands;
    (operands.add(arguments), ...);
    return operands;
  }
};

// Arguments in f32.
inline at::Tensor lifted(const at::Tensor& tensor) {
  return tensor.defined() && composable(tensor) ? tensor.to(at::kFloat) : tensor;
}
inline std::optional<at::Tensor> lifted(const std::optional<at::Tensor>& tensor) {
  return tensor ? std::optional<at::Tensor>(lifted(*tensor)) : tensor;
}
template <class T>
const T& lifted(const T& value) {
  return value;
}

inline at::Tensor& store(const at::Tensor& made, at::Tensor& out) {
  expect_device(out, made.device(), "out");
  TORCH_CHECK(c10::canCast(made.scalar_type(), out.scalar_type()), "result type ",
              made.scalar_type(), " can't be cast to the desired output type ", out.scalar_type());
  at::native::resize_output(out, made.sizes());
  out.copy_(made);
  return out;
}

// torch's rules for an output that shares memory with an argument; whether it is one.
inline bool check_written(const at::Tensor& out, const at::Tensor& argument) {
  if (!argument.defined()) return false;
  if (argument.is_same(out)) return true;
  at::assert_no_partial_overlap(out, argument);
  return false;
}
inline bool check_written(const at::Tensor& out, const std::optional<at::Tensor>& argument) {
  return argument && check_written(out, *argument);
}
template <class T>
bool check_written(const at::Tensor&, const T&) {
  return false;
}

// How a composition treats operands of different types: torch's kernel promotes them to one, or
// has rules of its own, which the host then applies.
enum class Mixed : uint8_t { host, promoted };

template <class Functional, class Out, auto compute, Mixed mixed = Mixed::host>
struct Composed;

template <class Functional, class Out, class... A, at::Tensor (*compute)(A...), Mixed mixed>
struct Composed<Functional, Out, compute, mixed> {
  // The type of the result, if it is computed here.
  static std::optional<c10::ScalarType> result_type(const A&... arguments) {
    const Operands operands = Operands::of(arguments...);
    if (!operands.native) return std::nullopt;
    if (!operands.mixed)
      return is_float(operands.first) ? std::optional(operands.first) : std::nullopt;
    if constexpr (mixed == Mixed::host) return std::nullopt;
    const auto type = at::native::result_type(operands.promoted);
    return is_float(type) ? std::optional(type) : std::nullopt;
  }
  static at::Tensor run(c10::ScalarType type, A... arguments) {
    const Operands operands = Operands::of(arguments...);
    if (!operands.mixed && type == at::kFloat) return compute(arguments...);
    return compute(lifted(arguments)...).to(type);
  }
  static at::Tensor functional(A... arguments) {
    const auto type = result_type(arguments...);
    return type ? run(*type, arguments...) : on_host<Functional>(arguments...);
  }
  static at::Tensor& into(A... arguments, at::Tensor& out) {
    const auto type = result_type(arguments...);
    if (!type) return on_host<Out>(arguments..., out);
    at::assert_no_internal_overlap(out);
    const bool in_place = (check_written(out, arguments) | ... | false);
    const at::Tensor made = run(*type, arguments...);
    TORCH_CHECK(!in_place || made.sizes().equals(out.sizes()), "output with shape ", out.sizes(),
                " doesn't match the broadcast shape ", made.sizes());
    return store(made, out);
  }
  static void add(torch::Library& m) {
    native<Functional, &functional>(m);
    if constexpr (!std::is_void_v<Out>) native<Out, &into>(m);
  }
};

}  // namespace xhal_torch
