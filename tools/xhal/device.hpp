// SPDX-License-Identifier: Apache-2.0
// device.hpp: what the commands know of a device: its record and its readings.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "common/library.hpp"

namespace xhal::tools {

struct Reading {
  double value = 0;
  bool modelled = false;
};

struct Device {
  xhal_device_info info{};
  bool hidden = false;                   // XHAL_VISIBLE_DEVICES leaves it out
  std::string error;                     // why it could not be opened; empty = it could
  std::map<uint32_t, Reading> readings;  // by XHAL_TELEMETRY_*; what it cannot tell is not there

  std::optional<Reading> reading(uint32_t id) const;
  // "ok", "degraded", "lost", "removed"; "error" when it could not be opened; empty when
  // it cannot tell.
  std::string health() const;
};

// Opens the device of this record without touching its work, and reads what it tells. Runs plugin
// code: in a child only.
Device observe(const xhal_device_info& listed);

std::string uuid_text(const xhal_device_info& info);  // empty when it has none
Json device_json(const Device& device);

// What a child sends of a device, and what the parent makes of it. Both are this very program.
Json packed(const Device& device);
Device unpacked(const Json& json);

}  // namespace xhal::tools
