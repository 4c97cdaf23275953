// SPDX-License-Identifier: Apache-2.0
// hostile.hpp: what the hostile plugin does for a seed; the test knows it, too.
#pragma once

#include <array>

#include "mutate.hpp"
#include "xhal/plugin.hpp"

namespace xhal::fuzz {

inline constexpr const char* kSeedVariable = "HOSTILE_SEED";

struct Hostile {
  uint32_t abi_min, abi_max;
  xhal_status negotiated;
  bool no_table, no_slots, no_enumerate, no_open;
  uint32_t table_bytes, slots_bytes;
  uint32_t device_count, second_count;
  xhal_status listed;
  enum class Open { error, positive, nothing, device_only, wrong_kinds, good } open;

  explicit Hostile(uint64_t seed) {
    Random random(seed);
    const std::array<uint32_t, 7> versions = {0,
                                              plugin::kOldest,
                                              plugin::kNewest,
                                              plugin::kNewest + 1,
                                              plugin::version(XHAL_VERSION_MAJOR + 1, 0),
                                              UINT32_MAX,
                                              plugin::version(0, 0xffff)};
    const bool any_version = random.one_in(4);
    abi_min = any_version ? random.pick(versions) : plugin::kOldest;
    abi_max = any_version ? random.pick(versions) : plugin::kNewest;
    const std::array<xhal_status, 6> statuses = {
        XHAL_ERR_VERSION, XHAL_ERR_IO, XHAL_NOT_READY, 77, -77, INT32_MIN};
    negotiated = random.one_in(5) ? random.pick(statuses) : XHAL_OK;
    no_table = random.one_in(10);
    no_slots = random.one_in(10);
    no_enumerate = random.one_in(10);
    no_open = random.one_in(10);
    const uint32_t needed = offsetof(xhal_plugin_table, shutdown);
    table_bytes =
        random.one_in(5) ? static_cast<uint32_t>(random.below(needed)) : sizeof(xhal_plugin_table);
    slots_bytes = random.one_in(2) ? sizeof(xhal_dispatch)
                                   : static_cast<uint32_t>(random.below(sizeof(xhal_dispatch)));
    const std::array<uint32_t, 6> counts = {0, 1, 2, 7, 4097, UINT32_MAX};
    device_count = random.one_in(2) ? 1 : random.pick(counts);
    second_count = random.one_in(3) ? random.pick(counts) : device_count;
    listed = random.one_in(8) ? random.pick(statuses) : XHAL_OK;
    open = static_cast<Open>(random.below(6));
  }

  // A library that follows the contract loads exactly these.
  bool loads() const {
    const auto used = plugin::common_version(abi_min, abi_max, plugin::kOldest, plugin::kNewest);
    return used != 0 && negotiated == XHAL_OK && !no_table && !no_slots && !no_enumerate &&
           !no_open && table_bytes >= offsetof(xhal_plugin_table, shutdown) && listed == XHAL_OK &&
           device_count <= 4096;
  }
  uint32_t devices() const { return second_count < device_count ? second_count : device_count; }
};

}  // namespace xhal::fuzz
