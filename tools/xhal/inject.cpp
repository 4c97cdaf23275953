// SPDX-License-Identifier: Apache-2.0
// inject.cpp: `xhal inject`: a fault on purpose, to see whether those above take it well.
#include <fmt/core.h>

#include "xhal/control.hpp"

namespace xhal::tools {
namespace {

constexpr Option kOptions[] = {{"DEVICE", "its id as xhal list shows it, or its UUID"},
                               {"[FAULT]", "one of those the device has; without, it is asked"},
                               {"--yes", "do not ask"}};

// The control table has no list of the faults: their names stand in the text that refuses one
// without a name.
constexpr const char* kNoFault = "";

Report inject_fault(const Request& request) {
  const auto info = find_device(request.text("DEVICE"), request.patience);
  const bool asks = !request.has("FAULT");
  const std::string fault = asks ? kNoFault : request.text("FAULT");
  if (!asks) {
    confirm(request, fmt::format("the fault \"{}\" in {} ({}) may end the work on it", fault,
                                 info.id, info.name));
  }
  const auto done = control(info, request.patience, [&](auto* device, const auto& table) {
    return table.inject(device, {fault.data(), fault.size()});
  });
  Report report;
  report.data = {{"device", info.id}, {"fault", asks ? Json() : Json(fault)}, {"text", done.text}};
  if (done.status == XHAL_ERR_UNSUPPORTED && !offers_control(info)) {
    throw Failure(kFinding,
                  fmt::format("{} takes no faults: plugin {} injects none", info.id, info.plugin));
  }
  if (done.status == XHAL_ERR_UNSUPPORTED && asks)
    throw Failure(kFinding, fmt::format("{} takes no faults: {}", info.id, done.text));
  if (done.status == XHAL_ERR_NOT_FOUND && asks) {
    report.text = done.text + "\n";
    return report;
  }
  if (done.status == XHAL_ERR_NOT_FOUND) throw Failure(kUsage, done.text);
  if (done.status != XHAL_OK)
    throw Failure(kFinding,
                  fmt::format("{}: \"{}\" was not injected: {}", info.id, fault, done.text));
  report.text = fmt::format("{}: \"{}\" was injected\n", info.id, fault);
  return report;
}

}  // namespace

extern const Command inject_command = {
    "",
    "inject",
    "a fault on purpose, on a device that offers faults",
    kOptions,
    inject_fault,
    false,
    "Without FAULT nothing is injected: the device is asked which faults it has."};

}  // namespace xhal::tools
