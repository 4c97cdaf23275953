// SPDX-License-Identifier: Apache-2.0
// backoff.hpp: how long a waiting rank keeps its processor before it sleeps.
//
// A futex wake across processors costs some 20 us, so a short wait is better spun. But a rank that
// spins on the processor that the awaited rank needs makes both wait: with more ranks than
// processors it yields instead. The budget is learned: waits that were short raise it, waits that
// went to sleep lower it.
#pragma once

#include <cstdint>

namespace xcoll::engine {

class Backoff {
 public:
  // `runners`: threads that want to run on this host on behalf of the communicator.
  explicit Backoff(uint32_t runners);

  bool crowded() const { return crowded_; }
  // How often one step may look at its counter before the engine looks around.
  uint32_t polls() const { return crowded_ ? 0 : 64; }

  // After an attempt without progress: true means try again (it has relaxed or
  // yielded), false sleep.
  bool try_again();
  void made_progress();

 private:
  static constexpr uint64_t kMaxBudgetNs = 50'000;
  static constexpr uint64_t kMinBudgetNs = 2'000;

  bool crowded_;
  uint64_t budget_ns_ = kMaxBudgetNs;
  uint64_t waiting_since_ns_ = 0;  // 0: not waiting
  uint32_t attempts_ = 0;
};

}  // namespace xcoll::engine
