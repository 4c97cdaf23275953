// SPDX-License-Identifier: Apache-2.0
// events.cpp: asking for an event that is reached, beside a direct call and beside PoCL.
#include "bench.hpp"
#include "pocl.hpp"

namespace xhal::bench {
namespace {

constexpr uint32_t kCalls = 2000;

// PoCL's event of work that is done.
class PoclEvent {
 public:
  explicit PoclEvent(const Pocl* pocl) {
    if (pocl == nullptr) return;
    pocl->enqueue(&event_);
    pocl->finish();
  }
  ~PoclEvent() {
    if (event_ != nullptr) clReleaseEvent(event_);
  }
  PoclEvent(const PoclEvent&) = delete;
  PoclEvent& operator=(const PoclEvent&) = delete;
  double query() const {
    cl_int state = 0;
    return ns_per_call(kCalls, [&] {
      (void)clGetEventInfo(event_, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state,
                           nullptr);
    });
  }
  double wait() const {
    return ns_per_call(kCalls, [&] { (void)clWaitForEvents(1, &event_); });
  }

 private:
  cl_event event_ = nullptr;
};

}  // namespace

void bench_events(Bench& bench) {
  const Session session;
  const auto device = open_device("cpu");
  const auto stream = device.stream();
  xhal_event event{};
  check(xhal_stream_host_call(
      stream.get(), [](void*, xhal_status) {}, nullptr, 0));
  check(xhal_event_record(stream.get(), 0, &event));
  check(xhal_event_wait(&event, XHAL_FOREVER));
  const PoclEvent theirs(bench.pocl());

  const auto direct = [](double limit) {
    return Peer{.name = "direct call",
                .sample = [] { return direct_call_ns(kCalls); },
                .goal = Goal::ratio_at_most(limit)};
  };
  bench.measure({.metric = "event query, reached", .unit = "ns"}, bench.effort(300),
                [&] { return ns_per_call(kCalls, [&] { (void)xhal_event_query(&event); }); },
                {direct(2), bench.pocl_peer([&] { return theirs.query(); })});
  bench.measure(
      {.metric = "event wait, reached", .unit = "ns"}, bench.effort(300),
      [&] { return ns_per_call(kCalls, [&] { (void)xhal_event_wait(&event, XHAL_FOREVER); }); },
      {direct(3), bench.pocl_peer([&] { return theirs.wait(); })});
}

}  // namespace xhal::bench
