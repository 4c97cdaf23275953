// SPDX-License-Identifier: Apache-2.0
#include "op_call.h"

#include <ATen/Context.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/ops/empty_like.h>
#include <xhal/catalogue.hpp>

#include <cstring>

#include "allocator.h"
#include "capture.h"
#include "copy.h"
#include "fallback.h"
#include "operands.h"

namespace xhal_torch {
namespace {

c10::ScalarType scalar_type_of(uint8_t code, uint8_t bits) {
  for (auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kLong, at::kInt, at::kShort,
                    at::kChar, at::kByte, at::kBool, at::kDouble}) {
    const Dtype dtype = dtype_of(type);
    if (dtype.code == code && dtype.bits == bits) return type;
  }
  return c10::ScalarType::Undefined;
}

// Lists longer than this are those of the multi operators, whose callers look for overlaps.
constexpr size_t kMostCompared = 16;

}  // namespace

OpCall::OpCall(uint32_t id, DeviceIndex index) : id_(id), index_(index) {
  words_.push_back(key::header(id, index, at::globalContext().deterministicAlgorithms()));
}

uint32_t OpCall::place_of(std::string_view attribute) const {
  const auto* op = xhal::catalogue::find(id_);
  const auto* known = op == nullptr ? nullptr : op->attribute(attribute);
  TORCH_INTERNAL_ASSERT(known, "the catalogue gives `", op_name(id_), "` no attribute ", attribute);
  return static_cast<uint32_t>(known - op->attributes().data());
}

OpCall& OpCall::attr(std::string_view name, int64_t value) {
  words_.push_back(key::attribute(place_of(name), XHAL_ATTR_INT, 1));
  words_.push_back(static_cast<uint64_t>(value));
  return *this;
}

OpCall& OpCall::attr(std::string_view name, double value) {
  uint64_t word;
  std::memcpy(&word, &value, sizeof word);
  words_.push_back(key::attribute(place_of(name), XHAL_ATTR_FLOAT, 1));
  words_.push_back(word);
  return *this;
}

OpCall& OpCall::attr(std::string_view name, c10::IntArrayRef values) {
  const auto count = static_cast<uint32_t>(values.size());
  words_.push_back(key::attribute(place_of(name), XHAL_ATTR_INTS, count));
  for (int64_t value : values) words_.push_back(static_cast<uint64_t>(value));
  return *this;
}

// Of the operand that is about to be given, in the group that came last.
void OpCall::refuse_device(const at::TensorBase& tensor) const {
  size_t groups = 0;
  for (size_t i = 1; i < words_.size(); ++i) {
    const uint64_t word = words_[i];
    if (key::tag(word) == key::kGroup) ++groups;
    if (key::tag(word) == key::kOperand) i += 2 * size_t(key::low(word));
    if (key::tag(word) == key::kAttribute) i += size_t(key::low(word));
  }
  const auto* op = xhal::catalogue::find(id_);
  const bool known = op != nullptr && groups > 0 && groups <= op->groups().size();
  refuse_devices(c10::Device(kXhal, index_), tensor.device(),
                 known ? op->groups()[groups - 1].name : std::string_view(), op_name(id_));
}

void OpCall::push(const at::TensorBase& tensor, bool output) {
  if (tensor.device() != c10::Device(kXhal, index_)) [[unlikely]]
    refuse_device(tensor);
  const auto* impl = tensor.unsafeGetTensorImpl();
  const Dtype dtype = dtype_of(tensor.scalar_type());
  if (dtype.bits == 0) [[unlikely]]
    unknown_type_ = tensor.scalar_type();
  const auto sizes = impl->sizes();
  const auto strides = impl->strides();
  words_.push_back(key::operand(dtype.code, dtype.bits, 0, static_cast<uint32_t>(sizes.size())));
  for (int64_t size : sizes) words_.push_back(static_cast<uint64_t>(size));
  for (int64_t stride : strides) words_.push_back(static_cast<uint64_t>(stride));
  operands_.push_back({&tensor, address_of(tensor), output});
  if (output) {
    any_output_ = true;
    all_outputs_empty_ = all_outputs_empty_ && impl->numel() == 0;
    if (!impl->is_non_overlapping_and_dense()) at::assert_no_internal_overlap(tensor);
  }
}

// A result that lies wholly on an operand is the operator's matter: the catalogue says where it
// may. A part of one is refused, as torch's own kernels do.
void OpCall::check_overlap() const {
  if (operands_.size() > kMostCompared) return;
  for (const Operand& out : operands_) {
    if (!out.output || !out.tensor) continue;
    for (const Operand& in : operands_) {
      if (in.output || !in.tensor || !in.tensor->is_alias_of(*out.tensor)) continue;
      at::assert_no_partial_overlap(*out.tensor, *in.tensor);
    }
  }
}

OpCall& OpCall::in(const at::TensorBase& tensor) {
  if (!tensor.defined()) return absent();
  words_.push_back(key::group(1));
  push(tensor, false);
  return *this;
}

OpCall& OpCall::in(at::TensorList tensors) {
  words_.push_back(key::group(static_cast<uint32_t>(tensors.size())));
  for (const auto& tensor : tensors) push(tensor, false);
  return *this;
}

OpCall& OpCall::out(const at::TensorBase& tensor) {
  if (!tensor.defined()) return absent();
  words_.push_back(key::group(1));
  push(tensor, true);
  return *this;
}

OpCall& OpCall::out(at::TensorList tensors) {
  words_.push_back(key::group(static_cast<uint32_t>(tensors.size())));
  for (const auto& tensor : tensors) push(tensor, true);
  return *this;
}

OpCall& OpCall::absent() {
  words_.push_back(key::group(0));
  return *this;
}

OpCall& OpCall::raw(const void* data, c10::ScalarType type, c10::IntArrayRef sizes,
                    c10::IntArrayRef strides, bool output) {
  const Dtype dtype = dtype_of(type);
  words_.push_back(key::group(1));
  words_.push_back(key::operand(dtype.code, dtype.bits, 0, static_cast<uint32_t>(sizes.size())));
  int64_t elements = 1;
  for (int64_t size : sizes) {
    words_.push_back(static_cast<uint64_t>(size));
    elements *= size;
  }
  for (int64_t stride : strides) words_.push_back(static_cast<uint64_t>(stride));
  operands_.push_back({nullptr, reinterpret_cast<uint64_t>(data), output});
  if (output) {
    any_output_ = true;
    all_outputs_empty_ = all_outputs_empty_ && elements == 0;
  }
  return *this;
}

OpCall& OpCall::scalar(double value) {
  xhal_scalar& scalar = scalars_.emplace_back();
  scalar = {};
  scalar.kind = XHAL_SCALAR_FLOAT;
  scalar.value.f = value;
  return *this;
}

OpCall& OpCall::scalar(int64_t value) {
  xhal_scalar& scalar = scalars_.emplace_back();
  scalar = {};
  scalar.kind = XHAL_SCALAR_INT;
  scalar.value.i = value;
  return *this;
}

OpCall& OpCall::scalar(const c10::Scalar& value) {
  if (value.isFloatingPoint()) return scalar(value.toDouble());
  if (value.isBoolean()) return scalar(static_cast<int64_t>(value.toBool()));
  return scalar(value.toLong());
}

OpCall& OpCall::scalar_at(const at::TensorBase& tensor) {
  expect_device(tensor, c10::Device(kXhal, index_));
  const Dtype dtype = dtype_of(tensor.scalar_type());
  xhal_scalar& scalar = scalars_.emplace_back();
  scalar = {};
  scalar.kind = XHAL_SCALAR_ADDRESS;
  scalar.code = dtype.code;
  scalar.bits = dtype.bits;
  scalar.value.address = address_of(tensor);
  return *this;
}

OpCall& OpCall::random(const Philox& state) {
  const auto word = [this](uint64_t value, uint64_t address) {
    if (!address) return void(scalar(value));
    xhal_scalar& scalar = scalars_.emplace_back();
    scalar = {};
    scalar.kind = XHAL_SCALAR_ADDRESS;
    scalar.code = XHAL_CODE_INT;
    scalar.bits = 64;
    scalar.value.address = address;
  };
  word(state.seed, state.seed_address);
  word(state.offset, state.offset_address);
  return *this;
}

void OpCall::submit(const PreparedOp& entry) {
  xhal_stream* stream = launch_stream(index_);
  c10::SmallVector<uint64_t, 8> addresses;
  for (const auto& operand : operands_) addresses.push_back(operand.address);
  uint64_t workspace = 0;
  std::optional<Scratch> scratch;
  if (entry.workspace_bytes) {
    scratch.emplace(index_, stream, entry.workspace_bytes);
    workspace = scratch->address();
  }
  const char* name = op_name(key::low(words_[0]));
  check(xhal_op_launch(stream, entry.op, addresses.data(), static_cast<uint32_t>(addresses.size()),
                       scalars_.data(), static_cast<uint32_t>(scalars_.size()), workspace),
        name);
  if (launch_blocking() && !capture_of(index_, stream)) [[unlikely]]
    check(xhal_stream_synchronize(stream, XHAL_FOREVER), name);
}

bool OpCall::run() {
  if (any_output_ && all_outputs_empty_) return true;
  if (unknown_type_ != c10::ScalarType::Undefined) [[unlikely]] {
    refusal_ = c10::str("xHAL has no type ", unknown_type_);
    set_refusal(refusal_);
    return false;
  }
  if (any_output_) check_overlap();
  const PreparedOp* entry = find_op(words_);
  if (entry->op && (!entry->rewrite || rewritten_)) [[likely]] {
    submit(*entry);
    return true;
  }
  if (!entry->op || require_layout_) {
    refusal_ = entry->op ? "the device does not take the layout of its operands" : entry->refusal;
    set_refusal(refusal_);
  }
  if (require_layout_ || rewritten_ || !run_rewritten(entry)) return false;
  set_refusal({});
  return true;
}

// Makes every operand what the device asked for (or contiguous, when it refused) and runs again.
bool OpCall::run_rewritten(const PreparedOp* found) {
  std::vector<xhal_operand_need> needs = found->needs;
  const bool refused = !found->op;
  std::vector<at::Tensor> made;
  std::vector<std::pair<size_t, at::Tensor>> back;
  std::vector<const c10::TensorImpl*> origin;
  made.reserve(operands_.size());

  OpCall again(key::low(words_[0]), index_);
  again.rewritten_ = true;
  again.scalars_ = scalars_;
  size_t operand = 0;
  for (size_t i = 1; i < words_.size();) {
    const uint64_t word = words_[i];
    if (key::tag(word) == key::kOperand) {
      const Operand& old = operands_[operand];
      const size_t length = 1 + 2 * size_t(key::low(word));
      const uint32_t need = refused ? uint32_t(XHAL_NEED_CONTIGUOUS) : needs[operand].need;
      auto wanted = old.tensor ? old.tensor->scalar_type() : c10::ScalarType::Undefined;
      if (need & XHAL_NEED_DTYPE) wanted = scalar_type_of(needs[operand].code, needs[operand].bits);
      const bool layout =
          old.tensor && (need & XHAL_NEED_CONTIGUOUS) && !old.tensor->is_contiguous();
      const bool align = !refused && (need & XHAL_NEED_ALIGNED) &&
                         old.address % needs[operand].alignment_bytes != 0;
      const bool change = old.tensor && (layout || align || wanted != old.tensor->scalar_type());
      if (change) {
        // An operator may be in place: outputs are filled too, and an operand that comes
        // twice stays one.
        size_t twin = 0;
        while (twin < made.size() && origin[twin] != old.tensor->unsafeGetTensorImpl()) ++twin;
        if (twin == made.size()) {
          const at::Tensor tensor(*old.tensor);
          made.push_back(at::empty_like(tensor, at::TensorOptions().dtype(wanted),
                                        at::MemoryFormat::Contiguous));
          origin.push_back(old.tensor->unsafeGetTensorImpl());
          copy_on_device(tensor, made.back());
        }
        again.push(made[twin], old.output);
        if (old.output) back.emplace_back(operand, made[twin]);
      } else {
        for (size_t k = 0; k < length; ++k) again.words_.push_back(words_[i + k]);
        again.operands_.push_back(old);
        again.any_output_ = again.any_output_ || old.output;
        again.all_outputs_empty_ = again.all_outputs_empty_ && !old.output;
      }
      i += length;
      ++operand;
    } else {
      const size_t length = key::tag(word) == key::kAttribute ? 1 + size_t(key::low(word)) : 1;
      for (size_t k = 0; k < length; ++k) again.words_.push_back(words_[i + k]);
      i += length;
    }
  }
  if (refused && made.empty()) return false;
  if (!again.run()) {
    refusal_ = again.refusal_;
    return false;
  }
  for (const auto& [which, copy] : back) copy_on_device(copy, at::Tensor(*operands_[which].tensor));
  return true;
}

}  // namespace xhal_torch
