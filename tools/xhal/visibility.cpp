// SPDX-License-Identifier: Apache-2.0
#include "xhal/visibility.hpp"

#include <fmt/core.h>
#include <fnmatch.h>

#include <algorithm>
#include <optional>
#include <sstream>

#include "common/suggest.hpp"
#include "xhal_base/environment.hpp"

namespace xhal::tools {
namespace {

// Whether one of the variable's patterns fits; nothing when it has none.
std::optional<bool> has_pattern_for(const char* variable, const std::string& name) {
  std::istringstream patterns(base::environment_text(variable));
  std::optional<bool> found;
  for (std::string pattern; std::getline(patterns, pattern, ',');) {
    if (pattern.empty()) continue;
    found = found.value_or(false) || fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
  }
  return found;
}

std::string setting_text(const char* variable) {
  return fmt::format("{}={}", variable, base::environment_text(variable));
}

std::string joined_by_and(const std::vector<std::string>& texts) {
  std::string text;
  for (const auto& one : texts) text.append(text.empty() ? "" : " and ").append(one);
  return text;
}

}  // namespace

std::string left_out_by(const std::string& name) {
  std::vector<std::string> reasons;
  if (!has_pattern_for("XHAL_PLUGIN_SELECT", name).value_or(true))
    reasons.push_back(setting_text("XHAL_PLUGIN_SELECT"));
  if (has_pattern_for("XHAL_PLUGIN_DISABLE", name).value_or(false))
    reasons.push_back(setting_text("XHAL_PLUGIN_DISABLE"));
  return joined_by_and(reasons);
}

std::string all_hidden_text(std::chrono::milliseconds patience) {
  const auto variable = base::environment("XHAL_VISIBLE_DEVICES");
  if (!variable) return {};
  const auto all = survey({patience, true, Depth::listed}).devices;
  const bool every =
      std::all_of(all.begin(), all.end(), [](const Device& device) { return device.hidden; });
  if (all.empty() || !every) return {};
  return fmt::format(
      "{} hidden by XHAL_VISIBLE_DEVICES ({}); unset it, or name what programs shall see. What "
      "there is:  xhal list --all",
      all.size() == 1 ? fmt::format("the one device, {}, is", all.front().info.id)
                      : fmt::format("all {} devices are", all.size()),
      variable->empty() ? "empty" : *variable);
}

std::string left_out_text(const std::vector<PluginState>& plugins) {
  std::vector<std::string> names, reasons;
  for (const auto& plugin : plugins) {
    const auto reason = left_out_by(plugin.name);
    if (plugin.state != "disabled" || reason.empty()) continue;
    names.push_back(plugin.name);
    if (std::find(reasons.begin(), reasons.end(), reason) == reasons.end())
      reasons.push_back(reason);
  }
  if (names.empty()) return {};
  const auto who = names.size() == 1 ? fmt::format("plugin {} is", names.front())
                   : names.size() == plugins.size()
                       ? fmt::format("all {} plugins ({}) are", names.size(), joined(names))
                       : fmt::format("plugins {} are", joined(names));
  return fmt::format("{} left out by {}", who, joined_by_and(reasons));
}

std::string no_devices_text(const Survey& seen, std::chrono::milliseconds patience) {
  if (auto text = all_hidden_text(patience); !text.empty()) return text;
  const auto left_out = left_out_text(seen.plugins);
  return fmt::format(
      "no devices found{}. What was searched, and what each plugin says:  xhal plugins doctor",
      left_out.empty() ? "" : "; " + left_out);
}

void report_no_devices(const Survey& seen, const Request& request, Report& report) {
  const auto text = no_devices_text(seen, request.patience);
  report.text = text + "\n";
  if (request.json) report.warnings.push_back(text);
}

}  // namespace xhal::tools
