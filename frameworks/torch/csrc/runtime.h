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

// How much the bridge has submitted to a stream. Nothing below bounds that, so a program that never
// waits would fill the memory with launches, and only notice at its end how far the device is
// behind: a launch that finds kMostLaunches of its stream before it waits for older ones, as on
// CUDA.
struct LaunchQueue {
  static constexpr uint32_t kMarkEvery = 256, kMarks = 4, kMostLaunches = kMarkEvery * kMarks;
  std::atomic<uint32_t> launches{0};  // since the last mark; a lost count does no harm
  std::mutex mutex;                   // of what follows
  xhal_event marks[kMarks] = {};      // the newest ones, in turn
  uint32_t next = 0;
};

struct Device {
  xhal_device_info info{};
  xhal_device* handle = nullptr;
  xhal_context* context = nullptr;
  xhal_pool* pool = nullptr;
  std::atomic<bool> captures{false};  // a graph is being captured (capture.h)
  std::atomic<bool> open{false};
  std::mutex mutex;  // opening, and making streams
  std::atomic<xhal_stream*> streams[kMaxStreams] = {};
  std::atomic<uint32_t> next_stream[2] = {};  // normal, urgent
  LaunchQueue queues[kMaxStreams];
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

// Ends the process's use of xHAL, at interpreter exit: queued work is dropped, later frees are
// ignored, later work of this thread is refused. Other threads that compute then (Python's daemon
// threads) stop for ever at their next call: what they would come back to is being taken apart.
void shutdown();
bool is_shut_down();
// Called by a thread that is about to stop for ever: it must not hold Python's lock.
void on_stop_for_ever(void (*callback)());

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

// The calling thread's current stream, for a launch that follows: waits while too many are queued.
xhal_stream* launch_stream(DeviceIndex index);

// ---- inline

namespace detail {
extern Device devices[kMaxDevices];
void mark_launches(DeviceIndex index, StreamId id, xhal_stream* stream);
}  // namespace detail

inline Device& device(DeviceIndex index) {
  Device& found = detail::devices[static_cast<uint8_t>(index) % kMaxDevices];
  if (!found.open.load(std::memory_order_acquire)) [[unlikely]]
    return open_device(index);
  return found;
}

inline xhal_stream* launch_stream(DeviceIndex index) {
  xhal_stream* stream = current_stream(index);
  const StreamId id = current_stream_id_unchecked(index);
  auto& launches = device(index).queues[id].launches;
  const uint32_t count = launches.load(std::memory_order_relaxed) + 1;
  launches.store(count, std::memory_order_relaxed);
  if (count >= LaunchQueue::kMarkEvery) [[unlikely]]
    detail::mark_launches(index, id, stream);
  return stream;
}

}  // namespace xhal_torch
