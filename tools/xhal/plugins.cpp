// SPDX-License-Identifier: Apache-2.0
// plugins.cpp: `xhal plugins list`: every manifest found and what became of it, as libxhal sees it.
#include <fmt/core.h>

#include "xhal/survey.hpp"

namespace xhal::tools {
namespace {

Colour state_colour(const PluginState& p) {
  if (p.is_finding()) return Colour::bad;
  return p.state == "loaded" ? Colour::good : Colour::dim;
}

std::string range_text(const PluginState& p) {
  return p.abi_max == 0 ? "-"
                        : fmt::format("{}-{}", version_text(p.abi_min), version_text(p.abi_max));
}

Json plugin_json(const PluginState& p) {
  const auto version_or_null = [](uint32_t v) { return v == 0 ? Json() : Json(version_text(v)); };
  Json json;
  json["name"] = p.name;
  json["vendor"] = p.vendor;
  json["state"] = p.state;
  json["status"] = xhal_status_name(p.status);
  json["text"] = p.text;
  json["abi_min"] = version_or_null(p.abi_min);
  json["abi_max"] = version_or_null(p.abi_max);
  json["abi_used"] = version_or_null(p.abi_used);
  json["priority"] = p.priority;
  json["devices"] = p.device_count;
  json["manifest"] = p.manifest;
  json["library"] = p.library;
  json["build"] = p.build;
  return json;
}

std::string render(const std::vector<PluginState>& plugins, bool colours) {
  Table table;
  table.column("PLUGIN");
  table.column("STATE");
  table.column("ABI");
  table.column("USED");
  table.column("DEVICES", Table::Align::right);
  table.column("PRIORITY", Table::Align::right);
  table.column("MANIFEST");
  std::string reasons;
  bool findings = false;
  for (const auto& p : plugins) {
    table.row({p.name,
               {p.state, state_colour(p)},
               range_text(p),
               version_text(p.abi_used),
               p.state == "loaded" ? std::to_string(p.device_count) : "-",
               std::to_string(p.priority),
               p.manifest});
    if (p.is_broken())
      reasons += fmt::format("{} {}\n", p.name, p.text);
    else if (!p.text.empty())
      reasons += fmt::format("{} {}: {}\n", p.name, p.state, p.text);
    findings |= p.is_finding();
  }
  auto text = table.text(colours);
  if (!reasons.empty()) text += "\n" + reasons;
  if (findings) text += "Each step of the search, checked:  xhal plugins doctor\n";
  return text;
}

Report list_plugins(const Request& request) {
  const auto seen = survey({request.patience, false, Depth::plugins});
  Report report;
  report.data = {{"plugins", Json::array()}};
  for (const auto& p : seen.plugins) {
    report.data["plugins"].push_back(plugin_json(p));
    if (p.is_finding()) report.status = kFinding;
  }
  if (seen.unclean) report.status = kFinding;
  // The text shows the reasons themselves.
  if (request.json || seen.unclean) report.warnings = seen.warnings;
  if (seen.plugins.empty()) {
    report.status = kNoDevice;
    report.text = "no plugin manifests found. Where they were looked for:  xhal plugins doctor\n";
    return report;
  }
  report.text = render(seen.plugins, request.colours);
  return report;
}

}  // namespace

extern const Command plugins_list_command = {
    "plugins", "list", "every plugin manifest found and what became of it", {}, list_plugins, true};

}  // namespace xhal::tools
