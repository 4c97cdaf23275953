// SPDX-License-Identifier: Apache-2.0
// worker_pool.hpp: the threads of a device that share the work of one operator.
//
// A job is a range cut into chunks that threads claim from one counter; the caller helps until none
// is left. One job runs at a time: a caller that finds the pool taken (another stream's operator)
// runs its job alone. Threads start with the first job, spin briefly after each one and then sleep.
// Each helper has a core for itself, and none has the caller's: left to the scheduler, a helper may
// wait on its caller's core for as long as the job lasts.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "ops/op.hpp"
#include "thread.hpp"
#include "wait.hpp"

namespace xhal::cpu {

// How many items a chunk has: a multiple of the grain that depends on nothing but count and grain.
constexpr int64_t chunk_size(int64_t count, int64_t grain) {
  constexpr int64_t kMostChunks = 128;
  grain = grain < 1 ? 1 : grain;
  const int64_t grains = (count + grain - 1) / grain;
  return (grains + kMostChunks - 1) / kMostChunks * grain;
}

class Workers {
 public:
  // `helpers` threads beside the caller, on cores of `site`.
  Workers(const Site& site, uint32_t helpers, std::string name);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  uint32_t helpers() const { return helpers_; }
  void stop();  // joins; a later job runs in its caller

  using Body = void (*)(void*, int64_t, int64_t);
  // Runs all chunks of [0, count). With `wake`, sleeping threads are called in; else only those
  // that still spin help.
  // Returns how many helpers took part.
  uint32_t run(int64_t count, int64_t chunk, Body body, void* user, bool wake);

 private:
  void start();
  void place();  // by the caller: moves the helpers off its core
  void serve();
  void claim_chunks();

  // The gate: low 16 bits = helpers inside, bit 16 = a job is open, high 32 bits = number
  // of the job.
  static constexpr uint64_t kInside = 0xffff, kOpen = 1u << 16, kJob = uint64_t{1} << 32;

  const Site& site_;
  const uint32_t helpers_;
  const std::string name_;
  std::mutex start_mutex_;
  std::vector<std::thread> threads_;
  int callers_core_ = -1;  // that the helpers are placed around; of the caller that has the pool
  std::atomic<bool> started_{false}, stopping_{false};

  alignas(64) std::atomic<uint64_t> gate_{0};
  std::atomic<uint32_t> joined_{0};
  Body body_ = nullptr;
  void* user_ = nullptr;
  int64_t count_ = 0, chunk_ = 0;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> doze_{0};  // futex word of the sleeping helpers
  std::atomic<uint32_t> sleepers_{0};
  alignas(64) std::atomic<uint32_t> finished_{
      0};  // futex word of a caller that waits for the last helper
  std::atomic<bool> caller_waits_{false};
  alignas(64) std::atomic<bool> taken_{false};
};

// The pool as one run of one operator sees it.
class PoolView final : public WorkerPool {
 public:
  // `parallel`: the work is worth more than one thread; `wake`: also worth waking sleeping ones.
  PoolView(Workers& workers, bool parallel, bool wake)
      : workers_(workers), parallel_(parallel), wake_(wake) {}
  int threads() const override { return parallel_ ? static_cast<int>(workers_.helpers()) + 1 : 1; }
  uint32_t most_helpers() const { return most_helpers_; }

 protected:
  void run(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t),
           void* user) override;

 private:
  Workers& workers_;
  const bool parallel_, wake_;
  bool inside_ = false;  // a job of this view is under way: a nested one runs where it is
  uint32_t most_helpers_ = 0;
};

}  // namespace xhal::cpu
