// SPDX-License-Identifier: Apache-2.0
// composed.h: composite operators: each is a sequence of the catalogue's kernels.
//
// A composition is a plain function of the operator's arguments that returns a new tensor. It is
// registered for the functional form and, through a copy, for the out= form (torch makes in-place
// forms of structured operators from that). It computes in f32 and rounds once. Types the catalogue
// does not compute with go to the host, counted.
#pragma once

#include <ATen/core/Tensor.h>

#include "dtype.h"
#include "native.h"
#include "runtime.h"

namespace xhal_torch {

inline bool composable(const at::Tensor& tensor) {
  return tensor.device().type() == kXhal && is_float(tensor.scalar_type());
}
template <class... Rest>
bool composes(const at::Tensor& first, const Rest&...) {
  return composable(first);
}
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

template <class... Rest>
c10::ScalarType first_type(const at::Tensor& first, const Rest&...) {
  return first.scalar_type();
}

inline at::Tensor& store(const at::Tensor& made, at::Tensor& out) {
  if (!out.sizes().equals(made.sizes())) out.resize_(made.sizes());
  out.copy_(made);
  return out;
}

template <class Functional, class Out, auto compute>
struct Composed;

template <class Functional, class Out, class... A, at::Tensor (*compute)(A...)>
struct Composed<Functional, Out, compute> {
  static at::Tensor run(A... arguments) {
    if (first_type(arguments...) == at::kFloat) return compute(arguments...);
    return compute(lifted(arguments)...).to(first_type(arguments...));
  }
  static at::Tensor functional(A... arguments) {
    return composes(arguments...) ? run(arguments...) : on_host<Functional>(arguments...);
  }
  static at::Tensor& into(A... arguments, at::Tensor& out) {
    return composes(arguments...) ? store(run(arguments...), out) : on_host<Out>(arguments..., out);
  }
  static void add(torch::Library& m) {
    native<Functional, &functional>(m);
    if constexpr (!std::is_void_v<Out>) native<Out, &into>(m);
  }
};

}  // namespace xhal_torch
