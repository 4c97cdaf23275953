// SPDX-License-Identifier: Apache-2.0
// event_api.cpp: the exported questions about events (event.h). Recording is in stream_api.cpp.
#include "core/argument_check.hpp"
#include "sync/stream_state.hpp"
#include "sync/timestamps.hpp"
#include "xhal/event.h"

namespace xhal {
namespace {

// NULL, or of a capture, which has no time of its own, or not from this version of the library.
[[gnu::noinline, gnu::cold]] xhal_status bad_event(const xhal_event* event, const char* operation) {
  if (event == nullptr) return refuse_null(operation, "event");
  if ((event->flags & XHAL_EVENT_CAPTURED) == 0) {
    return refuse_unknown(operation, {event->flags & ~uint32_t{XHAL_EVENT_TIMED}, "event->flags"});
  }
  return fail(
      XHAL_ERR_CAPTURE, operation,
      "{}: the event was recorded during a capture and has no time of its own; use it only with "
      "xhal_stream_wait_event inside that capture",
      operation);
}

// The host waits for what only runs when the graph is launched, and takes it for done: as
// xhal_stream_synchronize, this ends the hope of a graph.
[[gnu::noinline, gnu::cold]] xhal_status bad_wait(const xhal_event* event) {
  constexpr const char* op = "xhal_event_wait";
  const xhal_status status = bad_event(event, op);
  if (status != XHAL_ERR_CAPTURE) return status;
  const StreamRef stream = stream_of(*Timeline::of(event->timeline));
  return stream == nullptr ? status : submitted(status, stream->handle, op);
}

bool is_bad(const xhal_event* event) {
  return event == nullptr || (event->flags & ~uint32_t{XHAL_EVENT_TIMED}) != 0;
}

}  // namespace
}  // namespace xhal

using xhal::Timeline;

extern "C" {

xhal_status xhal_event_query(const xhal_event* event) {
  if (__builtin_expect(xhal::is_bad(event), 0)) return xhal::bad_event(event, "xhal_event_query");
  if (event->timeline == nullptr) return XHAL_OK;
  auto& t = *Timeline::of(event->timeline);
  const uint64_t value = t.inner(event->value);
  return t.reached(value) ? XHAL_OK : t.query(value);
}

xhal_status xhal_event_wait(const xhal_event* event, uint64_t timeout_ns) {
  if (__builtin_expect(xhal::is_bad(event), 0)) return xhal::bad_wait(event);
  if (event->timeline == nullptr) return XHAL_OK;
  auto& t = *Timeline::of(event->timeline);
  const uint64_t value = t.inner(event->value);
  return t.reached(value) ? XHAL_OK : t.wait(value, timeout_ns, "xhal_event_wait");
}

xhal_status xhal_event_elapsed(const xhal_event* start, const xhal_event* end,
                               int64_t* elapsed_ns) {
  constexpr const char* op = "xhal_event_elapsed";
  if (const auto s =
          xhal::required(op, {{"start", start}, {"end", end}, {"elapsed_ns", elapsed_ns}});
      s != XHAL_OK)
    return s;
  for (const auto* e : {start, end}) {
    if (xhal::is_bad(e)) return xhal::bad_event(e, op);
    if (e->timeline == nullptr || (e->flags & XHAL_EVENT_TIMED) == 0) {
      return xhal::fail(XHAL_ERR_INVALID_ARGUMENT, op,
                        "{}: an event is not timed; record it with XHAL_EVENT_TIMED", op);
    }
  }
  auto* const device = Timeline::of(start->timeline)->device;
  if (device == nullptr || device != Timeline::of(end->timeline)->device) {
    return xhal::fail(XHAL_ERR_INVALID_ARGUMENT, op,
                      "{}: the events are of different devices, whose clocks differ", op);
  }
  uint64_t times[2];
  int i = 0;
  for (const auto* e : {start, end}) {
    auto& t = *Timeline::of(e->timeline);
    if (const auto s = t.query(t.inner(e->value)); s != XHAL_OK) return s;
    const xhal_status read = device->timestamps->read(e->timestamp_slot, &times[i++]);
    if (read == XHAL_NOT_READY) return read;
    if (read != XHAL_OK) {
      return xhal::fail(XHAL_ERR_EXPIRED, op,
                        "{}: the timestamp has been overwritten (the ring holds {} of a device, "
                        "xhal_device_open_info.timestamp_ring), or the device was closed",
                        op, device->timestamps->size());
    }
  }
  *elapsed_ns = static_cast<int64_t>(times[1] - times[0]);
  return XHAL_OK;
}

}  // extern "C"
