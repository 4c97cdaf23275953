// SPDX-License-Identifier: Apache-2.0
// host_services.cpp: what libxhal does for plugins (xhal/host.h).
#include "device/host_services.hpp"

#include "core/correlation.hpp"
#include "core/log.hpp"
#include "core/object.hpp"
#include "core/plugin_record.hpp"
#include "device/open_devices.hpp"
#include "memory/address_map.hpp"
#include "memory/pinned.hpp"
#include "sync/cells.hpp"
#include "sync/stream_state.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

xhal_status alloc(const xhal_dispatch* table, uint32_t kind, uint64_t size, void** object) {
  auto* record = record_of(table);
  return object_alloc(table, record, record->plugin->number, kind, size, object);
}

xhal_status error_set(const xhal_error* error) {
  return guarded("error_set", [&] { return set_error(ErrorRecord::from(*error)); });
}

xhal_status range_add(xhal_device* device, xhal_context* context, uint64_t base, uint64_t size,
                      uint32_t kind, uint32_t flags) {
  return guarded("range_add", [&]() -> xhal_status {
    AddressRange other{};
    if (size == 0 || base + size < base) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, "range_add",
                  "the range {:#x} + {} is empty or wraps around", base, size);
    }
    if (address_map().add({base, size, kind, flags, device, context}, &other)) return XHAL_OK;
    const auto* owner = other.device == nullptr ? nullptr : private_of(other.device)->device;
    return fail(XHAL_ERR_ADDRESS_CONFLICT, "range_add",
                "the address range {:#x} + {} overlaps {:#x} + {} of {}; addresses must be unique "
                "in the process",
                base, size, other.base, other.size_bytes,
                owner == nullptr ? "pinned host memory" : owner->id());
  });
}

xhal_status range_remove(uint64_t base) {
  if (address_map().remove(base)) return XHAL_OK;
  return fail(XHAL_ERR_NOT_FOUND, "range_remove", "no range begins at {:#x}", base);
}

xhal_status shared_memory(const void* address, int32_t* fd, uint64_t* offset, uint64_t* size) {
  if (find_cells(address, fd, offset, size) || find_pinned(address, fd, offset, size))
    return XHAL_OK;
  return fail(XHAL_ERR_NOT_FOUND, "shared_memory", "{} is in no shared memory of libxhal", address);
}

void timeline_fail(xhal_timeline* timeline, const xhal_error* error) {
  auto& t = *Timeline::of(timeline);
  try {
    ErrorRecord record = ErrorRecord::from(*error);
    if (t.device != nullptr) {
      record.plugin = t.device->plugin->name;
      record.device = t.device->id();
      const StreamRef stream = stream_of(t);
      if (stream != nullptr && stream->handle != nullptr) {
        if (record.stream == 0) record.stream = private_of(stream->handle)->number;
        record.stream_name = stream->name;
      }
    }
    t.fail(make_failure(std::move(record)));
  } catch (...) {
    t.fail(make_failure(ErrorRecord::plain(error->status)));
  }
}

xhal_status timeline_poll(xhal_timeline* timeline, uint64_t value, xhal_error* error) {
  auto& t = *Timeline::of(timeline);
  const xhal_status status = t.poll(value);
  // The caller's structure may be of 0.1: this service promises that much of the record, no more.
  // Its strings are the failure's, which the timeline keeps.
  if (status < 0 && error != nullptr) {
    const xhal_error view = t.failure()->view();
    error->struct_size = structs::kFirstSize<xhal_error>;
    structs::write(view, error);
  }
  return status;
}

xhal_status timeline_notify(xhal_timeline* timeline, uint64_t value, xhal_timeline_fn callback,
                            void* user) {
  return guarded("timeline_notify", [&] {
    Timeline::of(timeline)->notify(value, [callback, user](xhal_status s) { callback(user, s); });
    return XHAL_OK;
  });
}

void device_lost(xhal_device* device, const xhal_error* error) {
  ErrorRecord record;
  try {
    record = ErrorRecord::from(*error);
  } catch (...) {  // no memory for the text: the loss itself is told
  }
  lose_device(*private_of(device)->device, std::move(record));
}

}  // namespace

const xhal_host_services* host_services() {
  static const xhal_host_services table = [] {
    xhal_host_services t{};
    t.struct_size = sizeof t;
    t.minor = XHAL_VERSION_MINOR;
    t.object_alloc = alloc;
    t.object_free = object_free;
    t.error_set = error_set;
    t.log = [](uint32_t level, xhal_string text) {
      if (log_enabled(level)) log_line(level, {text.data, text.size});
    };
    t.range_add = range_add;
    t.range_remove = range_remove;
    t.pointer_query = xhal_pointer_query;
    t.timeline_cell = [](xhal_timeline* timeline) {
      return Timeline::of(timeline)->cell.load(std::memory_order_acquire);
    };
    t.shared_memory = shared_memory;
    t.timeline_advance = [](xhal_timeline* timeline, uint64_t value) {
      Timeline::of(timeline)->advance(value);
    };
    t.timeline_fail = timeline_fail;
    t.timeline_poll = timeline_poll;
    t.timeline_notify = timeline_notify;
    t.correlation = current_correlation;
    t.object_number = [](const void* object) { return private_of(object)->number; };
    t.device_lost = device_lost;
    t.device_event = [](xhal_device* device, uint32_t kind, uint32_t severity, xhal_string text) {
      post_device_event(*private_of(device)->device, kind, severity, {text.data, text.size});
    };
    return t;
  }();
  return &table;
}

}  // namespace xhal
