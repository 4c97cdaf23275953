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

// A host core has no driver that every process shares: resets and faults act on the open they come
// through. One that only observes has no work, so they would do nothing and must not say they did.
void refuse_without_work(const Device& device) {
  if (!device.observes()) return;
  throw plugin::Error(
      XHAL_ERR_UNSUPPORTED,
      "resets and faults of cpu:" + std::to_string(device.ordinal()) +
          " live in the process that opened it to work on it; this open only observes, so nothing "
          "was done to anybody.\n  To test a program, let it open the device with "
          "XHAL_OPEN_CONTROL "
          "and without XHAL_OPEN_OBSERVE and call its control table; to stop one, end its process");
}

xhal_status reset(xhal_device* handle) noexcept {
  return plugin::guarded("reset", [&] {
    auto& device = plugin::from_handle<Device>(handle);
    refuse_without_work(device);
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
    if (name != "lost" && name != "operation") {
      throw plugin::Error(
          XHAL_ERR_NOT_FOUND,
          "the cpu plugin injects `lost` and `operation` (the next one fails), into "
          "the process that opened the device" +
              (name.empty() ? "" : "; not `" + std::string(name) + "`"));
    }
    refuse_without_work(device);
    if (name == "operation") return device.fail_next_operation();
    lose(device, "cpu:" + std::to_string(device.ordinal()) +
                     " lost: the fault was injected through the control table");
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
