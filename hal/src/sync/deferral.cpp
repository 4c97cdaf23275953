// SPDX-License-Identifier: Apache-2.0
#include "sync/deferral.hpp"

#include <sched.h>

#include <memory>
#include <vector>

#include "core/correlation.hpp"
#include "core/plugin_record.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "sync/release_policy.hpp"

namespace xhal {
namespace {

using Mode = StreamState::Mode;

void set_dispatch(StreamState& stream, const xhal_dispatch* table) {
  if (stream.handle == nullptr || stream.gone.load(std::memory_order_relaxed)) return;
  std::atomic_ref(head_of(stream.handle)->dispatch).store(table, std::memory_order_release);
}

const xhal_dispatch* table_for(StreamState& stream, Mode mode) {
  return mode == Mode::direct ? &stream.device->table : &stream.device->intercept;
}

// Keeps a submission, or refuses it on a failed stream; in direct mode (released
// meanwhile) submits it.
xhal_status hold(xhal_stream* handle, Held item) noexcept {
  try {
    auto& stream = *state_of(handle);
    item.correlation = current_correlation();
    std::unique_lock lock(stream.lock());
    if (stream.mode == Mode::holding) {
      stream.held.push_back(std::move(item));
      lock.unlock();
      if (auto* p = policy(); p != nullptr) p->something_held(stream);
      return XHAL_OK;
    }
    if (stream.mode == Mode::direct) {
      lock.unlock();
      return item.submit();
    }
    const Failure failure = stream.failure;
    lock.unlock();
    if (item.drop_when_refused) item.drop(failure);
    return set_error(*failure);
  } catch (...) {
    return fail(XHAL_ERR_OUT_OF_MEMORY, "submit", "no host memory to hold the submission back");
  }
}

Held submission(std::function<xhal_status()> submit, void* object = nullptr) {
  Held item;
  item.submit = std::move(submit);
  item.object = object;
  if (object != nullptr) pin(object);
  return item;
}

const xhal_dispatch& plugin_of(xhal_stream* stream) { return state_of(stream)->device->table; }

xhal_status no_memory(const char* operation) noexcept {
  return fail(XHAL_ERR_OUT_OF_MEMORY, operation, "{}: no host memory to hold the submission back",
              operation);
}

// Runs `make`, which returns a Held, and keeps it.
template <class Make>
xhal_status held(xhal_stream* stream, const char* operation, Make&& make) noexcept {
  try {
    return hold(stream, make());
  } catch (...) {
    return no_memory(operation);
  }
}

xhal_status held_copy(xhal_stream* stream, uint64_t dst, uint64_t src, uint64_t size) noexcept {
  return held(stream, "xhal_stream_copy", [&] {
    return submission(
        [=] { return load_slot(plugin_of(stream).stream_copy)(stream, dst, src, size); });
  });
}

xhal_status held_fill(xhal_stream* stream, uint64_t dst, uint64_t size, uint64_t pattern,
                      uint32_t bytes) noexcept {
  return held(stream, "xhal_stream_fill", [&] {
    return submission([=] {
      return load_slot(plugin_of(stream).stream_fill)(stream, dst, size, pattern, bytes);
    });
  });
}

xhal_status held_host_call(xhal_stream* stream, xhal_host_fn callback, void* user,
                           uint32_t flags) noexcept {
  return held(stream, "xhal_stream_host_call", [&] {
    Held item = submission([=] {
      return load_slot(plugin_of(stream).stream_host_call)(stream, callback, user, flags);
    });
    item.drop = [=](const Failure& failure) { callback(user, failure->status); };
    return item;
  });
}

// What is decided by now needs no plugin: the timeline may be destroyed, and its handle dead.
xhal_status submit_wait(xhal_stream* stream, Timeline& timeline, uint64_t value) {
  const xhal_status status = timeline.poll(value);
  if (status == XHAL_OK) return XHAL_OK;
  if (status < 0) return set_error(timeline.failure()->dependent("xhal_stream_wait"));
  return load_slot(plugin_of(stream).stream_wait)(stream, timeline.handle(), value);
}

xhal_status held_wait(xhal_stream* stream, xhal_timeline* timeline, uint64_t value) noexcept {
  return held(stream, "xhal_stream_wait", [&] {
    const auto pinned = std::make_shared<TimelinePin>(*Timeline::of(timeline));
    Held item = submission([=] { return submit_wait(stream, *pinned->get(), value); });
    Timeline::of(timeline)->mark_asked(value);
    return item;
  });
}

xhal_status held_signal(xhal_stream* stream, xhal_timeline* timeline, uint64_t value,
                        xhal_timestamp* time) noexcept {
  return held(stream, "xhal_stream_signal", [&] {
    Held item = submission([=] {
      const auto s = load_slot(plugin_of(stream).stream_signal)(stream, timeline, value, time);
      if (s == XHAL_OK) Timeline::of(timeline)->mark_submitted(value);
      return s;
    });
    // It is a promise of the stream's: a timeline that ends before it is kept is not used again.
    auto& t = *Timeline::of(timeline);
    if (t.device == nullptr) t.mark_asked(value);
    item.drop_when_refused = true;
    item.drop = [&t](const Failure& failure) {
      if (t.device == nullptr) t.fail(make_failure(failure->dependent("xhal_stream_signal")));
    };
    return item;
  });
}

xhal_status held_op_launch(xhal_stream* stream, xhal_op* op, const uint64_t* addresses,
                           uint32_t address_count, const xhal_scalar* scalars,
                           uint32_t scalar_count, uint64_t workspace) noexcept {
  constexpr const char* name = "xhal_op_launch";
  // What the plugin would refuse at once is refused at once.
  const uint32_t operands = private_of(op)->operand_count;
  if (address_count != operands) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, name,
                "{}: {} addresses given, it was prepared with {} operands", name, address_count,
                operands);
  }
  if (const uint32_t most = private_of(op)->scalar_limit; scalar_count > most) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, name,
                "{}: {} scalars given, the catalogue knows {} for it", name, scalar_count, most);
  }
  return held(stream, name, [&] {
    std::vector<uint64_t> a(addresses, addresses + address_count);
    std::vector<xhal_scalar> s(scalars, scalars + scalar_count);
    return submission(
        [=, a = std::move(a), s = std::move(s)] {
          return load_slot(plugin_of(stream).op_launch)(stream, op, a.data(),
                                                        static_cast<uint32_t>(a.size()), s.data(),
                                                        static_cast<uint32_t>(s.size()), workspace);
        },
        op);
  });
}

xhal_status held_kernel_launch(xhal_stream* stream, xhal_kernel* kernel, const xhal_grid* grid,
                               const xhal_kernel_arg* args, uint32_t arg_count) noexcept {
  return held(stream, "xhal_kernel_launch", [&] {
    std::vector<xhal_kernel_arg> list(args, args + arg_count);
    std::vector<std::vector<char>> values;  // large values are borrowed for the call only
    for (auto& arg : list) {
      if (arg.kind != XHAL_ARG_VALUE || arg.size_bytes <= 8) continue;
      const auto* bytes = static_cast<const char*>(arg.value.pointer);
      values.emplace_back(bytes, bytes + arg.size_bytes);
      arg.value.pointer = values.back().data();
    }
    return submission(
        [=, g = *grid, list = std::move(list), values = std::move(values)] {
          return load_slot(plugin_of(stream).kernel_launch)(stream, kernel, &g, list.data(),
                                                            static_cast<uint32_t>(list.size()));
        },
        kernel);
  });
}

xhal_status held_graph_launch(xhal_stream* stream, xhal_graph* graph) noexcept {
  return held(stream, "xhal_graph_launch", [&] {
    return submission([=] { return load_slot(plugin_of(stream).graph_launch)(stream, graph); },
                      graph);
  });
}

// Whether a gate is open. A failed timeline opens it: the plugin (or run_gate) then
// fails the stream.
bool is_open(Timeline& gate, uint64_t value, bool reached) {
  if (gate.failed()) return true;
  return reached ? gate.poll(value) != XHAL_NOT_READY : gate.is_submitted(value);
}

xhal_status run_gate(StreamState& stream, const Held& item) {
  auto& t = *item.gate.get();
  if (!item.gate_reached) {
    t.mark_asked(item.gate_value);
    return submit_wait(stream.handle, t, item.gate_value);
  }
  if (t.poll(item.gate_value) == XHAL_OK) return XHAL_OK;
  return set_error(t.failure()->dependent("xhal_stream_wait"));
}

// Tells whoever waits for them.
void drop_all(std::list<Held>& items, const Failure& failure) {
  for (auto& item : items) {
    if (item.drop) item.drop(failure);
  }
}

// The stream whose held work this thread is giving to the plugin.
constinit thread_local StreamState* draining_here = nullptr;

// While no other thread is giving held work to the plugin.
std::unique_lock<std::mutex> lock_when_not_draining(StreamState& stream) noexcept {
  std::unique_lock lock(stream.lock());
  while (stream.draining) {
    lock.unlock();
    sched_yield();
    lock.lock();
  }
  return lock;
}

// Fails the timeline that the stream had when the item was taken, whatever it has by now.
void run_item(StreamState& stream, Timeline& timeline, Held item) {
  const CorrelationScope scope(item.correlation);
  const xhal_status status = item.gate ? run_gate(stream, item) : item.submit();
  if (status >= 0) return;
  (void)annotate(status, stream.handle, "a held submission");
  const Failure failure = failure_of_call(status);
  if (item.drop) item.drop(failure);
  timeline.fail(failure);  // also drops what is held
}

// Submits held items; with `one`, at most one.
bool drain_some(StreamState& stream, bool one) noexcept {
  const StreamRef here(&stream);
  std::unique_lock lock(stream.lock());
  if (stream.draining) {
    stream.drain_again = true;
    return false;
  }
  stream.draining = true;
  bool submitted = false;
  do {
    stream.drain_again = false;
    while (stream.mode == Mode::holding && !stream.held.empty()) {
      if (const auto& front = stream.held.front(); front.gate) {
        // Not under the lock: a look at a gate may fail its timeline, and so this stream, which
        // then drops it.
        const TimelinePin gate(*front.gate.get());
        const uint64_t value = front.gate_value;
        const bool reached = front.gate_reached;
        lock.unlock();
        const bool open = is_open(*gate.get(), value, reached);
        lock.lock();
        if (!open) break;
        if (stream.mode != Mode::holding || stream.held.empty() ||
            stream.held.front().gate.get() != gate.get())
          continue;
      }
      Held item = std::move(stream.held.front());
      stream.held.pop_front();
      const TimelinePin timeline(*stream.timeline.load());
      lock.unlock();
      auto* const outer = std::exchange(draining_here, &stream);
      run_item(stream, *timeline.get(), std::move(item));
      draining_here = outer;
      lock.lock();
      submitted = true;
      if (one) break;
    }
  } while (stream.drain_again && !one);
  stream.draining = false;
  if (stream.mode == Mode::holding && stream.held.empty() && policy() == nullptr) {
    stream.mode = Mode::direct;
    set_dispatch(stream, &stream.device->table);
  }
  return submitted;
}

// Something may be ready to go, or the policy decides when it goes.
void look_at_held(StreamState& stream) noexcept {
  if (auto* p = policy(); p != nullptr)
    p->something_held(stream);
  else
    drain_some(stream, false);
}

}  // namespace

Held::Held(Held&& other) noexcept { *this = std::move(other); }

Held& Held::operator=(Held&& other) noexcept {
  submit = std::move(other.submit);
  drop = std::move(other.drop);
  std::swap(object, other.object);
  drop_when_refused = other.drop_when_refused;
  correlation = other.correlation;
  gate = std::move(other.gate);
  gate_value = other.gate_value;
  gate_reached = other.gate_reached;
  return *this;
}

Held::~Held() {
  if (object != nullptr) unpin(object);
}

void make_intercept(DeviceRecord& record) {
  record.intercept = record.table;
  record.intercept.stream_copy = held_copy;
  record.intercept.stream_fill = held_fill;
  record.intercept.stream_host_call = held_host_call;
  record.intercept.stream_wait = held_wait;
  record.intercept.stream_signal = held_signal;
  record.intercept.op_launch = held_op_launch;
  record.intercept.kernel_launch = held_kernel_launch;
  record.intercept.graph_launch = held_graph_launch;
}

xhal_status hold_until(StreamState& stream, Timeline& timeline, uint64_t value, bool reached) {
  std::list<Held> gate(1);
  gate.front().gate = TimelinePin(timeline);
  gate.front().gate_value = value;
  gate.front().gate_reached = reached;
  // Whoever opens the gate is told of it before it is there: that may need memory.
  const auto wake = [here = StreamRef(&stream)] { look_at_held(*here); };
  if (reached)
    timeline.notify(value, [wake](xhal_status) { wake(); });
  else
    timeline.when_submitted(value, wake);
  Failure failure;
  {
    const std::lock_guard lock(stream.lock());
    if (stream.mode == Mode::failed) {
      failure = stream.failure;
    } else {
      stream.held.splice(stream.held.end(), gate);
      if (stream.mode == Mode::direct) {
        stream.mode = Mode::holding;
        set_dispatch(stream, &stream.device->intercept);
      }
    }
  }
  if (failure != nullptr) return set_error(*failure);
  look_at_held(stream);  // it may have opened meanwhile
  return XHAL_OK;
}

void drain(StreamState& stream) noexcept { drain_some(stream, false); }
bool drain_one(StreamState& stream) noexcept { return drain_some(stream, true); }

void stream_failed(StreamState& stream, const Timeline& timeline, const Failure& failure) noexcept {
  std::list<Held> dropped;
  {
    const std::lock_guard lock(stream.lock());
    if (stream.mode == Mode::failed || stream.timeline.load() != &timeline) return;
    stream.mode = Mode::failed;
    stream.failure = failure;
    dropped.swap(stream.held);
    set_dispatch(stream, &stream.device->intercept);
  }
  drop_all(dropped, failure);
}

void stream_paused(StreamState& stream) noexcept {
  auto lock = lock_when_not_draining(stream);
  stream.draining = true;
  if (stream.mode != Mode::direct) return;
  stream.mode = Mode::holding;
  set_dispatch(stream, &stream.device->intercept);
}

void stream_goes_on(StreamState& stream) noexcept {
  {
    const std::lock_guard lock(stream.lock());
    stream.draining = false;
  }
  look_at_held(stream);
}

bool holds_work(StreamState& stream) noexcept {
  const std::lock_guard lock(stream.lock());
  return !stream.held.empty();
}

void stream_recovered(StreamState& stream, Timeline* fresh) noexcept {
  if (draining_here == &stream) return;
  std::list<Held> dropped;
  Failure failure;
  auto lock = lock_when_not_draining(stream);
  if (fresh != nullptr) {
    // Its timeline may have failed a moment ago, before stream_failed() was there.
    failure = stream.timeline.load()->failure();
    stream.timeline.store(fresh, std::memory_order_release);
    dropped.swap(stream.held);
  }
  stream.mode = policy() != nullptr ? Mode::holding : Mode::direct;
  stream.failure.reset();
  set_dispatch(stream, table_for(stream, stream.mode));
  lock.unlock();
  drop_all(dropped, failure);
}

void stream_captured(StreamState& stream) noexcept {
  const std::lock_guard lock(stream.lock());
  stream.mode = Mode::direct;
  set_dispatch(stream, &stream.device->table);
}

void stream_begins(StreamState& stream, xhal_stream* handle) noexcept {
  const std::lock_guard lock(stream.lock());
  stream.handle = handle;
  set_dispatch(stream, table_for(stream, stream.mode));  // it may have failed while it was made
}

void stream_ends(StreamState& stream) noexcept {
  std::list<Held> dropped;  // of a failed stream
  const std::lock_guard lock(stream.lock());
  stream.gone.store(true, std::memory_order_release);
  dropped.swap(stream.held);
}

void stream_stays(StreamState& stream, Timeline& timeline) noexcept {
  adopt_by_stream(timeline, stream);
  {
    const std::lock_guard lock(stream.lock());
    stream.gone.store(false, std::memory_order_release);
    set_dispatch(stream, table_for(stream, stream.mode));
  }
  allow_hidden_events(stream);
  if (timeline.failed()) stream_failed(stream, timeline, timeline.failure());
}

bool is_draining_here(const StreamState& stream) noexcept { return draining_here == &stream; }

}  // namespace xhal
