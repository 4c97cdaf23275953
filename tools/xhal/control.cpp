// SPDX-License-Identifier: Apache-2.0
#include "xhal/control.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <iostream>

#include "common/child.hpp"
#include "common/output.hpp"
#include "common/suggest.hpp"
#include "xhal/visibility.hpp"

namespace xhal::tools {
namespace {

// An open of its own, which creates nothing on the device.
class ControlledDevice {
 public:
  explicit ControlledDevice(uint32_t index) {
    xhal_device_open_info info{};
    info.struct_size = sizeof info;
    info.index = index;
    info.flags = XHAL_OPEN_OBSERVE | XHAL_OPEN_CONTROL;
    status_ = xhal_device_open(&info, &device_, nullptr);
  }
  ~ControlledDevice() {
    if (status_ == XHAL_OK) xhal_device_close(device_);
  }
  ControlledDevice(const ControlledDevice&) = delete;
  ControlledDevice& operator=(const ControlledDevice&) = delete;
  xhal_device* get() const { return device_; }
  xhal_status status() const { return status_; }

 private:
  xhal_device* device_ = nullptr;
  xhal_status status_;
};

}  // namespace

xhal_device_info find_device(const std::string& word, std::chrono::milliseconds patience) {
  const auto seen = survey({patience});
  std::vector<std::string> ids;
  for (const auto& device : seen.devices) {
    if (word == device.info.id || word == uuid_text(device.info)) return device.info;
    ids.emplace_back(device.info.id);
  }
  if (ids.empty()) throw Failure(kNoDevice, no_devices_text(seen, patience));
  const auto meant = nearest(word, ids);
  throw Failure(kNoDevice, fmt::format("there is no device \"{}\"; {}", word,
                                       meant.empty() ? "there are: " + joined(ids)
                                                     : fmt::format("did you mean {}? There are: {}",
                                                                   meant, joined(ids))));
}

void confirm(const Request& request, const std::string& what) {
  if (request.has("--yes")) return;
  if (isatty(STDIN_FILENO) != 1 || request.json)
    throw Failure(kUsage, what + "; nobody is here to be asked: say --yes if that is meant");
  write_note("xhal", what + ". Go on? [y/N]");
  std::string answer;
  std::getline(std::cin, answer);
  if (answer != "y" && answer != "Y" && answer != "yes") throw Failure(kUsage, "nothing was done");
}

bool offers_control(const xhal_device_info& info) {
  return (info.capabilities[XHAL_CAP_CONTROL / 64] >> XHAL_CAP_CONTROL % 64 & 1) != 0;
}

ControlResult control(
    const xhal_device_info& info, std::chrono::milliseconds patience,
    const std::function<xhal_status(xhal_device*, const xhal_control_table&)>& act) {
  ControlResult result;
  bool answered = false;
  const auto end = run_in_child(
      patience,
      [&](const Emit& emit) {
        const Library library;
        const ControlledDevice device(info.index);
        const xhal_control_table* table = nullptr;
        auto status = device.status();
        if (status == XHAL_OK) status = xhal_device_control_table(device.get(), &table);
        if (status == XHAL_OK) status = act(device.get(), *table);
        emit({{"status", status}, {"text", status == XHAL_OK ? "" : error_text(status)}});
      },
      [&](const Json& message) {
        answered = true;
        result = {message.at("status"), message.at("text")};
      });
  if (end.ok() || answered) return result;
  throw Failure(kFinding, fmt::format("{}: its plugin {}, when the device was opened for control",
                                      info.id, end.text()));
}

}  // namespace xhal::tools
