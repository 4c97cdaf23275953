// SPDX-License-Identifier: Apache-2.0
// device_api.cpp: the exported functions of device.h that are more than a slot.
#include "core/argument_check.hpp"
#include "core/environment.hpp"
#include "core/log.hpp"
#include "core/object.hpp"
#include "core/plugin_record.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "device/open_devices.hpp"
#include "loader/plugins.hpp"
#include "sync/timestamps.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

constexpr const char* kOpen = "xhal_device_open";

// What a launcher asks of an unchanged program's default contexts. A word that is not understood
// is refused: it may have been meant to protect.
xhal_status read_context_variable(uint32_t* flags) {
  for (const auto& word : split(environment_text("XHAL_CONTEXT"), ',')) {
    if (word != "scrub") {
      return fail(XHAL_ERR_INVALID_ARGUMENT, kOpen,
                  "{}: XHAL_CONTEXT: there is no value \"{}\"; there is scrub", kOpen, word);
    }
    *flags |= XHAL_CONTEXT_SCRUB;
  }
  return XHAL_OK;
}

xhal_status check_info(const xhal_device_open_info& info, const void* context) {
  const bool observe = (info.flags & XHAL_OPEN_OBSERVE) != 0;
  constexpr uint32_t kFlags = XHAL_OPEN_OBSERVE | XHAL_OPEN_CONTROL;
  constexpr uint32_t kContextFlags = XHAL_CONTEXT_SCRUB | XHAL_CONTEXT_PRIORITY_LIMIT;
  if ((info.flags & ~kFlags) != 0) return refuse_flags(kOpen, info.flags & ~kFlags);
  if ((info.context_flags & ~kContextFlags) != 0)
    return refuse_flags(kOpen, info.context_flags & ~kContextFlags);
  if (info.reserved0 != 0)
    return fail(XHAL_ERR_UNKNOWN_FIELD, kOpen, "{}: info->reserved0 is not 0", kOpen);
  const uint32_t ring = info.timestamp_ring;
  if ((ring & (ring - 1)) != 0 || ring > kLargestTimestampRing) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, kOpen,
                "{}: timestamp_ring {} is not a power of two up to {}", kOpen, ring,
                kLargestTimestampRing);
  }
  if (!observe && context == nullptr) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, kOpen,
                "{}: context is NULL (only XHAL_OPEN_OBSERVE goes without)", kOpen);
  }
  return XHAL_OK;
}

}  // namespace
}  // namespace xhal

using xhal::fail;
using xhal::is_live;

extern "C" {

xhal_status xhal_device_open(const xhal_device_open_info* info, xhal_device** device,
                             xhal_context** context) {
  constexpr const char* op = "xhal_device_open";
  return xhal::exported(op, [&]() -> xhal_status {
    xhal_device_open_info local{};
    if (const auto s = xhal::required(op, {{"info", info}, {"device", device}}); s != XHAL_OK)
      return s;
    if (const auto s = xhal::structs::read(info, local, xhal::structs::Chains::pass);
        s != XHAL_OK) {
      return fail(s, op, "{}: bad info structure of {} bytes: {}", op, info->struct_size,
                  xhal_status_text(s));
    }
    if (const auto s = xhal::check_info(local, context); s != XHAL_OK) return s;
    if ((local.flags & XHAL_OPEN_OBSERVE) == 0) {
      if (const auto s = xhal::read_context_variable(&local.context_flags); s != XHAL_OK) return s;
    }
    if (!xhal::is_running()) return xhal::fail_state(op);
    if (const auto s = xhal::load_plugins(op); s != XHAL_OK) return s;
    std::vector<xhal::Visible> visible;
    if (const auto s = xhal::visible_devices(&visible); s != XHAL_OK) return s;
    if (local.index >= visible.size()) {
      return fail(
          XHAL_ERR_NOT_FOUND, op,
          "{}: there is no device {}; {} are visible.\n  `xhal list --all` shows every device, "
          "XHAL_VISIBLE_DEVICES chooses among them.",
          op, local.index, visible.size());
    }
    auto& plugin = *visible[local.index].plugin;
    const uint32_t ordinal = visible[local.index].ordinal;
    if (xhal::is_gone(plugin, ordinal)) {
      return fail(XHAL_ERR_DEVICE_LOST, op,
                  "{}: {}:{} is no longer there; when it has come back, xhal_enumerate with "
                  "XHAL_ENUMERATE_REFRESH finds it",
                  op, plugin.name, ordinal);
    }
    xhal::DeviceRecord* record = nullptr;
    if (const auto s = xhal::open_device(plugin, ordinal, local, &record); s != XHAL_OK) return s;
    *device = record->device;
    if (context != nullptr) *context = record->context;
    return XHAL_OK;
  });
}

xhal_status xhal_device_close(xhal_device* device) {
  constexpr const char* op = "xhal_device_close";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  return xhal::exported(op, [&]() -> xhal_status {
    if (!xhal::is_running()) return XHAL_OK;
    return xhal::give_back_device(*xhal::private_of(device)->device);
  });
}

xhal_status xhal_device_query(xhal_device* device, xhal_device_info* info) {
  constexpr const char* op = "xhal_device_query";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  if (const auto s = xhal::required(op, {{"info", info}}); s != XHAL_OK) return s;
  const auto& record = *xhal::private_of(device)->device;
  *info = record.info;
  if (record.lost) info->flags |= XHAL_DEVICE_GONE;
  return XHAL_OK;
}

xhal_status xhal_device_events_fd(xhal_device* device, int32_t* fd) {
  constexpr const char* op = "xhal_device_events_fd";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  if (const auto s = xhal::required(op, {{"fd", fd}}); s != XHAL_OK) return s;
  if (!xhal::is_running()) return xhal::fail_state(op);
  return xhal::exported(op, [&]() -> xhal_status {
    const int events = xhal::open_device_events(*xhal::private_of(device)->device);
    if (events >= 0) {
      *fd = events;
      return XHAL_OK;
    }
    return fail(XHAL_ERR_OUT_OF_MEMORY, op, "{}: no descriptor left: raise `ulimit -n`", op);
  });
}

}  // extern "C"
