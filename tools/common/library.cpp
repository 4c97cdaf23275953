// SPDX-License-Identifier: Apache-2.0
#include "common/library.hpp"

#include <cstdio>

#include <fmt/core.h>

namespace xhal::tools {

std::string version_text(uint32_t version) {
  return version == 0 ? "-" : fmt::format("{}.{}", version >> 16, version & 0xffff);
}

std::string error_text(xhal_status status) {
  xhal_error error{};
  error.struct_size = sizeof error;
  if (xhal_last_error(&error) == XHAL_OK && error.status == status && error.text.size > 0)
    return text_of(error.text);
  return fmt::format("{} ({})", xhal_status_text(status), xhal_status_name(status));
}

Library::Library() {
  xhal_log_set(
      [](void* user, uint32_t level, xhal_string text) {
        if (level <= XHAL_LOG_WARN)
          static_cast<Library*>(user)->warn(text_of(text));
        else  // only with XHAL_LOG
          std::fprintf(stderr, "xhal: %s\n", text_of(text).c_str());
      },
      this);
  xhal_init_info info{};
  info.struct_size = sizeof info;
  info.version_major = XHAL_VERSION_MAJOR;
  info.version_minor = XHAL_VERSION_MINOR;
  if (const auto status = xhal_init(&info); status != XHAL_OK) {
    xhal_log_set(nullptr, nullptr);
    throw Failure(kUsage, "xHAL cannot start: " + error_text(status));
  }
}

Library::~Library() {
  xhal_shutdown();
  xhal_log_set(nullptr, nullptr);
}

std::vector<std::string> Library::warnings() const {
  const std::lock_guard lock(mutex_);
  return warnings_;
}

void Library::warn(std::string text) {
  const std::lock_guard lock(mutex_);
  warnings_.push_back(std::move(text));
}

std::vector<xhal_device_info> Library::devices(bool all) const {
  const uint32_t flags = all ? XHAL_ENUMERATE_ALL : 0;
  uint32_t count = 0;
  auto status = xhal_enumerate(flags, nullptr, 0, &count);
  std::vector<xhal_device_info> list(count);
  if (status == XHAL_OK && count > 0) {
    status = xhal_enumerate(flags, list.data(), count, &count);
    list.resize(std::min<size_t>(count, list.size()));
  }
  if (status == XHAL_ERR_NOT_FOUND) throw Failure(kNoDevice, error_text(status));
  if (status != XHAL_OK) throw Failure(kUsage, "cannot list the devices: " + error_text(status));
  return list;
}

std::vector<xhal_plugin_info> Library::plugins() const {
  uint32_t count = 0;
  auto status = xhal_plugin_report(nullptr, 0, &count);
  std::vector<xhal_plugin_info> list(count);
  if (status == XHAL_OK && count > 0) {
    status = xhal_plugin_report(list.data(), count, &count);
    list.resize(std::min<size_t>(count, list.size()));
  }
  if (status != XHAL_OK) throw Failure(kUsage, "cannot list the plugins: " + error_text(status));
  return list;
}

ObservedDevice::ObservedDevice(uint32_t index) {
  xhal_device_open_info info{};
  info.struct_size = sizeof info;
  info.index = index;
  info.flags = XHAL_OPEN_OBSERVE;
  status_ = xhal_device_open(&info, &device_, nullptr);
  if (status_ != XHAL_OK) {
    device_ = nullptr;
    error_ = error_text(status_);
  }
}

ObservedDevice::~ObservedDevice() {
  if (device_ != nullptr) xhal_device_close(device_);
}

}  // namespace xhal::tools
