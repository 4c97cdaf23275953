// SPDX-License-Identifier: Apache-2.0
// replaceable_callback.hpp: a callback that a program may exchange at any time. Calls nobody while
// it has a lock.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

namespace xhal {

// `Function` takes the `user` it came with, and then what call() is given.
template <class Function>
class ReplaceableCallback {
 public:
  explicit ReplaceableCallback(std::mutex& mutex) : mutex_(mutex) {}
  bool on() const { return on_.load(std::memory_order_relaxed); }

  // False when there is none.
  template <class... Args>
  bool call(const Args&... args) noexcept {
    std::shared_ptr<Callback> callback;
    {
      const std::lock_guard lock(mutex_);
      if (callback_ == nullptr) return false;
      callback = callback_;
      ++callback->running;
    }
    Running here{this, running_here};
    running_here = &here;
    callback->function(callback->user, args...);
    running_here = here.outer;
    const std::lock_guard lock(mutex_);
    if (--callback->running == 0) ended_.notify_all();
    return true;
  }

  // Returns once no call of the one before is running. False, and nothing changes, when this is
  // called from inside one.
  bool replace(Function function, void* user) {
    for (const auto* r = running_here; r != nullptr; r = r->outer) {
      if (r->callback == this) return false;
    }
    std::shared_ptr<Callback> next;
    if (function != nullptr) next = std::make_shared<Callback>(Callback{function, user});
    std::unique_lock lock(mutex_);
    next.swap(callback_);
    on_.store(callback_ != nullptr, std::memory_order_relaxed);
    if (next != nullptr) ended_.wait(lock, [&] { return next->running == 0; });
    return true;
  }

  // Calls it no more; a call under way goes on. Also from inside one.
  void forget() noexcept {
    std::shared_ptr<Callback> last;
    const std::lock_guard lock(mutex_);
    last.swap(callback_);
    on_.store(false, std::memory_order_relaxed);
  }

 private:
  struct Callback {
    Function function;
    void* user;
    int running = 0;
  };
  struct Running {
    const ReplaceableCallback* callback;
    Running* outer;
  };
  static inline constinit thread_local Running* running_here = nullptr;

  std::atomic<bool> on_{false};
  std::mutex& mutex_;  // of what follows
  std::shared_ptr<Callback> callback_;
  std::condition_variable ended_;
};

}  // namespace xhal
