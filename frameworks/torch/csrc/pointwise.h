// SPDX-License-Identifier: Apache-2.0
// pointwise.h: elementwise operators with torch's rules for types, broadcasting, layouts
// and out= tensors.
//
//   at::Tensor out;  // undefined: made here; defined: written, resized where torch allows it
//   Pointwise call(XHAL_OP_add, Types::common); if (!call.operand(a).operand(b).scalar(2,
//   alpha).run(out)) return on_host<at::_ops::add_Tensor>(a, b, alpha);
//
// Operands come in the catalogue's order. A 0-d CPU tensor becomes the launch scalar of its
// position where the operator has one. Same-shaped contiguous operands of one type take a short
// path; everything else goes through TensorIterator for its shape and strides.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Scalar.h>

#include "op_call.h"

namespace xhal_torch {

enum class Types : uint8_t {
  common,    // the result has the operands' common type
  to_float,  // likewise, but integers count as the default float type
  boolean    // the result is bool (or, when given, any type)
};

class Pointwise {
 public:
  Pointwise(uint32_t id, Types types) : id_(id), types_(types) {}

  Pointwise& operand(const at::Tensor& tensor);
  Pointwise& optional_operand(const std::optional<at::Tensor>& tensor);
  // A number in the place of an operand; it takes part in type promotion as Python's numbers do.
  Pointwise& number(const at::Scalar& value);
  Pointwise& absent() {
    inputs_[count_++] = {};
    return *this;
  }
  // The operand does not take part in type promotion (masks, gradients' saved values
  // of another kind).
  Pointwise& plain(const at::Tensor& tensor);

  // By the catalogue's name, which must outlive run().
  Pointwise& attr(const char* name, int64_t value) {
    attribute_[attributes_++] = {name, value};
    return *this;
  }
  Pointwise& scalar(uint32_t index, const at::Scalar& value);

  bool run(at::Tensor& out);

 private:
  struct Input {
    const at::Tensor* tensor = nullptr;
    bool plain = false;
    bool number = false;  // value, in the place of the operand
    at::Scalar value;
  };
  struct Attribute {
    const char* name;
    int64_t value;
  };

  bool mixes_floats() const { return id_ >= XHAL_OP_add && id_ < XHAL_OP_tanh_grad; }
  c10::ScalarType common_type() const;
  const at::Tensor* leader() const;
  bool place_numbers(c10::ScalarType common);
  void check_overlap(const at::Tensor& out) const;
  bool is_operand(const at::Tensor& out) const;
  bool writes_at_once(c10::ScalarType out, c10::ScalarType result) const;
  bool lies_on_operand(const at::Tensor& out) const;
  bool run_aside(at::Tensor& out, c10::ScalarType common);
  bool run_alike(at::Tensor& out, const at::Tensor& like, c10::ScalarType result);
  bool run_iterated(at::Tensor& out, c10::ScalarType common, c10::ScalarType result);
  void begin(OpCall& call) const;
  bool finish(OpCall& call) const;
  static constexpr int kMost = 4;

  uint32_t id_;
  Types types_;
  uint8_t count_ = 0, attributes_ = 0, scalars_ = 0;
  Input inputs_[kMost];
  Attribute attribute_[3];
  at::Scalar scalar_[kMost];
};

}  // namespace xhal_torch
