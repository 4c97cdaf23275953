// SPDX-License-Identifier: Apache-2.0
// list.cpp: `xhal list`: the devices and how they are.
#include <fmt/core.h>

#include "xhal/devices.hpp"

namespace xhal::tools {
namespace {

std::string star(const std::optional<Reading>& reading) {
  return reading && reading->modelled ? "*" : "";
}

std::string memory_cell(const Device& d) {
  const auto total = d.reading(XHAL_TELEMETRY_MEMORY_TOTAL_BYTES);
  const auto used = d.reading(XHAL_TELEMETRY_MEMORY_USED_BYTES);
  if (!total) return "-";
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  const auto used_text = used ? fmt::format("{:.1f}", used->value / kGiB) : "-";
  return fmt::format("{} / {:.1f} GiB{}", used_text, total->value / kGiB, star(used));
}

std::string power_cell(const Device& d) {
  const auto power = d.reading(XHAL_TELEMETRY_POWER);
  const auto cap = d.reading(XHAL_TELEMETRY_POWER_CAP);
  if (!power) return "-";
  return cap ? fmt::format("{:.0f} / {:.0f} W{}", power->value, cap->value, star(power))
             : fmt::format("{:.0f} W{}", power->value, star(power));
}

std::string reading_cell(const Device& d, uint32_t id, double scale, const char* unit) {
  const auto reading = d.reading(id);
  return reading ? fmt::format("{:.0f} {}{}", reading->value * scale, unit, star(reading)) : "-";
}

Cell health_cell(const Device& d) {
  if (d.hidden) return {"hidden by XHAL_VISIBLE_DEVICES", Colour::dim};
  const auto health = d.health();
  if (health == "ok") return {health, Colour::good};
  if (health.empty()) return "-";
  if (health == "error") {
    return {"error: " + d.error.substr(0, d.error.find('\n')), Colour::bad};
  }
  auto text = health;
  const auto corrected = d.reading(XHAL_TELEMETRY_ERRORS_CORRECTED);
  const auto uncorrected = d.reading(XHAL_TELEMETRY_ERRORS_UNCORRECTED);
  if (corrected && corrected->value > 0)
    text += fmt::format(", {:.0f} corrected errors", corrected->value);
  if (uncorrected && uncorrected->value > 0)
    text += fmt::format(", {:.0f} uncorrected errors", uncorrected->value);
  return {text, health == "degraded" ? Colour::warning : Colour::bad};
}

std::string render(const std::vector<Device>& devices, const Options& options) {
  Table table;
  if (options.all) table.column("INDEX", Table::Align::right);
  table.column("ID");
  table.column("PLUGIN");
  table.column("NAME");
  table.column("MEMORY", Table::Align::right);
  table.column("UTIL", Table::Align::right);
  table.column("TEMP", Table::Align::right);
  table.column("POWER", Table::Align::right);
  table.column("HEALTH");
  bool modelled = false;
  for (const auto& d : devices) {
    for (const auto& [id, reading] : d.readings) modelled |= reading.modelled;
    std::vector<Cell> cells;
    if (options.all) cells.emplace_back(d.hidden ? "-" : std::to_string(d.info.index));
    cells.insert(cells.end(),
                 {Cell(d.info.id), Cell(d.info.plugin), Cell(d.info.name), Cell(memory_cell(d)),
                  Cell(reading_cell(d, XHAL_TELEMETRY_UTILIZATION, 100, "%")),
                  Cell(reading_cell(d, XHAL_TELEMETRY_TEMPERATURE, 1, "C")), Cell(power_cell(d)),
                  health_cell(d)});
    table.row(std::move(cells));
  }
  auto text = table.text(options.colours);
  if (modelled) text += "* modelled, not measured\n";
  return text;
}

}  // namespace

Report list_devices(const Options& options) {
  const Library library;
  const auto devices = observe_devices(library, options, "list");
  Report report;
  report.data = {{"devices", Json::array()}};
  for (const auto& d : devices) {
    report.data["devices"].push_back(device_json(d));
    const auto health = d.health();
    if (!d.error.empty()) report.warnings.push_back(fmt::format("{}: {}", d.info.id, d.error));
    if (!health.empty() && health != "ok") report.status = kFinding;
  }
  for (const auto& warning : library.warnings()) report.warnings.push_back(warning);
  if (devices.empty()) {
    report.status = kNoDevice;
    report.text = no_devices_text() + "\n";
    return report;
  }
  report.text = render(devices, options);
  return report;
}

}  // namespace xhal::tools
