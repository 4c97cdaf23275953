// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>

#include "base/failure.hpp"
#include "engine/failure_board.hpp"

namespace xcoll::engine {
namespace {

// A sleeper looks this often whether the others live; bounds how late a death is seen.
constexpr uint64_t kLookAroundNs = 10'000'000;
// While nothing has started there is nobody to look after.
constexpr uint64_t kIdleNs = 200'000'000;

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
      lone_(one(Operation())) {}

Engine::~Engine() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  shm::ring(segment_.doorbell(rank_));
  if (thread_.joinable()) thread_.join();
  take_inbox();
  fail_everything(XCOLL_ERR_ABORTED, "the communicator was destroyed before the operation had run");
  segment_.board(rank_).left.store(1);
  shm::ring_all_sleeping(segment_, rank_);
}

xcoll_status Engine::sticky_error() const {
  if (!has_failed(segment_)) return XCOLL_OK;
  const xcoll_failure failure = read_failure(segment_);
  return set_last_error(failure.status, failure.text);
}

void Engine::number(Task& task) {
  if (task.operation.timeout_ns == 0) {
    task.operation.timeout_ns = timeout_ns_.load(std::memory_order_relaxed);
  }
  if (task.operation.is_transfer()) return;
  task.sequence = sequence_.load(std::memory_order_relaxed) + 1;
  sequence_.store(task.sequence, std::memory_order_relaxed);
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
  if (advance(task, caller_backoff_.polls()) == Advance::kDone) {
    finish(task, XCOLL_OK, {});
  } else {
    if (task.operation.is_transfer()) {
      transfers_.push_back(&task);
    } else {
      collectives_.push_back(&task);
    }
    drive(&lone_, caller_backoff_);
  }
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
  const std::lock_guard lock(mutex_);
  enqueue(batch);
  need_progress_thread();
  changed_.notify_all();
}

void Engine::need_progress_thread() {
  if (thread_.joinable()) return;
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
  thread_ = std::thread([this] { progress(); });
  ::pthread_setname_np(thread_.native_handle(), "xcoll");
}

bool Engine::run_briefly(const std::shared_ptr<Batch>& batch, uint64_t backoff_ns) {
  std::unique_lock lock(mutex_);
  need_progress_thread();
  if (driven_ || has_work()) {
    enqueue(batch);
    changed_.notify_all();
    return false;
  }
  enqueue(batch);
  driven_ = true;
  lock.unlock();
  // Where ranks share processors, standing still would keep the awaited one from running.
  drive_briefly(*batch, caller_backoff_.crowded() ? 0 : backoff_ns);
  const bool done = batch->done();
  release();
  return done;
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

void Engine::enqueue(const std::shared_ptr<Batch>& batch) {
  for (Task& task : batch->tasks) number(task);
  inbox_.push_back(batch);
  has_inbox_.store(true);
  ring_doorbell();
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

void Engine::drive(const Batch* until, Backoff& backoff) {
  for (;;) {
    if (has_inbox_.load(std::memory_order_relaxed)) take_inbox();
    // What can be completed is, also after a sticky error: its data are all there.
    const bool moved = advance_all(backoff.polls());
    if (has_failed(segment_)) meet_failure();
    if (until ? until->remaining == 0 : alive_.empty() || closing_) {
      backoff.made_progress();
      return;
    }
    if (moved) {
      backoff.made_progress();
    } else if (!started_and_blocked() || !backoff.try_again()) {
      nap();
    }
  }
}

void Engine::take_inbox() {
  const std::lock_guard lock(mutex_);
  has_inbox_.store(false);
  for (std::shared_ptr<Batch>& batch : inbox_) {
    for (Task& task : batch->tasks) {
      if (task.operation.is_transfer()) {
        transfers_.push_back(&task);
      } else {
        collectives_.push_back(&task);
      }
    }
    alive_.push_back(std::move(batch));
  }
  inbox_.clear();
}

bool Engine::advance_all(uint32_t polls) {
  // Polling one collective would starve the transfers beside it.
  const bool alone = transfers_.empty();
  const bool collectives_moved = advance_collectives(alone ? polls : 0);
  return advance_transfers() || collectives_moved;
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
    finish(task, XCOLL_OK, {});
  }
  return moved;
}

bool Engine::advance_transfers() {
  bool moved = false;
  // A transfer that is not the oldest of its channel waits.
  uint8_t busy[2][shm::kMaxRanks] = {};
  for (size_t i = 0; i < transfers_.size();) {
    Task& task = *transfers_[i];
    uint8_t& channel = busy[task.operation.kind == XCOLL_SEND][task.operation.peer];
    Advance advanced = Advance::kBlocked;
    if (!channel && task.batch->ready) advanced = advance(task, 0);
    channel = 1;
    moved = moved || advanced != Advance::kBlocked;
    if (advanced == Advance::kMismatch) {
      publish(diagnosis_.mismatch({task.operation, 0, task.blocked_on()}));
      return true;
    }
    if (advanced != Advance::kDone) {
      ++i;
      continue;
    }
    channel = 0;
    transfers_.erase(transfers_.begin() + static_cast<ptrdiff_t>(i));
    finish(task, XCOLL_OK, {});
  }
  return moved;
}

Advance Engine::advance(Task& task, uint32_t polls) {
  if (task.record == 0) {
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
  if (advanced == Advance::kBlocked && task.blocked_since_ns == 0) task.blocked_since_ns = now_ns();
  return advanced;
}

void Engine::finish(Task& task, xcoll_status status, const std::string& text) {
  if (task.record != 0) recorder_.finish(task.record, status);
  if (status == XCOLL_OK && task.sequence != 0) {
    segment_.board(rank_).finished.store(task.sequence, std::memory_order_release);
  }
  Batch& batch = *task.batch;
  if (status != XCOLL_OK && batch.status == XCOLL_OK) {
    batch.status = status;
    batch.text = text;
  }
  if (--batch.remaining == 0 && &batch != &lone_) complete(batch);
}

void Engine::complete(Batch& batch) {
  const auto of_batch = [&](const std::shared_ptr<Batch>& other) { return other.get() == &batch; };
  const auto position = std::ranges::find_if(alive_, of_batch);
  const std::shared_ptr<Batch> keep = std::move(*position);
  alive_.erase(position);
  keep->complete();
  if (waiting_callers_ == 0) return;
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

// The oldest task that has begun and waits for another rank; null when there is none.
const Task* Engine::started_and_blocked() const {
  if (!collectives_.empty() && collectives_.front()->record != 0) return collectives_.front();
  for (const Task* task : transfers_) {
    if (task->record != 0) return task;
  }
  return nullptr;
}

void Engine::nap() {
  shm::Nap nap(segment_, rank_);
  const bool something_new = has_inbox_ || has_failed(segment_) || closing_ || advance_all(0);
  if (something_new) return;
  const Task* blocked = started_and_blocked();
  std::atomic<int32_t>& waiting_on = segment_.board(rank_).waiting_on;
  if (blocked) waiting_on.store(static_cast<int32_t>(blocked->blocked_on()));
  nap.sleep(blocked ? kLookAroundNs : kIdleNs);
  waiting_on.store(-1);
  if (!collectives_.empty() && watch(*collectives_.front())) return;
  for (Task* task : transfers_) {
    if (watch(*task)) return;
  }
}

// Has the rank that this task waits for failed, or its time run out? True: a sticky
// error was published.
bool Engine::watch(Task& task) {
  if (task.record == 0 || task.blocked_since_ns == 0) return false;
  Scene scene{task.operation, task.sequence, task.blocked_on()};
  const int32_t lost = diagnosis_.find_lost(scene);
  if (lost >= 0) {
    // It may have done its part before it went: look once more, now that nothing more can come.
    scene.blocked_on = static_cast<uint32_t>(lost);
    if (advance_all(0)) return true;
    publish(diagnosis_.lost(static_cast<uint32_t>(lost), &scene));
    return true;
  }
  const uint64_t waited_ns = now_ns() - task.blocked_since_ns;
  if (waited_ns < task.operation.timeout_ns) return false;
  publish(diagnosis_.timeout(scene, waited_ns));
  return true;
}

void Engine::publish(const xcoll_failure& failure) { publish_failure(segment_, failure); }

void Engine::meet_failure() {
  const xcoll_failure failure = read_failure(segment_);
  if (!failure_met_) {
    failure_met_ = true;
    if (on_failure) on_failure();
  }
  fail_everything(failure.status, failure.text);
}

void Engine::fail_everything(xcoll_status status, const std::string& text) {
  std::vector<Task*> tasks(collectives_.begin(), collectives_.end());
  tasks.insert(tasks.end(), transfers_.begin(), transfers_.end());
  collectives_.clear();
  transfers_.clear();
  for (Task* task : tasks) finish(*task, status, text);
}

}  // namespace xcoll::engine
