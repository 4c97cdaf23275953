// SPDX-License-Identifier: Apache-2.0
// timeline.cpp: raising, failing, asking and waiting.
#include "sync/timeline.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

#include "core/locks.hpp"
#include "core/plugin_record.hpp"
#include "core/state.hpp"
#include "sync/deferral.hpp"
#include "sync/release_policy.hpp"
#include "sync/stream_state.hpp"

namespace xhal {
namespace {

// An importer cannot be woken by a process that is gone, so it looks at the owner this often. A
// thread that waits inside a plugin comes back as often, to see a failure or the shutdown.
constexpr uint64_t kOwnerCheckNs = 20'000'000;
constexpr uint64_t kPluginWaitNs = 20'000'000;
// Spinning pays only where another core can signal meanwhile; a cross-core wake costs 20-35 us.
constexpr uint64_t kSpinNs = 4'000;

bool more_than_one_cpu() {
  static const bool more = [] {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 1;
  }();
  return more;
}
const AtLoad more_than_one_cpu_at_load(more_than_one_cpu);

long futex(uint32_t* word, int op, uint32_t value, const timespec* timeout) {
  return syscall(SYS_futex, word, op, value, timeout, nullptr, FUTEX_BITSET_MATCH_ANY);
}

void relax() { __builtin_ia32_pause(); }

// This thread and the processor it runs on, in one word: its address is as good as an id.
uint64_t thread_and_cpu() {
  static thread_local char anchor;
  return reinterpret_cast<uint64_t>(&anchor) << 16 | static_cast<uint16_t>(sched_getcpu());
}

// Whether the thread that signals next is likely to need this processor: then a waiter that spins
// only keeps it away. What this thread has signalled itself tells nothing.
bool signalled_from_here(uint64_t signalled_by) {
  const uint64_t here = thread_and_cpu();
  return signalled_by != 0 && (signalled_by & 0xffff) == (here & 0xffff) &&
         signalled_by >> 16 != here >> 16;
}

// Who signals writes the value and then looks for sleepers; who waits makes itself known and then
// looks at the value. All four are sequentially consistent, so at least one sees the other: no wake
// is lost, and no fence is needed beside the exchange of the value.
void wake_sleepers(xhal_timeline_cell* cell) noexcept {
  if (std::atomic_ref(cell->waiters).load(std::memory_order_seq_cst) == 0) return;
  std::atomic_ref(cell->wake).fetch_add(1, std::memory_order_release);
  futex(&cell->wake, FUTEX_WAKE_BITSET, INT_MAX, nullptr);
}

ErrorRecord failed_elsewhere(const Timeline& t) {
  ErrorRecord record;
  const auto* cell = t.cell.load(std::memory_order_relaxed);
  if (t.imported) {
    record.status = XHAL_ERR_PEER_LOST;
    record.text = fmt::format(
        "the timeline imported from process {} has failed or was destroyed there below the "
        "awaited value",
        cell->owner_pid);
  } else {
    record.status = XHAL_ERR_INTERNAL;
    record.scope = XHAL_SCOPE_OPERATION;
    record.text =
        "something wrote `failed` of this timeline's cell behind libxhal's back; a device fails a "
        "timeline through host->timeline_fail (host.h)";
    if (t.device != nullptr) record.device = t.device->id();
  }
  return record;
}

}  // namespace

uint64_t now_ns() noexcept {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

uint64_t deadline_after(uint64_t timeout_ns) noexcept {
  if (timeout_ns == XHAL_FOREVER) return XHAL_FOREVER;
  const uint64_t now = now_ns();
  return timeout_ns >= XHAL_FOREVER - now ? XHAL_FOREVER : now + timeout_ns;
}

static const Failure& out_of_memory() {
  static const auto* plain =
      new Failure(std::make_shared<const ErrorRecord>(ErrorRecord::plain(XHAL_ERR_OUT_OF_MEMORY)));
  return *plain;
}
static const AtLoad out_of_memory_at_load(out_of_memory);

Failure make_failure(ErrorRecord&& record) noexcept {
  try {
    if (record.status >= 0) record.status = XHAL_ERR_INTERNAL;
    if (record.text.empty()) record.text = xhal_status_text(record.status);
    return std::make_shared<const ErrorRecord>(std::move(record));
  } catch (...) {
    return out_of_memory();
  }
}

Failure failure_of_call(xhal_status status) noexcept {
  try {
    const ErrorRecord& record = last_error();
    return make_failure(record.status == status ? ErrorRecord(record) : ErrorRecord::plain(status));
  } catch (...) {
    return make_failure(ErrorRecord::plain(status));
  }
}

uint64_t Timeline::inner_of_own(uint64_t value) const noexcept {
  if (value <= shown_first) return first;
  return can_reach(value) && value != UINT64_MAX ? first + (value - shown_first) : UINT64_MAX;
}

bool Timeline::reached_before_failure(uint64_t v) const noexcept {
  if (condition.load(std::memory_order_acquire) == kFailing) {
    const std::lock_guard until_failed(timeline_lock(*this));
  }
  return v <= failed_at;
}

uint64_t Timeline::last_reached() const noexcept {
  const uint64_t now = value();
  if (!failed()) return now;
  (void)reached_before_failure(0);
  return failed_at;
}

void Timeline::advance(uint64_t v) noexcept {
  if (failed()) return;
  auto* const c = cell.load(std::memory_order_relaxed);
  std::atomic_ref word(c->value);
  uint64_t old = word.load(std::memory_order_relaxed);
  while (old < v && !word.compare_exchange_weak(old, v, std::memory_order_seq_cst)) {
  }
  if (old < v) {
    signalled_by.store(thread_and_cpu(), std::memory_order_relaxed);
    wake_sleepers(c);
  }
  // Also when the device raised the cell itself: then this call is for the callbacks.
  if (has_submitting.load(std::memory_order_seq_cst)) run_submitting();
  if (std::atomic_ref(c->notify).load(std::memory_order_seq_cst) != 0) run_callbacks();
}

void Timeline::tell_raised() noexcept {
  wake_sleepers(cell.load(std::memory_order_acquire));
  run_submitting();
  run_callbacks();
}

void Timeline::fail(Failure record) noexcept {
  // Until the end of this nobody uses the timeline again, and its stream is the one that it had
  // before anybody could see the failure: recovered or destroyed meanwhile, it is left alone.
  const TimelinePin here(*this);
  const StreamRef owner = stream_of(*this);
  {
    const std::lock_guard lock(timeline_lock(*this));
    if (condition.load(std::memory_order_relaxed) != kSound) return;
    // Who still sees it sound has read a value from before the next line: that one counts.
    condition.store(kFailing, std::memory_order_seq_cst);
    // Whoever is told may free what a copy was given: none is at it any more, and none comes.
    while (owner != nullptr && owner->at_host_memory.load(std::memory_order_seq_cst) != 0)
      sched_yield();
    failed_at = value();
    failure_record = record;
    condition.store(kFailed, std::memory_order_seq_cst);
    if (!imported)
      std::atomic_ref(cell.load(std::memory_order_relaxed)->failed)
          .store(1, std::memory_order_seq_cst);
  }
  // The stream refuses from here on; what libxhal holds back for it is dropped.
  if (owner != nullptr) stream_failed(*owner, *this, record);
  if (!imported) wake_sleepers(cell.load(std::memory_order_relaxed));
  run_submitting();
  run_callbacks();
}

xhal_status Timeline::poll(uint64_t v) noexcept {
  if (reached(v)) return XHAL_OK;
  if (!failed()) {
    auto* const c = cell.load(std::memory_order_acquire);
    if (std::atomic_ref(c->failed).load(std::memory_order_seq_cst) == 0) return XHAL_NOT_READY;
    try {
      fail(make_failure(failed_elsewhere(*this)));
    } catch (...) {
      fail(make_failure(ErrorRecord::plain(XHAL_ERR_PEER_LOST)));
    }
  }
  return reached(v) ? XHAL_OK : failure()->status;
}

Failure Timeline::failure() const noexcept {
  const std::lock_guard lock(timeline_lock(*this));
  return failure_record;
}

xhal_status Timeline::query(uint64_t v) noexcept {
  const xhal_status status = poll(v);
  return status < 0 ? set_error(*failure()) : status;
}

xhal_status Timeline::wait(uint64_t v, uint64_t timeout_ns, const char* operation) noexcept {
  const uint32_t this_life = life.load(std::memory_order_seq_cst);
  xhal_status status = query(v);
  if (status != XHAL_NOT_READY) return status;
  const TimelinePin here(*this);  // it may be ended while this thread waits
  if (life.load(std::memory_order_seq_cst) != this_life) {
    return xhal::fail(XHAL_ERR_ABANDONED, operation,
                      "{}: the timeline was destroyed below the awaited value", operation);
  }
  if (is_forked() || process_state() == State::stopped) return fail_state(operation);
  if (timeout_ns != 0) {
    const HostWaits host_waits;
    const uint64_t deadline = deadline_after(timeout_ns);
    if (signalled_from_here(signalled_by.load(std::memory_order_relaxed))) {
      sched_yield();
      if ((status = query(v)) != XHAL_NOT_READY) return status;
    } else if (more_than_one_cpu()) {
      for (const uint64_t stop = std::min(now_ns() + kSpinNs, deadline); now_ns() < stop;) {
        for (int i = 0; i < 16; ++i) {
          relax();
          if (reached(v) || failed()) return query(v);
        }
      }
    }
    auto* const c = cell.load(std::memory_order_acquire);
    bool in_plugin = device != nullptr && device->has(XHAL_CAP_HOST_WAIT);
    if (!imported) std::atomic_ref(c->waiters).fetch_add(1, std::memory_order_seq_cst);
    std::atomic_ref wake(c->wake);
    for (;;) {
      const uint32_t seen = wake.load(std::memory_order_acquire);
      if ((status = poll(v)) != XHAL_NOT_READY) break;
      if (process_state() == State::stopped) break;
      const uint64_t now = imported || in_plugin || deadline != XHAL_FOREVER ? now_ns() : 0;
      if (now >= deadline) break;
      if (in_plugin) {
        const auto slot = load_slot(device->table.device_host_wait);
        in_plugin = slot(device->device, handle(), v, std::min(deadline - now, kPluginWaitNs)) >= 0;
        if (reached(v)) advance(value());  // for the callbacks: the device has raised the cell
        continue;
      }
      const uint64_t until = imported ? std::min(deadline, now + kOwnerCheckNs) : deadline;
      const timespec at{static_cast<time_t>(until / 1'000'000'000u),
                        static_cast<long>(until % 1'000'000'000u)};
      futex(&c->wake, FUTEX_WAIT_BITSET, seen, until == XHAL_FOREVER ? nullptr : &at);
      if (imported) check_owner();
    }
    if (!imported) std::atomic_ref(c->waiters).fetch_sub(1, std::memory_order_relaxed);
    if (status == XHAL_NOT_READY && process_state() == State::stopped) return fail_state(operation);
    if (status != XHAL_NOT_READY) return status < 0 ? set_error(*failure()) : status;
  }
  return xhal::fail(XHAL_ERR_TIMEOUT, operation,
                    "{}: value {} was not reached within {:.3f} ms; the timeline stands at {}.\n"
                    "  Nothing changed: wait again, or look at what its stream is running.",
                    operation, shown(v), static_cast<double>(timeout_ns) / 1e6, shown(value()));
}

void Timeline::check_owner() noexcept {
  if (poll(UINT64_MAX) != XHAL_NOT_READY || !imported_view.owner_gone()) return;
  ErrorRecord lost;
  lost.status = XHAL_ERR_PEER_LOST;
  try {
    lost.text = fmt::format("process {} that signals this timeline is gone; it stood at {}",
                            cell.load(std::memory_order_relaxed)->owner_pid, shown(value()));
  } catch (...) {  // the status itself still arrives
  }
  fail(make_failure(std::move(lost)));
}

void Timeline::mark_submitted(uint64_t v) noexcept {
  if (value() < v) {
    uint64_t old = submitted.load(std::memory_order_relaxed);
    while (old < v && !submitted.compare_exchange_weak(old, v, std::memory_order_seq_cst)) {
    }
  }
  if (has_submitting.load(std::memory_order_seq_cst)) run_submitting();
}

void Timeline::mark_asked(uint64_t v) noexcept {
  uint64_t old = asked.load(std::memory_order_relaxed);
  while (old < v && !asked.compare_exchange_weak(old, v, std::memory_order_relaxed)) {
  }
}

}  // namespace xhal
