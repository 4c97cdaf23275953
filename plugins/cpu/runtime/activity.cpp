// SPDX-License-Identifier: Apache-2.0
#include "activity.hpp"

#include <utility>

namespace xhal::cpu {

void ActivityLog::enable(xhal_activity_fn callback, void* user) {
  if (callback == nullptr) on_.store(false);
  const std::lock_guard deliver(deliver_mutex_);
  if (callback != nullptr && callback_ != nullptr) {
    throw plugin::Error(XHAL_ERR_BUSY,
                        "activity of this device is delivered to somebody else already");
  }
  callback_ = callback;
  user_ = user;
  const std::lock_guard lock(mutex_);
  records_.clear();
  on_.store(callback != nullptr);
}

void ActivityLog::add(const xhal_activity& record, Executors& executors) noexcept {
  try {
    {
      const std::lock_guard lock(mutex_);
      records_.push_back(record);
      if (records_.size() < kBatch || delivery_under_way_) return;
      delivery_under_way_ = true;
      delivery_.owner = this;
      delivery_.run = [](Task* task) {
        auto* log = static_cast<ActivityLog*>(task->owner);
        {
          const std::lock_guard inner(log->mutex_);
          log->delivery_under_way_ = false;
        }
        log->flush();
      };
    }
    executors.push(&delivery_);
  } catch (const std::bad_alloc&) {  // a lost record, not a lost program
  }
}

void ActivityLog::flush() {
  const std::lock_guard deliver(deliver_mutex_);
  std::vector<xhal_activity> batch;
  {
    const std::lock_guard lock(mutex_);
    batch.swap(records_);
  }
  if (!batch.empty() && callback_ != nullptr)
    callback_(user_, batch.data(), static_cast<uint32_t>(batch.size()));
}

}  // namespace xhal::cpu
