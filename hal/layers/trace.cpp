// trace.cpp: every call of every slot, as a file that Perfetto and chrome://tracing open.
//
// A call costs two reads of the time-stamp counter and one store into the thread's buffer. Full
// buffers are written out by the thread that filled them; xhal_shutdown writes the rest. Copies
// carry their bytes and their direction.
#include <x86intrin.h>

#include <unistd.h>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "address_map.hpp"
#include "environment.hpp"
#include "layer_tables.hpp"
#include "log.hpp"
#include "timeline.hpp"

namespace xhal {
namespace {

enum class Direction : uint32_t { none, host_to_device, device_to_host, device_to_device };
constexpr const char* kDirections[] = {"", "host to device", "device to host", "device to device"};

struct Call {
  const char* name;
  uint64_t begin, end;  // time-stamp counter
  uint64_t bytes;
  uint32_t stream;
  Direction direction;
};

constexpr size_t kBuffer = 4096;

struct Writer {
  std::mutex mutex;
  std::FILE* file = nullptr;
  bool first = true;
  uint64_t tsc0 = 0, ns0 = 0;
  double ns_per_tick = 0;
  std::vector<struct Buffer*> buffers;
};
Writer& writer() {
  static auto* w = new Writer;
  return *w;
}

void write_calls(const Call* calls, size_t count, int thread) {
  auto& w = writer();
  const std::lock_guard lock(w.mutex);
  if (w.file == nullptr) return;
  const uint64_t ns = now_ns(), tsc = __rdtsc();
  w.ns_per_tick = static_cast<double>(ns - w.ns0) / static_cast<double>(tsc - w.tsc0);
  const int pid = getpid();
  for (size_t i = 0; i < count; ++i) {
    const auto& c = calls[i];
    const double start_us = static_cast<double>(c.begin - w.tsc0) * w.ns_per_tick / 1e3;
    const double length_us = static_cast<double>(c.end - c.begin) * w.ns_per_tick / 1e3;
    fmt::print(
        w.file,
        "{}{{\"name\":\"{}\",\"ph\":\"X\",\"pid\":{},\"tid\":{},\"ts\":{:.3f},\"dur\":{:.3f}",
        w.first ? "" : ",\n", c.name, pid, thread, start_us, length_us);
    if (c.direction != Direction::none) {
      fmt::print(w.file, ",\"args\":{{\"stream\":{},\"bytes\":{},\"direction\":\"{}\"}}", c.stream,
                 c.bytes, kDirections[static_cast<int>(c.direction)]);
    }
    std::fputs("}", w.file);
    w.first = false;
  }
}

struct Buffer {
  Call calls[kBuffer];
  size_t used = 0;
  int thread = gettid();
  std::mutex mutex;  // only the thread and trace_finish take it

  Buffer() {
    const std::lock_guard lock(writer().mutex);
    writer().buffers.push_back(this);
  }
  void flush() {
    write_calls(calls, used, thread);
    used = 0;
  }
};

// Buffers outlive their threads, so that nothing runs in thread-local destructors.
Buffer& buffer() {
  thread_local Buffer* b = new Buffer;
  return *b;
}

Direction direction_of(uint64_t dst, uint64_t src) {
  const auto on_device = [](uint64_t address) {
    const auto range = address_map().find(address);
    return range && range->device != nullptr;
  };
  const bool to = on_device(dst), from = on_device(src);
  if (to && from) return Direction::device_to_device;
  if (to) return Direction::host_to_device;
  return from ? Direction::device_to_host : Direction::none;
}

struct Trace {
  template <SlotName kName, class Slot, class Handle, class... Rest>
  static xhal_status around(DeviceRecord&, Slot next, Handle* handle, Rest... rest) noexcept {
    const uint64_t begin = __rdtsc();
    const xhal_status status = next(handle, rest...);
    const uint64_t end = __rdtsc();
    auto& b = buffer();
    const std::lock_guard lock(b.mutex);
    Call& call = b.calls[b.used];
    call = {kName.text, begin, end, 0, 0, Direction::none};
    if constexpr (std::string_view(kName.text) == "xhal_stream_copy") {
      copy(call, handle, rest...);
    }
    if (++b.used == kBuffer) b.flush();
    return status;
  }

  static void copy(Call& call, xhal_stream* stream, uint64_t dst, uint64_t src, uint64_t size) {
    call.stream = static_cast<uint32_t>(private_of(stream)->number);
    call.bytes = size;
    call.direction = direction_of(dst, src);
  }
};

}  // namespace

void wrap_trace(xhal_dispatch& table) { wrap_table<Trace, Layer::trace>(table); }

void trace_start() {
  auto& w = writer();
  const std::lock_guard lock(w.mutex);
  if (w.file != nullptr) return;
  std::string path = environment("XHAL_TRACE_FILE");
  if (path.empty()) path = "xhal-trace-%p.json";
  if (const auto at = path.find("%p"); at != std::string::npos)
    path.replace(at, 2, std::to_string(getpid()));
  w.file = std::fopen(path.c_str(), "we");
  if (w.file == nullptr) {
    log(XHAL_LOG_ERROR, "trace: {} cannot be written: {}", path, std::strerror(errno));
    return;
  }
  std::fputs("[\n", w.file);
  w.first = true;
  w.tsc0 = __rdtsc();
  w.ns0 = now_ns();
  log(XHAL_LOG_INFO, "trace: writing {}", path);
}

void trace_finish() noexcept {
  std::vector<Buffer*> buffers;
  {
    const std::lock_guard lock(writer().mutex);
    buffers = writer().buffers;
  }
  for (auto* b : buffers) {
    const std::lock_guard lock(b->mutex);
    b->flush();
  }
  auto& w = writer();
  const std::lock_guard lock(w.mutex);
  if (w.file == nullptr) return;
  std::fputs("\n]\n", w.file);
  std::fclose(w.file);
  w.file = nullptr;
}

}  // namespace xhal
