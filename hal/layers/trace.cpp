// SPDX-License-Identifier: Apache-2.0
// trace.cpp: every call of every slot, as a file that Perfetto and chrome://tracing open.
//
// A call costs two reads of the time-stamp counter and one store into the thread's buffer. Full
// buffers go as they are into an unnamed spool file; xhal_shutdown makes the text from it. Copies
// carry their bytes and their direction in an entry of their own, for every byte of an entry is
// written twice. At every moment the file is whole JSON: until the shutdown, and when the disk is
// full, it holds one event that says what is missing.
#include <x86intrin.h>

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/environment.hpp"
#include "core/locks.hpp"
#include "core/log.hpp"
#include "layers/layer_tables.hpp"
#include "memory/address_map.hpp"
#include "sync/timeline.hpp"

namespace xhal {
namespace {

enum class Direction : uint32_t { none, host_to_device, device_to_host, device_to_device };
constexpr const char* kDirections[] = {"", "host to device", "device to host", "device to device"};

struct Call {
  const char* name;
  uint64_t begin, end;  // time-stamp counter
};
// Follows the entry of a copy.
struct Copied {
  uint64_t bytes;
  uint64_t stream;
  Direction direction;
  uint32_t reserved;
};
union Entry {
  Call call;
  Copied copied;
};
static_assert(sizeof(Entry) == sizeof(Call));

constexpr const char* kCopy = "xhal_stream_copy";

constexpr size_t kBuffer = 4096;  // entries

struct Writer {
  Mutex mutex{Rank::layer};
  std::FILE* file = nullptr;   // the JSON text
  std::FILE* spool = nullptr;  // chunks: thread, count, entries
  std::string path;
  uint64_t lost = 0;  // calls that did not reach the spool
  int error = 0;      // why
  uint64_t tsc0 = 0, ns0 = 0;
  std::vector<struct Buffer*> buffers;
};
Writer& writer() {
  static auto* w = new Writer;
  return *w;
}
const AtLoad writer_at_load(writer);

struct ChunkHead {
  uint64_t thread, count;
};

struct Buffer {
  Entry entries[kBuffer];
  std::atomic<size_t> used{0};  // written by the thread alone
  uint64_t thread = static_cast<uint64_t>(gettid());

  Buffer() {
    const std::lock_guard lock(writer().mutex);
    writer().buffers.push_back(this);
  }
  void flush() {
    auto& w = writer();
    const std::lock_guard lock(w.mutex);
    const ChunkHead head{thread, used.load(std::memory_order_acquire)};
    if (w.spool != nullptr && head.count > 0) {
      // After a failure the spool ends in the middle of a chunk: nothing may follow it.
      const bool kept = w.lost == 0 && std::fwrite(&head, sizeof head, 1, w.spool) == 1 &&
                        std::fwrite(entries, sizeof(Entry), head.count, w.spool) == head.count;
      if (!kept && w.lost == 0) w.error = errno;
      if (!kept) w.lost += head.count;
    }
    used.store(0, std::memory_order_relaxed);
  }
};

void write_call(std::FILE* file, bool first, const Call& c, const Copied* copied, uint64_t thread,
                double ns_per_tick, uint64_t tsc0) {
  const double start_us = static_cast<double>(c.begin - tsc0) * ns_per_tick / 1e3;
  const double length_us = static_cast<double>(c.end - c.begin) * ns_per_tick / 1e3;
  auto text = fmt::format(
      "{}{{\"name\":\"{}\",\"ph\":\"X\",\"pid\":{},\"tid\":{},\"ts\":{:.3f},\"dur\":{:.3f}",
      first ? "" : ",\n", c.name, getpid(), thread, start_us, length_us);
  if (copied != nullptr && copied->direction != Direction::none) {
    text +=
        fmt::format(",\"args\":{{\"stream\":{},\"bytes\":{},\"direction\":\"{}\"}}", copied->stream,
                    copied->bytes, kDirections[static_cast<int>(copied->direction)]);
  }
  std::fputs((text + "}").c_str(), file);
}

bool is_regular(std::FILE* file) {
  struct stat info {};
  return fstat(fileno(file), &info) == 0 && S_ISREG(info.st_mode);
}

// Makes the file, from its beginning, one event that tells `what`. False when even that fails.
bool write_notice(std::FILE* file, const std::string& what) {
  std::rewind(file);
  if (ftruncate(fileno(file), 0) != 0) return false;
  std::fputs(
      fmt::format(
          "[\n{{\"name\":\"{}\",\"ph\":\"i\",\"s\":\"g\",\"pid\":{},\"tid\":{},\"ts\":0}}\n]\n",
          what, getpid(), getpid())
          .c_str(),
      file);
  return std::fflush(file) == 0;
}

// The clock is only known well when the whole run is behind us.
void write_text(Writer& w) {
  const double ns_per_tick =
      static_cast<double>(now_ns() - w.ns0) / static_cast<double>(__rdtsc() - w.tsc0);
  std::rewind(w.spool);
  ChunkHead head{};
  bool first = true;
  while (std::fread(&head, sizeof head, 1, w.spool) == 1) {
    for (uint64_t i = 0; i < head.count; ++i) {
      Entry entry{}, more{};
      if (std::fread(&entry, sizeof entry, 1, w.spool) != 1) return;
      const bool is_copy = entry.call.name == kCopy;
      if (is_copy && (++i == head.count || std::fread(&more, sizeof more, 1, w.spool) != 1)) return;
      write_call(w.file, first, entry.call, is_copy ? &more.copied : nullptr, head.thread,
                 ns_per_tick, w.tsc0);
      first = false;
    }
  }
}

// Buffers outlive their threads, so that nothing runs in thread-local destructors.
constinit thread_local Buffer* this_buffer = nullptr;

// nullptr where there is no memory for one: then the trace is incomplete, and says so at its end.
Buffer* buffer() noexcept {
  if (this_buffer != nullptr) [[likely]]
    return this_buffer;
  try {
    this_buffer = new Buffer;
  } catch (...) {
    const std::lock_guard lock(writer().mutex);
    writer().error = ENOMEM;
  }
  return this_buffer;
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
    constexpr bool kIsCopy = std::string_view(kName.text) == kCopy;
    auto* b = buffer();
    if (b == nullptr) [[unlikely]]
      return status;
    size_t at = b->used.load(std::memory_order_relaxed);
    b->entries[at++].call = {kIsCopy ? kCopy : kName.text, begin, end};
    if constexpr (kIsCopy) b->entries[at++].copied = copied(handle, rest...);
    b->used.store(at, std::memory_order_release);
    if (at + 2 > kBuffer) [[unlikely]]
      b->flush();
    return status;
  }

  static Copied copied(xhal_stream* stream, uint64_t dst, uint64_t src, uint64_t size) {
    return {size, private_of(stream)->number, direction_of(dst, src), 0};
  }
};

}  // namespace

void wrap_trace(xhal_dispatch& table) { wrap_table<Trace, Layer::trace>(table); }

void trace_start() {
  auto& w = writer();
  const std::lock_guard lock(w.mutex);
  if (w.file != nullptr) return;
  std::string path = environment_text("XHAL_TRACE_FILE");
  if (path.empty()) path = "xhal-trace-%p.json";
  if (const auto at = path.find("%p"); at != std::string::npos)
    path.replace(at, 2, std::to_string(getpid()));
  w.path = path;
  w.lost = 0;
  w.error = 0;
  w.file = std::fopen(path.c_str(), "we");
  w.spool = w.file == nullptr ? nullptr : std::tmpfile();
  bool good = w.spool != nullptr;
  if (good && is_regular(w.file)) {
    good = write_notice(w.file, fmt::format("incomplete: process {} ended without xhal_shutdown, "
                                            "which writes the calls",
                                            getpid()));
  }
  if (!good) {
    log(XHAL_LOG_ERROR, "trace: {} cannot be written: {}; nothing is traced", path,
        std::strerror(errno));
    for (auto** file : {&w.file, &w.spool}) {
      if (*file != nullptr) std::fclose(std::exchange(*file, nullptr));
    }
    return;
  }
  w.tsc0 = __rdtsc();
  w.ns0 = now_ns();
  log(XHAL_LOG_INFO, "trace: writing {}", path);
}

// Makes the file from the spool. Errors: std::bad_alloc, which leaves it incomplete.
static void finish_file(Writer& w) {
  if (std::fflush(w.spool) != 0) w.error = errno;
  const bool whole_file = is_regular(w.file);
  if (whole_file) {
    std::rewind(w.file);
    if (ftruncate(fileno(w.file), 0) != 0) w.error = errno;
  }
  std::fputs("[\n", w.file);
  write_text(w);
  std::fputs("\n]\n", w.file);
  const bool written = std::fflush(w.file) == 0 && std::ferror(w.file) == 0;
  if (!written) w.error = errno;
  if (w.error != 0) {
    log(XHAL_LOG_ERROR, "trace: {} is incomplete: {}", w.path, std::strerror(w.error));
    if (!written && whole_file) {
      std::clearerr(w.file);
      (void)write_notice(w.file, fmt::format("incomplete: {}", std::strerror(w.error)));
    }
  }
}

// Runs when every table has been switched off: no thread is inside a traced call.
void trace_finish() noexcept {
  auto& w = writer();
  try {
    std::vector<Buffer*> buffers;
    {
      const std::lock_guard lock(w.mutex);
      buffers = w.buffers;
    }
    for (auto* b : buffers) b->flush();
    const std::lock_guard lock(w.mutex);
    if (w.file != nullptr) finish_file(w);
  } catch (const std::exception&) {
    log_line(XHAL_LOG_ERROR, "trace: the file is incomplete: no host memory to write it");
  }
  const std::lock_guard lock(w.mutex);
  for (auto** file : {&w.file, &w.spool}) {
    if (*file != nullptr) std::fclose(std::exchange(*file, nullptr));
  }
}

}  // namespace xhal
