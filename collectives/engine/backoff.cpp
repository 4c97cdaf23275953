// SPDX-License-Identifier: Apache-2.0
#include "engine/backoff.hpp"

#include <sched.h>

#include <algorithm>

#include "base/clock.hpp"

namespace xcoll::engine {
namespace {

uint32_t processors() {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 1;
  return static_cast<uint32_t>(CPU_COUNT(&allowed));
}

}  // namespace

Backoff::Backoff(uint32_t runners) : crowded_(runners > processors()) {}

bool Backoff::try_again() {
  if (crowded_) {
    // If other programs want the core, yield() costs a scheduling quantum (milliseconds), while a
    // sleeper is scheduled as soon as it is woken. We time it and cut the spin budget.
    if (budget_ns_ == kMinBudgetNs) return false;
    ::sched_yield();
  } else {
    cpu_relax();
    // The clock is read now and then: it costs as much as an attempt.
    if (++attempts_ % 8 != 0) return true;
  }
  const uint64_t now = now_ns();
  if (waiting_since_ns_ == 0) waiting_since_ns_ = now;
  return now - waiting_since_ns_ < budget_ns_;
}

void Backoff::made_progress() {
  if (waiting_since_ns_ != 0) {
    const bool worth_spinning = now_ns() - waiting_since_ns_ < kMaxBudgetNs;
    budget_ns_ =
        std::clamp(worth_spinning ? budget_ns_ * 2 : budget_ns_ / 2, kMinBudgetNs, kMaxBudgetNs);
  }
  waiting_since_ns_ = 0;
  attempts_ = 0;
}

}  // namespace xcoll::engine
