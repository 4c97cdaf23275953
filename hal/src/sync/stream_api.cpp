// stream.cpp: the exported functions of stream.h, event.h and graph.h that are more than a slot.
#include <algorithm>
#include <thread>

#include "core/argument_check.hpp"
#include "core/plugin_record.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "layers/layers.hpp"
#include "memory/address_map.hpp"
#include "memory/copy.hpp"
#include "sync/capture.hpp"
#include "sync/deferral.hpp"
#include "xhal/event.h"
#include "xhal/graph.h"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

xhal_status signal(StreamState& side, Timeline& timeline, uint64_t value, xhal_timestamp* time) {
  const auto* dispatch = dispatch_of(side.handle);
  const xhal_status status = dispatch->stream_signal(side.handle, timeline.handle(), value, time);
  // The intercept table marks by itself, when it gives the signal to the plugin.
  if (status == XHAL_OK && dispatch == &side.device->table) timeline.mark_submitted(value);
  return status;
}

xhal_status wait(StreamState& side, Timeline& timeline, uint64_t value) {
  const auto& record = *side.device;
  const bool native = timeline.device == &record || record.has(XHAL_CAP_FOREIGN_TIMELINE);
  const bool any_time = record.has(XHAL_CAP_WAIT_BEFORE_SIGNAL);
  if (timeline.poll(value) == XHAL_OK) return XHAL_OK;
  if (native && (any_time || timeline.submitted.load(std::memory_order_seq_cst) >= value ||
                 timeline.failed())) {
    return dispatch_of(side.handle)->stream_wait(side.handle, timeline.handle(), value);
  }
  return hold_until(side, timeline, value, !native);
}

// The timeline of a stream that did not come to be: nothing may find the stream through it later.
void discard(Timeline& timeline) {
  timeline.stream = nullptr;
  (void)destroy_timeline(timeline);
}

// What was submitted before a capture must be with the plugin, or it would be recorded.
xhal_status submit_held(StreamState& side, const char* op) {
  if (chaos_enabled()) {
    if (const auto s = xhal_stream_synchronize(side.handle, XHAL_FOREVER); s != XHAL_OK) return s;
  }
  std::unique_lock lock(side.mutex);
  while (chaos_enabled() && side.draining) {  // the last item has run, its thread is on its way out
    lock.unlock();
    std::this_thread::yield();
    lock.lock();
  }
  if (side.mode == StreamState::Mode::failed) return set_error(side.failure);
  if (side.held.empty() && !side.draining) return XHAL_OK;
  return fail(XHAL_ERR_CAPTURE, op,
              "{}: the stream still waits for a signal that has not been submitted", op);
}

void leave_capture(Capture& capture) {
  for (auto* s : capture.streams) {
    s->capture.store(nullptr, std::memory_order_release);
    if (chaos_enabled() && !s->timeline->failed()) stream_recovered(*s);
  }
}

}  // namespace

xhal_status record_event(StreamState& side, uint32_t flags, xhal_event* event) {
  const std::lock_guard lock(side.record_mutex);
  uint32_t slot = 0;
  xhal_timestamp* time =
      (flags & XHAL_EVENT_TIMED) != 0 ? side.device->timestamps.take(&slot) : nullptr;
  const uint64_t value = side.next_value + 1;
  const xhal_status status = signal(side, *side.timeline, value, time);
  if (status != XHAL_OK) return status;
  side.next_value = value;
  *event = {side.timeline->handle(), value, slot, flags};
  return XHAL_OK;
}

xhal_status wait_event(StreamState& side, const xhal_event& event) {
  if (event.timeline == nullptr) return XHAL_OK;
  return wait(side, *Timeline::of(event.timeline), event.value);
}

uint64_t capture_of(const StreamState& side, const xhal_pool* pool) noexcept {
  const auto* capture = side.capture.load(std::memory_order_acquire);
  return capture != nullptr && capture->pool == pool ? capture->id : 0;
}

xhal_status record_hidden_event(StreamState& side, xhal_event* event) {
  if (side.gone) return XHAL_ERR_INVALID_HANDLE;
  return is_captured(side) ? XHAL_ERR_CAPTURE : record_event(side, 0, event);
}

xhal_status begin_capture(StreamState& side, xhal_pool* pool, uint64_t* id) {
  constexpr const char* op = "xhal_stream_begin_capture";
  static std::atomic<uint64_t> last_id{0};
  if (is_captured(side))
    return fail(XHAL_ERR_CAPTURE, op, "{}: the stream is being captured already", op);
  if (const auto s = submit_held(side, op); s != XHAL_OK) return s;
  const xhal_status status = side.device->table.stream_begin_capture(side.handle);
  if (status != XHAL_OK) return status < 0 ? annotate(status, side.handle, op) : status;
  stream_captured(side);
  *id = ++last_id;
  side.capture.store(new Capture{*id, &side, {&side}, pool}, std::memory_order_release);
  return XHAL_OK;
}

xhal_status end_capture(StreamState& side, xhal_graph** graph, uint64_t* id, xhal_pool** pool) {
  constexpr const char* op = "xhal_stream_end_capture";
  auto* const current = side.capture.load();
  if (current == nullptr || current->origin != &side)
    return fail(XHAL_ERR_CAPTURE, op, "{}: no capture was begun on this stream", op);
  const std::unique_ptr<Capture> capture(current);
  const xhal_status status = side.device->table.stream_end_capture(side.handle, graph);
  leave_capture(*capture);
  *id = capture->id;
  *pool = capture->pool;
  return status < 0 ? annotate(status, side.handle, op) : status;
}

}  // namespace xhal

using xhal::fail;
using xhal::is_live;
using xhal::Timeline;

#define CHECK_STREAM(stream, op)                               \
  if (__builtin_expect(!is_live(stream, XHAL_KIND_STREAM), 0)) \
    return xhal::bad_handle(stream, XHAL_KIND_STREAM, op);

static xhal_status finish(xhal_status status, const void* object, const char* op) {
  return __builtin_expect(status >= 0, 1) ? status : xhal::annotate(status, object, op);
}

extern "C" {

xhal_status xhal_stream_create(xhal_context* context, const xhal_stream_info* info,
                               xhal_stream** stream) {
  constexpr const char* op = "xhal_stream_create";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  if (const auto s = xhal::required(op, {{"stream", stream}}); s != XHAL_OK) return s;
  return xhal::exported(op, [&]() -> xhal_status {
    xhal_stream_info local{};
    if (const auto s = xhal::structs::read(info, local); s != XHAL_OK) {
      return fail(s, op, "{}: bad info structure of {} bytes: {}", op, info->struct_size,
                  xhal_status_text(s));
    }
    if (xhal::is_missing(local.name)) return xhal::refuse_null(op, "info->name");
    auto* context_side = xhal::state_of(context);
    auto side = std::make_unique<xhal::StreamState>();
    side->context = context_side;
    side->device = context_side->device;
    if (local.name.size > 0) {
      side->name.assign(local.name.data, std::min<uint64_t>(local.name.size, xhal::kMaxStreamName));
    }
    // A plugin older than the field would refuse it as unknown.
    local.name = {};
    if (side->device->plugin->speaks(2)) local.name = {side->name.data(), side->name.size()};
    if (const auto s = xhal::make_timeline(0, side.get(), side->device, &side->timeline);
        s != XHAL_OK)
      return s;
    xhal_status status = xhal::dispatch_of(context)->stream_create(
        context, &local, side->timeline->handle(), stream);
    if (status == XHAL_OK && !is_live(*stream, XHAL_KIND_STREAM)) {
      status = fail(XHAL_ERR_PLUGIN, op,
                    "{}: the plugin returned success without a stream made by object_alloc", op);
    }
    if (status != XHAL_OK) {
      xhal::discard(*side->timeline);
      return xhal::annotate(status, context, op);
    }
    side->handle = *stream;
    xhal::private_of(*stream)->state = side.get();
    {
      const std::lock_guard lock(context_side->mutex);
      context_side->streams.insert(*stream);
    }
    if (xhal::chaos_enabled()) xhal::chaos_adopt(*side);
    side.release();  // belongs to the stream from now on; kept for late events
    return XHAL_OK;
  });
}

xhal_status xhal_stream_destroy(xhal_stream* stream) {
  constexpr const char* op = "xhal_stream_destroy";
  CHECK_STREAM(stream, op)
  return xhal::exported(op, [&]() -> xhal_status {
    auto& side = *xhal::state_of(stream);
    if (xhal::is_forked() || xhal::process_state() == xhal::State::stopped) return XHAL_OK;
    if (side.capture.load() != nullptr) {
      xhal_graph* graph = nullptr;
      if (xhal_stream_end_capture(side.capture.load()->origin->handle, &graph) == XHAL_OK)
        xhal_graph_destroy(graph);
    }
    // Held work first: destroy means that submitted work has run.
    bool held;
    {
      const std::lock_guard lock(side.mutex);
      held = side.mode == xhal::StreamState::Mode::holding;
    }
    if (held) xhal_stream_synchronize(stream, XHAL_FOREVER);
    if (xhal::chaos_enabled()) xhal::chaos_release(side);
    {
      const std::lock_guard lock(side.context->mutex);
      side.context->streams.erase(stream);
    }
    const xhal_status status = side.device->table.stream_destroy(stream);
    side.gone = true;
    return finish(status, stream, op);
  });
}

xhal_status xhal_stream_timeline(xhal_stream* stream, xhal_timeline** timeline) {
  constexpr const char* op = "xhal_stream_timeline";
  CHECK_STREAM(stream, op)
  if (const auto s = xhal::required(op, {{"timeline", timeline}}); s != XHAL_OK) return s;
  *timeline = xhal::state_of(stream)->timeline->handle();
  return XHAL_OK;
}

xhal_status xhal_stream_synchronize(xhal_stream* stream, uint64_t timeout_ns) {
  constexpr const char* op = "xhal_stream_synchronize";
  CHECK_STREAM(stream, op)
  xhal_event event{};
  if (const auto s = xhal_event_record(stream, 0, &event); s != XHAL_OK) return s;
  if ((event.flags & XHAL_EVENT_CAPTURED) != 0) {
    return fail(XHAL_ERR_CAPTURE, op,
                "{}: the stream is being captured; nothing runs until the graph is launched", op);
  }
  auto& t = *Timeline::of(event.timeline);
  return t.reached(event.value) ? XHAL_OK : t.wait(event.value, timeout_ns, op);
}

xhal_status xhal_stream_copy(xhal_stream* stream, uint64_t dst, uint64_t src, uint64_t size_bytes) {
  constexpr const char* op = "xhal_stream_copy";
  CHECK_STREAM(stream, op)
  return xhal::exported(op, [&] {
    return finish(xhal::copy(*xhal::state_of(stream), dst, src, size_bytes), stream, op);
  });
}

xhal_status xhal_stream_fill(xhal_stream* stream, uint64_t dst, uint64_t size_bytes,
                             uint64_t pattern, uint32_t pattern_bytes) {
  constexpr const char* op = "xhal_stream_fill";
  CHECK_STREAM(stream, op)
  if (pattern_bytes == 0 || pattern_bytes > 8 || (pattern_bytes & (pattern_bytes - 1)) != 0) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: a pattern has 1, 2, 4 or 8 bytes, not {}", op,
                pattern_bytes);
  }
  if (dst % pattern_bytes != 0 || size_bytes % pattern_bytes != 0) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, op,
                "{}: {:#x} + {} is not a multiple of the {} pattern bytes", op, dst, size_bytes,
                pattern_bytes);
  }
  if (size_bytes == 0) return XHAL_OK;
  const bool lost =
      xhal::state_of(stream)->device->lost;  // then that is the answer, whatever the range
  return xhal::exported(op, [&]() -> xhal_status {
    const auto range = xhal::address_map().find(dst);
    if (!lost && (!range || size_bytes > range->size_bytes - (dst - range->base))) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: {:#x} + {} is not inside an allocation", op,
                  dst, size_bytes);
    }
    return finish(
        xhal::dispatch_of(stream)->stream_fill(stream, dst, size_bytes, pattern, pattern_bytes),
        stream, op);
  });
}

xhal_status xhal_stream_wait(xhal_stream* stream, xhal_timeline* timeline, uint64_t value) {
  constexpr const char* op = "xhal_stream_wait";
  CHECK_STREAM(stream, op)
  if (!is_live(timeline, XHAL_KIND_TIMELINE))
    return xhal::bad_handle(timeline, XHAL_KIND_TIMELINE, op);
  if (xhal::state_of(stream)->capture.load(std::memory_order_relaxed) != nullptr) {
    return fail(XHAL_ERR_CAPTURE, op,
                "{}: a captured stream can only wait for events of its capture", op);
  }
  return xhal::exported(op, [&] {
    return finish(xhal::wait(*xhal::state_of(stream), *Timeline::of(timeline), value), stream, op);
  });
}

xhal_status xhal_stream_signal(xhal_stream* stream, xhal_timeline* timeline, uint64_t value) {
  constexpr const char* op = "xhal_stream_signal";
  CHECK_STREAM(stream, op)
  if (!is_live(timeline, XHAL_KIND_TIMELINE))
    return xhal::bad_handle(timeline, XHAL_KIND_TIMELINE, op);
  auto& t = *Timeline::of(timeline);
  if (t.imported || t.stream != nullptr) {
    return fail(XHAL_ERR_PERMISSION, op,
                "{}: {} signals this timeline; make one with xhal_timeline_create", op,
                t.imported ? "another process" : "a stream's own record");
  }
  if (xhal::state_of(stream)->capture.load(std::memory_order_relaxed) != nullptr) {
    return fail(XHAL_ERR_CAPTURE, op,
                "{}: timelines cannot be signalled from a capture; record an event", op);
  }
  return xhal::exported(op, [&] {
    return finish(xhal::signal(*xhal::state_of(stream), t, value, nullptr), stream, op);
  });
}

xhal_status xhal_stream_recover(xhal_stream* stream) {
  constexpr const char* op = "xhal_stream_recover";
  CHECK_STREAM(stream, op)
  return xhal::exported(op, [&]() -> xhal_status {
    auto& side = *xhal::state_of(stream);
    if (side.device->lost) return xhal::set_error(side.device->lost_error);
    if (!xhal::is_running()) return xhal::fail_state(op);
    if (!side.timeline->failed()) return XHAL_OK;
    Timeline* fresh = nullptr;
    if (const auto s = xhal::make_timeline(0, &side, side.device, &fresh); s != XHAL_OK) return s;
    const xhal_status status = side.device->table.stream_recover(stream, fresh->handle());
    if (status != XHAL_OK) {
      xhal::discard(*fresh);
      return finish(status, stream, op);
    }
    const std::lock_guard lock(side.record_mutex);
    side.timeline = fresh;
    side.next_value = 0;
    xhal::stream_recovered(side);
    return XHAL_OK;
  });
}

xhal_status xhal_event_record(xhal_stream* stream, uint32_t flags, xhal_event* event) {
  constexpr const char* op = "xhal_event_record";
  CHECK_STREAM(stream, op)
  auto& side = *xhal::state_of(stream);
  if (const auto s = xhal::required(op, {{"event", event}}); s != XHAL_OK) return s;
  if ((flags & ~XHAL_EVENT_TIMED) != 0)
    return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: unknown flags {:#x}", op, flags);
  if ((flags & XHAL_EVENT_TIMED) != 0 && !side.device->has(XHAL_CAP_TIMESTAMP)) {
    return fail(XHAL_ERR_UNSUPPORTED, op, "{}: {} has no timestamps", op, side.device->id());
  }
  if (side.capture.load(std::memory_order_relaxed) != nullptr) {
    uint64_t token = 0;
    const xhal_status status = xhal::dispatch_of(stream)->stream_capture_record(stream, &token);
    if (status != XHAL_OK) return finish(status, stream, op);
    *event = {side.timeline->handle(), token, 0, XHAL_EVENT_CAPTURED};
    return XHAL_OK;
  }
  return finish(xhal::record_event(side, flags, event), stream, op);
}

xhal_status xhal_stream_wait_event(xhal_stream* stream, const xhal_event* event) {
  constexpr const char* op = "xhal_stream_wait_event";
  CHECK_STREAM(stream, op)
  if (const auto s = xhal::required(op, {{"event", event}}); s != XHAL_OK) return s;
  auto& side = *xhal::state_of(stream);
  if ((event->flags & XHAL_EVENT_CAPTURED) == 0) {
    if (side.capture.load(std::memory_order_relaxed) != nullptr) {
      if (xhal_event_query(event) == XHAL_OK) return XHAL_OK;
      return fail(XHAL_ERR_CAPTURE, op,
                  "{}: a captured stream cannot wait for an event from outside its capture", op);
    }
    return xhal::exported(op, [&] { return finish(xhal::wait_event(side, *event), stream, op); });
  }
  return xhal::exported(op, [&]() -> xhal_status {
    auto* origin = Timeline::of(event->timeline)->stream;
    auto* capture = origin == nullptr ? nullptr : origin->capture.load();
    if (capture == nullptr || origin->device != side.device) {
      return fail(XHAL_ERR_CAPTURE, op,
                  "{}: the capture this event belongs to has ended, or is of another device", op);
    }
    if (side.capture.load() != nullptr && side.capture.load() != capture) {
      return fail(XHAL_ERR_CAPTURE, op, "{}: the stream takes part in another capture", op);
    }
    if (side.capture.load() == nullptr) {
      if (const auto s = xhal::submit_held(side, op); s != XHAL_OK) return s;
    }
    const xhal_status status = side.device->table.stream_capture_wait(stream, event->value);
    if (status != XHAL_OK) return finish(status, stream, op);
    xhal::stream_captured(side);
    capture->streams.insert(&side);
    side.capture.store(capture, std::memory_order_release);
    return XHAL_OK;
  });
}

}  // extern "C"
