// SPDX-License-Identifier: Apache-2.0
#include "executors.hpp"

#include <algorithm>
#include <utility>

namespace xhal::cpu {
namespace {

constexpr uint64_t kSpinNs = 30'000;  // about what a wake across cores costs
// Looks of a spinning thread before it offers its core to others again, and the time after which
// one that has its core back must have had to share it.
constexpr int kLooks = 200;
constexpr uint64_t kContendedNs = 3'000;
// After so many tasks that came from its own core a spinning thread tries another one; when that is
// no better, it stays for so many.
constexpr int kCrowdedRounds = 16, kStayRounds = 1000;
constexpr size_t kMostThreads = 256;

thread_local Executors* this_executor = nullptr;

}  // namespace

// On a single core, spinning would keep from work what it waits for.
Executors::Executors(const Site& site, std::string name)
    : site_(site),
      name_(std::move(name)),
      target_(std::max(site.cores, 2u)),
      spin_ns_(site.cores > 1 ? kSpinNs : 0) {}

Executors::~Executors() { stop(); }

bool Executors::make_thread() {
  if (stopping_ || threads_.size() - blocked_ >= target_ || threads_.size() >= kMostThreads)
    return false;
  try {
    threads_.push_back(
        start_thread(site_, name_ + "x" + std::to_string(threads_.size()), [this] { serve(); }));
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

void Executors::push(Task* task) noexcept {
  // A thread that spins on this very processor cannot go on before this one stops: then the
  // scheduler shall find a place for another.
  const bool here = spins_on_.load(std::memory_order_relaxed) == sched_getcpu();
  Task* nothing = nullptr;
  if (!here && handed_over_.load(std::memory_order_relaxed) == nullptr &&
      handed_over_.compare_exchange_strong(nothing, task, std::memory_order_release,
                                           std::memory_order_relaxed))
    return;
  if (here && spinning_.load(std::memory_order_relaxed))
    crowded_.fetch_add(1, std::memory_order_relaxed);
  std::unique_lock lock(mutex_);
  Task** place = &head_;
  while (*place != nullptr && (*place)->priority <= task->priority) place = &(*place)->next;
  task->next = *place;
  *place = task;
  best_waiting_.store(head_->priority, std::memory_order_relaxed);
  ready_.fetch_add(1);
  wake_or_make(lock);
}

// Sees to it that a task in the list will be taken by a thread.
void Executors::wake_or_make(std::unique_lock<std::mutex>& lock) {
  if (sleeping_ > 0) {
    doze_.fetch_add(1);
    lock.unlock();
    futex_wake(doze_, 1);
    return;
  }
  if (make_thread() || !threads_.empty()) return;
  // No thread at all can be had: better late work in the wrong thread than none.
  Task* task = take();
  lock.unlock();
  if (task != nullptr) task->run(task);
}

Task* Executors::take() {
  Task* task = head_;
  if (task == nullptr) return nullptr;
  head_ = task->next;
  task->next = nullptr;
  ready_.fetch_sub(1);
  best_waiting_.store(head_ == nullptr ? kNothing : head_->priority, std::memory_order_relaxed);
  return task;
}

// Off the core it is on, for as long as it spins: its submitter is there, too.
bool Executors::leave_core() {
  const int core = site_.this_core();
  if (core < 0 || site_.cores_cpus.size() < 2) return false;
  hwloc_bitmap_t others = hwloc_bitmap_dup(site_.cpus);
  hwloc_bitmap_andnot(others, others, site_.cores_cpus[static_cast<size_t>(core)]);
  Topology::get().bind_thread(pthread_self(), others);
  hwloc_bitmap_free(others);
  return true;
}

// Looks for work for a while. Begins with a yield, for that may be the thread that was just woken,
// unless the last task came from another core: then the next one comes soon. A yield that takes
// long says that others want this core, and spinning would only slow both.
Task* Executors::spin(Spinner& self) {
  const uint64_t budget = ticks_of(spin_ns_), contended = ticks_of(kContendedNs);
  if (!self.away && crowded_.load(std::memory_order_relaxed) >= kCrowdedRounds)
    self.away = leave_core();
  spins_on_.store(sched_getcpu(), std::memory_order_relaxed);
  const auto give_up = [&](int rounds) -> Task* {
    crowded_.store(rounds, std::memory_order_relaxed);
    if (self.away) Topology::get().bind_this_thread(site_);
    self = {};
    return nullptr;
  };
  for (const uint64_t start = ticks();;) {
    const uint64_t before = ticks();
    if (before - start > budget) return give_up(0);
    if (!std::exchange(self.fed, false)) {
      sched_yield();
      const uint64_t waited = ticks() - before;
      const bool ready = ready_.load(std::memory_order_acquire) != 0;
      if (self.away && waited > contended) return give_up(-kStayRounds);
      if (waited > contended) return give_up(crowded_.load(std::memory_order_relaxed));
      if (ready) return nullptr;
    }
    spins_on_.store(sched_getcpu(), std::memory_order_relaxed);
    handed_over_.store(nullptr, std::memory_order_relaxed);
    for (int i = 0; i < kLooks; ++i) {
      _mm_pause();
      if (handed_over_.load(std::memory_order_relaxed) != nullptr) break;
      if (ready_.load(std::memory_order_relaxed) != 0) break;
    }
    Task* given = handed_over_.exchange(&closed_, std::memory_order_acquire);
    if (given != nullptr) {
      crowded_.store(0, std::memory_order_relaxed);
      self.fed = true;
      return given;
    }
    if (ready_.load(std::memory_order_acquire) != 0) return nullptr;
  }
}

void Executors::serve() {
  this_executor = this;
  Spinner self;
  std::unique_lock lock(mutex_);
  for (;;) {
    if (Task* task = take()) {
      // A wake may still be on its way to the thread that this task was meant for.
      if (head_ != nullptr && sleeping_ > 0) {
        wake_or_make(lock);
      } else {
        if (head_ != nullptr) make_thread();
        lock.unlock();
      }
      task->run(task);
      if (!lock.owns_lock()) lock.lock();
      continue;
    }
    if (stopping_) return;
    if (spin_ns_ != 0 && !spinning_.load(std::memory_order_relaxed)) {
      spinning_.store(true, std::memory_order_relaxed);
      lock.unlock();
      Task* task = spin(self);
      spinning_.store(false, std::memory_order_relaxed);
      if (task != nullptr) task->run(task);
      lock.lock();
      if (task != nullptr || head_ != nullptr) continue;
      if (stopping_) return;
    }
    ++sleeping_;
    const uint32_t seen = doze_.load();
    lock.unlock();
    futex_wait(doze_, seen);
    lock.lock();
    --sleeping_;
  }
}

void Executors::stop() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    doze_.fetch_add(1);
    threads.swap(threads_);
  }
  futex_wake(doze_, INT_MAX);
  for (auto& t : threads) t.join();
}

// Either this thread sees a task that was pushed, or who pushes it sees a thread less.
Executors::Blocking::Blocking(Executors& executors) : executors_(executors) {
  if (this_executor != &executors_) return;
  executors_.blocked_.fetch_add(1);
  if (executors_.ready_.load() == 0) return;
  const std::lock_guard lock(executors_.mutex_);
  if (executors_.head_ != nullptr && executors_.sleeping_ == 0) executors_.make_thread();
}

Executors::Blocking::~Blocking() {
  if (this_executor == &executors_) executors_.blocked_.fetch_sub(1);
}

}  // namespace xhal::cpu
