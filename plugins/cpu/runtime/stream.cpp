// SPDX-License-Identifier: Apache-2.0
// stream.cpp: the submission side of a stream: run here when it is small and the stream
// idle, else queue.
#include "stream.hpp"

#include <fmt/core.h>

#include <cstring>
#include <memory>

#include "device.hpp"
#include "graph.hpp"
#include "module.hpp"
#include "thread.hpp"
#include "transfer.hpp"

namespace xhal::cpu {
namespace {

std::atomic<uint64_t> next_serial{1};

constexpr uint32_t kPointersOnStack = 64;

}  // namespace

Stream::Stream(Context& context, xhal_timeline* timeline, int32_t priority)
    : context_(context),
      device_(context.device()),
      serial_(next_serial.fetch_add(1)),
      timeline_(timeline) {
  ready_.priority = priority;
  ready_.owner = this;
  ready_.run = [](Task* task) { static_cast<Stream*>(task->owner)->drain(); };
}

bool Stream::runs_here(uint32_t cost_ns) const { return cost_ns <= device_.inline_limit_ns(); }

bool Stream::begin_here() {
  uint64_t idle = 0;
  return state_.load(std::memory_order_relaxed) == 0 &&
         state_.compare_exchange_strong(idle, kOwned, std::memory_order_acquire,
                                        std::memory_order_relaxed);
}

void Stream::end_here() {
  uint64_t owned = kOwned;
  if (state_.compare_exchange_strong(owned, 0, std::memory_order_release,
                                     std::memory_order_relaxed))
    return;
  if (!release()) hand_over();
}

bool Stream::publish() {
  uint64_t state = state_.load(std::memory_order_relaxed);
  while (!state_.compare_exchange_weak(state, (state + kOne) | kOwned, std::memory_order_acq_rel,
                                       std::memory_order_relaxed)) {
  }
  return (state & kOwned) == 0;
}

void Stream::hand_over() { device_.executors().push(&ready_); }

xhal_status Stream::refuse() {
  const xhal_error error = failure_.view();
  return plugin::host().error_set(&error);
}

void Stream::reject(xhal_status status, std::string_view text, std::string_view operation) {
  std::string whole =
      operation.empty() ? std::string(text) : fmt::format("`{}`: {}", operation, text);
  if (capture_ != nullptr) capture_->spoil(whole);
  throw plugin::Error(status, std::move(whole));
}

template <class C, class Fill>
xhal_status Stream::enqueue(Kind kind, uint64_t trailing_bytes, Fill&& fill) {
  if (capture_ != nullptr) [[unlikely]] {
    capture_->record<C>(*this, kind, trailing_bytes, fill);
    return XHAL_OK;
  }
  if (failed_.load(std::memory_order_acquire)) [[unlikely]]
    return refuse();
  const uint64_t correlation = device_.correlation();
  {
    const std::lock_guard lock(producers_);
    C* command = queue_.append<C>(kind, trailing_bytes);
    command->correlation = correlation;
    fill(*command);
    produced_.store(produced_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  if (publish()) hand_over();
  return XHAL_OK;
}

// Runs small work on an idle stream at once; else `queue` puts it behind what is there.
template <class Run, class Queue>
xhal_status Stream::submit(uint32_t cost_ns, Run&& run, Queue&& queue) {
  if (capture_ != nullptr || !runs_here(cost_ns) || !begin_here()) return queue();
  if (stopped()) [[unlikely]] {
    end_here();
    return refuse();
  }
  run();
  end_here();
  return XHAL_OK;
}

xhal_status Stream::copy(uint64_t dst, uint64_t src, uint64_t size_bytes) {
  void* to = device_.memory().translate(dst);
  const void* from = device_.memory().translate(src);
  return submit(
      cost_of_copy(size_bytes), [&] { run_copy(to, from, size_bytes, device_.correlation()); },
      [&] {
        return enqueue<CopyCommand>(Kind::copy, 0, [&](CopyCommand& c) {
          c.dst = to;
          c.src = from;
          c.size_bytes = size_bytes;
        });
      });
}

xhal_status Stream::fill(uint64_t dst, uint64_t size_bytes, uint64_t pattern,
                         uint32_t pattern_bytes) {
  const bool width =
      pattern_bytes == 1 || pattern_bytes == 2 || pattern_bytes == 4 || pattern_bytes == 8;
  if (!width || size_bytes % pattern_bytes != 0 || dst % pattern_bytes != 0) {
    reject(XHAL_ERR_INVALID_ARGUMENT,
           "a fill pattern has 1, 2, 4 or 8 bytes, and destination and size are multiples of that");
  }
  if (size_bytes == 0) return XHAL_OK;
  if (dst == 0) reject(XHAL_ERR_INVALID_ARGUMENT, "the destination address is 0");
  void* to = device_.memory().translate(dst);
  return submit(
      cost_of_fill(size_bytes),
      [&] { run_fill(to, size_bytes, pattern, pattern_bytes, device_.correlation()); },
      [&] {
        return enqueue<FillCommand>(Kind::fill, 0, [&](FillCommand& c) {
          c.dst = to;
          c.size_bytes = size_bytes;
          c.pattern = pattern;
          c.pattern_bytes = pattern_bytes;
        });
      });
}

// Never here: the callback may want a lock that this thread holds.
xhal_status Stream::host_call(xhal_host_fn callback, void* user, uint32_t flags) {
  if (callback == nullptr || (flags & ~uint32_t{XHAL_HOST_CALL_NON_BLOCKING}) != 0) {
    reject(XHAL_ERR_INVALID_ARGUMENT,
           callback == nullptr ? "the callback is NULL" : "unknown flags");
  }
  return enqueue<HostCallCommand>(Kind::host_call, 0, [&](HostCallCommand& c) {
    c.callback = callback;
    c.user = user;
    c.call_flags = flags;
  });
}

xhal_status Stream::wait(xhal_timeline* timeline, uint64_t value) {
  if (capture_ != nullptr)
    reject(XHAL_ERR_CAPTURE, "a captured stream waits for events of its capture only");
  if (plugin::host().timeline_poll(timeline, value, nullptr) == XHAL_OK) return XHAL_OK;
  if (!begin_here()) {
    return enqueue<WaitCommand>(Kind::wait, 0, [&](WaitCommand& c) {
      c.timeline = timeline;
      c.value = value;
    });
  }
  if (stopped()) [[unlikely]] {
    end_here();
    return refuse();
  }
  awaited_ = timeline;
  awaited_value_ = value;
  if (settle_wait()) end_here();
  return XHAL_OK;
}

xhal_status Stream::signal(xhal_timeline* timeline, uint64_t value, xhal_timestamp* timestamp) {
  if (capture_ != nullptr) reject(XHAL_ERR_CAPTURE, "a captured stream signals no timeline");
  return submit(
      0, [&] { run_signal(timeline, value, timestamp); },
      [&] {
        return enqueue<SignalCommand>(Kind::signal, 0, [&](SignalCommand& c) {
          c.timeline = timeline;
          c.value = value;
          c.timestamp = timestamp;
        });
      });
}

void Stream::launch_here(const PreparedOp& op, const uint64_t* addresses,
                         const xhal_scalar* scalars, uint32_t scalar_count, void* workspace) {
  const OneOmpThread one;
  Scalar values[kMaxScalars];
  if (op.scalar_count != 0) read_scalars(op, device_.memory(), scalars, scalar_count, values);
  if (op.as_is && !device_.memory().guarded()) {
    return run_op(op, reinterpret_cast<void* const*>(addresses), values, workspace,
                  device_.correlation());
  }
  void* on_stack[kPointersOnStack];
  std::unique_ptr<void*[]> many;
  void** pointers = on_stack;
  if (op.operand_count > kPointersOnStack) {
    many = std::make_unique<void*[]>(op.operand_count);
    pointers = many.get();
  }
  op.resolve(device_.memory(), addresses, pointers);
  run_op(op, pointers, values, workspace, device_.correlation());
}

xhal_status Stream::op_launch(xhal_op* handle, const uint64_t* addresses, uint32_t address_count,
                              const xhal_scalar* scalars, uint32_t scalar_count,
                              uint64_t workspace) {
  const PreparedOp& op = *plugin::from_handle<OpHandle>(handle).shared;
  bool by_address = false;
  if (const char* wrong = check_launch(op, addresses, address_count, scalars, scalar_count,
                                       workspace, &by_address)) [[unlikely]] {
    reject(XHAL_ERR_INVALID_ARGUMENT, wrong, op.name);
  }
  if (capture_ != nullptr) [[unlikely]]
    capture_->keep(plugin::from_handle<OpHandle>(handle).shared);
  void* scratch = device_.memory().translate(workspace);
  return submit(
      op.cost.ns(), [&] { launch_here(op, addresses, scalars, scalar_count, scratch); },
      [&] { return queue_op(op, addresses, scalars, scalar_count, by_address, scratch); });
}

xhal_status Stream::queue_op(const PreparedOp& op, const uint64_t* addresses,
                             const xhal_scalar* scalars, uint32_t scalar_count, bool by_address,
                             void* workspace) {
  // As many scalars as the catalogue has, unless they are still to be read.
  const uint32_t kept = by_address ? scalar_count : op.scalar_count;
  const uint64_t bytes = op.operand_count * sizeof(void*) + kept * sizeof(Scalar);
  return enqueue<OpCommand>(Kind::op, bytes, [&](OpCommand& c) {
    c.op = &op;
    c.workspace = workspace;
    c.pointer_count = op.operand_count;
    c.scalar_count = kept;
    op.resolve(device_.memory(), addresses, c.pointers());
    if (by_address) {
      c.flags = OpCommand::kRawScalars;
      std::memcpy(static_cast<void*>(c.raw_scalars()), scalars, kept * sizeof(xhal_scalar));
    } else if (kept != 0) {
      Scalar values[kMaxScalars];
      read_scalars(op, device_.memory(), scalars, scalar_count, values);
      std::memcpy(static_cast<void*>(c.scalars()), values, kept * sizeof(Scalar));
    }
  });
}

xhal_status Stream::kernel_launch(xhal_kernel* handle, const xhal_grid* grid,
                                  const xhal_kernel_arg* args, uint32_t arg_count) {
  const auto& kernel_handle = plugin::from_handle<KernelHandle>(handle);
  const Kernel& kernel = kernel_handle.kernel;
  if (grid == nullptr || (args == nullptr && arg_count != 0)) {
    reject(XHAL_ERR_INVALID_ARGUMENT, "the grid or the arguments are NULL", kernel.name);
  }
  constexpr uint64_t kMostGroups = uint64_t{1} << 40;
  uint64_t total = 1;
  for (const uint32_t n : grid->groups)
    total = n == 0 || total > kMostGroups / n ? kMostGroups + 1 : total * n;
  if (total > kMostGroups)
    reject(XHAL_ERR_INVALID_ARGUMENT, "the grid has no groups, or more than 2^40", kernel.name);
  uint64_t large_bytes = 0;
  for (uint32_t i = 0; i < arg_count; ++i) {
    const auto& arg = args[i];
    const bool large = arg.kind == XHAL_ARG_VALUE && arg.size_bytes > 8;
    if (arg.kind < XHAL_ARG_ADDRESS || arg.kind > XHAL_ARG_LOCAL ||
        (large && arg.value.pointer == nullptr)) {
      reject(XHAL_ERR_INVALID_ARGUMENT,
             fmt::format("argument {} is of no known kind, or its value is NULL", i), kernel.name);
    }
    if (large) large_bytes += (uint64_t{arg.size_bytes} + 15) & ~uint64_t{15};
  }
  if (capture_ != nullptr) capture_->keep(kernel_handle.module);
  // Never here: what a kernel costs, and whether it waits for somebody, is not known.
  const uint64_t head_bytes = (arg_count * (sizeof(uint64_t) + 1) + 15) & ~uint64_t{15};
  return enqueue<KernelCommand>(Kind::kernel, head_bytes + large_bytes, [&](KernelCommand& c) {
    c.kernel = &kernel;
    std::copy_n(grid->groups, 3, c.groups);
    c.argument_count = arg_count;
    c.local_bytes = 0;
    char* large = reinterpret_cast<char*>(c.arguments()) + head_bytes;
    for (uint32_t i = 0; i < arg_count; ++i) {
      const auto& arg = args[i];
      uint64_t& word = c.arguments()[i];
      c.kinds()[i] = static_cast<uint8_t>(arg.kind);
      if (arg.kind == XHAL_ARG_ADDRESS) {
        word = reinterpret_cast<uint64_t>(device_.memory().translate(arg.value.bits));
      } else if (arg.kind == XHAL_ARG_LOCAL) {
        word = c.local_bytes;
        c.local_bytes += (uint64_t{arg.size_bytes} + 63) & ~uint64_t{63};
      } else if (arg.size_bytes <= 8) {
        word = arg.size_bytes == 8 ? arg.value.bits
                                   : arg.value.bits & ((uint64_t{1} << arg.size_bytes * 8) - 1);
      } else {
        word = reinterpret_cast<uint64_t>(std::memcpy(large, arg.value.pointer, arg.size_bytes));
        large += (uint64_t{arg.size_bytes} + 15) & ~uint64_t{15};
      }
    }
  });
}

xhal_status Stream::graph_launch(xhal_graph* handle) {
  Graph& graph = *plugin::from_handle<GraphHandle>(handle).graph;
  if (capture_ != nullptr)
    reject(XHAL_ERR_CAPTURE, "a graph cannot be launched into a capture; record its work instead");
  graph.submitted();
  const auto queue = [&] {
    return enqueue<GraphCommand>(Kind::graph, 0, [&](GraphCommand& c) { c.graph = &graph; });
  };
  xhal_status status = XHAL_OK;
  const xhal_status submitted = submit(
      graph.has_host_calls() ? UINT32_MAX : graph.cost().ns(),
      [&] {
        if (!graph.take_now()) {
          status = queue();
          return;
        }
        const OneOmpThread one;
        run_graph(graph, device_.correlation());
      },
      queue);
  if (status == XHAL_OK) status = submitted;
  if (status != XHAL_OK) graph.finished();
  return status;
}

xhal_status Stream::begin_capture() {
  if (capture_ != nullptr)
    throw plugin::Error(XHAL_ERR_CAPTURE, "the stream is being captured already");
  capture_ = &device_.begin_capture(*this);
  return XHAL_OK;
}

xhal_status Stream::end_capture(xhal_graph** graph) {
  if (capture_ == nullptr || &capture_->origin() != this) {
    throw plugin::Error(XHAL_ERR_CAPTURE, "no capture was begun on this stream");
  }
  auto recorded = device_.end_capture(capture_->id());
  for (Command* command : recorded->commands()) {
    if (command->kind == Kind::op)
      recorded->cost().add(static_cast<OpCommand*>(command)->op->cost.ns());
    if (command->kind == Kind::copy)
      recorded->cost().add(cost_of_copy(static_cast<CopyCommand*>(command)->size_bytes));
    if (command->kind == Kind::fill)
      recorded->cost().add(cost_of_fill(static_cast<FillCommand*>(command)->size_bytes));
    if (command->kind == Kind::kernel) recorded->cost().add(UINT32_MAX);
  }
  device_.own(plugin::make<GraphHandle>(device_.table(), XHAL_KIND_GRAPH, graph, device_,
                                        std::move(recorded)));
  return XHAL_OK;
}

xhal_status Stream::capture_record(uint64_t* token) {
  if (capture_ == nullptr)
    throw plugin::Error(XHAL_ERR_CAPTURE, "the stream is not being captured");
  *token = capture_->mark(*this);
  return XHAL_OK;
}

xhal_status Stream::capture_wait(uint64_t token) {
  Capture& capture = device_.find_capture(static_cast<uint32_t>(token >> 32));
  if (capture_ != nullptr && capture_ != &capture)
    reject(XHAL_ERR_CAPTURE, "the stream takes part in another capture");
  capture.join(*this, token);
  capture_ = &capture;
  return XHAL_OK;
}

xhal_status Stream::recover(xhal_timeline* fresh) {
  dropping_.store(true);
  cancel_park();
  wait_idle();
  timeline_ = fresh;
  failure_ = Failure{};
  failed_.store(false);
  dropping_.store(false);
  return XHAL_OK;
}

// A kernel on a processor comes to its end by itself; what is behind it is not begun.
xhal_status Stream::abort() {
  aborts_.fetch_add(1);
  cancel_park();
  wait_idle();
  aborts_.fetch_sub(1);
  return XHAL_OK;
}

xhal_status Stream::query(xhal_stream_properties* properties) {
  if (properties == nullptr) throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "a pointer is NULL");
  properties->priority = ready_.priority;
  const uint64_t ended = consumed();  // first, or the difference could be negative
  properties->pending = produced() - ended;
  return XHAL_OK;
}

void Stream::cancel() {
  dropping_.store(true);
  cancel_park();
  wait_idle();
}

xhal_status Stream::destroy() {
  // A stream that libxhal has failed (a shutdown, a lost device) runs nothing any more, and nobody
  // waits for what is queued.
  if (plugin::host().timeline_poll(timeline_, UINT64_MAX, nullptr) < 0)
    cancel();
  else
    wait_idle();
  device_.remove(*this);
  return plugin::destroy(this);
}

}  // namespace xhal::cpu
