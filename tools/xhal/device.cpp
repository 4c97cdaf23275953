// SPDX-License-Identifier: Apache-2.0
#include "xhal/device.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace xhal::tools {
namespace {

// The readings that tools show, and their keys; the unit is in the key.
struct Key {
  uint32_t id;
  const char* name;
};
constexpr std::array kKeys = {
    Key{XHAL_TELEMETRY_MEMORY_TOTAL_BYTES, "memory_total_bytes"},
    Key{XHAL_TELEMETRY_MEMORY_USED_BYTES, "memory_used_bytes"},
    Key{XHAL_TELEMETRY_UTILIZATION, "utilization_ratio"},
    Key{XHAL_TELEMETRY_TEMPERATURE, "temperature_celsius"},
    Key{XHAL_TELEMETRY_POWER, "power_watts"},
    Key{XHAL_TELEMETRY_POWER_CAP, "power_cap_watts"},
    Key{XHAL_TELEMETRY_ENERGY, "energy_joules"},
    Key{XHAL_TELEMETRY_CLOCK, "clock_hertz"},
    Key{XHAL_TELEMETRY_HEALTH, "health_state"},
    Key{XHAL_TELEMETRY_ERRORS_CORRECTED, "errors_corrected"},
    Key{XHAL_TELEMETRY_ERRORS_UNCORRECTED, "errors_uncorrected"},
};

}  // namespace

std::optional<Reading> Device::reading(uint32_t id) const {
  const auto found = readings.find(id);
  if (found != readings.end()) return found->second;
  // The record's memory size is known without telemetry.
  if (id == XHAL_TELEMETRY_MEMORY_TOTAL_BYTES && info.memory_bytes != 0) {
    return Reading{static_cast<double>(info.memory_bytes), false};
  }
  return std::nullopt;
}

std::string Device::health() const {
  static constexpr std::array kStates = {"ok", "degraded", "lost", "removed"};
  if (!error.empty()) return "error";
  if ((info.flags & XHAL_DEVICE_GONE) != 0) return "removed";
  const auto state = reading(XHAL_TELEMETRY_HEALTH);
  if (state) return kStates[static_cast<size_t>(std::clamp(state->value, 0.0, 3.0))];
  return (info.flags & XHAL_DEVICE_DEGRADED) != 0 ? "degraded" : "";
}

Device observe(const xhal_device_info& listed) {
  Device device{listed, false, {}, {}};
  const ObservedDevice opened(listed.index);
  if (opened.status() != XHAL_OK) {
    device.error = opened.error();
    return device;
  }
  xhal_device_info known{};
  if (xhal_device_query(opened.handle(), &known) == XHAL_OK) device.info = known;
  std::array<xhal_sample, kKeys.size()> samples{};
  for (size_t i = 0; i < kKeys.size(); ++i) samples[i].id = kKeys[i].id;
  if (xhal_device_telemetry(opened.handle(), samples.data(), samples.size()) != XHAL_OK)
    return device;
  for (const auto& sample : samples) {
    if ((sample.flags & XHAL_SAMPLE_VALID) == 0 || !std::isfinite(sample.value)) continue;
    device.readings[sample.id] = {sample.value, (sample.flags & XHAL_SAMPLE_MODELLED) != 0};
  }
  return device;
}

std::string uuid_text(const xhal_device_info& info) {
  if (std::all_of(std::begin(info.uuid), std::end(info.uuid), [](uint8_t b) { return b == 0; }))
    return {};
  std::string text;
  for (size_t i = 0; i < sizeof info.uuid; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", info.uuid[i]);
  }
  return text;
}

Json device_json(const Device& device) {
  const auto& info = device.info;
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? Json() : Json(text);
  };
  Json json;
  json["id"] = info.id;
  json["index"] = device.hidden ? Json() : Json(info.index);
  json["plugin"] = info.plugin;
  json["ordinal"] = info.ordinal;
  json["name"] = info.name;
  json["vendor"] = info.vendor;
  json["uuid"] = text_or_null(uuid_text(info));
  json["pci"] = text_or_null(info.pci);
  json["numa_node"] = info.numa_node < 0 ? Json() : Json(info.numa_node);
  json["generation"] = info.generation;
  json["emulated"] = (info.flags & XHAL_DEVICE_EMULATED) != 0;
  json["verified"] = (info.flags & XHAL_DEVICE_UNVERIFIED) == 0;
  json["health"] = text_or_null(device.health());
  Json unavailable = Json::object(), modelled = Json::array();
  for (const auto& key : kKeys) {
    if (key.id == XHAL_TELEMETRY_HEALTH) continue;
    const auto reading = device.reading(key.id);
    json[key.name] = reading ? Json(reading->value) : Json();
    if (reading && reading->modelled) modelled.push_back(key.name);
    if (reading) continue;
    unavailable[key.name] = device.hidden          ? "hidden by XHAL_VISIBLE_DEVICES"
                            : device.error.empty() ? "unsupported"
                                                   : "error: " + device.error;
  }
  json["modelled"] = modelled;
  json["unavailable"] = unavailable;
  json["error"] = text_or_null(device.error);
  return json;
}

Json packed(const Device& device) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&device.info);
  std::string info;
  for (size_t i = 0; i < sizeof device.info; ++i) info += fmt::format("{:02x}", bytes[i]);
  Json readings = Json::array();
  for (const auto& [id, reading] : device.readings)
    readings.push_back({id, reading.value, reading.modelled});
  return {
      {"info", info}, {"hidden", device.hidden}, {"error", device.error}, {"readings", readings}};
}

Device unpacked(const Json& json) {
  Device device;
  const auto info = json.at("info").get<std::string>();
  auto* bytes = reinterpret_cast<unsigned char*>(&device.info);
  for (size_t i = 0; i < std::min(sizeof device.info, info.size() / 2); ++i)
    bytes[i] = static_cast<unsigned char>(std::stoul(info.substr(2 * i, 2), nullptr, 16));
  device.hidden = json.at("hidden");
  device.error = json.at("error");
  for (const auto& reading : json.at("readings"))
    device.readings[reading.at(0).get<uint32_t>()] = {reading.at(1).get<double>(),
                                                      reading.at(2).get<bool>()};
  return device;
}

}  // namespace xhal::tools
