// SPDX-License-Identifier: Apache-2.0
// batch.hpp: operations that were submitted together and complete together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "engine/collective_run.hpp"
#include "engine/operation.hpp"
#include "engine/transfer_run.hpp"

namespace xcoll::engine {

class Batch;

struct Task {
  Operation operation;
  Batch* batch = nullptr;
  uint64_t sequence = 0;  // of a collective, 0 for a transfer
  uint64_t record = 0;    // line of the flight recorder, 0: not begun
  // When it was submitted. A call that nothing is queued before reads the clock only when it first
  // has to wait: 0 until then.
  uint64_t submitted_ns = 0;
  bool finished = false;
  CollectiveRun collective;
  TransferRun transfer;

  bool begun() const { return record != 0; }
  uint64_t deadline_ns() const {
    return submitted_ns == 0 ? UINT64_MAX : deadline_of(submitted_ns, operation.timeout_ns);
  }
  uint32_t blocked_on() const {
    return operation.is_transfer() ? static_cast<uint32_t>(operation.peer)
                                   : collective.blocked_on();
  }
};

class Batch {
 public:
  explicit Batch(std::vector<Operation> operations)
      : tasks(operations.size()), remaining(tasks.size()) {
    for (size_t i = 0; i < tasks.size(); ++i) {
      tasks[i].operation = std::move(operations[i]);
      tasks[i].batch = this;
    }
  }

  // Until this is true the tasks keep their places in the order but do not start.
  std::atomic<bool> ready{true};
  // Set before `ready` when the tasks cannot run; the text says why.
  std::string cancelled;

  std::vector<Task> tasks;
  size_t remaining;  // by the driver only

  // By the driver, when all tasks are done.
  void complete() noexcept {
    std::function<void()> then;
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
      then = std::move(then_);
      changed_.notify_all();
    }
    if (then) then();
  }
  // The first failure of a task is the batch's.
  void fail(xcoll_status why, std::string_view with_text) noexcept {
    if (status != XCOLL_OK) return;
    status = why;
    try {
      text = with_text;
    } catch (const std::bad_alloc&) {
      text = "out of memory";  // fits into the string itself
    }
  }
  // Calls `then` once: on completion, in the driver's thread, or now when that is over. It
  // must neither block nor throw.
  void when_complete(std::function<void()> then) {
    {
      const std::lock_guard lock(mutex_);
      if (!done_) {
        then_ = std::move(then);
        return;
      }
    }
    then();
  }
  bool done() const { return done_.load(); }
  // False when it took longer than `timeout_ns`.
  bool wait(uint64_t timeout_ns) const;

  // Valid when done.
  xcoll_status status = XCOLL_OK;
  std::string text;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::atomic<bool> done_{false};
  std::function<void()> then_;
};

}  // namespace xcoll::engine
