// stream_state.hpp: libxhal's part of a stream: its timeline, held-back submissions, failure and
// capture.
#pragma once

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <set>

#include "core/error.hpp"
#include "device/device.hpp"
#include "sync/timeline.hpp"
#include "xhal/event.h"

namespace xhal {

// A submission that libxhal keeps for later.
struct Held {
  std::function<xhal_status()> submit;  // gives it to the plugin
  std::function<void(const ErrorRecord&)>
      drop;  // it will never run: tell whoever waits for it (may be empty)
  // A gate holds everything behind it until the timeline's signal is submitted, or, with `reached`,
  // has happened.
  Timeline* gate = nullptr;
  uint64_t gate_value = 0;
  bool gate_reached = false;
};

struct Capture;

inline constexpr size_t kMaxStreamName = 63;

struct StreamState {
  xhal_stream* handle = nullptr;
  ContextState* context = nullptr;
  DeviceRecord* device = nullptr;
  Timeline* timeline = nullptr;
  std::string name;  // for error records

  std::mutex record_mutex;  // value and submission of a record must be in the same order
  uint64_t next_value = 0;

  std::mutex mutex;  // of what follows
  enum class Mode { direct, holding, failed } mode = Mode::direct;
  std::deque<Held> held;
  bool draining = false, drain_again = false;
  ErrorRecord failure;

  std::atomic<Capture*> capture{nullptr};
  std::atomic<bool> gone{false};
};
inline void intrusive_ptr_add_ref(StreamState*) noexcept {}
inline void intrusive_ptr_release(StreamState*) noexcept {}
using StreamRef = boost::intrusive_ptr<StreamState>;  // a StreamState lives for ever

xhal_status record_event(StreamState& side, uint32_t flags, xhal_event* event);
xhal_status wait_event(StreamState& side, const xhal_event& event);
xhal_status record_hidden_event(StreamState& side, xhal_event* event);
inline xhal_status poll_event(const xhal_event& event) noexcept {
  return event.timeline == nullptr ? XHAL_OK : Timeline::of(event.timeline)->poll(event.value);
}
inline StreamRef stream_of(const Timeline& timeline) noexcept { return timeline.stream; }

// A capture under way: the streams that are in it.
struct Capture {
  uint64_t id;
  StreamState* origin;
  std::set<StreamState*> streams;
  xhal_pool* pool;
};

inline StreamState* state_of(xhal_stream* stream) {
  return static_cast<StreamState*>(private_of(stream)->state);
}

}  // namespace xhal
