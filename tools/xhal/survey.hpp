// SPDX-License-Identifier: Apache-2.0
// survey.hpp: the plugins and devices of this machine as libxhal sees them.
//
// libxhal runs in a child (common/child.hpp): no plugin code runs in this process. Where the child
// crashes or falls silent, the plugin or device it was at is named, and another child goes on
// without it.
#pragma once

#include <string>
#include <vector>

#include "xhal/command.hpp"
#include "xhal/device.hpp"

namespace xhal::tools {

struct PluginState {
  std::string name, vendor, manifest, library, build;
  // What libxhal says: "loaded", "deferred", "skipped", "disabled"; what happened to the child that
  // loaded it: "crashed", "hangs".
  std::string state;
  std::string text;  // why
  xhal_status status = XHAL_OK;
  uint32_t abi_min = 0, abi_max = 0, abi_used = 0;
  int32_t priority = 0;
  uint32_t device_count = 0;

  bool is_broken() const { return state == "crashed" || state == "hangs"; }
  // A plugin whose hardware is not in this machine is none: it is skipped on purpose.
  bool is_finding() const {
    return is_broken() || (state == "skipped" && status != XHAL_ERR_UNSUPPORTED);
  }
};

struct Survey {
  std::vector<PluginState> plugins;  // in search order
  std::vector<Device> devices;
  std::vector<std::string> warnings;  // what libxhal and the plugins logged
  bool unclean = false;               // the library did not come to its end; a warning says how

  std::vector<PluginState> broken() const;
};

// How far a survey goes: the plugins are asked, their devices are listed, each one is opened.
enum class Depth { plugins, listed, opened };

struct Question {
  std::chrono::milliseconds patience;
  bool all = false;  // also devices that XHAL_VISIBLE_DEVICES hides
  Depth depth = Depth::opened;
  std::string only = {};  // this plugin alone, with all its devices
};

// Throws Failure where libxhal has no answer: it cannot start, XHAL_VISIBLE_DEVICES names what is
// not there, or the plugins fail only together.
Survey survey(const Question& question);

// Every manifest on the search path, judged by libxhal, with no plugin loaded: those that would be
// are "deferred".
std::vector<PluginState> find_plugins(std::chrono::milliseconds patience);

}  // namespace xhal::tools
