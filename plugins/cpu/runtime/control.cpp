// SPDX-License-Identifier: Apache-2.0
// control.cpp: the control table: reset, and faults on demand for tests. Needs XHAL_OPEN_CONTROL.
#include <array>
#include <atomic>
#include <string>

#include "device.hpp"

namespace xhal::cpu {
namespace {

constexpr uint32_t kCounted = 1024;
std::array<std::atomic<uint64_t>, kCounted> reset_counts;

// Marks all open handles lost; the next open gets a healthy device.
void lose(Device& device, std::string text) {
  xhal_error error{};
  error.struct_size = sizeof error;
  error.status = XHAL_ERR_DEVICE_LOST;
  error.scope = XHAL_SCOPE_DEVICE;
  error.text = plugin::str(text);
  // Who is told of the loss may free what its work was using.
  device.stop_work();
  plugin::host().device_lost(device.handle(), &error);
}

xhal_status reset(xhal_device* handle) noexcept {
  return plugin::guarded("reset", [&] {
    auto& device = plugin::from_handle<Device>(handle);
    ++reset_counts[device.ordinal() % kCounted];
    const std::string name = "cpu:" + std::to_string(device.ordinal());
    lose(device,
         name + " was reset through the control table; its memory is gone.\n  Open it again.");
    plugin::host().device_event(handle, XHAL_DEVICE_EVENT_RESET, XHAL_LOG_WARN,
                                plugin::str(name + " was reset"));
  });
}

xhal_status inject(xhal_device* handle, xhal_string fault) noexcept {
  return plugin::guarded("inject", [&] {
    auto& device = plugin::from_handle<Device>(handle);
    const auto name = plugin::view(fault);
    if (name == "lost") {
      return lose(device, "cpu:" + std::to_string(device.ordinal()) +
                              " lost: the fault was injected through the control table");
    }
    if (name == "operation") return device.fail_next_operation();
    throw plugin::Error(
        XHAL_ERR_NOT_FOUND,
        "the cpu plugin injects `lost` and `operation` (the next one fails), not `" +
            std::string(name) + "`");
  });
}

constexpr xhal_control_table kControl = {sizeof(xhal_control_table), 0, reset, nullptr, inject};

}  // namespace

uint64_t resets(uint32_t ordinal) {
  return reset_counts[ordinal % kCounted].load(std::memory_order_relaxed);
}

xhal_status Device::control_table(const xhal_control_table** table) {
  *table = &kControl;
  return XHAL_OK;
}

}  // namespace xhal::cpu
