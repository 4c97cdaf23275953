// SPDX-License-Identifier: Apache-2.0
#include "sync/stream_state.hpp"

#include <sched.h>

#include "core/locks.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "sync/capture.hpp"
#include "sync/deferral.hpp"
#include "sync/timestamps.hpp"

namespace xhal {
namespace {

// hidden: how many hidden events are being submitted; kClosed: no more may begin.
constexpr uint32_t kClosed = 1u << 31;
constinit thread_local StreamState* hidden_here = nullptr;

}  // namespace

void intrusive_ptr_release(StreamState* s) noexcept {
  if (s->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  // At a shutdown other threads may be on their way out of it.
  if (is_running())
    delete s;
  else
    keep_for_ever(s);
}

StreamState::StreamState() = default;
StreamState::~StreamState() = default;

const std::string& stream_name(const void* state) noexcept {
  return static_cast<const StreamState*>(state)->name;
}

static StripedMutex& locks() {
  static auto* locks = new StripedMutex(Rank::stream);
  return *locks;
}
static const AtLoad locks_at_load(locks);

std::mutex& StreamState::lock() const noexcept { return locks().of(this); }

xhal_status signal_on(StreamState& stream, Timeline& timeline, uint64_t value,
                      xhal_timestamp* time) {
  const auto* dispatch = dispatch_of(stream.handle);
  const xhal_status status =
      load_slot(dispatch->stream_signal)(stream.handle, timeline.handle(), value, time);
  // The intercept table marks by itself, when it gives the signal to the plugin.
  if (status == XHAL_OK && dispatch == &stream.device->table) timeline.mark_submitted(value);
  return status;
}

xhal_status wait_on(StreamState& stream, Timeline& timeline, uint64_t value) {
  const auto& record = *stream.device;
  const bool native = timeline.device == &record || record.has(XHAL_CAP_FOREIGN_TIMELINE);
  const bool any_time = record.has(XHAL_CAP_WAIT_BEFORE_SIGNAL);
  if (timeline.poll(value) == XHAL_OK) return XHAL_OK;
  // Nobody in this process hears of what another one submits.
  const bool submitted = !timeline.imported && timeline.is_submitted(value);
  if (native && (any_time || submitted || timeline.failed())) {
    timeline.mark_asked(value);
    const auto* dispatch = dispatch_of(stream.handle);
    return load_slot(dispatch->stream_wait)(stream.handle, timeline.handle(), value);
  }
  return hold_until(stream, timeline, value, !native || timeline.imported);
}

xhal_status record_event(StreamState& stream, uint32_t flags, xhal_event* event) {
  uint32_t slot = 0;
  xhal_timestamp* time =
      (flags & XHAL_EVENT_TIMED) != 0 ? stream.device->timestamps->take(&slot) : nullptr;
  // Two threads may submit their values in the other order. The larger value then covers the
  // smaller: everything before the smaller was submitted before the larger was taken.
  Timeline& t = *stream.timeline.load(std::memory_order_acquire);
  const uint64_t value = t.recorded.fetch_add(1, std::memory_order_relaxed) + 1;
  const xhal_status status = signal_on(stream, t, value, time);
  if (status != XHAL_OK) return status;
  *event = {t.handle(), value, slot, flags};
  return XHAL_OK;
}

xhal_status wait_event(StreamState& stream, const xhal_event& event) {
  if (event.timeline == nullptr) return XHAL_OK;
  auto& t = *Timeline::of(event.timeline);
  return wait_on(stream, t, t.inner(event.value));
}

xhal_status record_hidden_event(StreamState& stream, xhal_event* event) {
  if ((stream.hidden.fetch_add(1, std::memory_order_acq_rel) & kClosed) != 0) {
    stream.hidden.fetch_sub(1, std::memory_order_release);
    return stream.gone.load(std::memory_order_acquire) ? XHAL_ERR_INVALID_HANDLE : XHAL_ERR_CAPTURE;
  }
  auto* const outer = std::exchange(hidden_here, &stream);
  const xhal_status status = record_event(stream, 0, event);
  hidden_here = outer;
  stream.hidden.fetch_sub(1, std::memory_order_release);
  return status;
}

bool stop_hidden_events(StreamState& stream) noexcept {
  if (hidden_here == &stream) return false;
  stream.hidden.fetch_or(kClosed, std::memory_order_acq_rel);
  // Each is one submission, which waits for nothing.
  while (stream.hidden.load(std::memory_order_acquire) != kClosed) sched_yield();
  return true;
}

void allow_hidden_events(StreamState& stream) noexcept {
  stream.hidden.fetch_and(~kClosed, std::memory_order_release);
}

xhal_status poll_event(const xhal_event& event) noexcept {
  if (event.timeline == nullptr) return XHAL_OK;
  const auto& t = *Timeline::of(event.timeline);
  const uint64_t value = t.inner(event.value);
  if (t.reached(value)) return XHAL_OK;
  if (!t.failed()) return XHAL_NOT_READY;
  return t.reached(value) ? XHAL_OK : t.failure()->status;
}

}  // namespace xhal
