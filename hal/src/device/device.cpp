#include "device/device.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/argument_check.hpp"
#include "core/log.hpp"
#include "core/object.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "device/host_services.hpp"
#include "device/registry.hpp"
#include "layers/layers.hpp"
#include "loader/loader.hpp"
#include "memory/address_map.hpp"
#include "memory/context_memory.hpp"
#include "memory/pool.hpp"
#include "sync/deferral.hpp"
#include "sync/stream_state.hpp"
#include "sync/timeline.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {

void DeviceRecord::post_event(uint32_t kind, uint32_t severity, std::string_view text) {
  xhal_device_event event{};
  event.kind = kind;
  event.severity = severity;
  event.time_ns = now_ns();
  std::memcpy(event.text, text.data(), std::min(text.size(), sizeof event.text - 1));
  const std::lock_guard lock(mutex);
  std::erase_if(event_pipes, [&](int fd) {
    if (write(fd, &event, sizeof event) == sizeof event || errno == EAGAIN) return false;
    close(fd);  // the reader is gone
    return true;
  });
}

namespace {

void adopt_context(DeviceRecord& record, xhal_context* context, uint64_t quota, uint32_t flags,
                   bool is_default) {
  auto* side = new ContextState;
  side->device = &record;
  side->handle = context;
  side->quota_bytes = quota;
  side->flags = flags;
  side->is_default = is_default;
  adopt_context_memory(*side);
  private_of(context)->state = side;
  const std::lock_guard lock(record.mutex);
  record.contexts.insert(context);
}

// A flag that protects is never ignored.
xhal_status check_context_flags(const DeviceRecord& record, uint32_t flags, const char* op) {
  constexpr uint32_t known = XHAL_CONTEXT_SCRUB | XHAL_CONTEXT_PRIORITY_LIMIT;
  if ((flags & ~known) != 0)
    return fail(XHAL_ERR_UNKNOWN_FIELD, op, "{}: unknown flags {:#x}", op, flags & ~known);
  if ((flags & XHAL_CONTEXT_SCRUB) == 0 || record.has(XHAL_CAP_SCRUB)) return XHAL_OK;
  return fail(XHAL_ERR_UNSUPPORTED, op, "{}: {} cannot overwrite memory (XHAL_CONTEXT_SCRUB)", op,
              record.id());
}

xhal_status open_new(PluginRecord& plugin, uint32_t ordinal, const xhal_device_open_info& info,
                     DeviceRecord** opened) {
  auto* record = new DeviceRecord;  // lives for ever: handles point into it
  record->plugin = &plugin;
  record->info = plugin.devices[ordinal];
  record->info.generation = plugin.generations[ordinal];
  record->open_flags = info.flags;
  fill_table(record->raw, *plugin.table.slots, record);
  record->table = record->raw;
  apply_layers(*record);
  make_intercept(*record);
  record->timestamps.open();

  xhal_plugin_open open{};
  open.struct_size = sizeof open;
  open.ordinal = ordinal;
  open.flags = info.flags;
  open.table = &record->table;
  open.quota_bytes = info.quota_bytes;
  xhal_status status =
      plugin.table.device_open(&open, &record->info, &record->device, &record->context);
  if (status != XHAL_OK) status = as_error(status);
  end_texts(record->info);
  const bool observe = (info.flags & XHAL_OPEN_OBSERVE) != 0;
  if (status != XHAL_OK) {
    address_map().remove_device(*record);
    ErrorRecord error = last_error();
    if (error.status != status) {
      error = ErrorRecord{};
      error.status = status;
    }
    error.plugin = plugin.name;
    error.device = record->info.id;
    error.operation = "xhal_device_open";
    if (error.text.empty())
      error.text =
          fmt::format("{} cannot be opened: {}", record->info.id, xhal_status_text(status));
    record->timestamps.close();
    delete record;
    return set_error(std::move(error));
  }
  if (!is_live(record->device, XHAL_KIND_DEVICE) ||
      (!observe && !is_live(record->context, XHAL_KIND_CONTEXT))) {
    record->timestamps.close();
    keep_for_ever(record);  // half a device may point to it
    return fail(
        XHAL_ERR_PLUGIN, "xhal_device_open",
        "plugin {} returned success without a device and a default context made by object_alloc",
        plugin.name);
  }
  // What the plugin may not decide.
  const auto& listed = plugin.devices[ordinal];
  std::memcpy(record->info.id, listed.id, sizeof listed.id);
  std::memcpy(record->info.plugin, listed.plugin, sizeof listed.plugin);
  record->info.ordinal = ordinal;
  record->info.generation = plugin.generations[ordinal];
  record->info.priority = listed.priority;
  record->info.flags &= ~static_cast<uint32_t>(XHAL_DEVICE_UNVERIFIED);
  if (!observe) adopt_context(*record, record->context, info.quota_bytes, info.context_flags, true);
  registry().devices.push_back(record);
  *opened = record;
  return XHAL_OK;
}

}  // namespace

void empty_context(ContextState& side) {
  for (;;) {
    xhal_stream* stream = nullptr;
    xhal_pool* pool = nullptr;
    {
      const std::lock_guard lock(side.mutex);
      if (!side.streams.empty())
        stream = *side.streams.begin();
      else if (!side.pools.empty())
        pool = *side.pools.begin();
    }
    if (stream != nullptr)
      xhal_stream_destroy(stream);
    else if (pool != nullptr)
      abandon_pool(pool);
    else
      return;
  }
}

void close_device(DeviceRecord& record) {
  std::vector<xhal_context*> contexts;
  {
    const std::lock_guard lock(record.mutex);
    if (record.closed) return;
    record.closed = true;
    contexts.assign(record.contexts.begin(), record.contexts.end());
  }
  for (auto* context : contexts) {
    empty_context(*state_of(context));
    if (end_context_memory(*state_of(context), record.lost) != XHAL_OK) {
      log(XHAL_LOG_ERROR, "{} is closed although its memory could not be overwritten: {}",
          record.id(), last_error().text);
    }
    keep_for_ever(state_of(context));
  }
  // Before the plugin's part ends: the device's object may then become another device.
  address_map().remove_device(record);
  record.raw.device_close(record.device);
  // A lost device may be a process that hangs, and wakes up.
  if (record.lost)
    record.timestamps.abandon();
  else
    record.timestamps.close();
  switch_to_stopped(record.table);
  switch_to_stopped(record.intercept);
  const std::lock_guard lock(record.mutex);
  for (int fd : record.event_pipes) close(fd);
  record.event_pipes.clear();
}

void lose_device(DeviceRecord& record, ErrorRecord error) {
  bool expected = false;
  if (!record.lost.compare_exchange_strong(expected, true)) return;
  error.status = XHAL_ERR_DEVICE_LOST;
  error.scope = XHAL_SCOPE_DEVICE;
  error.plugin = record.plugin->name;
  error.device = record.info.id;
  record.lost_error = error;
  switch_to_lost(record.table);
  switch_to_lost(record.intercept);
  {
    const std::lock_guard lock(registry().mutex);
    ++record.plugin->generations[record.info.ordinal];
  }
  record.post_event(XHAL_DEVICE_EVENT_LOST, XHAL_LOG_ERROR,
                    error.text);  // whoever is woken next may read it
  fail_all_timelines(error, &record);
}

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
    if (const auto s = xhal::structs::read(info, local); s != XHAL_OK) {
      return fail(s, op, "{}: bad info structure of {} bytes: {}", op, info->struct_size,
                  xhal_status_text(s));
    }
    const bool observe = (local.flags & XHAL_OPEN_OBSERVE) != 0;
    if ((local.flags & ~(XHAL_OPEN_OBSERVE | XHAL_OPEN_CONTROL)) != 0)
      return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: unknown flags {:#x}", op, local.flags);
    if (!observe && context == nullptr) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, op,
                  "{}: context is NULL (only XHAL_OPEN_OBSERVE goes without)", op);
    }
    if (!xhal::is_running()) return xhal::fail_state(op);
    auto& r = xhal::registry();
    const std::lock_guard lock(r.mutex);
    r.load_all();
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
    xhal::DeviceRecord* record = nullptr;
    for (auto* d : r.devices) {
      const bool same =
          d->plugin == &plugin && d->info.ordinal == ordinal && d->open_flags == local.flags;
      if (same && !d->closed && !d->lost) record = d;
    }
    if (record == nullptr) {
      if (const auto s = xhal::open_new(plugin, ordinal, local, &record); s != XHAL_OK) return s;
    }
    ++record->open_count;
    record->info.index = local.index;
    *device = record->device;
    if (context != nullptr) *context = record->context;
    return XHAL_OK;
  });
}

xhal_status xhal_device_close(xhal_device* device) {
  constexpr const char* op = "xhal_device_close";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  return xhal::exported(op, [&]() -> xhal_status {
    auto& record = *xhal::private_of(device)->device;
    if (!xhal::is_running()) return XHAL_OK;
    {
      const std::lock_guard lock(xhal::registry().mutex);
      if (record.closed)
        return fail(XHAL_ERR_INVALID_HANDLE, op, "{}: {} is closed already", op, record.id());
      if (--record.open_count > 0) return XHAL_OK;
    }
    xhal::close_device(record);
    return XHAL_OK;
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

xhal_status xhal_device_control_table(xhal_device* device, const xhal_control_table** table) {
  constexpr const char* op = "xhal_device_control_table";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  if (const auto s = xhal::required(op, {{"table", table}}); s != XHAL_OK) return s;
  if ((xhal::private_of(device)->device->open_flags & XHAL_OPEN_CONTROL) == 0) {
    return fail(XHAL_ERR_PERMISSION, op, "{}: {} was opened without XHAL_OPEN_CONTROL", op,
                xhal::private_of(device)->device->id());
  }
  const xhal_status status = xhal::dispatch_of(device)->device_control_table(device, table);
  return status >= 0 ? status : xhal::annotate(status, device, op);
}

xhal_status xhal_device_comm_table(xhal_device* device, const struct xhal_comm_table** table) {
  constexpr const char* op = "xhal_device_comm_table";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  if (const auto s = xhal::required(op, {{"table", table}}); s != XHAL_OK) return s;
  const xhal_status status = xhal::dispatch_of(device)->device_comm_table(device, table);
  return status >= 0 ? status : xhal::annotate(status, device, op);
}

xhal_status xhal_device_events_fd(xhal_device* device, int32_t* fd) {
  constexpr const char* op = "xhal_device_events_fd";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  if (const auto s = xhal::required(op, {{"fd", fd}}); s != XHAL_OK) return s;
  if (!xhal::is_running()) return xhal::fail_state(op);
  return xhal::exported(op, [&]() -> xhal_status {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
      return fail(XHAL_ERR_OUT_OF_MEMORY, op, "{}: no descriptor left: raise `ulimit -n`", op);
    }
    auto& record = *xhal::private_of(device)->device;
    const std::lock_guard lock(record.mutex);
    record.event_pipes.push_back(ends[1]);
    *fd = ends[0];
    return XHAL_OK;
  });
}

xhal_status xhal_context_create(xhal_device* device, const xhal_context_info* info,
                                xhal_context** context) {
  constexpr const char* op = "xhal_context_create";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  return xhal::exported(op, [&]() -> xhal_status {
    xhal_context_info local{};
    if (const auto s = xhal::required(op, {{"context", context}}); s != XHAL_OK) return s;
    if (const auto s = xhal::structs::read(info, local); s != XHAL_OK) {
      return fail(s, op, "{}: bad info structure of {} bytes: {}", op, info->struct_size,
                  xhal_status_text(s));
    }
    if (const auto s =
            xhal::check_context_flags(*xhal::private_of(device)->device, local.flags, op);
        s != XHAL_OK)
      return xhal::annotate(s, device, op);
    xhal_status status = xhal::dispatch_of(device)->context_create(device, &local, context);
    if (status == XHAL_OK && !is_live(*context, XHAL_KIND_CONTEXT)) {
      status = fail(XHAL_ERR_PLUGIN, op,
                    "{}: the plugin returned success without a context made by object_alloc", op);
    }
    if (status != XHAL_OK) return xhal::annotate(status, device, op);
    xhal::adopt_context(*xhal::private_of(device)->device, *context, local.quota_bytes, local.flags,
                        false);
    return XHAL_OK;
  });
}

xhal_status xhal_context_destroy(xhal_context* context) {
  constexpr const char* op = "xhal_context_destroy";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  return xhal::exported(op, [&]() -> xhal_status {
    auto& record = *xhal::private_of(context)->device;
    if (context == record.context) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, op,
                  "{}: the default context of {} ends with xhal_device_close", op, record.id());
    }
    auto* side = xhal::state_of(context);
    xhal::empty_context(*side);
    if (const auto s = xhal::end_context_memory(*side, record.lost); s != XHAL_OK)
      return xhal::annotate(s, context, op);
    {
      const std::lock_guard lock(record.mutex);
      record.contexts.erase(context);
    }
    const xhal_status status = xhal::dispatch_of(context)->context_destroy(context);
    delete side;
    return status >= 0 ? status : xhal::annotate(status, context, op);
  });
}

}  // extern "C"
