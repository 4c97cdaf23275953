// SPDX-License-Identifier: Apache-2.0
// library.hpp: libxhal for the time of one command, and devices that are only looked at.
#pragma once

#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/envelope.hpp"
#include "xhal/xhal.h"

namespace xhal::tools {

// Why a command could not do its work: the text for the user, and the exit status.
struct Failure : std::runtime_error {
  Failure(int exit_status, const std::string& text)
      : std::runtime_error(text), status(exit_status) {}
  int status;
};

inline std::string text_of(xhal_string text) {
  return text.size == 0 ? "" : std::string(text.data, text.size);
}
std::string version_text(uint32_t version);

// The text of this thread's last error, or what `status` means where there is none.
std::string error_text(xhal_status status);

// Initialises libxhal and shuts it down. Log lines of the library and the plugins become warnings.
class Library {
 public:
  Library();
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  std::vector<xhal_device_info> devices(bool all) const;
  std::vector<xhal_plugin_info> plugins() const;
  std::vector<std::string> warnings() const;
  void warn(std::string text);  // from any thread

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> warnings_;
};

// A device opened with XHAL_OPEN_OBSERVE: nothing is created on it, a running job is not disturbed.
class ObservedDevice {
 public:
  explicit ObservedDevice(uint32_t index);
  ~ObservedDevice();
  ObservedDevice(const ObservedDevice&) = delete;
  ObservedDevice& operator=(const ObservedDevice&) = delete;
  xhal_device* handle() const { return device_; }
  xhal_status status() const { return status_; }  // of the open
  const std::string& error() const { return error_; }

 private:
  xhal_device* device_ = nullptr;
  xhal_status status_;
  std::string error_;
};

}  // namespace xhal::tools
