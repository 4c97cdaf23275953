// SPDX-License-Identifier: Apache-2.0
// control.hpp: the commands that change a device, by the ABI's control table.
#pragma once

#include <functional>
#include <string>

#include "xhal/survey.hpp"
#include "xhal/telemetry.h"

namespace xhal::tools {

// The visible device with this id, as `xhal list` shows it, or with this UUID. Throws Failure.
xhal_device_info find_device(const std::string& word, std::chrono::milliseconds patience);

// Asks the person at the terminal, unless --yes was given. Throws Failure when the answer is no,
// and when there is nobody to ask.
void confirm(const Request& request, const std::string& what);

struct ControlResult {
  xhal_status status = XHAL_OK;
  std::string text;  // of the error
};

// Whether the device's plugin has a control table at all. One that has may still refuse, and then
// says why.
bool offers_control(const xhal_device_info& info);

// Opens the device for control in a child, and calls `act` there with its table.
ControlResult control(
    const xhal_device_info& info, std::chrono::milliseconds patience,
    const std::function<xhal_status(xhal_device*, const xhal_control_table&)>& act);

}  // namespace xhal::tools
