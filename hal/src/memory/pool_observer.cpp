#include "memory/pool_observer.hpp"

#include "core/locks.hpp"

namespace xhal {

constinit thread_local PoolObserver::Running* PoolObserver::running_here = nullptr;

namespace {

static StripedMutex& locks() {
  static auto* locks = new StripedMutex(Rank::observer);
  return *locks;
}
static const AtLoad locks_at_load(locks);

std::mutex& mutex_of(const void* observer) { return locks().of(observer); }

}  // namespace

PoolObserver::PoolObserver() : mutex_(mutex_of(this)) {}

void PoolObserver::tell(const xhal_pool_record& record) noexcept {
  std::shared_ptr<Callback> callback;
  {
    const std::lock_guard lock(mutex_);
    if (callback_ == nullptr) return;
    callback = callback_;
    ++callback->running;
  }
  Running here{this, running_here};
  running_here = &here;
  callback->function(callback->user, &record);
  running_here = here.outer;
  const std::lock_guard lock(mutex_);
  if (--callback->running == 0) ended_.notify_all();
}

bool PoolObserver::replace(xhal_pool_fn callback, void* user) {
  for (const auto* r = running_here; r != nullptr; r = r->outer) {
    if (r->observer == this) return false;
  }
  std::shared_ptr<Callback> next;
  if (callback != nullptr) next = std::make_shared<Callback>(Callback{callback, user});
  std::unique_lock lock(mutex_);
  next.swap(callback_);
  on_.store(callback_ != nullptr, std::memory_order_relaxed);
  if (next != nullptr) ended_.wait(lock, [&] { return next->running == 0; });
  return true;
}

}  // namespace xhal
