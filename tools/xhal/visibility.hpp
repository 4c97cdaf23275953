// SPDX-License-Identifier: Apache-2.0
// visibility.hpp: what the user's variables leave out, in words.
#pragma once

#include <string>
#include <vector>

#include "xhal/survey.hpp"

namespace xhal::tools {

// "XHAL_PLUGIN_SELECT=npu*": the variables that leave plugin `name` out, read as the loader reads
// them; empty when none does.
std::string left_out_by(const std::string& name);

// That XHAL_VISIBLE_DEVICES hides every device there is; empty when it does not.
std::string all_hidden_text(std::chrono::milliseconds patience);

// Which plugins the variables leave out; empty when there are none.
std::string left_out_text(const std::vector<PluginState>& plugins);

// What a person is told, and what a machine is, when there is no device to show.
std::string no_devices_text(const Survey& seen, std::chrono::milliseconds patience);

// The same as a command's answer: its text, and with --json a warning.
void report_no_devices(const Survey& seen, const Request& request, Report& report);

}  // namespace xhal::tools
