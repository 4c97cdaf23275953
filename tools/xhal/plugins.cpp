// SPDX-License-Identifier: Apache-2.0
// plugins.cpp: `xhal plugins list`: every manifest found and what became of it, as libxhal sees it.
#include <fmt/core.h>

#include "xhal/command.hpp"
#include "xhal/watchdog.hpp"

namespace xhal::tools {
namespace {

const char* state_name(uint32_t state) {
  switch (state) {
    case XHAL_PLUGIN_LOADED:
      return "loaded";
    case XHAL_PLUGIN_DEFERRED:
      return "deferred";
    case XHAL_PLUGIN_SKIPPED:
      return "skipped";
    case XHAL_PLUGIN_DISABLED:
      return "disabled";
    default:
      return "?";
  }
}

// A plugin whose hardware is not in this machine is not a finding: it is skipped on purpose.
bool is_finding(const xhal_plugin_info& p) {
  return p.state == XHAL_PLUGIN_SKIPPED && p.status != XHAL_ERR_UNSUPPORTED;
}

Colour state_colour(const xhal_plugin_info& p) {
  if (is_finding(p)) return Colour::bad;
  return p.state == XHAL_PLUGIN_LOADED ? Colour::good : Colour::dim;
}

std::string range_text(const xhal_plugin_info& p) {
  return p.abi_max == 0 ? "-"
                        : fmt::format("{}-{}", version_text(p.abi_min), version_text(p.abi_max));
}

Json plugin_json(const xhal_plugin_info& p) {
  const auto version_or_null = [](uint32_t v) { return v == 0 ? Json() : Json(version_text(v)); };
  Json json;
  json["name"] = text_of(p.name);
  json["vendor"] = text_of(p.vendor);
  json["state"] = state_name(p.state);
  json["status"] = xhal_status_name(p.status);
  json["text"] = text_of(p.text);
  json["abi_min"] = version_or_null(p.abi_min);
  json["abi_max"] = version_or_null(p.abi_max);
  json["abi_used"] = version_or_null(p.abi_used);
  json["priority"] = p.priority;
  json["devices"] = p.device_count;
  json["manifest"] = text_of(p.manifest_path);
  json["library"] = text_of(p.library_path);
  json["build"] = text_of(p.build_id);
  return json;
}

std::string render(const std::vector<xhal_plugin_info>& plugins, const Options& options) {
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
    table.row({text_of(p.name),
               {state_name(p.state), state_colour(p)},
               range_text(p),
               version_text(p.abi_used),
               p.state == XHAL_PLUGIN_LOADED ? std::to_string(p.device_count) : "-",
               std::to_string(p.priority),
               text_of(p.manifest_path)});
    if (p.text.size > 0)
      reasons += fmt::format("{} {}: {}\n", text_of(p.name), state_name(p.state), text_of(p.text));
    findings |= is_finding(p);
  }
  auto text = table.text(options.colours);
  if (!reasons.empty()) text += "\n" + reasons;
  if (findings) text += "Each step of the search, checked:  xhal plugins doctor\n";
  return text;
}

}  // namespace

Report list_plugins(const Options& options) {
  const Watchdog watchdog("plugins.list", "a plugin that is being loaded", options.json);
  const Library library;
  const auto plugins = library.plugins();
  Report report;
  report.data = {{"plugins", Json::array()}};
  for (const auto& p : plugins) {
    report.data["plugins"].push_back(plugin_json(p));
    if (is_finding(p)) report.status = kFinding;
  }
  if (options.json) report.warnings = library.warnings();  // the text shows the reasons themselves
  if (plugins.empty()) {
    report.status = kNoDevice;
    report.text = "no plugin manifests found. Where they were looked for:  xhal plugins doctor\n";
    return report;
  }
  report.text = render(plugins, options);
  return report;
}

}  // namespace xhal::tools
