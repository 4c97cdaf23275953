// SPDX-License-Identifier: Apache-2.0
// stream_run.cpp: the execution side of a stream: what its owner does.
#include <new>
#include <utility>

#include "device.hpp"
#include "graph.hpp"
#include "module.hpp"
#include "stream.hpp"
#include "transfer.hpp"

namespace xhal::cpu {
namespace {

// Work shorter than this gains nothing from a second thread, shorter than that not enough
// to wake one.
constexpr uint32_t kParallelNs = 6'000;
constexpr uint32_t kWakeNs = 60'000;
// So long a stream may keep an executor that others of its priority wait for.
constexpr uint64_t kTurnNs = 1'000'000;

// Streams that become idle raise it when somebody waits for that. Process-wide, because the stream
// may be gone by then.
std::atomic<uint32_t> idle_epoch{0};

void bump(std::atomic<uint64_t>& counter, uint64_t by) {
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

}  // namespace

void announce_idle() {
  idle_epoch.fetch_add(1);
  futex_wake(idle_epoch, INT_MAX);
}

void wait_until_idle(const std::function<bool()>& idle) {
  for (;;) {
    const uint32_t seen = idle_epoch.load();
    if (idle()) return;
    futex_wait(idle_epoch, seen);
  }
}

Failure Failure::from(const xhal_error& error) {
  const auto copy = [](xhal_string s) { return std::string(plugin::view(s)); };
  return {error.status, error.cause, copy(error.operation), copy(error.text),
          copy(error.cause_text)};
}

Failure Failure::dependent(const char* dropped) const {
  if (status == XHAL_ERR_SHUTDOWN) return *this;
  Failure f;
  f.status = XHAL_ERR_DEPENDENCY;
  f.cause = cause == XHAL_OK ? status : cause;
  f.cause_text = cause == XHAL_OK ? text : cause_text;
  f.operation = dropped;
  f.text =
      std::string(dropped) + " was not run, because work it depends on failed: " + f.cause_text;
  return f;
}

xhal_error Failure::view() const {
  xhal_error e{};
  e.struct_size = sizeof e;
  e.status = status;
  e.scope = XHAL_SCOPE_OPERATION;
  e.operation = plugin::str(operation);
  e.text = plugin::str(text);
  e.cause = cause;
  e.cause_text = plugin::str(cause_text);
  return e;
}

void Stream::fail(Failure failure) {
  if (failed_.load(std::memory_order_relaxed)) return;
  failure_ = std::move(failure);
  failed_.store(true, std::memory_order_release);
  xhal_error error = failure_.view();
  error.stream = plugin::host().object_number(this);
  error.context = plugin::host().object_number(&context_);
  plugin::host().timeline_fail(timeline_, &error);
}

void Stream::fail_operation(xhal_status status, std::string_view operation, std::string text) {
  Failure f;
  f.status = status;
  f.operation = operation;
  // Kernels begin their texts with their name, which stands here already.
  if (const auto name = std::string(operation) + ": "; text.starts_with(name))
    text.erase(0, name.size());
  f.text = std::string(operation) + " failed: " +
           (text.empty() ? std::string("the operator gave no reason") : std::move(text)) +
           ".\n  Later work of this stream is dropped until xhal_stream_recover.";
  fail(std::move(f));
}

void Stream::fail_aborted() {
  Failure f;
  f.status = XHAL_ERR_DEVICE;
  f.operation = "xhal_stream_abort";
  f.text =
      "the stream was aborted before its work had run.\n"
      "  Later work of this stream is dropped until xhal_stream_recover.";
  fail(std::move(f));
}

// Why work is dropped: the stream's own failure, or the one that libxhal has given to its timeline.
const Failure& Stream::reason() {
  if (failed_.load(std::memory_order_relaxed)) return failure_;
  xhal_error error{};
  if (plugin::host().timeline_poll(timeline_, UINT64_MAX, &error) < 0) {
    failure_ = Failure::from(error);
  } else {
    failure_.status = XHAL_ERR_ABANDONED;
    failure_.text =
        "the work was dropped: its stream was recovered or its device closed before it ran";
  }
  failed_.store(true, std::memory_order_release);
  return failure_;
}

bool Stream::release() {
  uint64_t state = state_.load(std::memory_order_acquire);
  while (state < kOne) {
    const bool awaited = (state & kAwaited) != 0;
    if (!state_.compare_exchange_weak(state, 0, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
      continue;
    if (awaited) announce_idle();  // from here on the stream may be gone
    return true;
  }
  return false;
}

void Stream::wait_idle() {
  wait_until_idle([this] {
    uint64_t state = state_.load();
    while (state != 0 && (state & kAwaited) == 0) {
      if (state_.compare_exchange_weak(state, state | kAwaited)) break;
    }
    return state == 0 && detached_.load() == 0;
  });
}

void Stream::drain() {
  const uint64_t begin = ticks(), turn = ticks_of(kTurnNs);
  for (;;) {
    if (waits() && !settle()) return;
    const uint64_t count = state_.load(std::memory_order_acquire) / kOne;
    if (count == 0) {
      if (release()) return;
      continue;
    }
    uint64_t done = 0;
    bool give_way = false;
    while (done < count && !waits() && !give_way) {
      Command& command = *queue_.front();
      if (stopped()) {
        drop(command);
      } else {
        execute(command, command.correlation);
      }
      queue_.pop();
      ++done;
      consumed_.store(consumed_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
      auto& executors = device_.executors();
      give_way = executors.wanted(ready_.priority - 1) ||
                 (executors.wanted(ready_.priority) && ticks() - begin > turn);
    }
    state_.fetch_sub(done * kOne, std::memory_order_acq_rel);
    if (give_way && !waits()) {
      if (!release()) hand_over();
      return;
    }
  }
}

void Stream::execute(Command& command, uint64_t correlation) {
  switch (command.kind) {
    case Kind::op: {
      auto& c = static_cast<OpCommand&>(command);
      if ((c.flags & OpCommand::kRawScalars) == 0) {
        return run_op(*c.op, c.pointers(), c.scalars(), c.workspace, correlation);
      }
      Scalar values[kMaxScalars];
      read_scalars(*c.op, device_.memory(), c.raw_scalars(), c.scalar_count, values);
      return run_op(*c.op, c.pointers(), values, c.workspace, correlation);
    }
    case Kind::copy: {
      const auto& c = static_cast<CopyCommand&>(command);
      return run_copy(c.dst, c.src, c.size_bytes, correlation);
    }
    case Kind::fill: {
      const auto& c = static_cast<FillCommand&>(command);
      return run_fill(c.dst, c.size_bytes, c.pattern, c.pattern_bytes, correlation);
    }
    case Kind::host_call:
      return run_host_call(static_cast<HostCallCommand&>(command), correlation);
    case Kind::signal: {
      const auto& c = static_cast<SignalCommand&>(command);
      return run_signal(c.timeline, c.value, c.timestamp);
    }
    case Kind::wait: {
      const auto& c = static_cast<WaitCommand&>(command);
      awaited_ = c.timeline;
      awaited_value_ = c.value;
      return;
    }
    case Kind::kernel:
      return run_kernel(static_cast<KernelCommand&>(command), correlation);
    case Kind::graph: {
      awaited_graph_ = static_cast<GraphCommand&>(command).graph;
      awaited_correlation_ = correlation;
      return;
    }
    case Kind::jump:
      return;
  }
}

void Stream::drop(Command& command) {
  switch (command.kind) {
    case Kind::host_call: {
      const auto& c = static_cast<HostCallCommand&>(command);
      const xhal_status status = reason().status;
      const Executors::Blocking blocking(device_.executors());
      return c.callback(c.user, status);
    }
    case Kind::signal: {
      const auto& c = static_cast<SignalCommand&>(command);
      if (c.timeline == timeline_) return;  // has failed already
      const Failure f = reason().dependent("xhal_stream_signal");
      const xhal_error error = f.view();
      return plugin::host().timeline_fail(c.timeline, &error);
    }
    case Kind::graph:
      return drop_graph(*static_cast<GraphCommand&>(command).graph);
    default:
      return;
  }
}

void Stream::drop_graph(Graph& graph) {
  for (Command* command : graph.commands()) drop(*command);
  graph.finished();
}

void Stream::finish(uint32_t activity_kind, uint32_t operation, uint64_t start, uint64_t end,
                    uint64_t bytes, uint64_t correlation) {
  bump(counters_.operations, 1);
  bump(counters_.busy_ticks, end - start);
  if (device_.activity().on()) [[unlikely]]
    report(activity_kind, operation, start, end, bytes, correlation);
}

void Stream::report(uint32_t activity_kind, uint32_t operation, uint64_t start, uint64_t end,
                    uint64_t bytes, uint64_t correlation) {
  xhal_activity record{};
  record.correlation = correlation;
  record.stream = plugin::host().object_number(this);
  record.kind = activity_kind;
  record.operation = operation;
  record.end_ns = now_ns() - ns_of(ticks() - end);
  record.start_ns = record.end_ns - ns_of(end - start);
  record.bytes = bytes;
  device_.activity().add(record, device_.executors());
}

void Stream::run_op(const PreparedOp& op, void* const* pointers, const Scalar* scalars,
                    void* workspace, uint64_t correlation) {
  const uint32_t cost = op.cost.ns();
  PoolView pool(device_.workers(), cost >= kParallelNs, cost >= kWakeNs);
  std::string error;
  xhal_status status;
  const uint64_t start = ticks();
  try {
    status = op.op->run({pointers, scalars, workspace, pool, &error});
  } catch (const std::bad_alloc&) {
    status = XHAL_ERR_OUT_OF_MEMORY;
    error = "no host memory for its temporary data";
  } catch (const std::exception& e) {
    status = XHAL_ERR_INTERNAL;
    error = e.what();
  }
  const uint64_t end = ticks();
  if (device_.take_injected_failure()) [[unlikely]] {
    status = XHAL_ERR_DEVICE;
    error = "the fault was injected through the control table";
  }
  op.cost.measured(end - start, pool.most_helpers());
  finish(XHAL_ACTIVITY_OPERATOR, op.id, start, end, static_cast<uint64_t>(op.op->bytes),
         correlation);
  if (status != XHAL_OK) [[unlikely]]
    fail_operation(status, op.name, std::move(error));
}

void Stream::run_copy(void* dst, const void* src, uint64_t size_bytes, uint64_t correlation) {
  const uint32_t cost = cost_of_copy(size_bytes);
  PoolView pool(device_.workers(), cost >= kParallelNs, cost >= kWakeNs);
  const uint64_t start = ticks();
  copy_memory(pool, dst, src, size_bytes);
  bump(counters_.copied_bytes, size_bytes);
  finish(XHAL_ACTIVITY_COPY, 0, start, ticks(), size_bytes, correlation);
}

void Stream::run_fill(void* dst, uint64_t size_bytes, uint64_t pattern, uint32_t pattern_bytes,
                      uint64_t correlation) {
  const uint32_t cost = cost_of_fill(size_bytes);
  PoolView pool(device_.workers(), cost >= kParallelNs, cost >= kWakeNs);
  const uint64_t start = ticks();
  fill_memory(pool, dst, size_bytes, pattern, pattern_bytes);
  finish(XHAL_ACTIVITY_FILL, 0, start, ticks(), size_bytes, correlation);
}

void Stream::run_host_call(const HostCallCommand& call, uint64_t correlation) {
  if ((call.call_flags & XHAL_HOST_CALL_NON_BLOCKING) != 0) return detach(call);
  const uint64_t start = ticks();
  {
    const Executors::Blocking blocking(device_.executors());
    call.callback(call.user, XHAL_OK);
  }
  finish(XHAL_ACTIVITY_HOST_CALL, 0, start, ticks(), 0, correlation);
}

void Stream::run_kernel(KernelCommand& command, uint64_t correlation) {
  PoolView pool(device_.workers(), true, true);
  const uint64_t start = ticks();
  {
    const Executors::Blocking blocking(device_.executors());
    cpu::run_kernel(pool, command);
  }
  finish(XHAL_ACTIVITY_KERNEL, 0, start, ticks(), 0, correlation);
}

// The graph is taken; gives it back.
void Stream::run_graph(Graph& graph, uint64_t correlation) {
  const uint64_t start = ticks();
  for (Command* command : graph.commands()) {
    if (stopped()) {
      drop(*command);
    } else {
      execute(*command, correlation);
    }
  }
  const uint64_t end = ticks();
  if (!stopped()) graph.cost().measured(end - start, 0);
  graph.give_back();
  graph.finished();
  if (device_.activity().on()) report(XHAL_ACTIVITY_GRAPH, 0, start, end, 0, correlation);
}

// Runs a host call beside the stream, which goes on.
void Stream::detach(const HostCallCommand& call) {
  struct Detached : Task {
    xhal_host_fn callback;
    void* user;
  };
  auto* detached = new (std::nothrow) Detached;
  if (detached == nullptr) return call.callback(call.user, XHAL_OK);
  detached->owner = this;
  detached->priority = ready_.priority;
  detached->callback = call.callback;
  detached->user = call.user;
  detached->run = [](Task* task) {
    auto* self = static_cast<Detached*>(task);
    auto& stream = *static_cast<Stream*>(self->owner);
    {
      const Executors::Blocking blocking(stream.device_.executors());
      self->callback(self->user, XHAL_OK);
    }
    delete self;
    if (stream.detached_.fetch_sub(1) == 1) announce_idle();  // from here on the stream may be gone
  };
  detached_.fetch_add(1);
  device_.executors().push(detached);
}

void Stream::run_signal(xhal_timeline* timeline, uint64_t value, xhal_timestamp* timestamp) {
  if (timestamp != nullptr) {
    std::atomic_ref(timestamp->device_ns).store(now_ns(), std::memory_order_relaxed);
    const uint32_t slot = std::atomic_ref(timestamp->pending).load(std::memory_order_relaxed);
    std::atomic_ref(timestamp->slot).store(slot, std::memory_order_release);
  }
  plugin::host().timeline_advance(timeline, value);
}

// A stream that waits for a timeline. Owned by the callback and the stream; whoever is
// second frees it.
struct Parked {
  enum : uint32_t { kArming, kParked, kFired, kCancelled };

  explicit Parked(Stream& s) : stream(s) {}
  void unref() {
    if (references.fetch_sub(1) == 1) delete this;
  }
  static void called(void* user, xhal_status) {
    auto* p = static_cast<Parked*>(user);
    if (p->state.exchange(kFired) == kParked) {
      Stream& stream = p->stream;
      {
        const std::lock_guard lock(stream.producers_);
        stream.parked_ = nullptr;
      }
      p->unref();
      stream.resume();
    }
    p->unref();
  }

  Stream& stream;
  std::atomic<uint32_t> state{kArming};
  std::atomic<uint32_t> references{2};
};

// Asks libxhal to call when the awaited value is reached. True: go on, that is so already; false:
// parked, and the stream is no longer ours to touch.
bool Stream::arm() {
  auto* parked = new (std::nothrow) Parked(*this);
  xhal_status status = parked == nullptr ? XHAL_ERR_OUT_OF_MEMORY : XHAL_OK;
  if (parked != nullptr) {
    {
      const std::lock_guard lock(producers_);
      parked_ = parked;
    }
    status = plugin::host().timeline_notify(awaited_, awaited_value_, Parked::called, parked);
    const std::lock_guard lock(producers_);
    uint32_t arming = Parked::kArming;
    // Under the lock, so that a recovery either finds the stream parked or is seen here.
    const uint32_t next =
        dropping_.load() || status != XHAL_OK ? Parked::kCancelled : Parked::kParked;
    if (parked->state.compare_exchange_strong(arming, next) && next == Parked::kParked)
      return false;
    parked_ = nullptr;
    if (status != XHAL_OK) parked->unref();  // nobody will call
    parked->unref();
  }
  if (status != XHAL_OK)
    fail_operation(status, "xhal_stream_wait", "the wait could not be registered with libxhal");
  return true;
}

bool Stream::settle() { return awaited_ != nullptr ? settle_wait() : settle_graph(); }

bool Stream::settle_graph() {
  Graph& graph = *awaited_graph_;
  if (stopped()) {
    awaited_graph_ = nullptr;
    drop_graph(graph);
    return true;
  }
  if (!graph.take(this)) return false;
  awaited_graph_ = nullptr;
  run_graph(graph, awaited_correlation_);
  return true;
}

bool Stream::settle_wait() {
  while (!stopped()) {
    xhal_error error{};
    const xhal_status status = plugin::host().timeline_poll(awaited_, awaited_value_, &error);
    if (status == XHAL_OK) break;
    if (status < 0) {
      fail(Failure::from(error).dependent("xhal_stream_wait"));
      break;
    }
    if (!arm()) return false;
  }
  awaited_ = nullptr;
  return true;
}

// The awaited value is there, in the thread that signalled it: nothing that lasts may run here.
void Stream::resume() {
  if (!settle_wait()) return;
  if (!release()) hand_over();
}

// Takes the stream away from the timeline it waits for.
void Stream::cancel_park() {
  bool ours = false;
  {
    const std::lock_guard lock(producers_);
    uint32_t parked = Parked::kParked;
    ours = parked_ != nullptr && parked_->state.compare_exchange_strong(parked, Parked::kCancelled);
    if (ours) {
      parked_->unref();
      parked_ = nullptr;
    }
  }
  if (ours) resume();
}

}  // namespace xhal::cpu
