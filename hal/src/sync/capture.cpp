// SPDX-License-Identifier: Apache-2.0
#include "sync/capture.hpp"

#include <memory>

#include "core/tables.hpp"
#include "sync/deferral.hpp"
#include "sync/release_policy.hpp"

namespace xhal {
namespace {

constexpr const char* kBegin = "xhal_stream_begin_capture";
constexpr const char* kEnd = "xhal_stream_end_capture";
constexpr const char* kJoin = "xhal_stream_wait_event";

// What was submitted before a capture must be with the plugin, or it would be recorded.
xhal_status submit_held(StreamState& stream, const char* op) {
  while (policy() != nullptr && drain_one(stream)) {
  }
  std::unique_lock lock(stream.lock());
  while (policy() != nullptr && stream.draining) {  // the last item has run, its thread leaves
    lock.unlock();
    sched_yield();
    lock.lock();
  }
  if (stream.mode == StreamState::Mode::failed) return set_error(*stream.failure);
  if (stream.held.empty() && !stream.draining) return XHAL_OK;
  return fail(XHAL_ERR_CAPTURE, op,
              "{}: the stream still waits for a signal that has not been submitted", op);
}

// Nothing of libxhal's own gets in between from here on.
xhal_status prepare(StreamState& stream, const char* op) {
  if (!stop_hidden_events(stream)) {
    return fail(XHAL_ERR_BUSY, op, "{}: this thread is inside a submission to the stream", op);
  }
  const xhal_status status = submit_held(stream, op);
  if (status != XHAL_OK) allow_hidden_events(stream);
  return status;
}

void leave(Capture& capture) {
  for (auto& s : capture.streams) {
    s->capture.store(nullptr, std::memory_order_release);
    if (policy() != nullptr && !s->timeline.load()->failed()) stream_recovered(*s);
    allow_hidden_events(*s);
  }
}

}  // namespace

uint64_t capture_of(const StreamState& stream, const xhal_pool* pool) noexcept {
  const auto* capture = stream.capture.load(std::memory_order_acquire);
  return capture != nullptr && capture->pool == pool ? capture->id : 0;
}

uint64_t next_capture() noexcept {
  static constinit std::atomic<uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

xhal_status begin_capture(StreamState& stream, xhal_pool* pool, uint64_t id) {
  if (is_captured(stream))
    return fail(XHAL_ERR_CAPTURE, kBegin, "{}: the stream is being captured already", kBegin);
  auto capture = std::make_unique<Capture>();
  capture->id = id;
  capture->origin = &stream;
  capture->pool = pool;
  capture->streams.emplace_back(&stream);
  if (const auto s = prepare(stream, kBegin); s != XHAL_OK) return s;
  const xhal_status status = load_slot(stream.device->table.stream_begin_capture)(stream.handle);
  if (status != XHAL_OK) {
    allow_hidden_events(stream);
    return annotate(status, stream.handle, kBegin);
  }
  stream_captured(stream);
  stream.capture.store(capture.release(), std::memory_order_release);
  return XHAL_OK;
}

xhal_status end_capture(StreamState& stream, xhal_graph** graph, uint64_t* id, xhal_pool** pool) {
  auto* const current = stream.capture.load(std::memory_order_acquire);
  if (current == nullptr || current->origin != &stream)
    return annotate(fail(XHAL_ERR_CAPTURE, kEnd, "{}: no capture was begun on this stream", kEnd),
                    stream.handle, kEnd);
  const std::unique_ptr<Capture> capture(current);
  *id = capture->id;
  *pool = capture->pool;
  xhal_graph* made = nullptr;
  xhal_status status = load_slot(stream.device->table.stream_end_capture)(stream.handle, &made);
  if (status == XHAL_OK && !is_live(made, XHAL_KIND_GRAPH)) {
    status = fail(XHAL_ERR_PLUGIN, kEnd,
                  "{}: the plugin returned success without a graph made by object_alloc", kEnd);
  }
  if (status == XHAL_OK && !capture->refused.empty()) {
    (void)load_slot(stream.device->table.graph_destroy)(made);
    status = fail(XHAL_ERR_CAPTURE, kEnd, "{}: a submission to the capture was refused: {}", kEnd,
                  capture->refused);
  }
  if (status == XHAL_OK) *graph = made;
  leave(*capture);
  return status >= 0 ? status : annotate(status, stream.handle, kEnd);
}

// libxhal has refused it itself, so the plugin does not know of it.
void submission_refused(const void* object) noexcept {
  if (!is_live(object, XHAL_KIND_STREAM)) return;
  auto* const stream = static_cast<StreamState*>(private_of(object)->state);
  auto* const capture =
      stream == nullptr ? nullptr : stream->capture.load(std::memory_order_acquire);
  if (capture == nullptr || !capture->refused.empty()) return;
  const ErrorRecord& reason = last_error();
  try {
    capture->refused.assign(reason.text.empty() ? xhal_status_text(reason.status)
                                                : reason.text.c_str());
  } catch (...) {
    capture->refused.assign(1, '-');  // short enough to need no memory
  }
}

xhal_status join_capture(StreamState& stream, const xhal_event& event) {
  const StreamRef from = stream_of(*Timeline::of(event.timeline));
  auto* const capture = from == nullptr ? nullptr : from->capture.load(std::memory_order_acquire);
  if (capture == nullptr)
    return fail(XHAL_ERR_CAPTURE, kJoin, "{}: the capture this event belongs to has ended", kJoin);
  auto* const mine = stream.capture.load(std::memory_order_acquire);
  if (mine != nullptr && mine != capture)
    return fail(XHAL_ERR_CAPTURE, kJoin, "{}: the event is of another capture", kJoin);
  if (stream.device != from->device) {
    return fail(XHAL_ERR_CAPTURE, kJoin,
                "{}: a capture stays on one device: {} cannot join one of {}", kJoin,
                stream.device->id(), from->device->id());
  }
  if (mine == nullptr) {
    if (const auto s = prepare(stream, kJoin); s != XHAL_OK) return s;
    capture->streams.reserve(capture->streams.size() + 1);
  }
  const auto status =
      load_slot(stream.device->table.stream_capture_wait)(stream.handle, event.value);
  if (status != XHAL_OK) {
    if (mine == nullptr) allow_hidden_events(stream);
    return annotate(status, stream.handle, kJoin);
  }
  if (mine == nullptr) {
    stream_captured(stream);
    capture->streams.emplace_back(&stream);
    stream.capture.store(capture, std::memory_order_release);
  }
  return XHAL_OK;
}

}  // namespace xhal
