#include "device/host_services.hpp"

#include <vector>

#include "memory/address_map.hpp"
#include "sync/deferral.hpp"
#include "device/device.hpp"
#include "memory/pinned.hpp"
#include "core/log.hpp"
#include "core/object.hpp"
#include "core/plugin_record.hpp"
#include "sync/cells.hpp"
#include "core/tables.hpp"
#include "sync/timeline.hpp"
#include "xhal/activity.h"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

std::vector<uint64_t>& correlations() {
  thread_local std::vector<uint64_t> stack;
  return stack;
}

xhal_status alloc(const xhal_dispatch* table, uint32_t kind, uint64_t size, void** object) {
  auto* record = record_of(table);
  return object_alloc(table, record, record->plugin->number, kind, size, object);
}

xhal_status error_set(const xhal_error* error) {
  return exported("error_set", [&] { return set_error(ErrorRecord::from(*error)); });
}

xhal_status range_add(xhal_device* device, xhal_context* context, uint64_t base, uint64_t size,
                      uint32_t kind, uint32_t flags) {
  return exported("range_add", [&]() -> xhal_status {
    AddressRange other{};
    if (size == 0 || base + size < base) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, "range_add",
                  "the range {:#x} + {} is empty or wraps around", base, size);
    }
    if (address_map().add({base, size, kind, flags, device, context}, &other))
      return XHAL_OK;
    const auto* owner = other.device == nullptr ? nullptr : private_of(other.device)->device;
    return fail(XHAL_ERR_ADDRESS_CONFLICT, "range_add",
                "the address range {:#x} + {} overlaps {:#x} + {} of {}; addresses must be unique "
                "in the process",
                base, size, other.base, other.size_bytes,
                owner == nullptr ? "pinned host memory" : owner->info.id);
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
  try {
    auto& t = *Timeline::of(timeline);
    ErrorRecord record = ErrorRecord::from(*error);
    if (t.device != nullptr) {
      record.plugin = t.device->plugin->name;
      record.device = t.device->info.id;
      if (t.stream != nullptr && record.stream == 0)
        record.stream = private_of(t.stream->handle)->number;
      if (t.stream != nullptr) record.stream_name = t.stream->name;
    }
    t.fail(std::move(record));
  } catch (...) {
    Timeline::of(timeline)->fail(ErrorRecord::plain(error->status));
  }
}

xhal_status timeline_poll(xhal_timeline* timeline, uint64_t value, xhal_error* error) {
  auto& t = *Timeline::of(timeline);
  const xhal_status status = t.poll(value);
  // The caller's structure may be of 0.1: this service promises that much of the record, no more.
  if (status < 0 && error != nullptr) {
    const xhal_error view = t.failure().view();
    error->struct_size = structs::kFirstSize<xhal_error>;
    structs::write(view, error);
  }
  return status;
}

void device_lost(xhal_device* device, const xhal_error* error) {
  try {
    lose_device(*private_of(device)->device, ErrorRecord::from(*error));
  } catch (...) {
    lose_device(*private_of(device)->device, ErrorRecord{});
  }
}

}  // namespace

uint64_t current_correlation() { return correlations().empty() ? 0 : correlations().back(); }

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
    t.timeline_cell = [](xhal_timeline* timeline) { return Timeline::of(timeline)->cell; };
    t.shared_memory = shared_memory;
    t.timeline_advance = [](xhal_timeline* timeline, uint64_t value) {
      Timeline::of(timeline)->advance(value);
    };
    t.timeline_fail = timeline_fail;
    t.timeline_poll = timeline_poll;
    t.timeline_notify = xhal_timeline_notify;
    t.correlation = current_correlation;
    t.object_number = [](const void* object) { return private_of(object)->number; };
    t.device_lost = device_lost;
    t.device_event = [](xhal_device* device, uint32_t kind, uint32_t severity, xhal_string text) {
      private_of(device)->device->post_event(kind, severity, {text.data, text.size});
    };
    return t;
  }();
  return &table;
}

}  // namespace xhal

extern "C" {

xhal_status xhal_correlation_push(uint64_t id) {
  return xhal::exported("xhal_correlation_push", [&] {
    xhal::correlations().push_back(id);
    return XHAL_OK;
  });
}

xhal_status xhal_correlation_pop(uint64_t* id) {
  constexpr const char* op = "xhal_correlation_pop";
  auto& stack = xhal::correlations();
  if (stack.empty())
    return xhal::fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: nothing was pushed on this thread", op);
  if (id != nullptr) *id = stack.back();
  stack.pop_back();
  return XHAL_OK;
}

}  // extern "C"
