// SPDX-License-Identifier: Apache-2.0
// timeline_api.cpp: the exported functions of timeline.h. Values are the program's here, and turned
// into the timeline's own before they go further.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "core/argument_check.hpp"
#include "core/state.hpp"
#include "sync/timeline.hpp"
#include "sync/timeline_outlets.hpp"
#include "sync/wait_any.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

constexpr const char* kWait = "xhal_timeline_wait";

// Who may raise or fail a timeline: only the host, and only one that is neither imported
// nor a stream's.
xhal_status not_ours(const Timeline& t, const char* operation) {
  return fail(XHAL_ERR_PERMISSION, operation,
              "{}: {} signals this timeline, it can only be waited for here", operation,
              t.imported ? "another process" : "a stream");
}

// Of wait_many: how soon the failure of a timeline that is not waited for yet ends the wait.
constexpr uint64_t kLookNs = 20'000'000;

// Waits for one after the other, and meanwhile looks whether one of the others has failed.
xhal_status wait_all(xhal_timeline* const* timelines, const uint64_t* values, uint32_t count,
                     uint64_t deadline, uint64_t timeout_ns, const char* op) {
  for (uint32_t i = 0; i < count; ++i) {
    auto& t = *Timeline::of(timelines[i]);
    for (;;) {
      const uint64_t now = now_ns();
      const uint64_t left = deadline == XHAL_FOREVER ? XHAL_FOREVER
                            : now >= deadline        ? 0
                                                     : deadline - now;
      const auto s = t.wait(t.inner(values[i]), std::min(left, kLookNs), op);
      if (s == XHAL_OK) break;
      if (s != XHAL_ERR_TIMEOUT) return s;
      for (uint32_t k = i + 1; k < count; ++k) {
        auto& other = *Timeline::of(timelines[k]);
        if (!other.failed()) continue;
        if (const auto failed = other.query(other.inner(values[k])); failed < 0) return failed;
      }
      if (left > kLookNs) continue;
      return fail(
          XHAL_ERR_TIMEOUT, op,
          "{}: value {} of timeline {} of {} was not reached within {:.3f} ms; it stands at "
          "{}.\n  Nothing changed: wait again, or look at what its stream is running.",
          op, values[i], i, count, static_cast<double>(timeout_ns) / 1e6, t.shown(t.value()));
    }
  }
  return XHAL_OK;
}

bool is_ours(const Timeline& t) { return !t.imported && t.device == nullptr; }

bool is_failure(xhal_status status) {
  return status < 0 && xhal_status_name(status) != std::string_view("XHAL_?");
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
  if (t.device != nullptr) {
    return xhal::fail(XHAL_ERR_INVALID_ARGUMENT, op,
                      "{}: this is a stream's own timeline; destroy the stream", op);
  }
  xhal::end_timeline(t);
  return XHAL_OK;
}

xhal_status xhal_timeline_signal(xhal_timeline* timeline, uint64_t value) {
  constexpr const char* op = "xhal_timeline_signal";
  CHECK_TIMELINE(timeline, op)
  auto& t = *Timeline::of(timeline);
  if (!xhal::is_ours(t)) return xhal::not_ours(t, op);
  if (t.failed()) return xhal::set_error(*t.failure());
  if (!xhal::is_running()) return xhal::fail_state(op);
  if (!t.can_reach(value)) return xhal::too_far(op, value);
  t.advance(t.inner(value));
  return XHAL_OK;
}

xhal_status xhal_timeline_fail(xhal_timeline* timeline, const xhal_error* error) {
  constexpr const char* op = "xhal_timeline_fail";
  CHECK_TIMELINE(timeline, op)
  auto& t = *Timeline::of(timeline);
  if (const auto s = xhal::required(op, {{"error", error}}); s != XHAL_OK) return s;
  if (!xhal::structs::is_size<xhal_error>(error->struct_size) || !xhal::is_failure(error->status)) {
    return xhal::fail(
        XHAL_ERR_INVALID_ARGUMENT, op,
        "{}: needs an error record with its struct_size and one of XHAL_ERR_*, got {}", op,
        error->status);
  }
  if (xhal::is_missing(error->text) || xhal::is_missing(error->operation) ||
      xhal::is_missing(error->cause_text) || xhal::is_missing(error->plugin) ||
      xhal::is_missing(error->device))
    return xhal::refuse_null(op, "a text of error");
  if (!xhal::is_running()) return xhal::fail_state(op);
  if (!xhal::is_ours(t)) return xhal::not_ours(t, op);
  return xhal::exported(op, [&] {
    t.fail(xhal::make_failure(xhal::ErrorRecord::from(*error)));
    return XHAL_OK;
  });
}

xhal_status xhal_timeline_query(xhal_timeline* timeline, uint64_t value, uint64_t* current) {
  CHECK_TIMELINE(timeline, "xhal_timeline_query")
  auto& t = *Timeline::of(timeline);
  if (current != nullptr) *current = t.shown(t.last_reached());
  return t.query(t.inner(value));
}

xhal_status xhal_timeline_wait(xhal_timeline* timeline, uint64_t value, uint64_t timeout_ns) {
  CHECK_TIMELINE(timeline, xhal::kWait)
  auto& t = *Timeline::of(timeline);
  const uint64_t inner = t.inner(value);
  return t.reached(inner) ? XHAL_OK : t.wait(inner, timeout_ns, xhal::kWait);
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
  if (any != 0) {
    return xhal::exported(
        op, [&] { return xhal::wait_any(timelines, values, count, deadline, timeout_ns, which); });
  }
  return xhal::exported(
      op, [&] { return xhal::wait_all(timelines, values, count, deadline, timeout_ns, op); });
}

xhal_status xhal_timeline_notify(xhal_timeline* timeline, uint64_t value, xhal_timeline_fn callback,
                                 void* user) {
  constexpr const char* op = "xhal_timeline_notify";
  CHECK_TIMELINE(timeline, op)
  if (callback == nullptr) return xhal::refuse_null(op, "callback");
  if (xhal::is_forked()) return xhal::fail_state(op);
  return xhal::exported(op, [&] {
    auto& t = *Timeline::of(timeline);
    t.notify(t.inner(value), [callback, user](xhal_status status) { callback(user, status); });
    return XHAL_OK;
  });
}

xhal_status xhal_timeline_eventfd(xhal_timeline* timeline, uint64_t value, int32_t* fd) {
  constexpr const char* op = "xhal_timeline_eventfd";
  CHECK_TIMELINE(timeline, op)
  if (const auto s = xhal::required(op, {{"fd", fd}}); s != XHAL_OK) return s;
  if (xhal::is_forked()) return xhal::fail_state(op);
  return xhal::exported(op, [&]() -> xhal_status {
    auto& t = *Timeline::of(timeline);
    const int outlet = xhal::timeline_outlet(t, t.inner(value));
    if (outlet >= 0) {
      *fd = outlet;
      return XHAL_OK;
    }
    return xhal::fail(XHAL_ERR_OUT_OF_MEMORY, op, "{}: no descriptor left: raise `ulimit -n`", op);
  });
}

xhal_status xhal_timeline_export(xhal_timeline* timeline, int32_t* fd, uint64_t* offset) {
  constexpr const char* op = "xhal_timeline_export";
  CHECK_TIMELINE(timeline, op)
  auto& t = *Timeline::of(timeline);
  if (const auto s = xhal::required(op, {{"fd", fd}, {"offset", offset}}); s != XHAL_OK) return s;
  if (t.imported) {
    return xhal::fail(XHAL_ERR_UNSUPPORTED, op, "{}: an imported timeline is exported by its owner",
                      op);
  }
  if (!xhal::is_running()) return xhal::fail_state(op);
  auto* const view = t.export_view(op);
  if (view == nullptr) return xhal::last_error().status;
  const int reading = view->open_for_reading();
  if (reading < 0) {
    return xhal::fail(XHAL_ERR_OUT_OF_MEMORY, op,
                      "{}: no descriptor left, or no /proc: raise `ulimit -n`", op);
  }
  *fd = reading;
  *offset = 0;
  return XHAL_OK;
}

xhal_status xhal_timeline_import(int32_t fd, uint64_t offset, xhal_timeline** timeline) {
  constexpr const char* op = "xhal_timeline_import";
  if (const auto s = xhal::required(op, {{"timeline", timeline}}); s != XHAL_OK) return s;
  if (!xhal::is_running()) return xhal::fail_state(op);
  return xhal::exported(op, [&]() -> xhal_status {
    xhal::ImportedView view;
    if (!xhal::ImportedView::map(fd, offset, &view)) {
      return xhal::fail(
          XHAL_ERR_INVALID_ARGUMENT, op,
          "{}: descriptor {} with offset {} is not an exported timeline; pass both values of "
          "xhal_timeline_export unchanged (xHAL 0.3 or newer on both sides)",
          op, fd, offset);
    }
    Timeline* t = nullptr;
    if (const auto s = xhal::make_imported(view, &t); s != XHAL_OK) {
      view.unmap();
      return s;
    }
    t->check_owner();
    *timeline = t->handle();
    return XHAL_OK;
  });
}

}  // extern "C"
