// timeline_api.cpp: the exported functions of timeline.h and event.h.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>

#include "core/device_record.hpp"
#include "core/argument_check.hpp"
#include "sync/cells.hpp"
#include "core/state.hpp"
#include "sync/stream_state.hpp"
#include "sync/timeline.hpp"
#include "xhal/event.h"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

constexpr const char* kWait = "xhal_timeline_wait";

xhal_status answer(const Timeline& t, xhal_status status) {
  return status < 0 ? set_error(t.failure()) : status;
}

// Who may raise or fail a timeline: only the host, and only one that is neither imported nor a
// stream's.
xhal_status not_ours(const Timeline& t, const char* operation) {
  return fail(XHAL_ERR_PERMISSION, operation,
              "{}: {} signals this timeline, it can only be waited for here", operation,
              t.imported ? "another process" : "a stream");
}

xhal_status check_event(const xhal_event* event, const char* operation) {
  if (event == nullptr) return refuse_null(operation, "event");
  if ((event->flags & XHAL_EVENT_CAPTURED) != 0) {
    return fail(
        XHAL_ERR_CAPTURE, operation,
        "{}: the event was recorded during a capture and has no time of its own; use it only with "
        "xhal_stream_wait_event inside that capture",
        operation);
  }
  return XHAL_OK;
}

}  // namespace
}  // namespace xhal

using xhal::Timeline;

#define CHECK_TIMELINE(handle, operation)                                \
  if (__builtin_expect(!xhal::is_live(handle, XHAL_KIND_TIMELINE), 0)) { \
    return xhal::bad_handle(handle, XHAL_KIND_TIMELINE, operation);      \
  }

extern "C" {

xhal_status xhal_timeline_create(uint64_t initial, xhal_timeline** timeline) {
  constexpr const char* op = "xhal_timeline_create";
  if (const auto s = xhal::required(op, {{"timeline", timeline}}); s != XHAL_OK) return s;
  if (!xhal::is_running()) return xhal::fail_state(op);
  return xhal::exported(op, [&] {
    Timeline* t = nullptr;
    const xhal_status status = xhal::make_timeline(initial, nullptr, nullptr, &t);
    if (status == XHAL_OK) *timeline = t->handle();
    return status;
  });
}

xhal_status xhal_timeline_destroy(xhal_timeline* timeline) {
  constexpr const char* op = "xhal_timeline_destroy";
  CHECK_TIMELINE(timeline, op)
  auto& t = *Timeline::of(timeline);
  if (t.stream != nullptr) {
    return xhal::fail(XHAL_ERR_INVALID_ARGUMENT, op,
                      "{}: this is a stream's own timeline; destroy the stream", op);
  }
  return xhal::exported(op, [&] { return xhal::destroy_timeline(t); });
}

xhal_status xhal_timeline_signal(xhal_timeline* timeline, uint64_t value) {
  constexpr const char* op = "xhal_timeline_signal";
  CHECK_TIMELINE(timeline, op)
  auto& t = *Timeline::of(timeline);
  if (t.imported || t.stream != nullptr) return xhal::not_ours(t, op);
  if (t.failed()) return xhal::set_error(t.failure());
  if (!xhal::is_running()) return xhal::fail_state(op);
  t.advance(value);
  return XHAL_OK;
}

xhal_status xhal_timeline_fail(xhal_timeline* timeline, const xhal_error* error) {
  constexpr const char* op = "xhal_timeline_fail";
  CHECK_TIMELINE(timeline, op)
  auto& t = *Timeline::of(timeline);
  if (const auto s = xhal::required(op, {{"error", error}}); s != XHAL_OK) return s;
  if (!xhal::structs::is_size<xhal_error>(error->struct_size) || error->status >= 0) {
    return xhal::fail(XHAL_ERR_INVALID_ARGUMENT, op,
                      "{}: needs an error record with its struct_size and a negative status", op);
  }
  if (!xhal::is_running()) return xhal::fail_state(op);
  if (t.imported || t.stream != nullptr) return xhal::not_ours(t, op);
  return xhal::exported(op, [&] {
    t.fail(xhal::ErrorRecord::from(*error));
    return XHAL_OK;
  });
}

xhal_status xhal_timeline_query(xhal_timeline* timeline, uint64_t value, uint64_t* current) {
  CHECK_TIMELINE(timeline, "xhal_timeline_query")
  auto& t = *Timeline::of(timeline);
  if (current != nullptr) *current = std::atomic_ref(t.cell->value).load(std::memory_order_acquire);
  if (t.reached(value)) return XHAL_OK;
  return xhal::answer(t, t.poll(value));
}

xhal_status xhal_timeline_wait(xhal_timeline* timeline, uint64_t value, uint64_t timeout_ns) {
  CHECK_TIMELINE(timeline, xhal::kWait)
  auto& t = *Timeline::of(timeline);
  if (t.reached(value)) return XHAL_OK;
  return t.wait(value, timeout_ns, xhal::kWait);
}

xhal_status xhal_timeline_wait_many(xhal_timeline* const* timelines, const uint64_t* values,
                                    uint32_t count, uint32_t any, uint64_t timeout_ns,
                                    uint32_t* which) {
  constexpr const char* op = "xhal_timeline_wait_many";
  if (count == 0) return XHAL_OK;
  if (const auto s = xhal::required(op, {{"timelines", timelines}, {"values", values}});
      s != XHAL_OK)
    return s;
  for (uint32_t i = 0; i < count; ++i) {
    CHECK_TIMELINE(timelines[i], op)
  }
  const uint64_t deadline = xhal::deadline_after(timeout_ns);
  const auto left = [&] {
    if (deadline == XHAL_FOREVER) return XHAL_FOREVER;
    const uint64_t now = xhal::now_ns();
    return now >= deadline ? 0 : deadline - now;
  };
  if (any == 0) {
    for (uint32_t i = 0; i < count; ++i) {
      const xhal_status status = Timeline::of(timelines[i])->wait(values[i], left(), op);
      if (status != XHAL_OK) return status;
    }
    return XHAL_OK;
  }
  return xhal::exported(op, [&]() -> xhal_status {
    // One private timeline that the first of them raises. Late callbacks only touch the shared
    // counter.
    struct First {
      std::atomic<uint32_t> index{UINT32_MAX};
      Timeline* raised = nullptr;
    };
    auto first = std::make_shared<First>();
    if (const auto s = xhal::make_timeline(0, nullptr, nullptr, &first->raised); s != XHAL_OK)
      return s;
    for (uint32_t i = 0; i < count; ++i) {
      Timeline::of(timelines[i])->notify(values[i], [first, i](xhal_status) {
        uint32_t none = UINT32_MAX;
        if (first->index.compare_exchange_strong(none, i)) first->raised->advance(1);
      });
    }
    const xhal_status status = first->raised->wait(1, left(), op);
    xhal::destroy_timeline(*first->raised);
    if (status != XHAL_OK) return status;
    const uint32_t i = first->index;
    if (which != nullptr) *which = i;
    return xhal::answer(*Timeline::of(timelines[i]), Timeline::of(timelines[i])->poll(values[i]));
  });
}

xhal_status xhal_timeline_notify(xhal_timeline* timeline, uint64_t value, xhal_timeline_fn callback,
                                 void* user) {
  constexpr const char* op = "xhal_timeline_notify";
  CHECK_TIMELINE(timeline, op)
  if (callback == nullptr) return xhal::refuse_null(op, "callback");
  return xhal::exported(op, [&] {
    Timeline::of(timeline)->notify(
        value, [callback, user](xhal_status status) { callback(user, status); });
    return XHAL_OK;
  });
}

xhal_status xhal_timeline_eventfd(xhal_timeline* timeline, uint64_t value, int32_t* fd) {
  constexpr const char* op = "xhal_timeline_eventfd";
  CHECK_TIMELINE(timeline, op)
  if (const auto s = xhal::required(op, {{"fd", fd}}); s != XHAL_OK) return s;
  return xhal::exported(op, [&]() -> xhal_status {
    const int theirs = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const int ours =
        theirs < 0 ? -1 : fcntl(theirs, F_DUPFD_CLOEXEC, 0);  // they may close theirs at any time
    if (ours < 0) {
      if (theirs >= 0) close(theirs);
      return xhal::fail(XHAL_ERR_OUT_OF_MEMORY, op, "{}: no descriptor left: raise `ulimit -n`",
                        op);
    }
    Timeline::of(timeline)->notify(value, [ours](xhal_status) {
      const uint64_t one = 1;
      [[maybe_unused]] const auto written = write(ours, &one, sizeof one);
      close(ours);
    });
    *fd = theirs;
    return XHAL_OK;
  });
}

xhal_status xhal_timeline_export(xhal_timeline* timeline, int32_t* fd, uint64_t* offset) {
  constexpr const char* op = "xhal_timeline_export";
  CHECK_TIMELINE(timeline, op)
  auto& t = *Timeline::of(timeline);
  if (const auto s = xhal::required(op, {{"fd", fd}, {"offset", offset}}); s != XHAL_OK) return s;
  if (t.imported)
    return xhal::fail(XHAL_ERR_UNSUPPORTED, op, "{}: an imported timeline is exported by its owner",
                      op);
  int32_t slab = -1;
  uint64_t size = 0;
  if (!xhal::find_cells(t.cell, &slab, offset, &size))
    return xhal::fail(XHAL_ERR_INTERNAL, op, "{}: no such cell", op);
  *fd = fcntl(slab, F_DUPFD_CLOEXEC, 0);
  if (*fd < 0)
    return xhal::fail(XHAL_ERR_OUT_OF_MEMORY, op, "{}: no descriptor left: raise `ulimit -n`", op);
  return XHAL_OK;
}

xhal_status xhal_timeline_import(int32_t fd, uint64_t offset, xhal_timeline** timeline) {
  constexpr const char* op = "xhal_timeline_import";
  if (const auto s = xhal::required(op, {{"timeline", timeline}}); s != XHAL_OK) return s;
  if (!xhal::is_running()) return xhal::fail_state(op);
  return xhal::exported(op, [&]() -> xhal_status {
    auto* cell = static_cast<xhal_timeline_cell*>(xhal::map_foreign_cell(fd, offset));
    if (cell == nullptr || cell->owner_pid == 0) {
      return xhal::fail(
          XHAL_ERR_INVALID_ARGUMENT, op,
          "{}: descriptor {} with offset {} is not an exported timeline; pass both values of "
          "xhal_timeline_export unchanged",
          op, fd, offset);
    }
    const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, cell->owner_pid, 0));
    Timeline* t = nullptr;
    if (const auto s = xhal::make_timeline(0, nullptr, nullptr, &t); s != XHAL_OK) {
      if (pidfd >= 0) close(pidfd);
      return s;
    }
    t->cell = cell;
    t->imported = true;
    t->submitted = 0;
    t->owner_pidfd = pidfd;
    if (pidfd < 0 && errno == ESRCH) {
      xhal::ErrorRecord lost;
      lost.status = XHAL_ERR_PEER_LOST;
      lost.text =
          fmt::format("process {} that signals this timeline was gone at import", cell->owner_pid);
      t->fail(std::move(lost));
    }
    *timeline = t->handle();
    return XHAL_OK;
  });
}

xhal_status xhal_event_query(const xhal_event* event) {
  if (event == nullptr || (event->flags & XHAL_EVENT_CAPTURED) != 0)
    return xhal::check_event(event, "xhal_event_query");
  if (event->timeline == nullptr) return XHAL_OK;
  auto& t = *Timeline::of(event->timeline);
  if (t.reached(event->value)) return XHAL_OK;
  return xhal::answer(t, t.poll(event->value));
}

xhal_status xhal_event_wait(const xhal_event* event, uint64_t timeout_ns) {
  if (event == nullptr || (event->flags & XHAL_EVENT_CAPTURED) != 0)
    return xhal::check_event(event, "xhal_event_wait");
  if (event->timeline == nullptr) return XHAL_OK;
  auto& t = *Timeline::of(event->timeline);
  if (t.reached(event->value)) return XHAL_OK;
  return t.wait(event->value, timeout_ns, "xhal_event_wait");
}

xhal_status xhal_event_elapsed(const xhal_event* start, const xhal_event* end,
                               int64_t* elapsed_ns) {
  constexpr const char* op = "xhal_event_elapsed";
  if (const auto s =
          xhal::required(op, {{"start", start}, {"end", end}, {"elapsed_ns", elapsed_ns}});
      s != XHAL_OK)
    return s;
  for (const auto* e : {start, end}) {
    if (const auto s = xhal::check_event(e, op); s != XHAL_OK) return s;
    if (e->timeline == nullptr || (e->flags & XHAL_EVENT_TIMED) == 0) {
      return xhal::fail(XHAL_ERR_INVALID_ARGUMENT, op,
                        "{}: an event is not timed; record it with XHAL_EVENT_TIMED", op);
    }
  }
  auto* device = Timeline::of(start->timeline)->device;
  if (device == nullptr || device != Timeline::of(end->timeline)->device) {
    return xhal::fail(XHAL_ERR_INVALID_ARGUMENT, op,
                      "{}: the events are of different devices, whose clocks differ", op);
  }
  uint64_t times[2];
  int i = 0;
  for (const auto* e : {start, end}) {
    auto& t = *Timeline::of(e->timeline);
    const auto reached = t.poll(e->value);
    if (reached < 0) return xhal::set_error(t.failure());
    if (reached != XHAL_OK) return XHAL_NOT_READY;
    if (!device->timestamps.read(e->timestamp_slot, &times[i++])) {
      return xhal::fail(XHAL_ERR_EXPIRED, op,
                        "{}: the timestamp has been overwritten (the ring holds {} of a device), "
                        "or the device was closed",
                        op, xhal::kTimestampRing);
    }
  }
  *elapsed_ns = static_cast<int64_t>(times[1] - times[0]);
  return XHAL_OK;
}

}  // extern "C"
