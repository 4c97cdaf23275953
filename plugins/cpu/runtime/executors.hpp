// SPDX-License-Identifier: Apache-2.0
// executors.hpp: the threads of a device that run what is queued: streams that are ready, and calls
// into the host.
//
// A task is ready or it is not: nothing waits on an executor. What may block all the same (a
// host call, a vendor's kernel) says so, and then another executor takes its place, so that one
// slow callback stops nobody else. Threads start with the first task; one of them at most spins
// for the next.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "thread.hpp"
#include "wait.hpp"

namespace xhal::cpu {

struct Task {
  Task* next = nullptr;
  void* owner = nullptr;
  int32_t priority = 0;  // lower is more urgent
  void (*run)(Task*) = nullptr;
};

class Executors {
 public:
  // As many tasks run at once as the site has cores, but at least two: a long one never keeps a
  // short one waiting.
  Executors(const Site& site, std::string name);
  ~Executors();
  Executors(const Executors&) = delete;
  Executors& operator=(const Executors&) = delete;

  void push(Task* task) noexcept;  // any thread; runs it here only when no thread can be made
  void stop();                     // runs what is there, then joins

  // Whether a task as urgent as `priority` waits for a thread.
  bool wanted(int32_t priority) const {
    return best_waiting_.load(std::memory_order_relaxed) <= priority;
  }

  // Around a call that may block.
  class Blocking {
   public:
    explicit Blocking(Executors& executors);
    ~Blocking();
    Blocking(const Blocking&) = delete;
    Blocking& operator=(const Blocking&) = delete;

   private:
    Executors& executors_;
  };

 private:
  void serve();
  struct Spinner {
    bool away = false;  // has left the core it was on
    bool fed = false;   // its last task was handed over directly
  };
  Task* spin(Spinner& self);  // a task that was handed over directly, or nullptr
  bool leave_core();
  Task* take();        // the most urgent task, or nullptr; call with the lock held
  bool make_thread();  // call with the lock held; false when there are enough or none can be had
  void wake_or_make(std::unique_lock<std::mutex>& lock);

  static constexpr int32_t kNothing = INT32_MAX;

  const Site& site_;
  const std::string name_;
  const uint32_t target_;
  const uint64_t spin_ns_;

  // Everything push() touches fits in two cache lines, which are not in its core's cache.
  alignas(64) std::mutex mutex_;  // of the list and the counts
  Task* head_ = nullptr;
  uint32_t sleeping_ = 0;
  bool stopping_ = false;
  alignas(64) std::atomic<uint32_t> ready_{0};  // tasks in the list
  std::atomic<int32_t> best_waiting_{kNothing};
  std::atomic<uint32_t> doze_{0};     // futex word of the sleeping threads
  std::atomic<uint32_t> blocked_{0};  // threads inside a Blocking
  std::atomic<bool> spinning_{false};
  std::atomic<int> spins_on_{-1};  // the spinning thread's processor
  std::atomic<int> crowded_{0};    // tasks in a row from a spinning thread's own core
  // Where the spinning thread looks: nullptr while a task may be put there. It is closed whenever
  // that thread has given its core away, so that nobody relies on it then.
  std::atomic<Task*> handed_over_{&closed_};
  alignas(64) Task closed_;
  std::vector<std::thread> threads_;
};

}  // namespace xhal::cpu
