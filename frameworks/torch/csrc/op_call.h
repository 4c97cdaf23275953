// SPDX-License-Identifier: Apache-2.0
// op_call.h: one run of a catalogue operator on torch tensors: the one way from ATen to the HAL.
//
//   OpCall call(XHAL_OP_gemm, out.device().index());
//   call.attr("activation", 1).in(a).in(b).absent().absent().out(out).scalar(alpha);
//   if (!call.run()) return on_host<at::_ops::mm>(a, b);
//
// Groups are given in the catalogue's order. run() submits to the device's current stream and
// returns true, or returns false when the device cannot do it; nothing was submitted then.
// Before it gives up it tries once more with contiguous operands. Tensors are borrowed and
// must outlive run().
//
// Tensors on another device are refused where they are given, in torch's words; so are results
// whose elements share memory with each other or, in part, with an operand.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Scalar.h>
#include <xhal/catalog.h>

#include <optional>
#include <string_view>

#include "dtype.h"
#include "generator.h"
#include "op_cache.h"

namespace xhal_torch {

class OpCall {
 public:
  OpCall(uint32_t id, DeviceIndex index);
  explicit OpCall(uint32_t id, const at::TensorBase& on) : OpCall(id, on.device().index()) {}

  // By the catalogue's name; one that it does not give the operator throws.
  OpCall& attr(std::string_view name, int64_t value);
  OpCall& attr(std::string_view name, bool value) { return attr(name, int64_t(value)); }
  OpCall& attr(std::string_view name, double value);
  OpCall& attr(std::string_view name, c10::IntArrayRef values);

  OpCall& in(const at::TensorBase& tensor);  // undefined = absent
  OpCall& in(const std::optional<at::Tensor>& tensor) { return tensor ? in(*tensor) : absent(); }
  OpCall& in(at::TensorList tensors);
  OpCall& out(const at::TensorBase& tensor);
  OpCall& out(at::TensorList tensors);
  OpCall& absent();

  // A group of one that is no tensor object: memory with sizes and strides in elements.
  OpCall& raw(const void* data, c10::ScalarType type, c10::IntArrayRef sizes,
              c10::IntArrayRef strides, bool output);

  OpCall& scalar(double value);
  OpCall& scalar(int64_t value);
  OpCall& scalar(uint64_t value) { return scalar(static_cast<int64_t>(value)); }
  OpCall& scalar(const c10::Scalar& value);
  OpCall& scalar_at(const at::TensorBase& tensor);  // read on the device when the operator runs
  OpCall& random(const Philox& state);              // the scalars seed and offset

  // Takes the operands in the layout they have or not at all.
  OpCall& require_layout() {
    require_layout_ = true;
    return *this;
  }

  bool run();
  // Why run() returned false.
  const std::string& refusal() const { return refusal_; }

 private:
  struct Operand {
    const at::TensorBase* tensor;  // null: memory without a tensor
    uint64_t address;
    bool output;
  };
  uint32_t place_of(std::string_view attribute) const;
  void push(const at::TensorBase& tensor, bool output);
  [[noreturn]] void refuse_device(const at::TensorBase& tensor) const;
  void check_overlap() const;
  bool run_rewritten(const PreparedOp* entry);
  void submit(const PreparedOp& entry);

  uint32_t id_;
  DeviceIndex index_;
  bool rewritten_ = false, require_layout_ = false;
  c10::ScalarType unknown_type_ = c10::ScalarType::Undefined;  // of an operand
  bool any_output_ = false, all_outputs_empty_ = true;
  KeyWords words_;
  c10::SmallVector<Operand, 8> operands_;
  c10::SmallVector<xhal_scalar, 8> scalars_;
  std::string refusal_;
};

// Memory of `tensor` for an operator, without looking at it.
inline uint64_t address_of(const at::TensorBase& tensor) {
  return reinterpret_cast<uint64_t>(tensor.unsafeGetTensorImpl()->data());
}

}  // namespace xhal_torch
