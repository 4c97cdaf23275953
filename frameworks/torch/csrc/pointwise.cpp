// SPDX-License-Identifier: Apache-2.0
#include "pointwise.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/TensorIterator.h>
#include <ATen/native/TypeProperties.h>
#include <c10/core/DefaultDtype.h>
#include <xhal/catalogue.hpp>

#include <cmath>
#include <limits>

#include "copy.h"
#include "fallback.h"
#include "operands.h"
#include "views.h"

namespace xhal_torch {
namespace {

bool is_host_number(const at::Tensor& tensor) { return tensor.dim() == 0 && tensor.is_cpu(); }

// The operands that an operator's output may lie on: bit i for operand i.
uint32_t alias_mask(uint32_t id) {
  const auto* op = xhal::catalogue::find(id);
  return op == nullptr ? 0 : op->groups()[op->input_count].aliases;
}

std::string_view operand_name(uint32_t id, int position) {
  const auto* op = xhal::catalogue::find(id);
  return op == nullptr ? std::string_view() : op->groups()[position].name;
}

// Whether the device may be asked to compute with this type: f64 for some operators only.
bool computes(uint32_t id, c10::ScalarType type) {
  if (type != at::kDouble) return is_native(type);
  const auto* op = xhal::catalogue::find(id);
  if (op == nullptr) return false;
  for (const auto& group : op->groups())
    if (group.takes(xhal::DType::f64)) return true;
  return false;
}

// A number as torch's kernels take it: cut to the width of the type, as C does.
at::Scalar narrowed(const at::Scalar& value, c10::ScalarType type) {
  if (value.isComplex()) return value;
  if (type == at::kHalf) {  // past its largest number there is infinity
    const double number = value.toDouble();
    if (std::abs(number) >= 65520) return std::copysign(HUGE_VAL, number);
    return value;
  }
  if (!c10::isIntegralType(type, /*includeBool=*/true)) return value;
  if (type == at::kBool)
    return int64_t(value.isFloatingPoint() ? value.toDouble() != 0 : value.toLong() != 0);
  if (!value.isIntegral(/*includeBool=*/true)) return value;
  const int64_t whole = value.isBoolean() ? int64_t(value.toBool()) : value.toLong();
  switch (type) {
    case at::kByte:
      return int64_t(static_cast<uint8_t>(whole));
    case at::kChar:
      return int64_t(static_cast<int8_t>(whole));
    case at::kShort:
      return int64_t(static_cast<int16_t>(whole));
    case at::kInt:
      return int64_t(static_cast<int32_t>(whole));
    default:
      return whole;
  }
}

// Where a little makes another result: 1 % 0.1 is 0.1, but the f16 next to 0.1 divides 1 almost.
at::Scalar rounded(const at::Scalar& value, c10::ScalarType type) {
  if (type != at::kHalf && type != at::kBFloat16) return narrowed(value, type);
  const auto wide = static_cast<float>(value.toDouble());
  return type == at::kHalf ? float{c10::Half(wide)} : float{c10::BFloat16(wide)};
}

at::Tensor cast(const at::Tensor& tensor, c10::ScalarType type) {
  if (tensor.scalar_type() == type) return tensor;
  at::Tensor made = new_dense_like(tensor, type);
  copy_on_device(tensor, made);
  return made;
}

// Whether the dimensions of a converted copy lie in memory in the same order: a new result takes
// its strides from the converted operands.
bool conversion_keeps_order(const at::Tensor& tensor) {
  if (tensor.is_non_overlapping_and_dense()) return true;
  int64_t outer = std::numeric_limits<int64_t>::max();
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) == 1) continue;
    if (tensor.stride(d) == 0 || tensor.stride(d) > outer) return false;
    outer = tensor.stride(d);
  }
  return true;
}

}  // namespace

Pointwise& Pointwise::operand(const at::Tensor& tensor) {
  Input& input = inputs_[count_++];
  input.tensor = &tensor;
  return *this;
}

Pointwise& Pointwise::optional_operand(const std::optional<at::Tensor>& tensor) {
  return tensor && tensor->defined() ? operand(*tensor) : absent();
}

Pointwise& Pointwise::number(const at::Scalar& value) {
  Input& input = inputs_[count_++];
  input.number = true;
  input.value = value;
  return *this;
}

Pointwise& Pointwise::plain(const at::Tensor& tensor) {
  inputs_[count_].plain = true;
  return operand(tensor);
}

Pointwise& Pointwise::scalar(uint32_t index, const at::Scalar& value) {
  scalar_[index] = value;
  if (index >= scalars_) {
    for (uint32_t i = scalars_; i < index; ++i) scalar_[i] = 0;
    scalars_ = static_cast<uint8_t>(index + 1);
  }
  return *this;
}

c10::ScalarType Pointwise::common_type() const {
  at::native::ResultTypeState state;
  for (int i = 0; i < count_; ++i) {
    const Input& input = inputs_[i];
    if (input.plain) continue;
    if (input.tensor) state = at::native::update_result_type_state(*input.tensor, state);
    if (input.number) state = at::native::update_result_type_state(input.value, state);
  }
  return at::native::result_type(state);
}

void Pointwise::begin(OpCall& call) const {
  for (int i = 0; i < attributes_; ++i) call.attr(attribute_[i].name, attribute_[i].value);
}

bool Pointwise::finish(OpCall& call) const {
  for (int i = 0; i < scalars_; ++i) call.scalar(scalar_[i]);
  return call.run();
}

// The first tensor on the device that counts for the type, or any on the device; null when there is
// none, or when an operand is on the host and no mere number.
const at::Tensor* Pointwise::leader() const {
  const at::Tensor* leader = nullptr;
  bool plain = true;
  for (int i = 0; i < count_; ++i) {
    const Input& input = inputs_[i];
    if (!input.tensor) continue;
    if (input.tensor->device().type() != kXhal) {
      if (!is_host_number(*input.tensor)) return nullptr;
      continue;
    }
    if (!leader || (plain && !input.plain)) {
      leader = input.tensor;
      plain = input.plain;
    }
  }
  return leader;
}

// Turns 0-d CPU tensors into numbers, and numbers into the launch scalars of their positions.
bool Pointwise::place_numbers(c10::ScalarType common) {
  // The catalogue's scalars begin with the operands that may be numbers.
  const int first = id_ == XHAL_OP_where ? 1 : id_ == XHAL_OP_lerp ? 2 : 0;
  for (int i = 0; i < count_; ++i) {
    Input& input = inputs_[i];
    if (input.tensor && input.tensor->device().type() != kXhal) {
      if (id_ < XHAL_OP_add || id_ > XHAL_OP_lerp || i < first || input.plain) return false;
      input.value = input.tensor->item();
      input.tensor = nullptr;
      input.number = true;
    }
    if (!input.number) continue;
    // Torch takes a factor as it is and a term as a number of the type.
    const bool factor =
        common == at::kHalf && (id_ == XHAL_OP_mul || id_ == XHAL_OP_div || id_ == XHAL_OP_pow);
    const bool exact = id_ == XHAL_OP_remainder || (id_ >= XHAL_OP_eq && id_ <= XHAL_OP_ge);
    scalar(static_cast<uint32_t>(i - first), factor  ? input.value
                                             : exact ? rounded(input.value, common)
                                                     : narrowed(input.value, common));
  }
  return true;
}

bool Pointwise::run(at::Tensor& out) {
  const at::Tensor* like = leader();
  if (!like) return false;
  if (out.defined()) check_overlap(out);

  // Operands of one type, or floating ones with a real number: nothing to promote.
  c10::ScalarType common = like->scalar_type();
  bool promote = false;
  for (int i = 0; i < count_; ++i) {
    const Input& input = inputs_[i];
    if (input.tensor) {
      promote = promote || (!input.plain && input.tensor->scalar_type() != common);
      if (!input.tensor->is_cpu() && input.tensor->device() != like->device()) [[unlikely]]
        refuse_devices(like->device(), input.tensor->device(), operand_name(id_, i), op_name(id_));
    } else if (input.number) {
      promote = promote || !c10::isFloatingType(common) || input.value.isComplex();
    }
  }
  if (promote) common = common_type();
  if (types_ == Types::to_float && c10::isIntegralType(common, /*includeBool=*/true)) {
    common = c10::get_default_dtype_as_scalartype();
  }
  if (!computes(id_, common)) {
    set_refusal(host_reason(common));
    return false;
  }
  if (!c10::isFloatingType(common)) {
    // Torch's errors for such requests come from its own kernels.
    for (int i = 0; i < scalars_; ++i) {
      if (scalar_[i].isFloatingPoint()) return false;
    }
  }
  if (!place_numbers(common)) return false;
  if (common == at::kBool) {  // a factor of bools is one too
    for (int i = 0; i < scalars_; ++i) scalar_[i] = narrowed(scalar_[i], common);
  }
  const bool divides = id_ == XHAL_OP_div || id_ == XHAL_OP_remainder;
  if (divides && inputs_[1].number && !c10::isFloatingType(common))
    TORCH_CHECK(scalar_[1].toLong() != 0, "ZeroDivisionError");
  if (out.defined() && lies_on_operand(out)) return run_aside(out, common);

  bool alike = like->scalar_type() == common;
  for (int i = 0; i < count_ && alike; ++i) {
    const Input& input = inputs_[i];
    if (!input.tensor) continue;
    alike = input.tensor->is_contiguous() &&
            (input.plain || input.tensor->scalar_type() == common) &&
            input.tensor->sizes().equals(like->sizes());
  }
  const c10::ScalarType result = types_ == Types::boolean ? c10::ScalarType::Bool : common;
  if (alike &&
      (!out.defined() || (out.is_contiguous() && out.scalar_type() == result &&
                          out.sizes().equals(like->sizes()) && out.device() == like->device()))) {
    return run_alike(out, *like, result);
  }
  return run_iterated(out, common, result);
}

// As torch's own kernels: the operands may be converted below, after which nothing would show.
void Pointwise::check_overlap(const at::Tensor& out) const {
  at::assert_no_internal_overlap(out);
  for (int i = 0; i < count_; ++i) {
    const at::Tensor* tensor = inputs_[i].tensor;
    if (tensor && !tensor->is_same(out)) at::assert_no_partial_overlap(out, *tensor);
  }
}

bool Pointwise::is_operand(const at::Tensor& out) const {
  for (int i = 0; i < count_; ++i) {
    if (inputs_[i].tensor && inputs_[i].tensor->is_same(out)) return true;
  }
  return false;
}

// Whether the device may write the result straight into an output of another type: the result is
// first a number of the operands' type, which only of f32 shows nothing in what it is rounded to.
bool Pointwise::writes_at_once(c10::ScalarType out, c10::ScalarType result) const {
  return out == result ||
         (mixes_floats() && types_ != Types::boolean && is_float(out) && result == at::kFloat);
}

// Whether the output shares memory with an operand that the catalogue keeps apart from it.
bool Pointwise::lies_on_operand(const at::Tensor& out) const {
  const uint32_t allowed = alias_mask(id_);
  for (int i = 0; i < count_; ++i) {
    const at::Tensor* tensor = inputs_[i].tensor;
    if (tensor && !(allowed >> i & 1) && tensor->is_alias_of(out) &&
        tensor->sizes().equals(out.sizes()))
      return true;
  }
  return false;
}

bool Pointwise::run_aside(at::Tensor& out, c10::ScalarType common) {
  TORCH_CHECK(types_ == Types::boolean || c10::canCast(common, out.scalar_type()), "result type ",
              common, " can't be cast to the desired output type ", out.scalar_type());
  at::Tensor aside;
  if (!Pointwise(*this).run(aside)) return false;
  TORCH_CHECK(aside.sizes().equals(out.sizes()), "output with shape ", out.sizes(),
              " doesn't match the broadcast shape ", aside.sizes());
  copy_on_device(aside, out);
  return true;
}

bool Pointwise::run_alike(at::Tensor& out, const at::Tensor& like, c10::ScalarType result) {
  if (!out.defined()) out = new_tensor(like.sizes(), result, like.device());
  const int64_t size = like.numel();
  const int64_t stride = 1;
  OpCall call(id_, like);
  begin(call);
  for (int i = 0; i < count_; ++i) {
    const at::Tensor* tensor = inputs_[i].tensor;
    if (tensor) {
      call.raw(reinterpret_cast<const void*>(address_of(*tensor)), tensor->scalar_type(), size,
               stride, false);
    } else {
      call.absent();
    }
  }
  call.raw(reinterpret_cast<const void*>(address_of(out)), result, size, stride, true);
  return finish(call);
}

bool Pointwise::run_iterated(at::Tensor& out, c10::ScalarType common, c10::ScalarType result) {
  at::Tensor cast_inputs[kMost];
  at::TensorIteratorConfig config;
  config.set_check_mem_overlap(true).check_all_same_dtype(false);
  const bool had_out = out.defined();
  if (!had_out) config.declare_static_dtype(result);
  // What is written in place keeps its size, also where a converted copy of it is read.
  if (had_out && is_operand(out)) config.resize_outputs(false);
  config.add_output(out);
  for (int i = 0; i < count_; ++i) {
    const Input& input = inputs_[i];
    if (!input.tensor) continue;
    const auto type = input.tensor->scalar_type();
    const bool mixes = mixes_floats() && is_float(type) && is_float(common) &&
                       (had_out || conversion_keeps_order(*input.tensor));
    if (input.plain || type == common || mixes) {
      config.add_const_input(*input.tensor);
    } else {
      cast_inputs[i] = cast(*input.tensor, common);
      config.add_const_input(cast_inputs[i]);
    }
  }
  if (had_out && types_ != Types::boolean) {
    TORCH_CHECK(c10::canCast(common, out.scalar_type()), "result type ", common,
                " can't be cast to the desired output type ", out.scalar_type());
  }
  at::TensorIterator iter = config.build();
  out = iter.output(0);
  if (iter.numel() == 0) return true;

  const int ndim = iter.ndim();
  if (!writes_at_once(out.scalar_type(), result) || ndim > XHAL_MAX_DIMENSIONS) {
    // Into a contiguous result of the operator's own type, then over.
    at::Tensor packed[kMost];
    Pointwise again(*this);
    int operand = 1;
    for (int i = 0; i < count_; ++i) {
      if (!inputs_[i].tensor) continue;
      packed[i] = iter.tensor(operand++).expand(out.sizes()).contiguous();
      again.inputs_[i].tensor = &packed[i];
    }
    at::Tensor temporary = new_tensor(out.sizes(), result, out.device());
    if (!again.run_alike(temporary, temporary, result)) return false;
    copy_on_device(temporary, out);
    return true;
  }

  OpCall call(id_, out);
  begin(call);
  // TensorIterator counts dimensions from the fastest and strides in bytes.
  c10::SmallVector<int64_t, XHAL_MAX_DIMENSIONS> sizes(iter.shape().rbegin(), iter.shape().rend());
  int64_t strides[XHAL_MAX_DIMENSIONS];
  const auto add = [&](int arg, bool output) {
    const auto bytes = iter.strides(arg);
    const int64_t width = iter.element_size(arg);
    for (int d = 0; d < ndim; ++d) strides[ndim - 1 - d] = bytes[d] / width;
    call.raw(iter.data_ptr(arg), iter.dtype(arg), sizes, c10::IntArrayRef(strides, sizes.size()),
             output);
  };
  int operand = 1;
  for (int i = 0; i < count_; ++i) {
    if (inputs_[i].tensor) {
      add(operand++, false);
    } else {
      call.absent();
    }
  }
  add(0, true);
  return finish(call);
}

}  // namespace xhal_torch
