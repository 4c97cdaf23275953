// SPDX-License-Identifier: Apache-2.0
// doctor.hpp: `xhal plugins doctor`: what libxhal makes of each plugin, and where it goes wrong.
//
// The verdict is libxhal's own, taken in a child for each plugin (survey.hpp), so that doctor and
// loader cannot disagree. Around it stand the steps of loading, looked at one by one from outside:
// libraries are read as files, and what does not load is tried again by xhal-probe.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "xhal/survey.hpp"

namespace xhal::tools {

enum class Mark { ok, warning, failed, skipped };

struct Check {
  Mark mark = Mark::ok;
  std::string name;  // "manifest", "permissions", ...
  std::string text;  // what was found
  std::string next;  // what to do about it; empty when nothing needs doing
};

struct Patient {
  PluginState plugin;         // as libxhal sees it, alone
  std::vector<Check> checks;  // in order; after one that failed or was skipped the rest is skipped
  bool failed() const;
  // libxhal loads it, and no check failed.
  bool usable() const { return plugin.state == "loaded" && !failed(); }
};

// All checks of one plugin, as find_plugins() lists it.
Patient examine(const PluginState& listed, std::chrono::milliseconds patience);

}  // namespace xhal::tools
