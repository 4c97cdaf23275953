// SPDX-License-Identifier: Apache-2.0
// What torch asks of a device's streams and events, one to one on xHAL's.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "allocator.h"
#include "compat.h"

namespace xhal_torch {
namespace {

using c10::Stream;

// torch keeps an event as a pointer and records it again and again; ours is a value.
struct Event {
  xhal_event value{};
};

Stream make(DeviceIndex index, StreamId id) {
  return Stream(Stream::UNSAFE, c10::Device(kXhal, index), id);
}
xhal_stream* handle(const Stream& stream) {
  return stream_handle(stream.device_index(), stream.id());
}
DeviceIndex index_of(c10::Device device) {
  return device.has_index() ? device.index() : current_device();
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kXhal; }

  c10::Device exchangeDevice(c10::Device next) const override {
    const DeviceIndex before = current_device();
    set_current_device(index_of(next));
    return {kXhal, before};
  }
  c10::Device getDevice() const override { return {kXhal, current_device()}; }
  void setDevice(c10::Device next) const override { set_current_device(index_of(next)); }
  void uncheckedSetDevice(c10::Device next) const noexcept override {
    if (next.has_index()) set_current_device_unchecked(next.index());
  }
  DeviceIndex deviceCount() const noexcept override { return device_count(); }

  Stream getStream(c10::Device device) const override {
    const DeviceIndex index = index_of(device);
    return make(index, current_stream_id(index));
  }
  Stream getDefaultStream(c10::Device device) const override { return make(index_of(device), 0); }
  Stream getStreamFromGlobalPool(c10::Device device, bool urgent) const override {
    const DeviceIndex index = index_of(device);
    return make(index, stream_from_pool(index, urgent));
  }
  Stream getNewStream(c10::Device device, int priority) const override {
    const DeviceIndex index = index_of(device);
    return make(index, stream_from_pool(index, priority < 0));
  }
  Stream exchangeStream(Stream next) const override {
    return make(next.device_index(), exchange_stream(next.device_index(), next.id()));
  }
  bool queryStream(const Stream& stream) const override {
    // The question is itself a mark in the stream. A device in another process needs a moment to
    // reach it; without that moment nobody who polls would ever see an idle stream.
    constexpr uint64_t kMomentNs = 50'000;
    const xhal_status status = xhal_stream_synchronize(handle(stream), kMomentNs);
    if (status == XHAL_ERR_TIMEOUT) return false;
    check(status, "asking whether a stream is done");
    return true;
  }
  void synchronizeStream(const Stream& stream) const override {
    check(xhal_stream_synchronize(handle(stream), XHAL_FOREVER), "waiting for a stream");
  }
  void synchronizeDevice(const DeviceIndex index) const override { synchronize_device(index); }
  bool isStreamCapturing(const Stream& stream) const override {
    uint32_t capturing = 0;
    check(xhal_stream_capturing(handle(stream), &capturing), "asking whether a stream is captured");
    return capturing != 0;
  }
  void recordDataPtrOnStream(const c10::DataPtr& ptr, const Stream& stream) const override {
    record_stream(ptr, stream.device_index(), stream.id());
  }
#if XHAL_TORCH_HAS_CAPABILITY
  void* getStreamNativeHandle(const Stream stream) const override { return handle(stream); }
  c10::DeviceCapability getDeviceCapability(c10::Device) const override { return {}; }
#endif

  void destroyEvent(void* event, const DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event);
  }
  void record(void** event, const Stream& stream, const DeviceIndex,
              const c10::EventFlag flag) const override {
    if (!*event) *event = new Event;
    const uint32_t flags = flag == c10::EventFlag::BACKEND_DEFAULT ? XHAL_EVENT_TIMED : 0;
    check(xhal_event_record(handle(stream), flags, &static_cast<Event*>(*event)->value),
          "recording an event");
  }
  void block(void* event, const Stream& stream) const override {
    if (!event) return;
    check(xhal_stream_wait_event(handle(stream), &static_cast<Event*>(event)->value),
          "making a stream wait");
  }
  bool queryEvent(void* event) const override {
    return !event || query(static_cast<Event*>(event)->value);
  }
  void synchronizeEvent(void* event) const override {
    if (event)
      check(xhal_event_wait(&static_cast<Event*>(event)->value, XHAL_FOREVER),
            "waiting for an event");
  }
  double elapsedTime(void* start, void* end, const DeviceIndex) const override {
    TORCH_CHECK(start && end,
                "both events must have been recorded before their distance can be told");
    int64_t elapsed_ns = 0;
    check(xhal_event_elapsed(&static_cast<Event*>(start)->value, &static_cast<Event*>(end)->value,
                             &elapsed_ns),
          "telling the time between two events");
    return static_cast<double>(elapsed_ns) * 1e-6;
  }

 private:
  static bool query(const xhal_event& event) {
    const xhal_status status = xhal_event_query(&event);
    check(status, "asking whether an event is reached");
    return status == XHAL_OK;
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

}  // namespace
}  // namespace xhal_torch
