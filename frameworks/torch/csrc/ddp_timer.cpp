// SPDX-License-Identifier: Apache-2.0
// The clock of DistributedDataParallel's own statistics (forward, backward, communication): events
// on the stream, read when asked.
#include <torch/csrc/distributed/c10d/reducer_timer.hpp>

#include <array>

#include "runtime.h"

namespace xhal_torch {
namespace {

class DdpTimer final : public c10d::Timer {
 public:
  explicit DdpTimer(c10::Device device) : index_(device.index()) {}

  void record(Event event) override {
    Timer::record(event);
    check(xhal_event_record(current_stream(index_), XHAL_EVENT_TIMED, &at(event)),
          "timing a step of DistributedDataParallel");
  }

  std::optional<int64_t> measureDifference(Event start, Event end) override {
    if (!getTimestamp(start) || !getTimestamp(end)) return std::nullopt;
    check(xhal_event_wait(&at(end), XHAL_FOREVER), "reading the times of DistributedDataParallel");
    int64_t elapsed_ns = 0;
    // The device overwrites old times: a step long past has none.
    if (xhal_event_elapsed(&at(start), &at(end), &elapsed_ns) != XHAL_OK || elapsed_ns < 0)
      return std::nullopt;
    return elapsed_ns;
  }

 private:
  xhal_event& at(Event event) { return events_[static_cast<size_t>(event)]; }

  DeviceIndex index_;
  std::array<xhal_event, 5> events_{};
};

}  // namespace
}  // namespace xhal_torch

namespace c10d {
C10_REGISTER_TYPED_CLASS(TimerRegistry, c10::kPrivateUse1, xhal_torch::DdpTimer)
}
