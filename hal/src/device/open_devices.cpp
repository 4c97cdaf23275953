// SPDX-License-Identifier: Apache-2.0
#include "device/open_devices.hpp"

#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <thread>

#include "core/argument_check.hpp"
#include "core/context_state.hpp"
#include "core/locks.hpp"
#include "core/log.hpp"
#include "core/object.hpp"
#include "core/plugin_record.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "layers/layers.hpp"
#include "loader/loader.hpp"
#include "loader/plugins.hpp"
#include "memory/address_map.hpp"
#include "memory/context_memory.hpp"
#include "sync/deferral.hpp"
#include "sync/stream_state.hpp"
#include "sync/timeline.hpp"
#include "sync/timestamps.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

using Phase = DeviceRecord::Phase;
constexpr const char* kOpen = "xhal_device_open";
constexpr const char* kClose = "xhal_device_close";

struct OpenDevices {
  Mutex mutex{Rank::devices};
  std::condition_variable changed;  // a phase
  std::vector<DeviceRecord*> all;   // for ever
};
OpenDevices& open_devices() {
  static auto* d = new OpenDevices;
  return *d;
}
const AtLoad open_devices_at_load(open_devices);

// The device whose open or close runs on this thread: it cannot wait for itself.
thread_local const DeviceRecord* inside = nullptr;

bool is_same(const DeviceRecord& d, const PluginRecord& plugin, uint32_t ordinal) {
  return d.plugin == &plugin && d.ordinal == ordinal;
}

// A closed one of the same device under which nothing lives, else a new one; the lock is held.
DeviceRecord& record_for(OpenDevices& devices, PluginRecord& plugin, uint32_t ordinal) {
  for (auto* d : devices.all) {
    if (d->phase == Phase::closed && is_same(*d, plugin, ordinal) && d->objects == 0) return *d;
  }
  auto record = std::make_unique<DeviceRecord>();
  record->timestamps = new TimestampRing;
  record->plugin = &plugin;
  record->name = fmt::format("{}:{}", plugin.name, ordinal);
  record->ordinal = ordinal;
  devices.all.push_back(record.get());
  adopt_device_timelines(*record);
  return *record.release();
}

xhal_status refused(DeviceRecord& record, xhal_status status) {
  ErrorRecord error = last_error();
  if (error.status != status) error = ErrorRecord::plain(status);
  error.plugin = record.plugin->name;
  error.device = record.id();
  error.operation = kOpen;
  if (error.text.empty())
    error.text = fmt::format("{} cannot be opened: {}", record.id(), xhal_status_text(status));
  return set_error(std::move(error));
}

// What an older plugin would silently ignore is refused.
xhal_status check_wishes(const PluginRecord& plugin, const xhal_device_info& listed,
                         const xhal_device_open_info& info) {
  if ((info.context_flags & XHAL_CONTEXT_SCRUB) != 0 &&
      ((listed.capabilities[0] >> XHAL_CAP_SCRUB) & 1) == 0) {
    return fail(XHAL_ERR_UNSUPPORTED, kOpen,
                "{}: {} cannot overwrite memory before it is given back (XHAL_CONTEXT_SCRUB)",
                kOpen, listed.id);
  }
  const bool newer = info.context_flags != 0 || info.priority_limit != 0 || info.next != nullptr;
  if (newer && !plugin.speaks(3)) {
    return fail(XHAL_ERR_UNSUPPORTED, kOpen,
                "{}: plugin {} speaks ABI 0.{}, which has no flags, limit or chain for a default "
                "context; install a newer one",
                kOpen, plugin.name, plugin.abi_used & 0xffff);
  }
  return XHAL_OK;
}

// Calls the plugin; on success the record is complete.
xhal_status open_in_plugin(DeviceRecord& record, uint32_t ordinal,
                           const xhal_device_open_info& info) {
  auto& plugin = *record.plugin;
  xhal_plugin_open open{};
  const auto listed = listed_device(plugin, ordinal, &open.ordinal);
  record.info = listed;
  if (const auto s = check_wishes(plugin, listed, info); s != XHAL_OK) return refused(record, s);
  record.device = nullptr;
  record.context = nullptr;
  record.lost = false;
  record.losing = false;
  record.lost_error.reset();
  record.control = {};
  record.comm = {};
  fill_table(record.raw, *plugin.table.slots, &record);
  record.table = record.raw;
  apply_layers(record);
  make_intercept(record);
  record.timestamps->open(info.timestamp_ring == 0 ? kTimestampRing : info.timestamp_ring);

  const bool observe = (info.flags & XHAL_OPEN_OBSERVE) != 0;
  open.struct_size = sizeof open;
  open.flags = info.flags;
  open.table = &record.table;
  open.quota_bytes = info.quota_bytes;
  open.next = info.next;
  open.context_flags = info.context_flags;
  open.priority_limit = info.priority_limit;
  xhal_context_info wishes{};
  wishes.quota_bytes = info.quota_bytes;
  wishes.flags = info.context_flags;
  wishes.priority_limit = info.priority_limit;
  ContextToBe default_context(record, wishes, true);
  xhal_device* device = nullptr;
  xhal_context* context = nullptr;
  xhal_status status = plugin.table.device_open(&open, &record.info, &device, &context);
  if (status == XHAL_OK &&
      (!is_live(device, XHAL_KIND_DEVICE) || (!observe && !is_live(context, XHAL_KIND_CONTEXT)))) {
    status = fail(
        XHAL_ERR_PLUGIN, kOpen,
        "plugin {} returned success without a device and a default context made by object_alloc",
        plugin.name);
  }
  end_texts(record.info);
  record.device = device;
  record.context = context;
  if (status != XHAL_OK) {
    if (device != nullptr) address_map().remove_device(record);
    record.timestamps->close();
    return refused(record, as_error(status));
  }
  // What the plugin may not decide.
  std::memcpy(record.info.id, listed.id, sizeof listed.id);
  std::memcpy(record.info.plugin, listed.plugin, sizeof listed.plugin);
  record.info.ordinal = ordinal;
  record.info.generation = listed.generation;
  record.info.priority = listed.priority;
  record.info.index = info.index;
  record.info.flags &= ~static_cast<uint32_t>(XHAL_DEVICE_UNVERIFIED);
  if (!observe) default_context.becomes(context);
  return XHAL_OK;
}

// Stops everything of a device that is `closing`. When memory cannot be overwritten that has to be,
// the plugin is not asked to close, for it would give that memory back.
xhal_status close_in_plugin(DeviceRecord& record) {
  // Until the plugin is asked to close they may all come back.
  struct Contexts : std::set<xhal_context*> {
    explicit Contexts(DeviceRecord& of) : record(of) {}
    ~Contexts() {
      const std::lock_guard lock(DeviceRecord::mutex());
      record.contexts.merge(*this);
    }
    DeviceRecord& record;
  } contexts(record);
  const std::string id = record.id();
  std::vector<ContextState*> states;
  {
    const std::lock_guard lock(DeviceRecord::mutex());
    states.reserve(record.contexts.size());
    contexts.swap(record.contexts);
  }
  xhal_status unscrubbed = XHAL_OK;
  ErrorRecord error;
  for (auto* context : contexts) {
    auto* const state = state_of(context);
    if (const auto s = empty_context(*state); s < 0) {
      unscrubbed = s;
      error = last_error();
    }
    states.push_back(state);
  }
  if (unscrubbed < 0) {
    (void)set_error(std::move(error));
    return annotate(unscrubbed, record.device, kClose);
  }
  // Before the plugin's part ends: the device's object may then become another device.
  address_map().remove_device(record);
  contexts.clear();
  const xhal_status status = record.raw.device_close(record.device);
  if (status < 0) {
    log(XHAL_LOG_WARN,
        "{} does not say that it has stopped ({}); what it may still write to is kept", id,
        xhal_status_text(status));
  }
  // A plugin that cannot tell that its device has stopped says so by an error: then nothing that
  // the device may still write to is used again.
  const bool quiet = status >= 0;
  for (auto* state : states) forget_context(*state);
  quiet ? record.timestamps->close() : record.timestamps->abandon();
  timelines_of_closed_device(record, quiet);
  switch_to_stopped(record.table);
  switch_to_stopped(record.intercept);
  const std::lock_guard lock(DeviceRecord::mutex());
  for (const int fd : record.event_outlets) close(fd);
  record.event_outlets.clear();
  return XHAL_OK;
}

void set_phase(DeviceRecord& record, Phase phase) {
  auto& devices = open_devices();
  const std::lock_guard lock(devices.mutex);
  record.phase = phase;
  devices.changed.notify_all();
}

xhal_status close_closing(DeviceRecord& record) {
  const auto* const outer = std::exchange(inside, &record);
  const xhal_status status = guarded(kClose, [&] { return close_in_plugin(record); });
  inside = outer;
  if (status == XHAL_OK) set_phase(record, Phase::closed);
  return status;
}

}  // namespace

xhal_status open_device(PluginRecord& plugin, uint32_t ordinal, const xhal_device_open_info& info,
                        DeviceRecord** opened) {
  auto& devices = open_devices();
  std::unique_lock<std::mutex> lock(devices.mutex);
  for (;;) {
    if (!is_running()) return fail_state(kOpen);
    const auto found = std::find_if(devices.all.begin(), devices.all.end(), [&](const auto* d) {
      return d->phase != Phase::closed && is_same(*d, plugin, ordinal) && !d->lost &&
             d->open_flags == info.flags;
    });
    if (found == devices.all.end()) break;
    auto& record = **found;
    if (record.phase == Phase::open) {
      // No plugin reads it this time.
      if (const auto s = structs::check_chain(info.next); s != XHAL_OK) {
        return fail(s, kOpen,
                    "{}: {} is open already, and nobody reads what is chained to the info", kOpen,
                    record.id());
      }
      ++record.open_count;
      *opened = &record;
      return XHAL_OK;
    }
    if (inside == &record) {
      return fail(XHAL_ERR_BUSY, kOpen,
                  "{}: called from the plugin's own device_open or device_close", kOpen);
    }
    devices.changed.wait(lock);
  }
  auto& record = record_for(devices, plugin, ordinal);
  record.phase = Phase::opening;
  record.open_flags = info.flags;
  record.open_count = 1;
  lock.unlock();
  const auto* const outer = std::exchange(inside, &record);
  const xhal_status status = guarded(kOpen, [&] { return open_in_plugin(record, ordinal, info); });
  inside = outer;
  set_phase(record, status == XHAL_OK ? Phase::open : Phase::closed);
  *opened = &record;
  return status;
}

xhal_status give_back_device(DeviceRecord& record) {
  const char* const op = kClose;
  auto& devices = open_devices();
  {
    const std::lock_guard lock(devices.mutex);
    if (!is_running()) return XHAL_OK;
    if (record.phase != Phase::open)
      return fail(XHAL_ERR_INVALID_HANDLE, op, "{}: {} is closed already", op, record.id());
    if (--record.open_count > 0) return XHAL_OK;
    record.phase = Phase::closing;
  }
  const xhal_status status = close_closing(record);
  if (status < 0) {
    const std::lock_guard lock(devices.mutex);
    record.open_count = 1;
    record.phase = Phase::open;
    devices.changed.notify_all();
  }
  return status;
}

xhal_status close_all_devices() {
  auto& devices = open_devices();
  xhal_status unscrubbed = XHAL_OK;
  for (;;) {
    DeviceRecord* next = nullptr;
    {
      std::unique_lock<std::mutex> lock(devices.mutex);
      devices.changed.wait(lock, [&] {
        return std::none_of(devices.all.begin(), devices.all.end(), [](const auto* d) {
          return (d->phase == Phase::opening || d->phase == Phase::closing) && d != inside;
        });
      });
      const auto open = std::find_if(devices.all.begin(), devices.all.end(),
                                     [](const auto* d) { return d->phase == Phase::open; });
      if (open == devices.all.end()) return unscrubbed;
      next = *open;
      next->phase = Phase::closing;
    }
    const xhal_status status = close_closing(*next);
    if (status == XHAL_OK) continue;
    // Its memory stays with the plugin, and the record is never used again.
    unscrubbed = status;
    switch_to_stopped(next->table);
    switch_to_stopped(next->intercept);
    next->objects.fetch_add(1, std::memory_order_relaxed);
    set_phase(*next, Phase::closed);
  }
}

bool stop_devices_after_fork() noexcept {
  bool any = false;
  for (auto* d : open_devices().all) {
    if (d->phase == Phase::closed) continue;
    any = true;
    switch_to_stopped(d->table);
    switch_to_stopped(d->intercept);
    for (const int fd : d->event_outlets) close(fd);  // what the child does reaches nobody
    d->event_outlets.clear();
  }
  return any;
}

void taken_at_its_word(const void* object) noexcept {
  auto& record = *private_of(object)->device;
  // The loss that a failed stream repeats may be another device's.
  if (head_of(object)->kind == XHAL_KIND_STREAM &&
      static_cast<StreamState*>(private_of(object)->state)->timeline.load()->failed())
    return;
  ErrorRecord reason;
  try {
    reason = last_error();
  } catch (...) {  // the status itself still arrives
  }
  lose_device(record, std::move(reason));
  wait_until_lost(record);  // another thread may be at it
}

void lose_device(DeviceRecord& record, ErrorRecord reason) noexcept {
  // The next open has another generation, before anybody can make it.
  if (!record.losing) next_generation(*record.plugin, record.ordinal);
  {
    const std::lock_guard lock(DeviceRecord::mutex());
    if (record.losing) return;
    ErrorRecord error;
    try {
      error = std::move(reason);
      error.plugin = record.plugin->name;
      error.device = record.id();
    } catch (...) {  // the status itself still arrives
    }
    error.status = XHAL_ERR_DEVICE_LOST;
    error.scope = XHAL_SCOPE_DEVICE;
    record.lost_error = make_failure(std::move(error));
    record.losing.store(true, std::memory_order_seq_cst);
  }
  while (record.at_host_memory.load(std::memory_order_seq_cst) != 0) sched_yield();
  record.lost.store(true, std::memory_order_release);
  switch_to_lost(record.table);
  switch_to_lost(record.intercept);
  log(XHAL_LOG_WARN, "{} is lost: {}", record.id(), record.lost_error->text);
  // Whoever is woken next may read it.
  post_device_event(record, XHAL_DEVICE_EVENT_LOST, XHAL_LOG_ERROR, record.lost_error->text);
  fail_all_timelines(record.lost_error, &record);
  tell_of_raised_cells();
}

}  // namespace xhal
