// SPDX-License-Identifier: Apache-2.0
#include "runtime.h"

#include <c10/util/Exception.h>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <thread>
#include <utility>
#include <vector>

#include "environment.h"

namespace xhal_torch {
namespace detail {
Device devices[kMaxDevices];
}

namespace {

struct Library {
  int count = 0;
  std::string why;  // there is no device
};

std::atomic<bool> ended{false};
std::atomic<std::thread::id> exiting_thread{};
std::atomic<void (*)()> first_open_callback{nullptr};
std::atomic<void (*)()> stop_callback{nullptr};

// Threads that have used a stream, and how many of them stopped at the exit.
std::atomic<int> using_threads{0}, stopped_threads{0};

struct UsingThread {
  UsingThread() { using_threads.fetch_add(1); }
  ~UsingThread() { using_threads.fetch_sub(1); }
};

void count_this_thread() { thread_local const UsingThread counted; }

[[noreturn]] void stop_for_ever() {
  if (auto callback = stop_callback.load()) callback();
  stopped_threads.fetch_add(1);
  for (;;) pause();
}

// The interpreter exits: a thread of it that returned to Python now would be ended in the middle of
// a destructor, and with it the process.
void check_exit() {
  if (ended.load(std::memory_order_acquire) && std::this_thread::get_id() != exiting_thread.load())
      [[unlikely]]
    stop_for_ever();
}

std::string text_of(const xhal_string& s) {
  return s.data ? std::string(s.data, s.size) : std::string();
}

// Only the devices of the best plugin, unless the user has chosen.
std::vector<xhal_device_info> choose(std::vector<xhal_device_info> all) {
  if (xhal::base::environment("XHAL_VISIBLE_DEVICES")) return all;
  const xhal_device_info* best = nullptr;
  for (const auto& info : all) {
    if (!best || info.priority > best->priority) best = &info;
  }
  if (!best) return all;
  const std::string plugin = best->plugin;
  std::erase_if(all, [&](const auto& info) { return plugin != info.plugin; });
  return all;
}

Library start() {
  Library library;
  xhal_init_info init{};
  init.struct_size = sizeof init;
  init.version_major = XHAL_VERSION_MAJOR;
  init.version_minor = XHAL_VERSION_MINOR;
  xhal_status status = xhal_init(&init);
  if (status < 0) {
    library.why = last_error_text(status);
    return library;
  }
  uint32_t count = 0;
  status = xhal_enumerate(0, nullptr, 0, &count);
  std::vector<xhal_device_info> infos(count);
  if (status >= 0 && count) status = xhal_enumerate(0, infos.data(), count, &count);
  if (status < 0) {
    library.why = last_error_text(status);
    return library;
  }
  infos.resize(std::min<size_t>(count, infos.size()));
  infos = choose(std::move(infos));
  library.count = static_cast<int>(std::min<size_t>(infos.size(), kMaxDevices));
  for (int i = 0; i < library.count; ++i) detail::devices[i].info = infos[i];
  if (!library.count) {
    library.why = xhal::base::environment("XHAL_VISIBLE_DEVICES") == ""
                      ? "XHAL_VISIBLE_DEVICES is set and empty, which hides every device"
                      : "no xHAL plugin has a device; run: xhal plugins doctor";
  }
  return library;
}

// Leaked, like everything here: other static destructors may still free tensors.
const Library& library() {
  static const Library* const started = new Library(start());
  return *started;
}

void check_index(DeviceIndex index) {
  const DeviceIndex count = device_count();
  TORCH_CHECK(count > 0, "xhal:", static_cast<int>(index),
              " was asked for, but there is no xHAL device: ", library().why);
  TORCH_CHECK(index >= 0 && index < count, "xhal:", static_cast<int>(index),
              " was asked for, but there are ", static_cast<int>(count),
              " xHAL device(s), xhal:0 to xhal:", static_cast<int>(count) - 1, "; see: xhal list");
}

}  // namespace

std::string last_error_text(xhal_status status) {
  xhal_error error{};
  error.struct_size = sizeof error;
  if (xhal_last_error(&error) != XHAL_OK || error.status != status) {
    return std::string(xhal_status_name(status)) + ": " + xhal_status_text(status);
  }
  std::string text = text_of(error.text);
  if (text.empty()) text = xhal_status_text(status);
  text += " [" + std::string(xhal_status_name(status)) + "]";
  if (error.cause != XHAL_OK && error.cause_text.size)
    text += "\n  because: " + text_of(error.cause_text);
  return text;
}

void fail(xhal_status status, const char* doing) {
  check_exit();
  const std::string text = std::string(doing) + ": " + last_error_text(status);
  switch (status) {
    case XHAL_ERR_OUT_OF_MEMORY:
    case XHAL_ERR_LIMIT:
      TORCH_CHECK_WITH(OutOfMemoryError, false, text);
    case XHAL_ERR_UNSUPPORTED:
      TORCH_CHECK_NOT_IMPLEMENTED(false, text);
    case XHAL_ERR_FORKED:
      TORCH_CHECK(false, text,
                  "\n  xhal cannot be used again in a forked child of a process that has used it. "
                  "Start workers with: torch.multiprocessing.set_start_method('spawn')");
    case XHAL_ERR_DEVICE:
    case XHAL_ERR_DEPENDENCY:
      TORCH_CHECK(false, text,
                  "\n  The stream is stopped. torch.xhal.recover() makes it usable again; what was "
                  "queued behind the "
                  "failed operation has not run. XHAL_LAUNCH_BLOCKING=1 makes the failing call "
                  "itself raise.");
    default:
      TORCH_CHECK(false, text);
  }
}

DeviceIndex device_count() noexcept {
  try {
    return static_cast<DeviceIndex>(library().count);
  } catch (...) {
    return 0;
  }
}

std::string why_no_devices() { return library().why; }

const xhal_device_info& device_info(DeviceIndex index) {
  check_index(index);
  return detail::devices[index].info;
}

bool device_is_open(DeviceIndex index) {
  return index >= 0 && index < kMaxDevices &&
         detail::devices[index].open.load(std::memory_order_acquire);
}

void on_first_open(void (*callback)()) { first_open_callback.store(callback); }

Device& open_device(DeviceIndex index) {
  check_exit();
  check_index(index);
  TORCH_CHECK(!ended.load(), "xhal:", static_cast<int>(index),
              " cannot be opened: the interpreter is exiting");
  Device& device = detail::devices[index];
  std::lock_guard lock(device.mutex);
  if (device.open.load(std::memory_order_relaxed)) return device;

  if (auto callback = first_open_callback.exchange(nullptr)) callback();
  xhal_device_open_info open{};
  open.struct_size = sizeof open;
  open.index = device.info.index;
  check(xhal_device_open(&open, &device.handle, &device.context), "opening the device");
  check(xhal_device_query(device.handle, &device.info), "asking the device about itself");
  check(xhal_pool_create(device.context, nullptr, &device.pool), "making the device's memory pool");
  device.open.store(true, std::memory_order_release);
  return device;
}

void synchronize_device(DeviceIndex index) {
  Device& found = device(index);
  for (auto& slot : found.streams) {
    if (xhal_stream* stream = slot.load(std::memory_order_acquire)) {
      check(xhal_stream_synchronize(stream, XHAL_FOREVER), "waiting for the device");
    }
  }
}

void shutdown() {
  exiting_thread.store(std::this_thread::get_id());
  if (ended.exchange(true)) return;
  if (std::none_of(std::begin(detail::devices), std::end(detail::devices),
                   [](const Device& found) { return found.open.load(); }))
    return;
  // Daemon threads that compute come by within a launch; one that does not is not at work here.
  constexpr auto kGrace = std::chrono::milliseconds(250);
  const auto deadline = std::chrono::steady_clock::now() + kGrace;
  count_this_thread();
  while (using_threads.load() - 1 > stopped_threads.load() &&
         std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  xhal_shutdown();
}

void on_stop_for_ever(void (*callback)()) { stop_callback.store(callback); }

bool is_shut_down() { return ended.load(std::memory_order_relaxed); }

bool launch_blocking() {
  static const bool on = [] {
    const auto asked = xhal::base::environment_switch("XHAL_LAUNCH_BLOCKING");
    if (!asked.problem.empty()) std::fprintf(stderr, "xhal: %s; taking 1\n", asked.problem.c_str());
    return asked.value.value_or(!asked.problem.empty());
  }();
  return on;
}

// ---- current device and streams

namespace {

struct Current {
  DeviceIndex device = 0;
  StreamId ids[kMaxDevices] = {};
  xhal_stream* streams[kMaxDevices] = {};
};
thread_local Current current;

xhal_stream* make_stream(DeviceIndex index, StreamId id) {
  TORCH_CHECK(id >= 0 && id < kMaxStreams, "stream ", id, " of xhal:", static_cast<int>(index),
              " does not exist");
  Device& found = device(index);
  std::lock_guard lock(found.mutex);
  xhal_stream* stream = found.streams[id].load(std::memory_order_relaxed);
  if (stream) return stream;
  xhal_stream_info info{};
  info.struct_size = sizeof info;
  info.priority = id > kPoolStreams ? -1 : 0;
  check(xhal_stream_create(found.context, &info, &stream), "making a stream");
  found.streams[id].store(stream, std::memory_order_release);
  return stream;
}

}  // namespace

DeviceIndex current_device() { return current.device; }

void set_current_device(DeviceIndex index) {
  if (index == current.device) return;
  check_index(index);
  current.device = index;
}

void set_current_device_unchecked(DeviceIndex index) noexcept { current.device = index; }

xhal_stream* stream_handle(DeviceIndex index, StreamId id) {
  if (id < 0 || id >= kMaxStreams || index < 0 || index >= kMaxDevices)
    return make_stream(index, id);
  xhal_stream* stream = detail::devices[index].streams[id].load(std::memory_order_acquire);
  return stream ? stream : make_stream(index, id);
}

StreamId current_stream_id(DeviceIndex index) {
  check_index(index);
  return current.ids[index];
}

StreamId current_stream_id_unchecked(DeviceIndex index) { return current.ids[index]; }

xhal_stream* current_stream(DeviceIndex index) {
  if (ended.load(std::memory_order_relaxed)) [[unlikely]]
    check_exit();
  xhal_stream*& stream = current.streams[static_cast<uint8_t>(index) % kMaxDevices];
  if (!stream) [[unlikely]] {
    count_this_thread();
    check_index(index);
    stream = stream_handle(index, current.ids[index]);
  }
  return stream;
}

StreamId exchange_stream(DeviceIndex index, StreamId id) {
  count_this_thread();
  check_index(index);
  const StreamId before = current.ids[index];
  current.streams[index] = stream_handle(index, id);
  current.ids[index] = id;
  return before;
}

void detail::mark_launches(DeviceIndex index, StreamId id, xhal_stream* stream) {
  LaunchQueue& queue = device(index).queues[id];
  uint32_t capturing = 0;
  xhal_event mark{}, oldest{};
  {
    const std::lock_guard lock(queue.mutex);
    if (queue.launches.exchange(0, std::memory_order_relaxed) < LaunchQueue::kMarkEvery) return;
  }
  // What is captured is not queued. A stream that has failed says so at the launch.
  if (xhal_stream_capturing(stream, &capturing) != XHAL_OK || capturing) return;
  if (xhal_event_record(stream, 0, &mark) != XHAL_OK) return;
  {
    const std::lock_guard lock(queue.mutex);
    oldest = std::exchange(queue.marks[queue.next], mark);
    queue.next = (queue.next + 1) % LaunchQueue::kMarks;
  }
  if (oldest.timeline) xhal_event_wait(&oldest, XHAL_FOREVER);
}

StreamId stream_from_pool(DeviceIndex index, bool urgent) {
  Device& found = device(index);
  const uint32_t turn =
      found.next_stream[urgent].fetch_add(1, std::memory_order_relaxed) % kPoolStreams;
  return 1 + (urgent ? kPoolStreams : 0) + static_cast<StreamId>(turn);
}

}  // namespace xhal_torch
