// SPDX-License-Identifier: Apache-2.0
// generator.h: random numbers of a device: a seed and an offset, nothing else.
//
// The offset counts 32-bit random outputs; element i of a tensor takes output offset + i, whatever
// the sharding. The catalogue's operators count in philox counters of four outputs, so launches
// pass offset / 4 and every use advances by a multiple of 4. The state is 16 bytes (seed, offset),
// the form that DTensor expects.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/GeneratorImpl.h>

#include <optional>

#include "runtime.h"

namespace xhal_torch {

struct Philox {
  uint64_t seed;
  uint64_t offset;  // in counters of four outputs, as the catalogue counts
  // In a graph capture: where both are on the device, to be read at each replay.
  uint64_t seed_address = 0, offset_address = 0;
};

class XhalGenerator final : public c10::GeneratorImpl {
 public:
  explicit XhalGenerator(DeviceIndex index, uint64_t seed = c10::default_rng_seed_val);

  void set_current_seed(uint64_t seed) override;
  uint64_t current_seed() const override { return seed_; }
  uint64_t seed() override;
  void set_offset(uint64_t offset) override;
  uint64_t get_offset() const override { return offset_; }
  void set_state(const c10::TensorImpl& state) override;
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override;
  void graphsafe_set_state(const c10::intrusive_ptr<c10::GeneratorImpl>& state) override;
  c10::intrusive_ptr<c10::GeneratorImpl> graphsafe_get_state() const override { return clone(); }

  // Takes `outputs` random outputs.
  Philox take(int64_t outputs);
  static constexpr uint64_t rounded(int64_t outputs) {
    return (static_cast<uint64_t>(outputs) + 3) / 4 * 4;
  }

 private:
  XhalGenerator* clone_impl() const override;
  bool in_capture() const;
  static void check_offset(uint64_t offset);
  // A graph takes its numbers from where the generator stands at each replay; what is done to the
  // generator during the capture would not be repeated.
  void refuse_in_capture(const char* doing) const;
  uint64_t seed_;
  uint64_t offset_ = 0;
};

const at::Generator& default_generator(DeviceIndex index);
at::Generator new_generator(DeviceIndex index);

// Raises torch's error for a generator of another kind of device than the tensors it is to fill.
void expect_generator(const std::optional<at::Generator>& generator, c10::DeviceType type);

// The generator a call names, or the device's own; takes `outputs` from it under its lock.
Philox take_random(const std::optional<at::Generator>& generator, DeviceIndex index,
                   int64_t outputs);

}  // namespace xhal_torch
