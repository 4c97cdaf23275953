// SPDX-License-Identifier: Apache-2.0
// stream.hpp: an in-order queue of work, and who runs it.
//
// One word says what is going on: nothing, or somebody owns the stream (runs it, will run it, or it
// waits for a timeline), and how many commands are queued. Small work on an idle stream is run by
// the thread that submits it, which takes the ownership for that long; everything else is queued,
// and ownership goes to an executor. A stream that waits for a value not reached keeps its owner
// mark but no thread; libxhal's callback wakes it.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "command.hpp"
#include "executors.hpp"
#include "operator.hpp"
#include "wait.hpp"
#include "worker_pool.hpp"
#include "xhal/plugin.hpp"

namespace xhal::cpu {

class Capture;
class Context;
class Device;

// Streams and graphs that become idle say so; their own memory may be gone by the time
// a waiter looks.
void announce_idle();
void wait_until_idle(const std::function<bool()>& idle);

// Why a stream failed, kept for whatever is dropped because of it.
struct Failure {
  xhal_status status = XHAL_OK, cause = XHAL_OK;
  std::string operation, text, cause_text;

  static Failure from(const xhal_error& error);
  // The failure of something that was not run because of this one.
  Failure dependent(const char* operation) const;
  xhal_error view() const;
};

// Counters of one stream; written by its owner, read by telemetry.
struct StreamCounters {
  std::atomic<uint64_t> operations{0}, copied_bytes{0}, busy_ticks{0};
};

class Stream : public plugin::Object {
 public:
  Stream(Context& context, xhal_timeline* timeline, int32_t priority);

  // The slots of stream.h, op.h, module.h and graph.h.
  xhal_status copy(uint64_t dst, uint64_t src, uint64_t size_bytes);
  xhal_status fill(uint64_t dst, uint64_t size_bytes, uint64_t pattern, uint32_t pattern_bytes);
  xhal_status host_call(xhal_host_fn callback, void* user, uint32_t flags);
  xhal_status wait(xhal_timeline* timeline, uint64_t value);
  xhal_status signal(xhal_timeline* timeline, uint64_t value, xhal_timestamp* timestamp);
  xhal_status op_launch(xhal_op* op, const uint64_t* addresses, uint32_t address_count,
                        const xhal_scalar* scalars, uint32_t scalar_count, uint64_t workspace);
  xhal_status kernel_launch(xhal_kernel* kernel, const xhal_grid* grid, const xhal_kernel_arg* args,
                            uint32_t arg_count);
  xhal_status graph_launch(xhal_graph* graph);
  xhal_status begin_capture();
  xhal_status end_capture(xhal_graph** graph);
  xhal_status capture_record(uint64_t* token);
  xhal_status capture_wait(uint64_t token);
  xhal_status recover(xhal_timeline* fresh);
  xhal_status abort();
  xhal_status query(xhal_stream_properties* properties);
  xhal_status destroy();

  Context& context() { return context_; }
  uint64_t serial() const { return serial_; }
  const StreamCounters& counters() const { return counters_; }
  uint64_t produced() const { return produced_.load(std::memory_order_relaxed); }
  uint64_t consumed() const { return consumed_.load(std::memory_order_acquire); }

  // Drops what is queued and returns when nothing runs any more: the device is reset or closed.
  void cancel();
  void wait_idle();
  void hand_over();  // by the owner: ownership to an executor
  Stream*& next_in_line() { return next_in_line_; }
  void leave_capture() { capture_ = nullptr; }

 private:
  friend struct Parked;

  static constexpr uint64_t kOwned = 1, kAwaited = 2,
                            kOne = 4;  // kAwaited: somebody sleeps until it is idle

  // Submission (stream.cpp).
  bool runs_here(uint32_t cost_ns) const;
  bool begin_here();  // takes an idle stream for this thread
  void end_here();
  bool publish();  // true: ownership is the caller's to pass on
  template <class C, class Fill>
  xhal_status enqueue(Kind kind, uint64_t trailing_bytes, Fill&& fill);
  template <class Run, class Queue>
  xhal_status submit(uint32_t cost_ns, Run&& run, Queue&& queue);
  xhal_status refuse();
  [[noreturn]] void reject(xhal_status status, std::string_view text,
                           std::string_view operation = {});
  void launch_here(const PreparedOp& op, const uint64_t* addresses, const xhal_scalar* scalars,
                   uint32_t scalar_count, void* workspace);
  xhal_status queue_op(const PreparedOp& op, const uint64_t* addresses, const xhal_scalar* scalars,
                       uint32_t scalar_count, bool by_address, void* workspace);

  // Execution, by the owner (stream_run.cpp).
  void drain();
  void execute(Command& command, uint64_t correlation);
  void drop(Command& command);
  void run_op(const PreparedOp& op, void* const* pointers, const Scalar* scalars, void* workspace,
              uint64_t correlation);
  void run_copy(void* dst, const void* src, uint64_t size_bytes, uint64_t correlation);
  void run_fill(void* dst, uint64_t size_bytes, uint64_t pattern, uint32_t pattern_bytes,
                uint64_t correlation);
  void run_host_call(const HostCallCommand& call, uint64_t correlation);
  void run_kernel(KernelCommand& command, uint64_t correlation);
  void run_signal(xhal_timeline* timeline, uint64_t value, xhal_timestamp* timestamp);
  void finish(uint32_t activity_kind, uint32_t operation, uint64_t start, uint64_t end,
              uint64_t bytes, uint64_t correlation);
  void report(uint32_t activity_kind, uint32_t operation, uint64_t start, uint64_t end,
              uint64_t bytes, uint64_t correlation);
  void drop_graph(Graph& graph);
  // Whether work is dropped instead of run. By the owner.
  bool stopped() {
    if (aborts_.load(std::memory_order_relaxed) != 0) [[unlikely]]
      fail_aborted();
    return failed_.load(std::memory_order_relaxed) || dropping_.load(std::memory_order_relaxed);
  }
  void fail_aborted();
  void fail(Failure failure);
  void fail_operation(xhal_status status, std::string_view operation, std::string text);
  const Failure& reason();
  bool release();  // gives ownership up; false when there is work
  // What the next command waits for. False: the stream is parked, and not ours any more.
  bool settle();
  bool settle_wait();
  bool settle_graph();
  bool waits() const { return awaited_ != nullptr || awaited_graph_ != nullptr; }
  void run_graph(Graph& graph, uint64_t correlation);
  bool arm();
  void cancel_park();
  void resume();
  void detach(const HostCallCommand& call);

  Context& context_;
  Device& device_;
  const uint64_t serial_;
  Task ready_;
  xhal_timeline* timeline_;
  Capture* capture_ = nullptr;         // set and read under the capture's external synchronisation
  std::atomic<bool> failed_{false};    // stays until recover
  std::atomic<bool> dropping_{false};  // being recovered or cancelled
  std::atomic<uint32_t> aborts_{0};    // calls of abort that are under way
  Failure failure_;

  alignas(64) std::atomic<uint64_t> state_{0};
  StreamCounters counters_;
  xhal_timeline* awaited_ = nullptr;  // the wait that is to be settled before the next command
  uint64_t awaited_value_ = 0;
  Graph* awaited_graph_ = nullptr;  // likewise: the replay that is next
  uint64_t awaited_correlation_ = 0;
  Stream* next_in_line_ = nullptr;  // of a graph that another stream replays
  std::atomic<uint64_t> consumed_{0};

  alignas(64) SpinLock producers_;  // also of parked_
  std::atomic<uint64_t> produced_{0};
  struct Parked* parked_ = nullptr;
  std::atomic<uint32_t> detached_{0};  // host calls under way beside the stream
  CommandQueue queue_;
};

}  // namespace xhal::cpu
