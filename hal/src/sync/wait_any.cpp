// SPDX-License-Identifier: Apache-2.0
#include "sync/wait_any.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <vector>

#include "core/state.hpp"
#include "sync/release_policy.hpp"

namespace xhal {
namespace {

constexpr const char* kOp = "xhal_timeline_wait_many";
constexpr uint32_t kNone = UINT32_MAX;

// Raised by the first callback; a late one finds it taken.
struct First {
  std::atomic<uint32_t> index{kNone};

  void take(uint32_t i) {
    uint32_t none = kNone;
    if (index.compare_exchange_strong(none, i, std::memory_order_seq_cst))
      syscall(SYS_futex, &index, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
  }
  // Until it is taken or the deadline has passed.
  void wait(uint64_t deadline) {
    while (index.load(std::memory_order_seq_cst) == kNone) {
      if (deadline != XHAL_FOREVER && now_ns() >= deadline) return;
      const timespec until{static_cast<time_t>(deadline / 1'000'000'000u),
                           static_cast<long>(deadline % 1'000'000'000u)};
      syscall(SYS_futex, &index, FUTEX_WAIT_BITSET_PRIVATE, kNone,
              deadline == XHAL_FOREVER ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
    }
  }
};

struct Registration {
  TimelinePin timeline;
  uint64_t value = 0, number = 0;
};

}  // namespace

xhal_status wait_any(xhal_timeline* const* timelines, const uint64_t* values, uint32_t count,
                     uint64_t deadline, uint64_t timeout_ns, uint32_t* which) {
  const auto answer = [&](uint32_t i) {
    if (which != nullptr) *which = i;
    auto& t = *Timeline::of(timelines[i]);
    return t.query(t.inner(values[i]));
  };
  for (uint32_t i = 0; i < count; ++i) {
    auto& t = *Timeline::of(timelines[i]);
    if (t.poll(t.inner(values[i])) != XHAL_NOT_READY) return answer(i);
  }
  if (is_forked()) return fail_state(kOp);
  if (timeout_ns != 0) {
    const HostWaits host_waits;
    const auto first = std::make_shared<First>();
    std::vector<Registration> registered;
    registered.reserve(count);
    struct Cancel {
      std::vector<Registration>& list;
      ~Cancel() {
        for (auto& r : list) r.timeline->cancel(r.value, r.number);
      }
    } cancel{registered};
    for (uint32_t i = 0; i < count; ++i) {
      auto& t = *Timeline::of(timelines[i]);
      const uint64_t value = t.inner(values[i]);
      registered.push_back({TimelinePin(t), value, 0});
      registered.back().number = t.notify(value, [first, i](xhal_status) { first->take(i); });
    }
    first->wait(deadline);
    // A timeline that was ended meanwhile is pinned here, and still tells its failure.
    if (const uint32_t i = first->index; i != kNone) {
      if (which != nullptr) *which = i;
      return registered[i].timeline->query(registered[i].value);
    }
  }
  return fail(XHAL_ERR_TIMEOUT, kOp,
              "{}: none of {} values was reached within {:.3f} ms.\n  Nothing changed: wait again.",
              kOp, count, static_cast<double>(timeout_ns) / 1e6);
}

}  // namespace xhal
