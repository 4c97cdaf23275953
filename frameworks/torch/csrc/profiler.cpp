// SPDX-License-Identifier: Apache-2.0
// Device times for torch.autograd.profiler: each mark is a timed event on the current stream.
#include <c10/util/ApproximateClock.h>
#include <torch/csrc/profiler/stubs/base.h>

#include "runtime.h"

namespace xhal_torch {
namespace {

struct Stubs final : torch::profiler::impl::ProfilerStubs {
  using Event = torch::profiler::impl::ProfilerVoidEventStub;

  void record(DeviceIndex* index, Event* event, int64_t* cpu_ns) const override {
    if (index) *index = current_device();
    auto made = std::make_shared<xhal_event>();
    check(xhal_event_record(current_stream(current_device()), XHAL_EVENT_TIMED, made.get()),
          "marking a profile");
    *event = std::move(made);
    if (cpu_ns) *cpu_ns = c10::getTime();
  }
  float elapsed(const Event* start, const Event* end) const override {
    const auto* from = static_cast<const xhal_event*>(start->get());
    const auto* to = static_cast<const xhal_event*>(end->get());
    check(xhal_event_wait(to, XHAL_FOREVER), "waiting for a profile");
    int64_t elapsed_ns = 0;
    check(xhal_event_elapsed(from, to, &elapsed_ns), "reading a profile");
    return static_cast<float>(static_cast<double>(elapsed_ns) * 1e-3);
  }
  void mark(const char*) const override {}
  void rangePush(const char*) const override {}
  void rangePop() const override {}
  bool enabled() const override { return device_count() > 0; }
  void onEachDevice(std::function<void(int)> op) const override {
    for (DeviceIndex index = 0; index < device_count(); ++index) {
      if (device_is_open(index)) op(index);
    }
  }
  void synchronize() const override { synchronize_device(current_device()); }
};

const bool registered = [] {
  static Stubs stubs;
  torch::profiler::impl::registerPrivateUse1Methods(&stubs);
  return true;
}();

}  // namespace
}  // namespace xhal_torch
