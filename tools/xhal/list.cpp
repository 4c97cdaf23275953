// SPDX-License-Identifier: Apache-2.0
// list.cpp: `xhal list`: the devices and how they are.
#include <fmt/core.h>

#include "xhal/visibility.hpp"

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

constexpr Option kOptions[] = {{"--all", "also devices that XHAL_VISIBLE_DEVICES hides"}};

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string render(const Survey& survey, bool all, bool colours) {
  Table table;
  if (all) table.column("INDEX", Table::Align::right);
  table.column("ID");
  table.column("PLUGIN");
  table.column("NAME");
  table.column("MEMORY", Table::Align::right);
  table.column("UTIL", Table::Align::right);
  table.column("TEMP", Table::Align::right);
  table.column("POWER", Table::Align::right);
  table.column("HEALTH");
  bool modelled = false;
  for (const auto& d : survey.devices) {
    for (const auto& [id, reading] : d.readings) modelled |= reading.modelled;
    std::vector<Cell> cells;
    if (all) cells.emplace_back(d.hidden ? "-" : std::to_string(d.info.index));
    cells.insert(cells.end(),
                 {Cell(d.info.id), Cell(d.info.plugin), Cell(d.info.name), Cell(memory_cell(d)),
                  Cell(reading_cell(d, XHAL_TELEMETRY_UTILIZATION, 100, "%")),
                  Cell(reading_cell(d, XHAL_TELEMETRY_TEMPERATURE, 1, "C")), Cell(power_cell(d)),
                  health_cell(d)});
    table.row(std::move(cells));
  }
  for (const auto& plugin : survey.broken()) {
    std::vector<Cell> cells(all ? 2 : 1, Cell("-"));
    cells.insert(cells.end(), {Cell(plugin.name), "-", "-", "-", "-", "-",
                               Cell("error: " + first_line(plugin.text), Colour::bad)});
    table.row(std::move(cells));
  }
  auto text = table.text(colours);
  if (modelled) text += "* modelled, not measured\n";
  return text;
}

Report list_devices(const Request& request) {
  const bool all = request.has("--all");
  const auto seen = survey({request.patience, all});
  Report report;
  report.data = {{"devices", Json::array()}, {"broken_plugins", Json::array()}};
  for (const auto& d : seen.devices) {
    report.data["devices"].push_back(device_json(d));
    const auto health = d.health();
    if (!d.error.empty()) report.warnings.push_back(fmt::format("{}: {}", d.info.id, d.error));
    if (!health.empty() && health != "ok") report.status = kFinding;
  }
  const auto broken = seen.broken();
  for (const auto& p : broken) {
    report.data["broken_plugins"].push_back(
        {{"plugin", p.name}, {"state", p.state}, {"text", p.text}, {"manifest", p.manifest}});
  }
  if (!broken.empty() || seen.unclean) report.status = kFinding;
  for (const auto& warning : seen.warnings) report.warnings.push_back(warning);
  if (seen.devices.empty() && broken.empty()) {
    report.status = kNoDevice;
    report_no_devices(seen, request, report);
    return report;
  }
  report.text = render(seen, all, request.colours);
  return report;
}

}  // namespace

extern const Command list_command = {
    "",       "list",       "the devices and how they are (what xhal alone shows)",
    kOptions, list_devices, true};

}  // namespace xhal::tools
