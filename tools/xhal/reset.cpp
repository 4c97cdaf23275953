// SPDX-License-Identifier: Apache-2.0
// reset.cpp: `xhal reset`: stops a device's work and makes it ready for a new open.
#include <fmt/core.h>

#include "xhal/control.hpp"

namespace xhal::tools {
namespace {

constexpr Option kOptions[] = {{"DEVICE", "its id as xhal list shows it, or its UUID"},
                               {"--yes", "do not ask"}};

Report reset_device(const Request& request) {
  const auto info = find_device(request.text("DEVICE"), request.patience);
  confirm(request, fmt::format("a reset of {} ({}) ends all work on it, and its memory is gone",
                               info.id, info.name));
  const auto done = control(info, request.patience,
                            [](auto* device, const auto& table) { return table.reset(device); });
  if (done.status == XHAL_ERR_UNSUPPORTED && !offers_control(info)) {
    throw Failure(kFinding, fmt::format("{} cannot be reset: plugin {} offers none. Use its "
                                        "vendor's tool, or reload its driver",
                                        info.id, info.plugin));
  }
  if (done.status != XHAL_OK)
    throw Failure(kFinding, fmt::format("{} was not reset: {}", info.id, done.text));
  Report report;
  report.data = {{"device", info.id}, {"reset", true}};
  report.text =
      fmt::format("{} was reset; programs that had it open have to open it again\n", info.id);
  return report;
}

}  // namespace

extern const Command reset_command = {"", "reset",
                                      "stops a device's work and makes it ready for a new start",
                                      kOptions, reset_device};

}  // namespace xhal::tools
