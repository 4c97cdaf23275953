// pool_observer.hpp: who is told what happens in a pool. Calls nobody while it has a lock.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "xhal/pool.h"

namespace xhal {

class PoolObserver {
 public:
  bool on() const { return on_.load(std::memory_order_relaxed); }
  void tell(const xhal_pool_record& record) noexcept;
  // Returns once no call of the one before is running. False, and nothing changes, when this is
  // called from inside one.
  bool replace(xhal_pool_fn callback, void* user);

 private:
  struct Callback {
    xhal_pool_fn function;
    void* user;
    int running = 0;
  };
  struct Running {
    const PoolObserver* observer;
    Running* outer;
  };
  static thread_local Running* running_here;

  std::atomic<bool> on_{false};
  std::mutex mutex_;  // of what follows
  std::shared_ptr<Callback> callback_;
  std::condition_variable ended_;
};

}  // namespace xhal
