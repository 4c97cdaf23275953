// SPDX-License-Identifier: Apache-2.0
// steps.cpp: what a soaking thread does with a device: each step checks every answer, and the data
// where nothing failed.
#include <poll.h>
#include <unistd.h>

#include <cstring>
#include <shared_mutex>
#include <thread>

#include "forks.hpp"
#include "world.hpp"

namespace xhal::soak {
namespace {

std::vector<uint8_t> noise(size_t size) {
  std::vector<uint8_t> bytes(size);
  const auto start = me->upto(255);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(start + i * 13);
  return bytes;
}

void expect_same(const Lease& lease, const std::vector<uint8_t>& got,
                 const std::vector<uint8_t>& wanted, const char* what) {
  const auto differ = std::mismatch(got.begin(), got.end(), wanted.begin());
  if (differ.first == got.end()) return;
  complain(lease.id() + ": " + what + ": byte " + std::to_string(differ.first - got.begin()) +
           " of " + std::to_string(got.size()) + " is " + std::to_string(*differ.first) + ", not " +
           std::to_string(*differ.second) + ", though every call returned success");
}

// A host timeline and a stream that waits for its value 1.
Timeline host_timeline(Lease& lease) {
  xhal_timeline* t = nullptr;
  lease.ok("xhal_timeline_create", CALL(xhal_timeline_create, 0, &t));
  return Timeline(t);
}

// A stream that failed for a known reason is recovered; false when the device is lost.
bool recover(Lease& lease, xhal_stream* stream) {
  return lease.ok("xhal_stream_recover", CALL(xhal_stream_recover, stream));
}

bool synchronize(Lease& lease, xhal_stream* stream) {
  return lease.ok("xhal_stream_synchronize", CALL(xhal_stream_synchronize, stream, kSoon));
}

void copies(Lease& lease) {
  auto* const stream = lease.stream();
  if (stream == nullptr) return;
  const auto size = 1 + me->upto(100'000);
  const auto memory = lease.memory(size);
  if (!memory) return;
  const auto data = noise(size);
  std::vector<uint8_t> back(size);
  if (lease.ok("copy in", CALL(xhal_stream_copy, stream, *memory, address_of(data.data()), size)) &&
      lease.ok("copy out",
               CALL(xhal_stream_copy, stream, address_of(back.data()), *memory, size)) &&
      synchronize(lease, stream))
    return expect_same(lease, back, data, "copied in and out");
  // After a loss the copies were dropped: nobody touches the vectors any more.
}

void fills(Lease& lease) {
  auto* const stream = lease.stream();
  if (stream == nullptr) return;
  const auto size = 8 * (1 + me->upto(4096));
  const auto memory = lease.memory(size);
  if (!memory) return;
  const auto value = static_cast<uint8_t>(me->upto(255));
  std::vector<uint8_t> back(size);
  if (lease.ok("fill", CALL(xhal_stream_fill, stream, *memory, size, value, 1)) &&
      lease.ok("copy out",
               CALL(xhal_stream_copy, stream, address_of(back.data()), *memory, size)) &&
      synchronize(lease, stream))
    expect_same(lease, back, std::vector<uint8_t>(size, value), "filled");
}

// From one device to another, in the order that an event gives.
void peers(Lease& lease) {
  Lease other(device_ids()[me->upto(device_ids().size() - 1)]);
  if (!other.usable()) return;
  auto *const here = lease.stream(), *const there = other.stream();
  if (here == nullptr || there == nullptr) return;
  const auto size = 1 + me->upto(50'000);
  const auto from = lease.memory(size), to = other.memory(size);
  if (!from || !to) return;
  // Either device may be lost, and then its neighbour's stream fails for its sake.
  const auto either = [&](Lease& acting, const char* what, xhal_status status) {
    if (status == XHAL_OK) return true;
    const bool may = lease.may_be_lost() || other.may_be_lost();
    if (may && (status == XHAL_ERR_DEVICE_LOST || status == XHAL_ERR_DEPENDENCY)) return false;
    return acting.ok(what, status);
  };
  const auto data = noise(size);
  std::vector<uint8_t> back(size);
  xhal_event filled{};
  const bool done =
      either(lease, "copy in",
             CALL(xhal_stream_copy, here, *from, address_of(data.data()), size)) &&
      either(lease, "record", CALL(xhal_event_record, here, 0, &filled)) &&
      either(other, "wait_event", CALL(xhal_stream_wait_event, there, &filled)) &&
      either(other, "copy between devices", CALL(xhal_stream_copy, there, *to, *from, size)) &&
      either(other, "copy out",
             CALL(xhal_stream_copy, there, address_of(back.data()), *to, size)) &&
      either(other, "synchronize", CALL(xhal_stream_synchronize, there, kSoon));
  if (done) return expect_same(lease, back, data, ("copied to " + other.id()).c_str());
  // Nothing may touch the vectors when they go: both streams have ended or failed.
  either(lease, "synchronize", CALL(xhal_stream_synchronize, here, kSoon));
  either(other, "synchronize", CALL(xhal_stream_synchronize, there, kSoon));
  either(lease, "recover", CALL(xhal_stream_recover, here));
  either(other, "recover", CALL(xhal_stream_recover, there));
}

void events(Lease& lease) {
  auto* const stream = lease.stream();
  if (stream == nullptr) return;
  xhal_event event{};
  if (lease.ok("record", CALL(xhal_event_record, stream, 0, &event)) &&
      lease.ok("xhal_event_wait", CALL(xhal_event_wait, &event, kSoon))) {
    me->reached.push_back(event);
    if (me->reached.size() > 256) me->reached.erase(me->reached.begin(), me->reached.begin() + 64);
  }
  for (const auto& old : me->reached) {
    const auto status = CALL(xhal_event_query, &old);
    if (status != XHAL_OK)
      return complain(describe("an event that was reached long ago: xhal_event_query", status));
  }
}

void count_callback(void*, xhal_status) { ++totals.callbacks_called; }

void timelines(Lease& lease) {
  const auto t = host_timeline(lease), other = host_timeline(lease);
  if (!t || !other) return;
  int32_t fd = -1, exported = -1;
  uint64_t offset = 0;
  ++totals.callbacks_wanted;
  lease.ok("notify", CALL(xhal_timeline_notify, t.get(), 1, count_callback, nullptr));
  lease.ok("eventfd", CALL(xhal_timeline_eventfd, t.get(), 1, &fd));
  Timeline view;
  if (lease.ok("export", CALL(xhal_timeline_export, t.get(), &exported, &offset))) {
    xhal_timeline* imported = nullptr;
    if (lease.ok("import", CALL(xhal_timeline_import, exported, offset, &imported)))
      view.reset(imported);
    ::close(exported);
  }
  xhal_timeline* const both[] = {other.get(), t.get()};
  const uint64_t values[] = {1, 1};
  uint32_t which = 9;
  lease.ok("wait_many", CALL(xhal_timeline_wait_many, both, values, 2, 1, 0, &which),
           {XHAL_ERR_TIMEOUT});
  if (me->chance(4)) ::close(std::exchange(fd, -1));  // nobody waits for it any more
  if (view && me->chance(3)) view.reset();
  lease.ok("signal", CALL(xhal_timeline_signal, t.get(), 1));
  lease.ok("wait_many", CALL(xhal_timeline_wait_many, both, values, 2, 1, kSoon, &which));
  if (which != 1) complain("wait_many named " + std::to_string(which) + ", not the reached one");
  if (view) lease.ok("wait on a view", CALL(xhal_timeline_wait, view.get(), 1, kSoon));
  if (CALL(xhal_timeline_query, other.get(), 1, nullptr) != XHAL_NOT_READY)
    complain("a timeline that nobody signalled is reached");
  if (fd >= 0) {
    pollfd readable{fd, POLLIN, 0};
    if (poll(&readable, 1, 60'000) != 1) complain("an event descriptor was never readable");
    ::close(fd);
  }
}

// Work that waits for a signal: which comes, or fails, or never can.
void gates(Lease& lease) {
  auto* const stream = lease.stream();
  auto gate = host_timeline(lease);
  if (stream == nullptr || !gate) return;
  const auto size = 8 * (1 + me->upto(512));
  const auto memory = lease.memory(size);
  if (!memory) return;
  const auto value = static_cast<uint8_t>(me->upto(255));
  std::vector<uint8_t> back(size);
  bool queued =
      lease.ok("wait", CALL(xhal_stream_wait, stream, gate.get(), 1)) &&
      lease.ok("fill", CALL(xhal_stream_fill, stream, *memory, size, value, 1)) &&
      lease.ok("copy out", CALL(xhal_stream_copy, stream, address_of(back.data()), *memory, size));
  if (queued) {
    ++totals.callbacks_wanted;
    queued = lease.ok("host_call", CALL(xhal_stream_host_call, stream, count_callback, nullptr, 0));
    if (!queued) --totals.callbacks_wanted;  // what was refused is not called
  }
  xhal_event after{};
  queued = queued && lease.ok("record", CALL(xhal_event_record, stream, 0, &after));
  const auto fate = me->upto(3);
  if (fate == 0) {
    gate.reset();
  } else if (fate == 1) {
    xhal_error error{};
    error.struct_size = sizeof error;
    error.status = XHAL_ERR_DEVICE;
    error.text = str("the gate failed, on purpose");
    lease.ok("fail", CALL(xhal_timeline_fail, gate.get(), &error));
    ++totals.failures;
  } else {
    lease.ok("signal", CALL(xhal_timeline_signal, gate.get(), 1));
  }
  if (fate > 1) {
    if (synchronize(lease, stream) && queued)
      expect_same(lease, back, std::vector<uint8_t>(size, value), "filled behind a gate");
    return;
  }
  const auto status =
      queued ? CALL(xhal_event_wait, &after, kSoon) : CALL(xhal_stream_synchronize, stream, kSoon);
  if (status == XHAL_OK && queued)
    complain(lease.id() + ": work behind a gate that failed has run");
  lease.ok("work behind a gate that failed", status, {XHAL_ERR_DEPENDENCY});
  // The failure may still be on its way to the stream.
  lease.ok("synchronize", CALL(xhal_stream_synchronize, stream, kSoon), {XHAL_ERR_DEPENDENCY});
  recover(lease, stream) && synchronize(lease, stream);
}

void captures(Lease& lease) {
  if (lease.plugin() == "remote") return;
  auto* const stream = lease.stream();
  auto* const pool = lease.pool();
  if (stream == nullptr || pool == nullptr || !synchronize(lease, stream)) return;
  const auto size = 512 * (1 + me->upto(1000));
  const auto result = lease.memory(size);
  if (!result) return;
  const auto value = static_cast<uint8_t>(me->upto(255));
  if (!lease.ok("begin_capture", CALL(xhal_stream_begin_capture, stream, pool))) return;
  uint64_t block = 0;
  bool whole = lease.ok("pool_alloc in a capture",
                        CALL(xhal_pool_alloc, pool, stream, size, str("captured"), &block),
                        {XHAL_ERR_OUT_OF_MEMORY});
  whole = whole && lease.ok("fill", CALL(xhal_stream_fill, stream, block, size, value, 1)) &&
          lease.ok("copy", CALL(xhal_stream_copy, stream, *result, block, size));
  if (block != 0) lease.ok("pool_free", CALL(xhal_pool_free, pool, block, nullptr, 0));
  xhal_graph* graph = nullptr;
  if (!lease.ok("end_capture", CALL(xhal_stream_end_capture, stream, &graph), {XHAL_ERR_CAPTURE}))
    return;
  ++totals.captures;
  // Eager work of the same pool beside it: its blocks are its own.
  uint64_t eager = 0;
  const auto other = static_cast<uint8_t>(value + 1);
  const bool beside =
      lease.ok("pool_alloc", CALL(xhal_pool_alloc, pool, stream, size, str("eager"), &eager),
               {XHAL_ERR_OUT_OF_MEMORY}) &&
      lease.ok("fill", CALL(xhal_stream_fill, stream, eager, size, other, 1));
  bool replayed = whole;
  for (int i = 0; i < 3 && replayed; ++i)
    replayed = lease.ok("graph_launch", CALL(xhal_graph_launch, stream, graph));
  std::vector<uint8_t> back(size), back_eager(size);
  // What a loss has refused is not looked at, though the stream may still be told of it only later.
  if (replayed) {
    replayed = lease.ok("copy out",
                        CALL(xhal_stream_copy, stream, address_of(back.data()), *result, size)) &&
               (!beside || lease.ok("copy out", CALL(xhal_stream_copy, stream,
                                                     address_of(back_eager.data()), eager, size)));
  }
  if (synchronize(lease, stream) && replayed) {
    expect_same(lease, back, std::vector<uint8_t>(size, value), "captured");
    if (beside) {
      expect_same(lease, back_eager, std::vector<uint8_t>(size, other),
                  "an eager block beside a graph");
    }
  }
  if (eager != 0) lease.ok("pool_free", CALL(xhal_pool_free, pool, eager, nullptr, 0));
  lease.ok("graph_destroy", CALL(xhal_graph_destroy, graph));
}

// A kernel that fails: its stream says so and recovers, the others go on.
void failures(Lease& lease) {
  if (lease.plugin() == "cpu") return;
  auto *const stream = lease.stream(), *const other = lease.stream();
  if (stream == nullptr || other == nullptr) return;
  xhal_module_info info{};
  info.struct_size = sizeof info;
  info.format = str(lease.plugin());
  const auto name = "kernels of thread " + std::to_string(me->number);
  info.name = str(name);
  xhal_module* module = nullptr;
  xhal_kernel* kernel = nullptr;
  if (!lease.ok("module_load", CALL(xhal_module_load, lease.context(), &info, &module))) return;
  const Module owned(module);
  if (!lease.ok("module_kernel", CALL(xhal_module_kernel, module, str("fail"), &kernel))) return;
  xhal_timeline* t = nullptr;
  if (!lease.ok("stream_timeline", CALL(xhal_stream_timeline, stream, &t))) return;
  xhal_grid grid{};
  grid.struct_size = sizeof grid;
  if (!lease.ok("kernel_launch", CALL(xhal_kernel_launch, stream, kernel, &grid, nullptr, 0)))
    return;
  ++totals.failures;
  const auto status = CALL(xhal_timeline_wait, t, UINT64_MAX - 1, kSoon);
  if (status == XHAL_OK) complain("a value that nobody records is reached");
  lease.ok("wait for a failed kernel", status, {XHAL_ERR_DEVICE});
  if (lease.lost()) return;
  lease.ok("a submission to a failed stream", CALL(xhal_stream_synchronize, stream, kSoon),
           {XHAL_ERR_DEVICE});
  if (recover(lease, stream)) synchronize(lease, stream);
  if (other != stream) synchronize(lease, other);
}

void pools(Lease& lease) {
  auto* const pool = lease.pool();
  if (pool == nullptr) return;
  struct Block {
    uint64_t address, size;
    xhal_stream* stream;
    uint8_t value;
  };
  std::vector<Block> blocks;
  for (int i = 0; i < 6; ++i) {
    auto* const stream = lease.stream();
    if (stream == nullptr) break;
    const auto size = 512 * (1 + me->upto(2500));
    uint64_t address = 0;
    if (!lease.ok("pool_alloc", CALL(xhal_pool_alloc, pool, stream, size, str("soak"), &address),
                  {XHAL_ERR_OUT_OF_MEMORY}))
      continue;
    const auto value = static_cast<uint8_t>(me->upto(255));
    lease.ok("fill", CALL(xhal_stream_fill, stream, address, size, value, 1));
    blocks.push_back({address, size, stream, value});
    if (me->chance(3)) lease.ok("pool_trim", CALL(xhal_pool_trim, pool, 0));
  }
  for (const auto& block : blocks) {
    std::vector<uint8_t> back(block.size);
    if (lease.ok("copy out", CALL(xhal_stream_copy, block.stream, address_of(back.data()),
                                  block.address, block.size)) &&
        synchronize(lease, block.stream)) {
      expect_same(lease, back, std::vector<uint8_t>(block.size, block.value), "a pool block");
    }
    xhal_event used{};
    const bool recorded = lease.ok("record", CALL(xhal_event_record, block.stream, 0, &used));
    lease.ok("pool_free", CALL(xhal_pool_free, pool, block.address, &used, recorded ? 1 : 0));
  }
  xhal_pool_stats stats{};
  stats.struct_size = sizeof stats;
  if (lease.ok("pool_query", CALL(xhal_pool_query, pool, &stats)) &&
      stats.reserved_bytes > (6u << 20))
    complain("a pool holds more than its limit");
}

void pinned(Lease& lease) {
  auto* const stream = lease.stream();
  if (stream == nullptr) return;
  const auto size = 1 + me->upto(20'000);
  const auto memory = lease.memory(size);
  void *in = nullptr, *out = nullptr;
  if (!memory || !lease.ok("host_alloc", CALL(xhal_host_alloc, size, &in))) return;
  lease.ok("host_alloc", CALL(xhal_host_alloc, size, &out));
  const auto data = noise(size);
  std::memcpy(in, data.data(), size);
  if (lease.ok("copy in", CALL(xhal_stream_copy, stream, *memory, address_of(in), size)) &&
      lease.ok("copy out", CALL(xhal_stream_copy, stream, address_of(out), *memory, size)) &&
      synchronize(lease, stream)) {
    const auto* const bytes = static_cast<const uint8_t*>(out);
    expect_same(lease, {bytes, bytes + size}, data, "through pinned memory");
  }
  // A card that is lost may still be reading: it is another process, and memory it maps stays.
  lease.ok("host_free", CALL(xhal_host_free, in));
  lease.ok("host_free", CALL(xhal_host_free, out));
}

void contexts(Lease& lease) {
  if (lease.plugin() == "remote") return;
  xhal_context_info info{};
  info.struct_size = sizeof info;
  info.quota_bytes = 1 << 20;
  xhal_context* context = nullptr;
  if (!lease.ok("context_create", CALL(xhal_context_create, lease.device(), &info, &context),
                {XHAL_ERR_UNSUPPORTED}))
    return;
  xhal_stream* stream = nullptr;
  if (lease.ok("stream_create", CALL(xhal_stream_create, context, nullptr, &stream))) {
    lease.count_lost_stream();
    uint64_t address = 0;
    xhal_memory_info memory{};
    memory.struct_size = sizeof memory;
    memory.kind = XHAL_MEMORY_DEVICE;
    memory.size_bytes = 4096;
    if (lease.ok("memory_alloc", CALL(xhal_memory_alloc, context, &memory, &address)) &&
        lease.ok("fill", CALL(xhal_stream_fill, stream, address, 4096, 1, 1))) {
      synchronize(lease, stream);
      memory.size_bytes = 2 << 20;
      uint64_t more = 0;
      if (CALL(xhal_memory_alloc, context, &memory, &more) == XHAL_OK)
        complain("a context has more than its quota");
    }
    if (me->chance(2)) lease.ok("stream_destroy", CALL(xhal_stream_destroy, stream));
  }
  lease.ok("context_destroy", CALL(xhal_context_destroy, context));
}

// Held launches whose operator is destroyed before they run.
void operators(Lease& lease) {
  if (lease.plugin() != "cpu") return;
  auto* const stream = lease.stream();
  const auto gate = host_timeline(lease);
  const auto memory = lease.memory(4096);
  if (stream == nullptr || !gate || !memory) return;
  me->place->enter("xhal_op_prepare");
  auto op = prepare(lease.context(), XHAL_OP_fill, {{tensor(XHAL_CODE_FLOAT, 32, {1024})}});
  const auto value = static_cast<float>(me->upto(1000));
  const auto number = scalar(static_cast<double>(value));
  lease.ok("wait", CALL(xhal_stream_wait, stream, gate.get(), 1));
  bool queued =
      lease.ok("op_launch", CALL(xhal_op_launch, stream, op.get(), &*memory, 1, &number, 1, 0));
  op.reset();
  std::vector<float> back(1024);
  queued = lease.ok("copy out",
                    CALL(xhal_stream_copy, stream, address_of(back.data()), *memory, 4096)) &&
           queued;
  lease.ok("signal", CALL(xhal_timeline_signal, gate.get(), 1));
  if (synchronize(lease, stream) && queued &&
      std::any_of(back.begin(), back.end(), [&](float got) { return got != value; }))
    complain("a held operator computed something else");
}

// One stream that all threads submit to; now and then somebody fails it and recovers it.
struct SharedStream {
  std::shared_mutex mutex;  // recover is the caller's to keep apart from submissions
  xhal_device* device = nullptr;
  xhal_stream* stream = nullptr;
};
SharedStream& shared_stream() {
  static auto* const shared = new SharedStream;
  return *shared;
}

void shared(Lease& lease) {
  if (lease.plugin() != "cpu") return;
  auto& s = shared_stream();
  if (me->chance(8)) {
    const std::unique_lock lock(s.mutex);
    if (s.stream == nullptr || me->chance(3)) {
      if (s.stream != nullptr) lease.ok("stream_destroy", CALL(xhal_stream_destroy, s.stream));
      if (s.device != nullptr) lease.ok("device_close", CALL(xhal_device_close, s.device));
      s.stream = nullptr;
      xhal_device_info record{};
      lease.ok("device_query", CALL(xhal_device_query, lease.device(), &record));
      xhal_device_open_info info{};
      info.struct_size = sizeof info;
      info.index = record.index;
      xhal_context* context = nullptr;
      if (!lease.ok("device_open", CALL(xhal_device_open, &info, &s.device, &context))) return;
      lease.ok("stream_create", CALL(xhal_stream_create, context, nullptr, &s.stream));
      return;
    }
    auto failed = host_timeline(lease);
    lease.ok("wait", CALL(xhal_stream_wait, s.stream, failed.get(), 1));
    failed.reset();
    lease.ok("synchronize", CALL(xhal_stream_synchronize, s.stream, kSoon),
             {XHAL_ERR_DEPENDENCY, XHAL_ERR_ABANDONED});
    recover(lease, s.stream) && synchronize(lease, s.stream);
    ++totals.failures;
    return;
  }
  const std::shared_lock lock(s.mutex);
  if (s.stream == nullptr) return;
  const auto memory = lease.memory(4096);
  if (!memory) return;
  std::vector<uint8_t> back(4096);
  const auto value = static_cast<uint8_t>(me->upto(255));
  if (lease.ok("fill", CALL(xhal_stream_fill, s.stream, *memory, 4096, value, 1)) &&
      lease.ok("copy out",
               CALL(xhal_stream_copy, s.stream, address_of(back.data()), *memory, 4096)) &&
      synchronize(lease, s.stream))
    expect_same(lease, back, std::vector<uint8_t>(4096, value), "on a stream of all threads");
}

}  // namespace

void close_shared_stream() {
  auto& s = shared_stream();
  if (s.stream != nullptr) (void)xhal_stream_destroy(s.stream);
  if (s.device != nullptr) (void)xhal_device_close(s.device);
  s.stream = nullptr;
  s.device = nullptr;
}

const std::vector<Step>& steps() {
  static const std::vector<Step> all = {
      {"copies", 10, copies},    {"fills", 10, fills},        {"peers", 6, peers},
      {"events", 10, events},    {"timelines", 8, timelines}, {"gates", 8, gates},
      {"captures", 6, captures}, {"failures", 6, failures},   {"pools", 8, pools},
      {"pinned", 6, pinned},     {"contexts", 6, contexts},   {"operators", 6, operators},
      {"shared", 8, shared},     {"callbacks", 4, callbacks}, {"forks", 1, forks},
      {"losses", 1, losses}};
  return all;
}

}  // namespace xhal::soak
