#include "executors.hpp"

#include <algorithm>
#include <system_error>

namespace xhal::cpu {
namespace {

constexpr uint64_t kSpinNs = 30'000;  // about what a wake across cores costs
// Looks of a spinning thread before it offers its core to others again, and the time after which
// one that has its core back must have had to share it.
constexpr int kLooks = 200;
constexpr uint64_t kContendedNs = 3'000;
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
  Task* nothing = nullptr;
  if (handed_over_.load(std::memory_order_relaxed) == nullptr &&
      spins_on_.load(std::memory_order_relaxed) != sched_getcpu() &&
      handed_over_.compare_exchange_strong(nothing, task, std::memory_order_release,
                                           std::memory_order_relaxed))
    return;
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

// Looks for work for a while. Begins with a yield, for that may be the thread that was just woken;
// one that takes long says that others want this core, and spinning would only slow both.
Task* Executors::spin() {
  const uint64_t budget = ticks_of(spin_ns_), contended = ticks_of(kContendedNs);
  for (const uint64_t start = ticks();;) {
    const uint64_t before = ticks();
    if (before - start > budget) return nullptr;
    sched_yield();
    if (ready_.load(std::memory_order_acquire) != 0 || ticks() - before > contended) return nullptr;
    spins_on_.store(sched_getcpu(), std::memory_order_relaxed);
    handed_over_.store(nullptr, std::memory_order_relaxed);
    for (int i = 0; i < kLooks; ++i) {
      _mm_pause();
      if (handed_over_.load(std::memory_order_relaxed) != nullptr) break;
      if (ready_.load(std::memory_order_relaxed) != 0) break;
    }
    Task* given = handed_over_.exchange(&closed_, std::memory_order_acquire);
    if (given != nullptr) return given;
    if (ready_.load(std::memory_order_acquire) != 0) return nullptr;
  }
}

void Executors::serve() {
  this_executor = this;
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
      Task* task = spin();
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

Executors::Blocking::Blocking(Executors& executors) : executors_(executors) {
  if (this_executor != &executors_) return;
  const std::lock_guard lock(executors_.mutex_);
  ++executors_.blocked_;
  if (executors_.head_ != nullptr && executors_.sleeping_ == 0) executors_.make_thread();
}

Executors::Blocking::~Blocking() {
  if (this_executor != &executors_) return;
  const std::lock_guard lock(executors_.mutex_);
  --executors_.blocked_;
}

}  // namespace xhal::cpu
