// SPDX-License-Identifier: Apache-2.0
#include "generator.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Utils.h>
#include <ATen/core/Tensor.h>

#include <cstring>

#include "capture.h"

namespace xhal_torch {

XhalGenerator::XhalGenerator(DeviceIndex index, uint64_t seed)
    : c10::GeneratorImpl({kXhal, index}, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
      seed_(seed) {}

bool XhalGenerator::in_capture() const {
  const DeviceIndex index = device().index();
  return device_is_open(index) && capture_of(index, current_stream(index)) != nullptr;
}

void XhalGenerator::refuse_in_capture(const char* doing) const {
  TORCH_CHECK(!in_capture(), doing,
              " in a graph capture would not be repeated by the graph's replays; do it before the "
              "capture or between replays");
}

void XhalGenerator::set_current_seed(uint64_t seed) {
  if (seed == seed_ && in_capture()) return;  // as on CUDA
  refuse_in_capture("setting another seed");
  seed_ = seed;
  offset_ = 0;
}

uint64_t XhalGenerator::seed() {
  set_current_seed(c10::detail::getNonDeterministicRandom());
  return seed_;
}

void XhalGenerator::check_offset(uint64_t offset) {
  TORCH_CHECK(offset % 4 == 0, "the offset of a random generator of xhal is a multiple of 4, not ",
              offset);
}

void XhalGenerator::set_offset(uint64_t offset) {
  check_offset(offset);
  refuse_in_capture("setting the offset of the random generator");
  offset_ = offset;
}

void XhalGenerator::set_state(const c10::TensorImpl& state) {
  TORCH_CHECK(state.device().is_cpu() && state.dtype() == caffe2::TypeMeta::Make<uint8_t>() &&
                  state.numel() == 16 && state.is_contiguous(),
              "the state of a random generator of xhal is 16 bytes on the CPU: seed and offset; "
              "this is something else");
  refuse_in_capture("setting the state of the random generator");
  uint64_t words[2];
  std::memcpy(words, state.data(), sizeof words);
  check_offset(words[1]);
  seed_ = words[0];
  offset_ = words[1];
}

c10::intrusive_ptr<c10::TensorImpl> XhalGenerator::get_state() const {
  at::TensorBase state = at::detail::empty_cpu({16}, at::kByte);
  refuse_in_capture("reading the state of the random generator");
  const uint64_t words[2] = {seed_, offset_};
  std::memcpy(state.mutable_data_ptr(), words, sizeof words);
  return state.getIntrusivePtr();
}

void XhalGenerator::graphsafe_set_state(const c10::intrusive_ptr<c10::GeneratorImpl>& state) {
  const auto* other = dynamic_cast<const XhalGenerator*>(state.get());
  TORCH_CHECK(other, "the state is not that of a generator of xhal");
  refuse_in_capture("setting the state of the random generator");
  seed_ = other->seed_;
  offset_ = other->offset_;
}

Philox XhalGenerator::take(int64_t outputs) {
  const Philox taken{seed_, offset_ / 4};
  offset_ += rounded(outputs);
  return taken;
}

XhalGenerator* XhalGenerator::clone_impl() const {
  auto* copy = new XhalGenerator(device().index(), seed_);
  copy->offset_ = offset_;
  return copy;
}

at::Generator new_generator(DeviceIndex index) {
  return at::make_generator<XhalGenerator>(index < 0 ? current_device() : index);
}

const at::Generator& default_generator(DeviceIndex index) {
  static auto* const generators = [] {
    auto* made = new std::vector<at::Generator>;
    for (DeviceIndex i = 0; i < device_count(); ++i) made->push_back(new_generator(i));
    return made;
  }();
  if (index < 0) index = current_device();
  TORCH_CHECK(static_cast<size_t>(index) < generators->size(),
              "there is no device xhal:", static_cast<int>(index));
  return (*generators)[index];
}

void expect_generator(const std::optional<at::Generator>& generator, c10::DeviceType type) {
  TORCH_CHECK(!generator || !generator->defined() || generator->device().type() == type,
              "Expected a '", c10::DeviceTypeName(type, /*lower_case=*/true),
              "' device type for generator but found '",
              c10::DeviceTypeName(generator->device().type(), /*lower_case=*/true), "'");
}

Philox take_random(const std::optional<at::Generator>& generator, DeviceIndex index,
                   int64_t outputs) {
  auto* chosen = generator && generator->defined()
                     ? dynamic_cast<XhalGenerator*>(generator->unsafeGetGeneratorImpl())
                     : nullptr;
  expect_generator(generator, kXhal);
  if (!chosen)
    chosen = static_cast<XhalGenerator*>(default_generator(index).unsafeGetGeneratorImpl());
  if (const auto capture = capture_of(index, current_stream(index))) [[unlikely]]
    return capture->take_random(*chosen, outputs);
  std::lock_guard lock(chosen->mutex_);
  return chosen->take(outputs);
}

}  // namespace xhal_torch
