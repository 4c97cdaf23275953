// SPDX-License-Identifier: Apache-2.0
// engine.hpp: runs the operations of one rank.
//
// At any time at most one thread drives the engine: it takes what was submitted, advances
// everything that can advance, and waits when nothing can. A blocking call drives until its own
// operations are done; when others are left it hands over to the progress thread, which exists once
// something was submitted that nobody waits for. So a lone blocking call runs in its caller's
// thread without any hand-over.
//
// Order: collectives run one after the other in the order of submission. A send waits only for
// older sends to the same rank, a receive for older receives of its tag from the same rank.
//
// Deadlines: absolute from submission, also for what has not begun because something older, or the
// stream it is ordered on, is in its way. Whatever the driver throws becomes the communicator's
// sticky error; no call and no waiter is left behind.
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
  // Makes the progress thread if there is none yet. Throws SYSTEM.
  void need_progress_thread();
  // Hands a batch to the progress thread. When it throws, nothing was started.
  void start(const std::shared_ptr<Batch>& batch);
  // Runs a batch in the caller's thread while it makes progress, and hands what is left of it to
  // the progress thread after `backoff_ns` without any. True: it is done.
  bool run_briefly(const std::shared_ptr<Batch>& batch, uint64_t backoff_ns);
  // The stream of a batch cannot be used: breaks the communicator and returns when the driver has
  // let go of the batch.
  void fail_stream(Batch& batch, const std::string& why);
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
  void make_progress_thread();
  bool has_work() const { return !inbox_.empty() || !alive_.empty(); }
  void number(Task& task) noexcept;

  void progress();
  void release();

  // By the driver only.
  template <typename Step>
  void contain(Step&& step) noexcept;
  void drive(const Batch* until, Backoff& backoff) noexcept;
  bool drive_once(const Batch* until, Backoff& backoff);
  void drive_briefly(const Batch& until, uint64_t backoff_ns);
  void take_inbox();
  bool advance_all(uint32_t polls);
  bool advance_collectives(uint32_t polls);
  bool advance_transfers();
  Advance advance(Task& task, uint32_t polls);
  void finish(Task& task);
  void complete(Batch& batch) noexcept;
  void notify_callers() noexcept;
  const Task* started_and_blocked() const;
  const Task& oldest_before(const Task& task) const;
  void nap();
  bool find_lost(Task& task);
  void check_deadlines();
  uint64_t next_deadline_ns() const;
  xcoll_failure timeout_of(const Task& task, uint64_t now) const;
  void publish(const xcoll_failure& failure) noexcept;
  void cannot_go_on(const char* why) noexcept;
  void meet_failure() noexcept;
  void fail(Batch& batch, xcoll_status status, std::string_view text) noexcept;
  void fail_everything(xcoll_status status, std::string_view text) noexcept;

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
  std::vector<std::shared_ptr<Batch>> inbox_;
  std::atomic<bool> has_inbox_{false};
  std::atomic<bool> closing_{false};
  std::thread thread_;
  std::atomic<bool> has_thread_{false};

  // By the driver only; `alive_` is read under mutex_ when nobody drives.
  std::vector<std::shared_ptr<Batch>> alive_;
  std::deque<Task*> collectives_;
  std::vector<Task*> transfers_;
  // Of one look at all transfers: the channels whose oldest receive of a tag still waits.
  struct TagOfRank {
    int32_t peer, tag;
    bool operator==(const TagOfRank&) const = default;
  };
  std::vector<TagOfRank> waiting_receives_;
  uint32_t moves_ = 0;
  Channels channels_;
  Batch lone_;  // the batch of run(Operation); remaining is 0 when there is none
  bool failure_met_ = false;
};

}  // namespace xcoll::engine
