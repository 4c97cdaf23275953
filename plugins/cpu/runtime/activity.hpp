// SPDX-License-Identifier: Apache-2.0
// activity.hpp: one record for each finished operation, while somebody listens.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "executors.hpp"
#include "xhal/plugin.hpp"

namespace xhal::cpu {

class ActivityLog {
 public:
  bool on() const { return on_.load(std::memory_order_relaxed); }
  // `callback` nullptr ends it; returns when no call of the old one is under way.
  void enable(xhal_activity_fn callback, void* user);
  // Records are delivered in batches by an executor.
  void add(const xhal_activity& record, Executors& executors) noexcept;
  void flush();  // on this thread

 private:
  static constexpr size_t kBatch = 1024;

  std::atomic<bool> on_{false};
  std::mutex deliver_mutex_;  // of the callback: taken before mutex_
  xhal_activity_fn callback_ = nullptr;
  void* user_ = nullptr;
  std::mutex mutex_;
  std::vector<xhal_activity> records_;
  Task delivery_;
  bool delivery_under_way_ = false;
};

}  // namespace xhal::cpu
