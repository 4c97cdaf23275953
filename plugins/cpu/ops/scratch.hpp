// SPDX-License-Identifier: Apache-2.0
// scratch.hpp: temporary memory of the workers of one run, cut from the launch's workspace.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>

namespace xhal::cpu {

constexpr uint64_t align64(uint64_t bytes) { return (bytes + 63) & ~uint64_t{63}; }

// As many areas as bodies of one parallel_for can run at a time. A body borrows one for as long as
// it runs; which one it gets has no influence on results.
class ScratchAreas {
 public:
  // Areas needed for `chunks` chunks; their total is what prepare adds to workspace_bytes.
  static int count_for(int64_t chunks) {
    const int64_t threads = std::max(4u, std::thread::hardware_concurrency());
    return static_cast<int>(std::clamp<int64_t>(chunks, 1, std::min<int64_t>(threads, kMost)));
  }

  ScratchAreas(void* base, uint64_t area_bytes, int count)
      : base_(static_cast<char*>(base)), area_bytes_(area_bytes), count_(count) {}

  class Loan {
   public:
    explicit Loan(ScratchAreas& areas) : areas_(areas), index_(areas.take()) {}
    ~Loan() { areas_.taken_[index_].store(false, std::memory_order_release); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    char* data() const { return areas_.base_ + areas_.area_bytes_ * static_cast<uint64_t>(index_); }

   private:
    ScratchAreas& areas_;
    const int index_;
  };

 private:
  static constexpr int64_t kMost = 256;

  // Waits when a pool has more threads than the machine: somebody who holds an area is running.
  int take() {
    for (;; std::this_thread::yield())
      for (int i = 0; i < count_; ++i)
        if (!taken_[i].exchange(true, std::memory_order_acquire)) return i;
  }

  char* base_;
  uint64_t area_bytes_;
  int count_;
  std::atomic<bool> taken_[kMost] = {};
};

}  // namespace xhal::cpu
