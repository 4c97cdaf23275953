// SPDX-License-Identifier: Apache-2.0
// stream_state.hpp: libxhal's part of a stream: its timeline, held-back submissions,
// failure and capture.
//
// Counted: the handle has one reference, and so has whoever may come back to the stream later (a
// gate, a pool's block, a loss that is being told). The plugin's stream ends with the handle; after
// that `gone` is set and nothing here leads to it.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <list>
#include <string>

#include "core/context_state.hpp"
#include "sync/timeline.hpp"
#include "xhal/event.h"

namespace xhal {

struct Capture;
struct Held;

inline constexpr size_t kMaxStreamName = 63;

struct StreamState {
  StreamState();
  ~StreamState();

  xhal_stream* handle = nullptr;
  ContextState* context = nullptr;
  DeviceRecord* device = nullptr;
  std::atomic<Timeline*> timeline{nullptr};  // replaced by recover
  std::string name;                          // for error records
  std::atomic<Capture*> capture{nullptr};

  // Of what follows (striped): which submissions libxhal holds back.
  std::mutex& lock() const noexcept;
  enum class Mode { direct, holding, failed } mode = Mode::direct;
  std::atomic<bool> gone{false};
  std::atomic<bool> ended{false};  // the plugin's destroy has returned: its work has run
  std::list<Held> held;
  bool draining = false, drain_again = false;
  Failure failure;

  // libxhal's own submissions to a stream that others use: a capture that begins waits for them.
  std::atomic<uint32_t> hidden{0};

  // As of the device: what a failure of the timeline waits for.
  std::atomic<uint32_t> at_host_memory{0};

  std::atomic<uint32_t> references{0};
};

inline void intrusive_ptr_add_ref(StreamState* s) noexcept {
  s->references.fetch_add(1, std::memory_order_relaxed);
}
void intrusive_ptr_release(StreamState* s) noexcept;
using StreamRef = boost::intrusive_ptr<StreamState>;

inline StreamState* state_of(xhal_stream* stream) {
  return static_cast<StreamState*>(private_of(stream)->state);
}

// The stream that owns a timeline; null when it has none, or none any more.
StreamRef stream_of(const Timeline& timeline) noexcept;

// As xhal_event_record and xhal_stream_wait of a stream that is not captured.
xhal_status record_event(StreamState& stream, uint32_t flags, xhal_event* event);
xhal_status wait_event(StreamState& stream, const xhal_event& event);
xhal_status signal_on(StreamState& stream, Timeline& timeline, uint64_t value,
                      xhal_timestamp* time);
xhal_status wait_on(StreamState& stream, Timeline& timeline, uint64_t value);

// An event on a stream that somebody else may capture or destroy meanwhile: CAPTURE when it is
// captured, INVALID_HANDLE when it is gone.
xhal_status record_hidden_event(StreamState& stream, xhal_event* event);
// Keeps hidden events away while a capture begins or the stream ends; false when this thread is
// itself inside one.
bool stop_hidden_events(StreamState& stream) noexcept;
void allow_hidden_events(StreamState& stream) noexcept;

// XHAL_OK, NOT_READY or the failure's status; sets no error record and calls nobody back.
xhal_status poll_event(const xhal_event& event) noexcept;

}  // namespace xhal
