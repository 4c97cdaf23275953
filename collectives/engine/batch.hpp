// SPDX-License-Identifier: Apache-2.0
// batch.hpp: operations that were submitted together and complete together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

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
  uint64_t blocked_since_ns = 0;
  CollectiveRun collective;
  TransferRun transfer;

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
  void complete() {
    std::function<void()> then;
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
      then = std::move(then_);
      changed_.notify_all();
    }
    if (then) then();
  }
  // Calls `then` once: on completion, in the driver's thread, or now when that is over. It
  // must not block.
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
