// SPDX-License-Identifier: Apache-2.0
// deferral.hpp: the queue in front of a stream that may not be given work yet.
//
// A plugin without XHAL_CAP_WAIT_BEFORE_SIGNAL never sees a wait whose signal is still to be
// submitted, and one without XHAL_CAP_FOREIGN_TIMELINE none for a timeline that is not of its
// device: the stream's later submissions wait here. The stream's head then points to the device's
// intercept table, so that other streams, and this one before and after, pay nothing. A failed
// stream is intercepted likewise, and refuses. The chaos layer is this queue with a random release.
#pragma once

#include <functional>
#include <list>

#include "sync/stream_state.hpp"

namespace xhal {

// A submission that libxhal keeps for later, with the objects it names and its correlation id.
struct Held {
  Held() = default;
  Held(Held&&) noexcept;
  Held& operator=(Held&&) noexcept;
  ~Held();

  std::function<xhal_status()> submit;  // gives it to the plugin
  // It will never run: tells whoever waits for it. May be empty.
  std::function<void(const Failure&)> drop;
  bool drop_when_refused = false;  // also when a failed stream does not take it at all
  void* object = nullptr;          // pinned until it was submitted or dropped
  uint64_t correlation = 0;
  // A gate holds everything behind it until the timeline's signal is submitted, or, with
  // `gate_reached`, has happened.
  TimelinePin gate;
  uint64_t gate_value = 0;
  bool gate_reached = false;
};

// Fills record.intercept from record.table.
void make_intercept(DeviceRecord& record);

// Puts a gate in front of what the stream gets next.
xhal_status hold_until(StreamState& stream, Timeline& timeline, uint64_t value, bool reached);
// Submits what is held, as far as the gates are open.
void drain(StreamState& stream) noexcept;
// Submits one held item if no gate stands before it; false when there was none. For
// a release policy.
bool drain_one(StreamState& stream) noexcept;

// The stream has failed: held work is dropped, submissions refuse until it is recovered. Does
// nothing when `timeline` is the stream's no more.
void stream_failed(StreamState& stream, const Timeline& timeline, const Failure& failure) noexcept;
// From now on its timeline is `fresh`; without one, the one it has. Waits until what another thread
// is giving to the plugin for it has been given; does nothing when that is this thread.
void stream_recovered(StreamState& stream, Timeline* fresh = nullptr) noexcept;
// Keeps everything that is submitted from here on, and waits until what another thread is giving to
// the plugin has been given; not from inside a submission to the stream.
void stream_paused(StreamState& stream) noexcept;
// Ends that. What was kept goes to the plugin, unless the stream has failed meanwhile.
void stream_goes_on(StreamState& stream) noexcept;
// Whether libxhal holds work of the stream back.
bool holds_work(StreamState& stream) noexcept;
// While a stream is captured its submissions are recorded, so nothing may be held back; afterwards
// as after a recovery.
void stream_captured(StreamState& stream) noexcept;
// The plugin has made the stream: from now on its head can be switched.
void stream_begins(StreamState& stream, xhal_stream* handle) noexcept;
// The plugin's stream is about to end: its head is nobody's business any more.
void stream_ends(StreamState& stream) noexcept;
// It did not: the plugin refused to destroy it.
void stream_stays(StreamState& stream, Timeline& timeline) noexcept;
// Whether this thread is giving held work of the stream to the plugin.
bool is_draining_here(const StreamState& stream) noexcept;

}  // namespace xhal
