#include "sync/deferral.hpp"

#include <cstring>
#include <vector>

#include "layers/layers.hpp"
#include "core/state.hpp"

namespace xhal {
namespace {

using Mode = StreamState::Mode;

void set_dispatch(StreamState& side, const xhal_dispatch* table) {
  std::atomic_ref(head_of(side.handle)->dispatch).store(table, std::memory_order_release);
}

// Keeps a submission, or refuses it on a failed stream; in direct mode (released meanwhile) submits
// it.
xhal_status hold(xhal_stream* stream, Held item) noexcept {
  try {
    auto& side = *state_of(stream);
    std::unique_lock lock(side.mutex);
    if (side.mode == Mode::holding) {
      side.held.push_back(std::move(item));
      lock.unlock();
      chaos_wake(side);
      return XHAL_OK;
    }
    if (side.mode == Mode::direct) {
      lock.unlock();
      return item.submit();
    }
    const ErrorRecord failure = side.failure;
    lock.unlock();
    if (item.drop) item.drop(failure);
    return set_error(failure);
  } catch (...) {
    return fail(XHAL_ERR_OUT_OF_MEMORY, "submit", "no host memory to hold the submission back");
  }
}

xhal_status held_copy(xhal_stream* stream, uint64_t dst, uint64_t src, uint64_t size) noexcept {
  return hold(
      stream,
      {[=] { return state_of(stream)->device->table.stream_copy(stream, dst, src, size); }, {}});
}

xhal_status held_fill(xhal_stream* stream, uint64_t dst, uint64_t size, uint64_t pattern,
                      uint32_t bytes) noexcept {
  return hold(stream, {[=] {
                         return state_of(stream)->device->table.stream_fill(stream, dst, size,
                                                                           pattern, bytes);
                       },
                       {}});
}

xhal_status held_host_call(xhal_stream* stream, xhal_host_fn callback, void* user,
                           uint32_t flags) noexcept {
  auto& side = *state_of(stream);
  {
    const std::lock_guard lock(side.mutex);
    if (side.mode == Mode::failed) return set_error(side.failure);  // not accepted, so not called
  }
  return hold(stream, {[=] {
                         return state_of(stream)->device->table.stream_host_call(stream, callback,
                                                                                user, flags);
                       },
                       [=](const ErrorRecord& error) { callback(user, error.status); }});
}

xhal_status held_wait(xhal_stream* stream, xhal_timeline* timeline, uint64_t value) noexcept {
  return hold(
      stream,
      {[=] { return state_of(stream)->device->table.stream_wait(stream, timeline, value); }, {}});
}

xhal_status held_signal(xhal_stream* stream, xhal_timeline* timeline, uint64_t value,
                        xhal_timestamp* time) noexcept {
  return hold(stream, {[=] {
                         const auto s = state_of(stream)->device->table.stream_signal(
                             stream, timeline, value, time);
                         if (s == XHAL_OK) Timeline::of(timeline)->mark_submitted(value);
                         return s;
                       },
                       [=](const ErrorRecord& error) {
                         auto& t = *Timeline::of(timeline);
                         if (t.stream == nullptr) t.fail(error.dependent("xhal_stream_signal"));
                       }});
}

xhal_status held_op_launch(xhal_stream* stream, xhal_op* op, const uint64_t* addresses,
                           uint32_t address_count, const xhal_scalar* scalars,
                           uint32_t scalar_count, uint64_t workspace) noexcept {
  if ((addresses == nullptr && address_count > 0) || (scalars == nullptr && scalar_count > 0)) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, "xhal_op_launch",
                "xhal_op_launch: an array is NULL but its count is not 0");
  }
  try {
    std::vector<uint64_t> a(addresses, addresses + address_count);
    std::vector<xhal_scalar> s(scalars, scalars + scalar_count);
    return hold(stream, {[=, a = std::move(a), s = std::move(s)] {
                           return state_of(stream)->device->table.op_launch(
                               stream, op, a.data(), static_cast<uint32_t>(a.size()), s.data(),
                               static_cast<uint32_t>(s.size()), workspace);
                         },
                         {}});
  } catch (...) {
    return fail(XHAL_ERR_OUT_OF_MEMORY, "xhal_op_launch", "no host memory to hold the launch back");
  }
}

xhal_status held_kernel_launch(xhal_stream* stream, xhal_kernel* kernel, const xhal_grid* grid,
                               const xhal_kernel_arg* args, uint32_t arg_count) noexcept {
  if (grid == nullptr || (args == nullptr && arg_count > 0)) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, "xhal_kernel_launch",
                "xhal_kernel_launch: the grid or the arguments are NULL");
  }
  try {
    std::vector<xhal_kernel_arg> list(args, args + arg_count);
    std::vector<std::vector<char>> values;  // large values are borrowed for the call only
    for (auto& arg : list) {
      if (arg.kind != XHAL_ARG_VALUE || arg.size_bytes <= 8) continue;
      const auto* bytes = static_cast<const char*>(arg.value.pointer);
      values.emplace_back(bytes, bytes + arg.size_bytes);
      arg.value.pointer = values.back().data();
    }
    return hold(stream, {[=, g = *grid, list = std::move(list), values = std::move(values)] {
                           return state_of(stream)->device->table.kernel_launch(
                               stream, kernel, &g, list.data(), static_cast<uint32_t>(list.size()));
                         },
                         {}});
  } catch (...) {
    return fail(XHAL_ERR_OUT_OF_MEMORY, "xhal_kernel_launch",
                "no host memory to hold the launch back");
  }
}

xhal_status held_graph_launch(xhal_stream* stream, xhal_graph* graph) noexcept {
  return hold(stream,
              {[=] { return state_of(stream)->device->table.graph_launch(stream, graph); }, {}});
}

// Whether a gate is open. A failed timeline opens it: the plugin (or run_gate) then fails the
// stream.
bool open(const Held& gate) {
  if (gate.gate->failed()) return true;
  if (gate.gate_reached) return gate.gate->reached(gate.gate_value);
  return gate.gate->submitted.load(std::memory_order_seq_cst) >= gate.gate_value;
}

xhal_status run_gate(StreamState& side, const Held& gate) {
  if (!gate.gate_reached) {
    return side.device->table.stream_wait(side.handle, gate.gate->handle(), gate.gate_value);
  }
  if (gate.gate->poll(gate.gate_value) == XHAL_OK) return XHAL_OK;
  return set_error(gate.gate->failure().dependent("xhal_stream_wait"));
}

// Submits held items; with `one`, at most one.
bool drain_some(StreamState& side, bool one) noexcept {
  std::unique_lock lock(side.mutex);
  if (side.draining) {
    side.drain_again = true;
    return false;
  }
  side.draining = true;
  bool submitted = false;
  do {
    side.drain_again = false;
    while (side.mode == Mode::holding && !side.held.empty()) {
      if (side.held.front().gate != nullptr && !open(side.held.front())) break;
      Held item = std::move(side.held.front());
      side.held.pop_front();
      lock.unlock();
      const xhal_status status = item.gate != nullptr ? run_gate(side, item) : item.submit();
      if (status < 0) {
        ErrorRecord record = last_error();
        if (item.drop) item.drop(record);
        side.timeline->fail(record.status == status
                                ? record
                                : ErrorRecord::plain(status));  // also drops what is held
      }
      lock.lock();
      submitted = true;
      if (one) break;
    }
  } while (side.drain_again && !one);
  side.draining = false;
  if (side.mode == Mode::holding && side.held.empty() && !chaos_enabled()) {
    side.mode = Mode::direct;
    set_dispatch(side, &side.device->table);
  }
  return submitted;
}

}  // namespace

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

xhal_status hold_until(StreamState& side, Timeline& timeline, uint64_t value, bool reached) {
  {
    const std::lock_guard lock(side.mutex);
    if (side.mode == Mode::failed) return set_error(side.failure);
    Held gate;
    gate.gate = &timeline;
    gate.gate_value = value;
    gate.gate_reached = reached;
    side.held.push_back(std::move(gate));
    if (side.mode == Mode::direct) {
      side.mode = Mode::holding;
      set_dispatch(side, &side.device->intercept);
    }
  }
  const auto wake = [&side] {
    if (chaos_enabled())
      chaos_wake(side);
    else
      drain(side);
  };
  if (reached)
    timeline.notify(value, [wake](xhal_status) { wake(); });
  else
    timeline.when_submitted(value, wake);
  return XHAL_OK;
}

void drain(StreamState& side) noexcept { drain_some(side, false); }
bool drain_one(StreamState& side) noexcept { return drain_some(side, true); }

void stream_failed(StreamState& side, const ErrorRecord& record) noexcept {
  std::deque<Held> dropped;
  {
    const std::lock_guard lock(side.mutex);
    if (side.mode == Mode::failed) return;
    side.mode = Mode::failed;
    side.failure = record;
    dropped.swap(side.held);
    set_dispatch(side, &side.device->intercept);
  }
  for (auto& item : dropped) {
    if (item.drop) item.drop(record);
  }
}

void stream_recovered(StreamState& side) noexcept {
  const std::lock_guard lock(side.mutex);
  side.mode = chaos_enabled() ? Mode::holding : Mode::direct;
  side.failure = ErrorRecord{};
  set_dispatch(side, chaos_enabled() ? &side.device->intercept : &side.device->table);
}

void stream_captured(StreamState& side) noexcept {
  const std::lock_guard lock(side.mutex);
  side.mode = Mode::direct;
  set_dispatch(side, &side.device->table);
}

}  // namespace xhal
