// SPDX-License-Identifier: Apache-2.0
// hidden_order.hpp: the card's process raises a timeline after the host calls before it have run.
// The thread sanitizer cannot see that, for it happens in another process: here it is told.
#pragma once

#include <mutex>
#include <set>

#include "xhal/host.h"

#ifdef __SANITIZE_THREAD__
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);

class HiddenOrder {
 public:
  // A host call has run: whoever sees a later value of these timelines sees what it wrote.
  void has_run() {
    const std::lock_guard lock(mutex_);
    __tsan_release(this);
    for (auto* cell : cells_) __tsan_release(&cell->value);
  }
  // A signal of this timeline is given to the card, behind everything that has run.
  void will_raise(xhal_timeline_cell* cell) {
    const std::lock_guard lock(mutex_);
    cells_.insert(cell);
    __tsan_acquire(this);
    __tsan_release(&cell->value);
  }

 private:
  std::mutex mutex_;
  std::set<xhal_timeline_cell*> cells_;
};
#else
class HiddenOrder {
 public:
  void has_run() {}
  void will_raise(xhal_timeline_cell*) {}
};
#endif
