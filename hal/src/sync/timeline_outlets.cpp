// SPDX-License-Identifier: Apache-2.0
#include "sync/timeline_outlets.hpp"

#include <unistd.h>

#include <map>
#include <memory>
#include <vector>

#include "core/locks.hpp"
#include "core/outlets.hpp"

namespace xhal {
namespace {

// Our end of one, from its making to the value or to the caller's close.
struct Pending {
  explicit Pending(int fd) : ours(fd) {}
  ~Pending() { close(ours); }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;

  const int ours;
  Timeline* timeline = nullptr;  // under the lock; not followed but to cancel by number
  uint64_t value = 0, number = 0;
};

struct AllPending {
  Mutex mutex{Rank::outlets};
  std::map<int, std::shared_ptr<Pending>> by_fd;
  size_t look_again = 64;  // how many make the next look at them worth while
};
AllPending& all_pending() {
  static auto* a = new AllPending;
  return *a;
}
const AtLoad all_pending_at_load(all_pending);

// The values are the parent's to reach. The callbacks that would own these are left alone, too.
void in_forked_child() {
  auto& by_fd = all_pending().by_fd;
  for (const auto& [fd, pending] : by_fd) {
    close(fd);
    (void)new std::shared_ptr<Pending>(pending);
  }
  by_fd.clear();
}
const AtLoad forks([] { run_in_forked_child(in_forked_child); });

void come_true(const std::shared_ptr<Pending>& pending) {
  const uint64_t one = 1;
  (void)write_outlet(pending->ours, &one, sizeof one);
  auto& all = all_pending();
  const std::lock_guard lock(all.mutex);
  if (const auto it = all.by_fd.find(pending->ours); it != all.by_fd.end() && it->second == pending)
    all.by_fd.erase(it);
}

// Forgets those whose caller has closed its end. The cost of a look is shared by the many calls
// that made it necessary.
void sweep() {
  auto& all = all_pending();
  std::vector<std::shared_ptr<Pending>> candidates;
  {
    const std::lock_guard lock(all.mutex);
    if (all.by_fd.size() < all.look_again) return;
    for (const auto& [fd, pending] : all.by_fd) candidates.push_back(pending);
  }
  size_t kept = 0;
  for (const auto& pending : candidates) {
    if (!reader_gone(pending->ours)) {
      ++kept;
      continue;
    }
    Timeline* timeline = nullptr;
    {
      const std::lock_guard lock(all.mutex);
      all.by_fd.erase(pending->ours);
      timeline = std::exchange(pending->timeline, nullptr);
    }
    // Numbers are never used again: on a timeline that has begun another life there is none.
    if (timeline != nullptr) timeline->cancel(pending->value, pending->number);
  }
  const std::lock_guard lock(all.mutex);
  all.look_again = 2 * kept + 64;
}

}  // namespace

int timeline_outlet(Timeline& timeline, uint64_t value) {
  sweep();
  Outlet outlet;
  if (!open_outlet(&outlet)) return -1;
  std::shared_ptr<Pending> pending;
  try {
    pending = std::make_shared<Pending>(outlet.ours);
  } catch (...) {
    close(outlet.ours);
    close(outlet.theirs);
    throw;
  }
  auto& all = all_pending();
  try {
    {
      const std::lock_guard lock(all.mutex);
      all.by_fd[outlet.ours] = pending;
    }
    const uint64_t number = timeline.notify(value, [pending](xhal_status) { come_true(pending); });
    const std::lock_guard lock(all.mutex);
    pending->timeline = &timeline;
    pending->value = value;
    pending->number = number;
  } catch (...) {
    const std::lock_guard lock(all.mutex);
    all.by_fd.erase(outlet.ours);
    close(outlet.theirs);
    throw;
  }
  return outlet.theirs;
}

}  // namespace xhal
