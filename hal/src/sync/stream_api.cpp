// SPDX-License-Identifier: Apache-2.0
// stream_api.cpp: the exported functions of stream.h and event.h that are more than a slot.
// Copies and fills are in memory/, captures, too.
#include <algorithm>

#include "core/argument_check.hpp"
#include "core/plugin_record.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "sync/capture.hpp"
#include "sync/deferral.hpp"
#include "sync/release_policy.hpp"
#include "xhal/event.h"
#include "xhal/struct_check.hpp"

using xhal::fail;
using xhal::is_live;
using xhal::submitted;
using xhal::Timeline;

#define CHECK_STREAM(stream, op)                               \
  if (__builtin_expect(!is_live(stream, XHAL_KIND_STREAM), 0)) \
    return xhal::bad_handle(stream, XHAL_KIND_STREAM, op);

// Whoever waits wants what was submitted to be over: a graph of it would write to memory that the
// program has long used for something else.
[[gnu::noinline, gnu::cold]] static xhal_status waits_in_capture(xhal_stream* stream,
                                                                 const char* op) {
  return submitted(
      fail(XHAL_ERR_CAPTURE, op,
           "{}: the stream is being captured; nothing runs until the graph is launched, and this "
           "capture cannot become one any more",
           op),
      stream, op);
}

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
    if (const auto s = xhal::structs::read(info, local, xhal::structs::Chains::pass);
        s != XHAL_OK) {
      return fail(s, op, "{}: bad info structure of {} bytes: {}", op, info->struct_size,
                  xhal_status_text(s));
    }
    if (xhal::is_missing(local.name)) return xhal::refuse_null(op, "info->name");
    if (local.flags != 0) return xhal::refuse_flags(op, local.flags);
    if (xhal::is_forked()) return xhal::fail_state(op);
    auto* const context_state = xhal::state_of(context);
    const xhal::StreamRef state(new xhal::StreamState);
    state->context = context_state;
    state->device = context_state->device;
    if (local.name.size > 0) {
      state->name.assign(local.name.data,
                         std::min<uint64_t>(local.name.size, xhal::kMaxStreamName));
    }
    // A plugin older than the field would refuse it as unknown.
    local.name = {};
    if (state->device->plugin->speaks(2)) local.name = {state->name.data(), state->name.size()};
    std::set<xhal_stream*> place{nullptr};  // in the context's list; later nothing may fail
    auto listed = place.extract(place.begin());
    auto* const policy = xhal::policy();
    if (policy != nullptr) {
      state->mode = xhal::StreamState::Mode::holding;
      policy->stream_begins(*state);
    }
    Timeline* timeline = nullptr;
    if (const auto s = xhal::make_timeline(0, state.get(), state->device, &timeline);
        s != XHAL_OK) {
      if (policy != nullptr) policy->stream_ends(*state);
      return s;
    }
    state->timeline.store(timeline, std::memory_order_release);
    xhal_stream* made = nullptr;
    xhal_status status = xhal::load_slot(xhal::dispatch_of(context)->stream_create)(
        context, &local, timeline->handle(), &made);
    if (status == XHAL_OK && !is_live(made, XHAL_KIND_STREAM)) {
      status = fail(XHAL_ERR_PLUGIN, op,
                    "{}: the plugin returned success without a stream made by object_alloc", op);
    }
    if (status != XHAL_OK) {
      if (policy != nullptr) policy->stream_ends(*state);
      xhal::end_timeline(*timeline);
      return xhal::annotate(status, context, op);
    }
    xhal::private_of(made)->state = state.get();
    intrusive_ptr_add_ref(state.get());  // the handle's
    xhal::stream_begins(*state, made);
    listed.value() = made;
    const std::lock_guard lock(xhal::ContextState::mutex());
    context_state->streams.insert(std::move(listed));
    *stream = made;
    return XHAL_OK;
  });
}

xhal_status xhal_stream_destroy(xhal_stream* stream) {
  constexpr const char* op = "xhal_stream_destroy";
  CHECK_STREAM(stream, op)
  return xhal::exported(op, [&]() -> xhal_status {
    if (xhal::is_forked() || xhal::process_state() == xhal::State::stopped) return XHAL_OK;
    const xhal::StreamRef state(xhal::state_of(stream));
    if (auto* capture = state->capture.load(); capture != nullptr) {
      xhal_graph* graph = nullptr;
      if (xhal_stream_end_capture(capture->origin->handle, &graph) == XHAL_OK)
        xhal_graph_destroy(graph);
    }
    // Held work first: destroy means that submitted work has run.
    bool held;
    {
      const std::lock_guard lock(state->lock());
      held = state->mode == xhal::StreamState::Mode::holding;
    }
    if (held) xhal_stream_synchronize(stream, XHAL_FOREVER);
    if (!xhal::stop_hidden_events(*state)) {
      return fail(XHAL_ERR_BUSY, op, "{}: called from inside a submission to this stream", op);
    }
    if (auto* p = xhal::policy(); p != nullptr) p->stream_ends(*state);
    decltype(state->context->streams)::node_type listed;
    {
      // Who takes it out of the list destroys it: a shutdown may be about to.
      const std::lock_guard lock(xhal::ContextState::mutex());
      listed = state->context->streams.extract(stream);
    }
    if (listed.empty()) return xhal::fail_state(op);
    // Before the plugin's destroy: the handle's memory may be another stream's right after it.
    auto* const timeline = state->timeline.load();
    xhal::release_from_stream(*timeline);
    xhal::stream_ends(*state);
    const xhal_status status = xhal::load_slot(state->device->table.stream_destroy)(stream);
    if (status < 0 && is_live(stream, XHAL_KIND_STREAM)) {
      // The plugin still has it, and so has libxhal.
      xhal::stream_stays(*state, *timeline);
      if (auto* p = xhal::policy(); p != nullptr) p->stream_begins(*state);
      const std::lock_guard lock(xhal::ContextState::mutex());
      state->context->streams.insert(std::move(listed));
      return xhal::annotate(status, stream, op);
    }
    state->ended.store(true, std::memory_order_release);
    xhal::end_timeline(*timeline);
    intrusive_ptr_release(state.get());  // the handle's
    return status;
  });
}

xhal_status xhal_stream_timeline(xhal_stream* stream, xhal_timeline** timeline) {
  constexpr const char* op = "xhal_stream_timeline";
  CHECK_STREAM(stream, op)
  if (const auto s = xhal::required(op, {{"timeline", timeline}}); s != XHAL_OK) return s;
  *timeline = xhal::state_of(stream)->timeline.load()->handle();
  return XHAL_OK;
}

xhal_status xhal_stream_synchronize(xhal_stream* stream, uint64_t timeout_ns) {
  constexpr const char* op = "xhal_stream_synchronize";
  CHECK_STREAM(stream, op)
  if (xhal::is_captured(*xhal::state_of(stream))) return waits_in_capture(stream, op);
  xhal_event event{};
  if (const auto s = xhal_event_record(stream, 0, &event); s != XHAL_OK) return s;
  // Another thread may have begun a capture in between.
  if ((event.flags & XHAL_EVENT_CAPTURED) != 0) return waits_in_capture(stream, op);
  auto& t = *Timeline::of(event.timeline);
  return t.reached(event.value) ? XHAL_OK : t.wait(event.value, timeout_ns, op);
}

xhal_status xhal_stream_wait(xhal_stream* stream, xhal_timeline* timeline, uint64_t value) {
  constexpr const char* op = "xhal_stream_wait";
  CHECK_STREAM(stream, op)
  if (!is_live(timeline, XHAL_KIND_TIMELINE))
    return submitted(xhal::bad_handle(timeline, XHAL_KIND_TIMELINE, op), stream, op);
  auto& state = *xhal::state_of(stream);
  if (xhal::is_captured(state)) {
    return submitted(fail(XHAL_ERR_CAPTURE, op,
                          "{}: a captured stream can only wait for events of its capture", op),
                     stream, op);
  }
  auto& t = *Timeline::of(timeline);
  return xhal::exported(
      op, [&] { return submitted(xhal::wait_on(state, t, t.inner(value)), stream, op); });
}

xhal_status xhal_stream_signal(xhal_stream* stream, xhal_timeline* timeline, uint64_t value) {
  constexpr const char* op = "xhal_stream_signal";
  CHECK_STREAM(stream, op)
  if (!is_live(timeline, XHAL_KIND_TIMELINE))
    return submitted(xhal::bad_handle(timeline, XHAL_KIND_TIMELINE, op), stream, op);
  auto& t = *Timeline::of(timeline);
  if (t.imported || t.device != nullptr) {
    return submitted(fail(XHAL_ERR_PERMISSION, op,
                          "{}: {} signals this timeline; make one with xhal_timeline_create", op,
                          t.imported ? "another process" : "a stream's own record"),
                     stream, op);
  }
  auto& state = *xhal::state_of(stream);
  if (xhal::is_captured(state)) {
    return submitted(fail(XHAL_ERR_CAPTURE, op,
                          "{}: timelines cannot be signalled from a capture; record an event", op),
                     stream, op);
  }
  if (!t.can_reach(value)) return submitted(xhal::too_far(op, value), stream, op);
  return xhal::exported(op, [&] {
    return submitted(xhal::signal_on(state, t, t.inner(value), nullptr), stream, op);
  });
}

xhal_status xhal_stream_recover(xhal_stream* stream) {
  constexpr const char* op = "xhal_stream_recover";
  CHECK_STREAM(stream, op)
  return xhal::exported(op, [&]() -> xhal_status {
    auto& state = *xhal::state_of(stream);
    if (state.device->lost) return finish(xhal::set_error(*state.device->lost_error), stream, op);
    if (!xhal::is_running()) return xhal::fail_state(op);
    auto* const failed = state.timeline.load();
    if (!failed->failed()) return XHAL_OK;
    if (xhal::is_draining_here(state)) {
      return fail(XHAL_ERR_BUSY, op, "{}: called from inside a submission to this stream", op);
    }
    Timeline* fresh = nullptr;
    if (const auto s = xhal::make_timeline(0, &state, state.device, &fresh); s != XHAL_OK) return s;
    const xhal_status status =
        xhal::load_slot(state.device->table.stream_recover)(stream, fresh->handle());
    if (status != XHAL_OK) {
      xhal::release_from_stream(*fresh);
      xhal::end_timeline(*fresh);
      return finish(status, stream, op);
    }
    xhal::stream_recovered(state, fresh);
    xhal::release_from_stream(*failed);
    // A loss that came meanwhile has failed the fresh one before it was the stream's.
    if (fresh->failed()) xhal::stream_failed(state, *fresh, fresh->failure());
    xhal::end_timeline(*failed);
    return XHAL_OK;
  });
}

xhal_status xhal_stream_abort(xhal_stream* stream) {
  constexpr const char* op = "xhal_stream_abort";
  CHECK_STREAM(stream, op)
  return xhal::exported(op, [&]() -> xhal_status {
    auto& state = *xhal::state_of(stream);
    const auto slot = xhal::load_slot(state.device->table.stream_abort);
    if (!xhal::is_running() || state.device->lost) return finish(slot(stream), stream, op);
    if (!state.device->has(XHAL_CAP_ABORT)) {
      return fail(XHAL_ERR_UNSUPPORTED, op,
                  "{}: {} cannot stop a stream.\n"
                  "  A wait that nobody signals ends when its timeline is failed or destroyed.",
                  op, state.device->id());
    }
    if (xhal::is_captured(state)) {
      return fail(XHAL_ERR_CAPTURE, op,
                  "{}: the stream is being captured, nothing of it runs; end the capture instead",
                  op);
    }
    if (xhal::is_draining_here(state)) {
      return fail(XHAL_ERR_BUSY, op, "{}: called from inside a submission to this stream", op);
    }
    // The plugin first: when the failure shows, nothing may touch the work's memory any more.
    xhal::stream_paused(state);
    const xhal::TimelinePin timeline(*state.timeline.load());
    const xhal_status status = slot(stream);
    if (status == XHAL_OK && xhal::holds_work(state) && !timeline.get()->failed()) {
      xhal::ErrorRecord record;
      record.status = XHAL_ERR_DEVICE;
      record.scope = XHAL_SCOPE_OPERATION;
      record.operation = op;
      record.text = "the stream was aborted before its work had run";
      timeline.get()->fail(xhal::make_failure(std::move(record)));  // drops what is held
    }
    xhal::stream_goes_on(state);
    return finish(status, stream, op);
  });
}

xhal_status xhal_event_record(xhal_stream* stream, uint32_t flags, xhal_event* event) {
  constexpr const char* op = "xhal_event_record";
  CHECK_STREAM(stream, op)
  auto& state = *xhal::state_of(stream);
  if (__builtin_expect(event == nullptr, 0))
    return submitted(xhal::refuse_null(op, "event"), stream, op);
  if (__builtin_expect((flags & ~XHAL_EVENT_TIMED) != 0, 0))
    return submitted(xhal::refuse_flags(op, flags & ~XHAL_EVENT_TIMED), stream, op);
  if ((flags & XHAL_EVENT_TIMED) != 0 && !state.device->has(XHAL_CAP_TIMESTAMP)) {
    return submitted(
        fail(XHAL_ERR_UNSUPPORTED, op, "{}: {} has no timestamps", op, state.device->id()), stream,
        op);
  }
  if (__builtin_expect(xhal::is_captured(state), 0)) {
    uint64_t token = 0;
    const xhal_status status =
        xhal::load_slot(xhal::dispatch_of(stream)->stream_capture_record)(stream, &token);
    if (status != XHAL_OK) return submitted(status, stream, op);
    *event = {state.timeline.load()->handle(), token, 0, XHAL_EVENT_CAPTURED};
    return XHAL_OK;
  }
  return submitted(xhal::record_event(state, flags, event), stream, op);
}

xhal_status xhal_stream_wait_event(xhal_stream* stream, const xhal_event* event) {
  constexpr const char* op = "xhal_stream_wait_event";
  CHECK_STREAM(stream, op)
  if (const auto s = xhal::required(op, {{"event", event}}); s != XHAL_OK)
    return submitted(s, stream, op);
  if (xhal::is_forked()) return xhal::fail_state(op);
  auto& state = *xhal::state_of(stream);
  if (const uint32_t unknown = event->flags & ~uint32_t{XHAL_EVENT_TIMED | XHAL_EVENT_CAPTURED};
      unknown != 0)
    return submitted(xhal::refuse_unknown(op, {unknown, "event->flags"}), stream, op);
  if ((event->flags & XHAL_EVENT_CAPTURED) != 0)
    return xhal::exported(op,
                          [&] { return submitted(xhal::join_capture(state, *event), stream, op); });
  if (xhal::is_captured(state)) {
    if (xhal::poll_event(*event) == XHAL_OK) return XHAL_OK;
    return submitted(
        fail(XHAL_ERR_CAPTURE, op,
             "{}: a captured stream cannot wait for an event from outside its capture", op),
        stream, op);
  }
  return xhal::exported(op, [&] { return submitted(xhal::wait_event(state, *event), stream, op); });
}

}  // extern "C"
