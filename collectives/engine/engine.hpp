// SPDX-License-Identifier: Apache-2.0
// engine.hpp: runs the operations of one rank.
//
// At any time at most one thread drives the engine: it takes what was submitted, advances
// everything that can advance, and waits when nothing can. A blocking call drives until its own
// operations are done; when others are left it hands over to the progress thread, which exists once
// something was submitted that nobody waits for. So a lone blocking call runs in its caller's
// thread without any hand-over.
//
// Order: collectives run one after the other in the order of submission. A transfer waits only for
// older transfers between the same two ranks in the same direction.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/backoff.hpp"
#include "engine/batch.hpp"
#include "engine/diagnosis.hpp"
#include "engine/rank_view.hpp"
#include "engine/recorder.hpp"
#include "engine/transfer_run.hpp"

namespace xcoll::engine {

class Engine {
 public:
  Engine(const shm::Segment& segment, const shm::Processes& processes, uint32_t rank,
         uint32_t recorder_entries, uint64_t timeout_ns);
  ~Engine();

  // Runs one operation in the caller's thread. The text of a failure is the thread's last error.
  xcoll_status run(Operation operation);
  // Runs a batch and returns when it is done.
  xcoll_status run(const std::shared_ptr<Batch>& batch);
  // Hands a batch to the progress thread.
  void start(const std::shared_ptr<Batch>& batch);
  // Runs a batch in the caller's thread while it makes progress, and hands what is left of it to
  // the progress thread after `backoff_ns` without any. True: it is done.
  bool run_briefly(const std::shared_ptr<Batch>& batch, uint64_t backoff_ns);
  // Makes the driver look at its tasks again: a batch has become ready.
  void ring_doorbell() { shm::ring_if_sleeping(segment_, rank_); }

  // The sticky error as status and last error; OK when there is none.
  xcoll_status sticky_error() const;
  const Diagnosis& diagnosis() const { return diagnosis_; }
  const Recorder& recorder() const { return recorder_; }

  uint64_t sequence() const { return sequence_.load(std::memory_order_relaxed); }
  void set_timeout(uint64_t timeout_ns) {
    timeout_ns_.store(timeout_ns, std::memory_order_relaxed);
  }

  // Runs once, in the thread that first meets the sticky error.
  std::function<void()> on_failure;

 private:
  // Under mutex_.
  void enqueue(const std::shared_ptr<Batch>& batch);
  void need_progress_thread();
  bool has_work() const { return !inbox_.empty() || !alive_.empty(); }
  void number(Task& task);

  void progress();
  void release();

  // By the driver only.
  void drive(const Batch* until, Backoff& backoff);
  void drive_briefly(const Batch& until, uint64_t backoff_ns);
  void take_inbox();
  bool advance_all(uint32_t polls);
  bool advance_collectives(uint32_t polls);
  bool advance_transfers();
  Advance advance(Task& task, uint32_t polls);
  void finish(Task& task, xcoll_status status, const std::string& text);
  void complete(Batch& batch);
  const Task* started_and_blocked() const;
  void nap();
  bool watch(Task& task);
  void publish(const xcoll_failure& failure);
  void meet_failure();
  void fail_everything(xcoll_status status, const std::string& text);

  const shm::Segment& segment_;
  const uint32_t rank_;
  schedule::Cache schedules_;
  RankView view_;
  Diagnosis diagnosis_;
  Recorder recorder_;
  Backoff caller_backoff_;
  Backoff progress_backoff_;
  std::atomic<uint64_t> timeout_ns_;
  std::atomic<uint64_t> sequence_{0};

  std::mutex mutex_;
  std::condition_variable changed_;  // the engine was released, or a batch with waiters completed
  bool driven_ = false;
  std::atomic<uint32_t> waiting_callers_{0};
  std::deque<std::shared_ptr<Batch>> inbox_;
  std::atomic<bool> has_inbox_{false};
  std::atomic<bool> closing_{false};
  std::thread thread_;

  // By the driver only; `alive_` is read under mutex_ when nobody drives.
  std::vector<std::shared_ptr<Batch>> alive_;
  std::deque<Task*> collectives_;
  std::vector<Task*> transfers_;
  Channels channels_;
  Batch lone_;  // the batch of run(Operation)
  bool failure_met_ = false;
};

}  // namespace xcoll::engine
