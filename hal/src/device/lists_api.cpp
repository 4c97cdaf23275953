// SPDX-License-Identifier: Apache-2.0
// lists_api.cpp: the exported lists: plugins, devices, functions.
#include <algorithm>
#include <cstring>

#include "core/argument_check.hpp"
#include "core/state.hpp"
#include "loader/plugins.hpp"

using xhal::fail;

extern "C" {

xhal_status xhal_plugin_report(xhal_plugin_info* plugins, uint32_t capacity, uint32_t* count) {
  constexpr const char* op = "xhal_plugin_report";
  return xhal::exported(op, [&]() -> xhal_status {
    if (const auto s = xhal::required(op, {{"count", count}}); s != XHAL_OK) return s;
    if (xhal::is_missing(plugins, capacity)) return xhal::refuse_null(op, "plugins");
    if (!xhal::is_running()) return xhal::fail_state(op);
    if (const auto s = xhal::load_plugins(op); s != XHAL_OK) return s;
    const auto report = xhal::plugin_report();
    *count = static_cast<uint32_t>(report.size());
    std::copy_n(report.begin(), std::min(capacity, *count), plugins);
    return XHAL_OK;
  });
}

xhal_status xhal_enumerate(uint32_t flags, xhal_device_info* devices, uint32_t capacity,
                           uint32_t* count) {
  constexpr const char* op = "xhal_enumerate";
  return xhal::exported(op, [&]() -> xhal_status {
    if (const auto s = xhal::required(op, {{"count", count}}); s != XHAL_OK) return s;
    if (xhal::is_missing(devices, capacity)) return xhal::refuse_null(op, "devices");
    if ((flags & ~(XHAL_ENUMERATE_ALL | XHAL_ENUMERATE_REFRESH)) != 0)
      return xhal::refuse_flags(op, flags & ~(XHAL_ENUMERATE_ALL | XHAL_ENUMERATE_REFRESH));
    if (!xhal::is_running()) return xhal::fail_state(op);
    const auto ready =
        (flags & XHAL_ENUMERATE_REFRESH) != 0 ? xhal::refresh_plugins(op) : xhal::load_plugins(op);
    if (ready != XHAL_OK) return ready;
    std::vector<xhal::Visible> list;
    uint32_t shown = 0;
    if ((flags & XHAL_ENUMERATE_ALL) != 0) {
      xhal::all_devices(&list, &shown);  // a wrong XHAL_VISIBLE_DEVICES hides nothing here
    } else {
      if (const auto s = xhal::visible_devices(&list); s != XHAL_OK) return s;
      shown = static_cast<uint32_t>(list.size());
    }
    *count = static_cast<uint32_t>(list.size());
    for (uint32_t i = 0; i < std::min(capacity, *count); ++i) {
      devices[i] = xhal::listed_device(*list[i].plugin, list[i].ordinal);
      devices[i].index = i < shown ? i : UINT32_MAX;
    }
    return XHAL_OK;
  });
}

xhal_status xhal_get_proc(const char* name, void (**function)(void)) {
  constexpr const char* op = "xhal_get_proc";
  if (const auto s = xhal::required(
          op, {{"name", name}, {"function", reinterpret_cast<const void*>(function)}});
      s != XHAL_OK)
    return s;
  struct Entry {
    const char* name;
    void (*function)(void);
  };
  static constexpr auto entry = [](auto* f) { return reinterpret_cast<void (*)(void)>(f); };
  static const Entry table[] = {
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second) \
  {"xhal_" #name, entry(&xhal_##name)},
#define XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#include "xhal/slots.inc"
#undef XHAL_SLOT
#undef XHAL_SLOT_HOSTED
#define XHAL_EXPORT(name) {"xhal_" #name, entry(&xhal_##name)},
#include "core/exports.inc"
#undef XHAL_EXPORT
  };
  for (const auto& e : table) {
    if (std::strcmp(e.name, name) == 0) {
      *function = e.function;
      return XHAL_OK;
    }
  }
  return fail(XHAL_ERR_UNSUPPORTED, op,
              "this library (xHAL {}.{}, build {}) has no function {}; install a newer one",
              XHAL_VERSION_MAJOR, XHAL_VERSION_MINOR, xhal_build_id(), name);
}

}  // extern "C"
