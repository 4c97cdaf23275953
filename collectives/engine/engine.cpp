// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <system_error>

#include "base/failure.hpp"
#include "engine/failure_board.hpp"

namespace xcoll::engine {
namespace {

// While everything moves, deadlines are looked at once in so many moves.
constexpr uint32_t kMovesBetweenLooks = 64;

std::vector<Operation> one(Operation operation) {
  std::vector<Operation> operations;
  operations.push_back(std::move(operation));
  return operations;
}

}  // namespace

bool Batch::wait(uint64_t timeout_ns) const {
  std::unique_lock lock(mutex_);
  const auto is_done = [this] { return done_.load(); };
  constexpr uint64_t kYear = uint64_t{365} * 86'400 * 1'000'000'000;
  return changed_.wait_for(lock, std::chrono::nanoseconds(std::min(timeout_ns, kYear)), is_done);
}

Engine::Engine(const shm::Segment& segment, const shm::Processes& processes, uint32_t rank,
               uint32_t recorder_entries, uint64_t timeout_ns)
    : segment_(segment),
      rank_(rank),
      schedules_(static_cast<uint16_t>(segment.ranks()), static_cast<uint16_t>(rank), shm::kSlots),
      view_{segment, rank, schedules_},
      diagnosis_(segment, processes, rank),
      recorder_(recorder_entries),
      caller_backoff_(segment.ranks()),
      // A progress thread works beside the thread that computes.
      progress_backoff_(2 * segment.ranks()),
      timeout_ns_(timeout_ns),
      channels_(segment.ranks()),
      lone_(one(Operation())) {
  lone_.remaining = 0;
}

Engine::~Engine() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  shm::ring(segment_.doorbell(rank_));
  if (thread_.joinable()) thread_.join();
  fail_everything(XCOLL_ERR_ABORTED, "the communicator was destroyed before the operation had run");
  segment_.board(rank_).left.store(1);
  shm::ring_all_sleeping(segment_, rank_);
}

// ---- submission

void Engine::number(Task& task) noexcept {
  if (task.operation.timeout_ns == 0) {
    task.operation.timeout_ns = timeout_ns_.load(std::memory_order_relaxed);
  }
  if (task.operation.is_transfer()) return;
  task.sequence = sequence_.load(std::memory_order_relaxed) + 1;
  sequence_.store(task.sequence, std::memory_order_relaxed);
}

void Engine::enqueue(const std::shared_ptr<Batch>& batch) {
  inbox_.push_back(batch);  // throws before anything has changed
  const uint64_t now = now_ns();
  for (Task& task : batch->tasks) {
    number(task);
    task.submitted_ns = now;
  }
  has_inbox_.store(true);
  ring_doorbell();
}

xcoll_status Engine::run(Operation operation) {
  if (has_failed(segment_)) return sticky_error();
  std::unique_lock lock(mutex_);
  if (driven_ || has_work()) {
    lock.unlock();
    return run(std::make_shared<Batch>(one(std::move(operation))));
  }
  driven_ = true;
  Task& task = lone_.tasks.front();
  task = Task();
  task.operation = std::move(operation);
  task.batch = &lone_;
  number(task);
  lock.unlock();

  lone_.remaining = 1;
  lone_.status = XCOLL_OK;
  contain([&] {
    if (advance(task, caller_backoff_.polls()) == Advance::kDone) {
      finish(task);
    } else if (task.operation.is_transfer()) {
      transfers_.push_back(&task);
    } else {
      collectives_.push_back(&task);
    }
  });
  if (lone_.remaining > 0) drive(&lone_, caller_backoff_);
  const xcoll_status status = lone_.status;
  if (status != XCOLL_OK) set_last_error(status, lone_.text);
  release();
  return status;
}

xcoll_status Engine::run(const std::shared_ptr<Batch>& batch) {
  if (has_failed(segment_)) return sticky_error();
  std::unique_lock lock(mutex_);
  enqueue(batch);
  ++waiting_callers_;
  changed_.wait(lock, [&] { return batch->done() || !driven_; });
  --waiting_callers_;
  if (!batch->done()) {
    driven_ = true;
    lock.unlock();
    drive(batch.get(), caller_backoff_);
    release();
  }
  if (batch->status != XCOLL_OK) set_last_error(batch->status, batch->text);
  return batch->status;
}

void Engine::start(const std::shared_ptr<Batch>& batch) {
  need_progress_thread();
  const std::lock_guard lock(mutex_);
  enqueue(batch);
  changed_.notify_all();
}

void Engine::need_progress_thread() {
  if (has_thread_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  if (!thread_.joinable()) make_progress_thread();
  has_thread_.store(true, std::memory_order_release);
}

void Engine::make_progress_thread() {
  // The program's signals are for the program's threads: this one is made while all are blocked.
  struct SignalsBlocked {
    SignalsBlocked() {
      sigset_t all;
      ::sigfillset(&all);
      ::pthread_sigmask(SIG_SETMASK, &all, &before);
    }
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); }
    sigset_t before;
  } const blocked;
  try {
    thread_ = std::thread([this] { progress(); });
  } catch (const std::system_error& error) {
    throw Failure(XCOLL_ERR_SYSTEM,
                  "nothing was started: the progress thread of the communicator cannot be made: "
                  "{}. Raise the limit on processes (ulimit -u, or the container's pids limit)",
                  error.what());
  }
  ::pthread_setname_np(thread_.native_handle(), "xcoll");
}

bool Engine::run_briefly(const std::shared_ptr<Batch>& batch, uint64_t backoff_ns) {
  std::unique_lock lock(mutex_);
  if (driven_ || has_work()) {
    enqueue(batch);
    changed_.notify_all();
    return false;
  }
  enqueue(batch);
  driven_ = true;
  lock.unlock();
  // Where ranks share processors, standing still would keep the awaited one from running.
  contain([&] { drive_briefly(*batch, caller_backoff_.crowded() ? 0 : backoff_ns); });
  const bool done = batch->done();
  release();
  return done;
}

void Engine::fail_stream(Batch& batch, const std::string& why) {
  publish(diagnosis_.device_failed(nullptr, why));
  ring_doorbell();
  batch.wait(UINT64_MAX);
}

// ---- driving

// What a step of the driver throws is a failure of this rank, and so the communicator's.
template <typename Step>
void Engine::contain(Step&& step) noexcept {
  try {
    step();
  } catch (const std::bad_alloc&) {
    cannot_go_on("out of host memory");
  } catch (const std::exception& error) {
    cannot_go_on(error.what());
  } catch (...) {
    cannot_go_on("an exception of unknown type");
  }
}

void Engine::drive_briefly(const Batch& until, uint64_t backoff_ns) {
  uint64_t still_since_ns = 0;
  for (;;) {
    if (has_inbox_.load(std::memory_order_relaxed)) take_inbox();
    const bool moved = advance_all(caller_backoff_.polls());
    if (has_failed(segment_)) meet_failure();
    if (until.remaining == 0) return;
    const uint64_t now = now_ns();
    if (moved || still_since_ns == 0) still_since_ns = now;
    if (now - still_since_ns >= backoff_ns) return;
    cpu_relax();
  }
}

void Engine::progress() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return closing_ || (!driven_ && has_work()); });
    if (closing_) return;
    driven_ = true;
    lock.unlock();
    drive(nullptr, progress_backoff_);
    lock.lock();
    driven_ = false;
    changed_.notify_all();
  }
}

void Engine::release() {
  const std::lock_guard lock(mutex_);
  driven_ = false;
  if (has_work() || waiting_callers_ > 0) changed_.notify_all();
}

void Engine::drive(const Batch* until, Backoff& backoff) noexcept {
  bool over = false;
  while (!over) contain([&] { over = drive_once(until, backoff); });
}

bool Engine::drive_once(const Batch* until, Backoff& backoff) {
  if (has_inbox_.load(std::memory_order_relaxed)) take_inbox();
  // What can be completed is, also after a sticky error: its data are all there.
  const bool moved = advance_all(backoff.polls());
  if (has_failed(segment_)) meet_failure();
  if (until ? until->remaining == 0 : alive_.empty() || closing_) {
    backoff.made_progress();
    return true;
  }
  if (moved) {
    backoff.made_progress();
    if (++moves_ % kMovesBetweenLooks == 0) check_deadlines();
  } else if (!started_and_blocked() || !backoff.try_again()) {
    nap();
  }
  return false;
}

void Engine::take_inbox() {
  const size_t before = alive_.size();
  {
    const std::lock_guard lock(mutex_);
    alive_.insert(alive_.end(), inbox_.begin(), inbox_.end());
    inbox_.clear();
    has_inbox_.store(false);
  }
  for (size_t i = before; i < alive_.size(); ++i) {
    for (Task& task : alive_[i]->tasks) {
      if (task.operation.is_transfer()) {
        transfers_.push_back(&task);
      } else {
        collectives_.push_back(&task);
      }
    }
  }
}

bool Engine::advance_all(uint32_t polls) {
  // Polling one collective would starve the transfers beside it.
  const bool alone = transfers_.empty();
  const bool collectives_moved = advance_collectives(alone ? polls : 0);
  return (!alone && advance_transfers()) || collectives_moved;
}

bool Engine::advance_collectives(uint32_t polls) {
  bool moved = false;
  while (!collectives_.empty()) {
    Task& task = *collectives_.front();
    if (!task.batch->ready) return moved;
    const Advance advanced = advance(task, polls);
    if (advanced == Advance::kBlocked) return moved;
    moved = true;
    if (advanced == Advance::kMoved) return moved;
    if (advanced == Advance::kMismatch) {
      publish(diagnosis_.mismatch({task.operation, task.sequence, task.blocked_on()}));
      return moved;
    }
    collectives_.pop_front();
    finish(task);
  }
  return moved;
}

bool Engine::advance_transfers() {
  bool moved = false;
  bool sending[shm::kMaxRanks] = {};
  waiting_receives_.clear();
  channels_.unclaimed.clear();
  for (size_t i = 0; i < transfers_.size();) {
    Task& task = *transfers_[i];
    const bool is_send = task.operation.kind == XCOLL_SEND;
    const TagOfRank key{task.operation.peer, task.operation.tag};
    const bool oldest = is_send
                            ? !sending[key.peer]
                            : std::ranges::find(waiting_receives_, key) == waiting_receives_.end();
    Advance advanced = Advance::kBlocked;
    if (oldest && task.batch->ready) advanced = advance(task, 0);
    moved = moved || advanced != Advance::kBlocked;
    if (advanced == Advance::kMismatch) {
      const Scene scene{task.operation, 0, task.blocked_on()};
      publish(diagnosis_.transfer_mismatch(scene, task.transfer.found()));
      return true;
    }
    if (advanced == Advance::kDone) {
      transfers_.erase(transfers_.begin() + static_cast<ptrdiff_t>(i));
      finish(task);
      continue;
    }
    if (is_send) {
      sending[key.peer] = true;
    } else if (oldest) {
      waiting_receives_.push_back(key);
    }
    ++i;
  }
  if (moved) return true;
  // Nobody takes these messages, and they are in the way of one that somebody waits for.
  for (const uint32_t source : channels_.unclaimed) {
    moved = put_aside(view_, channels_, source) || moved;
  }
  return moved;
}

Advance Engine::advance(Task& task, uint32_t polls) {
  if (!task.begun()) {
    if (has_failed(segment_)) return Advance::kBlocked;
    if (!task.batch->cancelled.empty()) {
      const Scene scene{task.operation, task.sequence, rank_};
      publish(diagnosis_.device_failed(&scene, task.batch->cancelled));
      return Advance::kBlocked;
    }
    task.record = recorder_.begin(task.operation, task.sequence);
  }
  const Advance advanced =
      task.operation.is_transfer()
          ? task.transfer.advance(view_, task.operation, channels_)
          : task.collective.advance(view_, task.operation, task.sequence, polls);
  if (advanced == Advance::kBlocked && task.submitted_ns == 0) task.submitted_ns = now_ns();
  return advanced;
}

void Engine::finish(Task& task) {
  task.finished = true;
  recorder_.finish(task.record, XCOLL_OK);
  if (task.sequence != 0) {
    segment_.board(rank_).finished.store(task.sequence, std::memory_order_release);
  }
  Batch& batch = *task.batch;
  if (--batch.remaining == 0 && &batch != &lone_) complete(batch);
}

void Engine::complete(Batch& batch) noexcept {
  const auto of_batch = [&](const std::shared_ptr<Batch>& other) { return other.get() == &batch; };
  const auto position = std::ranges::find_if(alive_, of_batch);
  const std::shared_ptr<Batch> keep = std::move(*position);
  alive_.erase(position);
  keep->complete();
  notify_callers();
}

void Engine::notify_callers() noexcept {
  if (waiting_callers_ == 0) return;
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

}  // namespace xcoll::engine
