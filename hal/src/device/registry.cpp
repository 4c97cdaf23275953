// registry.cpp: xhal_init, xhal_shutdown, fork, and the exported lists.
#include "device/registry.hpp"

#include <pthread.h>

#include <algorithm>
#include <cstring>

#include "core/argument_check.hpp"
#include "core/log.hpp"
#include "core/object.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "device/device.hpp"
#include "device/host_services.hpp"
#include "loader/plugins.hpp"
#include "memory/address_map.hpp"
#include "sync/cells.hpp"
#include "sync/deferral.hpp"
#include "sync/timeline.hpp"
#include "sync/timestamps.hpp"
#include "xhal/struct_check.hpp"

#include "layers/layers.hpp"

namespace xhal {
namespace {

// A child of a process that has opened devices can use none of this: its threads, rings and locks
// stayed behind. A child of a process that only looked at the list may go on.
void after_fork_in_child() {
  auto& r = registry();
  new (&r.mutex) std::recursive_mutex;
  plugins_after_fork();
  cells_after_fork();
  timestamps_after_fork();
  if (std::all_of(r.devices.begin(), r.devices.end(), [](auto* d) { return d->closed; })) return;
  timelines_after_fork();
  for (auto* d : r.devices) {
    switch_to_stopped(d->table);
    switch_to_stopped(d->intercept);
  }
  set_process_state(State::forked);
}

}  // namespace

Registry& registry() {
  static auto* r = [] {
    pthread_atfork(nullptr, nullptr, after_fork_in_child);
    return new Registry;
  }();
  return *r;
}

}  // namespace xhal

using xhal::fail;
using xhal::registry;

extern "C" {

uint32_t xhal_version(void) { return XHAL_VERSION_MAJOR << 16 | XHAL_VERSION_MINOR; }
const char* xhal_build_id(void) { return XHAL_BUILD_ID; }

xhal_status xhal_init(const xhal_init_info* info) {
  constexpr const char* op = "xhal_init";
  return xhal::exported(op, [&]() -> xhal_status {
    xhal_init_info local{};
    if (const auto s = xhal::structs::read(info, local); s != XHAL_OK) {
      return fail(s, op, "{}: the info structure has size {}: {}", op, info->struct_size,
                  xhal_status_text(s));
    }
    if (const char* field = xhal::null_field(local); field != nullptr)
      return xhal::refuse_null(op, field);
    if (info != nullptr && local.version_major != XHAL_VERSION_MAJOR) {
      return fail(XHAL_ERR_VERSION, op,
                  "{}: the program was built for xHAL {}.{}, this library is {}.{} (build {})", op,
                  local.version_major, local.version_minor, XHAL_VERSION_MAJOR, XHAL_VERSION_MINOR,
                  xhal_build_id());
    }
    auto& r = registry();
    std::vector<xhal::Notice> notices;
    {
      const std::lock_guard lock(r.mutex);
      if (xhal::is_forked()) return xhal::fail_state(op);
      if (xhal::process_state() == xhal::State::stopping) return xhal::fail_state(op);
      if (r.init_count == 0) {
        xhal::read_log_level();
        notices = xhal::find_plugins({local.plugin_path.data, local.plugin_path.size},
                                     xhal::host_services());
        xhal::read_layers();
        xhal::set_process_state(xhal::State::running);
      }
      ++r.init_count;
    }
    for (const auto& [level, text] : notices) xhal::log(level, "{}", text);
    return XHAL_OK;
  });
}

xhal_status xhal_shutdown(void) {
  constexpr const char* op = "xhal_shutdown";
  return xhal::exported(op, [&]() -> xhal_status {
    auto& r = registry();
    std::vector<xhal::DeviceRecord*> devices;
    {
      const std::lock_guard lock(r.mutex);
      if (xhal::is_forked()) return XHAL_OK;
      if (r.init_count == 0)
        return fail(XHAL_ERR_NOT_INITIALIZED, op, "{}: there was no matching xhal_init", op);
      if (--r.init_count > 0) return XHAL_OK;
      xhal::set_process_state(xhal::State::stopping);
      devices = r.devices;
    }
    xhal::ErrorRecord record;
    record.status = XHAL_ERR_SHUTDOWN;
    record.operation = op;
    record.text = "xhal_shutdown was called while this was waiting";
    xhal::fail_all_timelines(record);
    xhal::stop_timeline_watchers();
    for (auto* d : devices) xhal::close_device(*d);
    xhal::shutdown_plugins();
    const std::lock_guard lock(r.mutex);
    xhal::finish_layers();
    xhal::set_process_state(xhal::State::stopped);
    return XHAL_OK;
  });
}

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
      return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: unknown flags {:#x}", op, flags);
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
