// SPDX-License-Identifier: Apache-2.0
#include "worker_pool.hpp"

#include <algorithm>
#include <system_error>

namespace xhal::cpu {
namespace {

constexpr uint64_t kSpinNs = 30'000;  // about what a wake across cores costs

}  // namespace

Workers::Workers(const Site& site, uint32_t helpers, std::string name)
    : site_(site), helpers_(helpers), name_(std::move(name)) {}

Workers::~Workers() { stop(); }

void Workers::start() {
  const std::lock_guard lock(start_mutex_);
  if (started_.load(std::memory_order_relaxed)) return;
  try {
    while (threads_.size() < helpers_) {
      threads_.push_back(
          start_thread(site_, name_ + "w" + std::to_string(threads_.size()), [this] { serve(); }));
    }
  } catch (const std::system_error&) {  // fewer helpers, or none: the caller does the rest
  }
  started_.store(true, std::memory_order_release);
}

void Workers::place() {
  const int core = site_.this_core();
  if (core < 0 || core == callers_core_) return;
  callers_core_ = core;
  const auto cores = static_cast<int>(site_.cores_cpus.size());
  // A job can still be under way while the pool is being stopped.
  const std::unique_lock lock(start_mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  for (int i = 0; i < static_cast<int>(threads_.size()); ++i) {
    const auto other = static_cast<size_t>((core + 1 + i) % cores);
    Topology::get().bind_thread(threads_[static_cast<size_t>(i)].native_handle(),
                                site_.cores_cpus[other]);
  }
}

void Workers::stop() {
  const std::lock_guard lock(start_mutex_);
  stopping_.store(true);
  doze_.fetch_add(1);
  futex_wake(doze_, INT_MAX);
  for (auto& t : threads_) t.join();
  threads_.clear();
  started_.store(true);
}

void Workers::claim_chunks() {
  const int64_t count = count_, chunk = chunk_;
  for (;;) {
    const int64_t begin = next_.fetch_add(chunk, std::memory_order_relaxed);
    if (begin >= count) return;
    body_(user_, begin, std::min(begin + chunk, count));
  }
}

uint32_t Workers::run(int64_t count, int64_t chunk, Body body, void* user, bool wake) {
  bool free = false;
  if (helpers_ == 0 || count <= chunk ||
      !taken_.compare_exchange_strong(free, true, std::memory_order_acquire)) {
    for (int64_t begin = 0; begin < count; begin += chunk)
      body(user, begin, std::min(begin + chunk, count));
    return 0;
  }
  if (!started_.load(std::memory_order_acquire)) start();

  body_ = body;
  user_ = user;
  count_ = count;
  chunk_ = chunk;
  next_.store(0, std::memory_order_relaxed);
  joined_.store(0, std::memory_order_relaxed);
  // Sequentially consistent with a helper's "I sleep, is there a job?".
  gate_.fetch_add(kJob | kOpen);
  if (wake) place();
  if (wake && sleepers_.load() > 0) {
    doze_.fetch_add(1);
    const int64_t others = (count + chunk - 1) / chunk - 1;
    futex_wake(doze_, static_cast<int>(std::min<int64_t>(others, helpers_)));
  }
  claim_chunks();

  const uint64_t left = gate_.fetch_sub(kOpen) & kInside;
  if (left != 0) {
    const auto done = [&] { return (gate_.load(std::memory_order_acquire) & kInside) == 0; };
    if (!spin_until(ticks_of(kSpinNs), done)) {
      caller_waits_.store(true);
      for (;;) {
        const uint32_t seen = finished_.load();
        if ((gate_.load() & kInside) == 0) break;
        futex_wait(finished_, seen);
      }
      caller_waits_.store(false);
    }
  }
  const uint32_t helped = joined_.load(std::memory_order_relaxed);
  taken_.store(false, std::memory_order_release);
  return helped;
}

void Workers::serve() {
  uint64_t last_job = 0;
  const auto open_job = [&] {
    const uint64_t gate = gate_.load(std::memory_order_acquire);
    return ((gate & kOpen) != 0 && gate / kJob != last_job) ||
           stopping_.load(std::memory_order_relaxed);
  };
  for (;;) {
    if (!spin_until(ticks_of(kSpinNs), open_job)) {
      sleepers_.fetch_add(1);
      for (;;) {
        const uint32_t seen = doze_.load();
        const uint64_t gate = gate_.load();
        if (((gate & kOpen) != 0 && gate / kJob != last_job) || stopping_.load()) break;
        futex_wait(doze_, seen);
      }
      sleepers_.fetch_sub(1);
    }
    if (stopping_.load()) return;
    uint64_t gate = gate_.load(std::memory_order_relaxed);
    bool in = false;
    while ((gate & kOpen) != 0 && gate / kJob != last_job && !in) {
      in = gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire,
                                       std::memory_order_relaxed);
    }
    if (!in) continue;
    last_job = gate / kJob;
    joined_.fetch_add(1, std::memory_order_relaxed);
    claim_chunks();
    if ((gate_.fetch_sub(1) & kInside) == 1 && caller_waits_.load()) {
      finished_.fetch_add(1);
      futex_wake(finished_, 1);
    }
  }
}

void PoolView::run(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t),
                   void* user) {
  const int64_t chunk = chunk_size(count, grain);
  if (inside_) {
    for (int64_t begin = 0; begin < count; begin += chunk)
      body(user, begin, std::min(begin + chunk, count));
    return;
  }
  inside_ = true;
  most_helpers_ = std::max(most_helpers_, workers_.run(count, chunk, body, user, wake_));
  inside_ = false;
}

}  // namespace xhal::cpu
