// SPDX-License-Identifier: Apache-2.0
// runtime.h: libxhal as this process sees it: which devices there are, and the context, pool and
// streams of each.
//
// A device has two numbers: its index in torch ("xhal:1") and its index among xHAL's visible
// devices. They are the same when XHAL_VISIBLE_DEVICES is set; otherwise torch sees only the
// devices of the plugin with the highest priority that has any, so that no rank trains on the host
// unnoticed. A device is opened at its first use, never at import.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <xhal/xhal.h>

#include <atomic>
#include <mutex>
#include <string>

namespace xhal_torch {

using c10::DeviceIndex;
using c10::StreamId;

inline constexpr c10::DeviceType kXhal = c10::DeviceType::PrivateUse1;
inline constexpr int kMaxDevices = 64;
inline constexpr int kPoolStreams = 32;  // of each priority, handed out in turn
inline constexpr int kMaxStreams = 1 + 2 * kPoolStreams;

// Throws what `status` and the thread's error record say; `doing` names what the bridge was about.
[[noreturn]] void fail(xhal_status status, const char* doing);
inline void check(xhal_status status, const char* doing) {
  if (status < 0) [[unlikely]]
    fail(status, doing);
}
// The thread's error record as one text.
std::string last_error_text(xhal_status status);

struct Device {
  xhal_device_info info{};
  xhal_device* handle = nullptr;
  xhal_context* context = nullptr;
  xhal_pool* pool = nullptr;
  // Set while a graph is being captured (graph.cpp): one capture a device at a time.
  std::atomic<xhal_stream*> captured_stream{nullptr};
  std::atomic<xhal_pool*> capture_pool{nullptr};
  std::atomic<bool> open{false};
  std::mutex mutex;  // opening, and making streams
  std::atomic<xhal_stream*> streams[kMaxStreams] = {};
  std::atomic<uint32_t> next_stream[2] = {};  // normal, urgent
};

// Number of devices, 0 when there is none or libxhal cannot start; why() then tells. Opens nothing,
// leaves the process able to fork.
DeviceIndex device_count() noexcept;
std::string why_no_devices();

// What enumeration tells of a device; opens nothing.
const xhal_device_info& device_info(DeviceIndex index);

// The device, opened when this is its first use.
Device& open_device(DeviceIndex index);
inline Device& device(DeviceIndex index);
bool device_is_open(DeviceIndex index);

// Called once, at the first open (the fork guard of torch is set there).
void on_first_open(void (*callback)());

// Waits for everything on every stream of the device.
void synchronize_device(DeviceIndex index);

// Ends the process's use of xHAL: later frees are ignored, later work is refused. Called
// at interpreter exit.
void shutdown();
bool is_shut_down();

// XHAL_LAUNCH_BLOCKING=1: every launch waits for its result, so that an error names the call
// that caused it.
bool launch_blocking();

// ---- current device and streams of the calling thread

DeviceIndex current_device();
void set_current_device(DeviceIndex index);
void set_current_device_unchecked(DeviceIndex index) noexcept;

xhal_stream* stream_handle(DeviceIndex index, StreamId id);
StreamId current_stream_id(DeviceIndex index);
StreamId current_stream_id_unchecked(DeviceIndex index);
xhal_stream* current_stream(DeviceIndex index);
StreamId exchange_stream(DeviceIndex index, StreamId id);
StreamId stream_from_pool(DeviceIndex index, bool urgent);

// ---- inline

namespace detail {
extern Device devices[kMaxDevices];
}

inline Device& device(DeviceIndex index) {
  Device& found = detail::devices[static_cast<uint8_t>(index) % kMaxDevices];
  if (!found.open.load(std::memory_order_acquire)) [[unlikely]]
    return open_device(index);
  return found;
}

}  // namespace xhal_torch
