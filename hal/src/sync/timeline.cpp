#include "sync/timeline.hpp"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <new>
#include <thread>
#include <unordered_set>

#include "sync/deferral.hpp"
#include "core/device_record.hpp"
#include "layers/layers.hpp"
#include "sync/cells.hpp"
#include "core/state.hpp"

namespace xhal {
namespace {

// An importer cannot be woken by a process that is gone, so it looks at the owner this often.
constexpr uint64_t kOwnerCheckNs = 20'000'000;
// Spinning pays only where another core can signal meanwhile; a cross-core wake costs 20-35 us.
constexpr uint64_t kSpinNs = 4'000;

struct AllTimelines {
  std::mutex mutex;
  std::unordered_set<Timeline*> live;
  std::vector<std::jthread> watchers;
};
AllTimelines& all() {
  static auto* a = new AllTimelines;
  return *a;
}

bool more_than_one_cpu() {
  static const bool more = [] {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 1;
  }();
  return more;
}

long futex(uint32_t* word, int op, uint32_t value, const timespec* timeout) {
  return syscall(SYS_futex, word, op, value, timeout, nullptr, FUTEX_BITSET_MATCH_ANY);
}

bool owner_gone(int pidfd) {
  pollfd p{pidfd, POLLIN, 0};
  return pidfd >= 0 && ::poll(&p, 1, 0) == 1;
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

}  // namespace

struct Waiting {
  uint64_t value;
  std::function<void(xhal_status)> callback;
};
struct Submitting {
  uint64_t value;
  std::function<void()> callback;
};

struct Timeline::Part {
  std::mutex mutex;
  std::vector<Waiting> waiting;
  std::vector<Submitting> submitting;
  std::atomic<bool> has_submitting{false};
  ErrorRecord failure;
  bool watched = false;
};

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

// Who signals writes the value and then looks for sleepers; who waits makes itself known and then
// looks at the value. All four are sequentially consistent, so at least one sees the other: no wake
// is lost, and no fence is needed beside the exchange of the value.
static void wake_sleepers(xhal_timeline_cell* cell) noexcept {
  if (std::atomic_ref(cell->waiters).load(std::memory_order_seq_cst) == 0) return;
  std::atomic_ref(cell->wake).fetch_add(1, std::memory_order_release);
  futex(&cell->wake, FUTEX_WAKE_BITSET, INT_MAX, nullptr);
}

static void run_callbacks(Timeline& t) noexcept {
  auto& part = *t.part;
  std::vector<Waiting> ready;
  xhal_status failed = XHAL_OK;
  {
    const std::lock_guard lock(part.mutex);
    if (t.failed()) failed = part.failure.status;
    const auto split = std::stable_partition(
        part.waiting.begin(), part.waiting.end(),
        [&](const Waiting& w) { return !t.reached(w.value) && failed == XHAL_OK; });
    ready.assign(std::make_move_iterator(split), std::make_move_iterator(part.waiting.end()));
    part.waiting.erase(split, part.waiting.end());
    std::atomic_ref(t.cell->notify)
        .store(static_cast<uint32_t>(part.waiting.size()), std::memory_order_seq_cst);
  }
  for (auto& w : ready) w.callback(t.reached(w.value) ? XHAL_OK : failed);
}

void Timeline::advance(uint64_t value) noexcept {
  if (failed()) return;
  std::atomic_ref word(cell->value);
  uint64_t old = word.load(std::memory_order_relaxed);
  while (old < value && !word.compare_exchange_weak(old, value, std::memory_order_seq_cst)) {
  }
  if (old < value) {
    signalled_by.store(thread_and_cpu(), std::memory_order_relaxed);
    mark_submitted(value);
    wake_sleepers(cell);
  }
  // Also when the device raised the cell itself: then this call is for the callbacks.
  if (std::atomic_ref(cell->notify).load(std::memory_order_seq_cst) != 0) run_callbacks(*this);
}

void Timeline::fail(ErrorRecord record) noexcept {
  std::vector<Submitting> submitting_now;
  {
    const std::lock_guard lock(part->mutex);
    if (failed()) return;
    part->failure = std::move(record);
    std::atomic_ref(cell->failed).store(1, std::memory_order_seq_cst);
    submitting_now.swap(part->submitting);
    part->has_submitting = false;
  }
  // The stream refuses from here on; what libxhal holds back for it is dropped.
  if (stream != nullptr) stream_failed(*stream, part->failure);
  wake_sleepers(cell);
  run_callbacks(*this);
  for (auto& s : submitting_now) s.callback();
}

xhal_status Timeline::poll(uint64_t value) const noexcept {
  if (reached(value)) return XHAL_OK;
  if (!failed()) return XHAL_NOT_READY;
  return reached(value) ? XHAL_OK : failure().status;
}

const ErrorRecord& Timeline::failure() const noexcept {
  // An importer sees the flag of the owner, whose record stays in its process.
  if (imported) {
    const std::lock_guard lock(part->mutex);
    if (part->failure.status == XHAL_OK) {
      part->failure.status = XHAL_ERR_PEER_LOST;
      part->failure.text = fmt::format(
          "the timeline imported from process {} has failed or was destroyed there below the "
          "awaited value",
          cell->owner_pid);
    }
  }
  return part->failure;
}

xhal_status Timeline::wait(uint64_t value, uint64_t timeout_ns, const char* operation) noexcept {
  const auto answer = [&](xhal_status status) {
    return status < 0 ? set_error(failure()) : status;
  };
  xhal_status status = poll(value);
  if (status != XHAL_NOT_READY) return answer(status);
  if (is_forked()) return fail_state(operation);
  if (timeout_ns != 0) {
    struct HostWaits {
      HostWaits() { chaos_host_waits(true); }
      ~HostWaits() { chaos_host_waits(false); }
    } host_waits;
    const uint64_t deadline = deadline_after(timeout_ns);
    if (signalled_from_here(signalled_by.load(std::memory_order_relaxed))) {
      sched_yield();
      if ((status = poll(value)) != XHAL_NOT_READY) return answer(status);
    } else if (more_than_one_cpu()) {
      for (const uint64_t stop = std::min(now_ns() + kSpinNs, deadline); now_ns() < stop;) {
        for (int i = 0; i < 16; ++i) {
          relax();
          if ((status = poll(value)) != XHAL_NOT_READY) return answer(status);
        }
      }
    }
    std::atomic_ref waiters(cell->waiters);
    std::atomic_ref wake(cell->wake);
    waiters.fetch_add(1, std::memory_order_seq_cst);
    for (;;) {
      const uint32_t seen = wake.load(std::memory_order_acquire);
      if ((status = poll(value)) != XHAL_NOT_READY) break;
      const bool timed = imported || deadline != XHAL_FOREVER;
      const uint64_t now = timed ? now_ns() : 0;
      if (now >= deadline) break;
      const uint64_t until = imported ? std::min(deadline, now + kOwnerCheckNs) : deadline;
      const timespec at{static_cast<time_t>(until / 1'000'000'000u),
                        static_cast<long>(until % 1'000'000'000u)};
      futex(&cell->wake, FUTEX_WAIT_BITSET, seen, until == XHAL_FOREVER ? nullptr : &at);
      if (imported && poll(value) == XHAL_NOT_READY && owner_gone(owner_pidfd)) {
        ErrorRecord lost;
        lost.status = XHAL_ERR_PEER_LOST;
        lost.text = fmt::format(
            "process {} that signals this timeline is gone; it stood at {}, awaited was {}",
            cell->owner_pid, cell->value, value);
        fail(std::move(lost));
      }
    }
    waiters.fetch_sub(1, std::memory_order_relaxed);
    if (status != XHAL_NOT_READY) return answer(status);
  }
  return xhal::fail(XHAL_ERR_TIMEOUT, operation,
                    "{}: value {} was not reached within {:.3f} ms; the timeline stands at {}.\n"
                    "  Nothing changed: wait again, or look at what its stream is running.",
                    operation, value, static_cast<double>(timeout_ns) / 1e6, cell->value);
}

void Timeline::notify(uint64_t value, std::function<void(xhal_status)> callback) {
  {
    const std::lock_guard lock(part->mutex);
    part->waiting.push_back({value, std::move(callback)});
    std::atomic_ref(cell->notify)
        .store(static_cast<uint32_t>(part->waiting.size()), std::memory_order_seq_cst);
    if (imported && !part->watched) {
      part->watched = true;
      auto& a = all();
      const std::lock_guard list(a.mutex);
      a.watchers.emplace_back([this](std::stop_token stop) {
        while (!stop.stop_requested()) {
          uint64_t next = 0;
          {
            const std::lock_guard inner(part->mutex);
            if (part->waiting.empty()) {
              part->watched = false;
              return;
            }
            next =
                std::min_element(part->waiting.begin(), part->waiting.end(), [](auto& x, auto& y) {
                  return x.value < y.value;
                })->value;
          }
          if (wait(next, kOwnerCheckNs, "notify") != XHAL_ERR_TIMEOUT) run_callbacks(*this);
        }
      });
    }
  }
  // The value may have been reached between the caller's look and the registration.
  if (poll(value) != XHAL_NOT_READY) run_callbacks(*this);
}

void Timeline::mark_submitted(uint64_t value) noexcept {
  uint64_t old = submitted.load(std::memory_order_relaxed);
  while (old < value && !submitted.compare_exchange_weak(old, value, std::memory_order_seq_cst)) {
  }
  if (!part->has_submitting.load(std::memory_order_seq_cst)) return;
  std::vector<Submitting> ready;
  {
    const std::lock_guard lock(part->mutex);
    auto& list = part->submitting;
    const auto split = std::stable_partition(list.begin(), list.end(), [&](const Submitting& s) {
      return s.value > submitted.load(std::memory_order_relaxed);
    });
    ready.assign(std::make_move_iterator(split), std::make_move_iterator(list.end()));
    list.erase(split, list.end());
    part->has_submitting = !list.empty();
  }
  for (auto& s : ready) s.callback();
}

void Timeline::when_submitted(uint64_t value, std::function<void()> callback) {
  {
    const std::lock_guard lock(part->mutex);
    part->has_submitting.store(true, std::memory_order_seq_cst);
    if (submitted.load(std::memory_order_seq_cst) < value && !failed()) {
      part->submitting.push_back({value, std::move(callback)});
      return;
    }
    part->has_submitting = !part->submitting.empty();
  }
  callback();
}

xhal_status make_timeline(uint64_t initial, StreamState* stream, DeviceRecord* device,
                          Timeline** timeline) {
  auto* cell = static_cast<xhal_timeline_cell*>(take_cells(1));
  void* memory = nullptr;
  if (cell == nullptr || object_alloc(libxhal_table(), device, 0, XHAL_KIND_TIMELINE,
                                      sizeof(Timeline), &memory) != XHAL_OK) {
    return fail(XHAL_ERR_OUT_OF_MEMORY, "xhal_timeline_create",
                "no memory or descriptor for a timeline");
  }
  auto* t = static_cast<Timeline*>(memory);
  cell->value = initial;
  cell->owner_pid = static_cast<uint32_t>(getpid());
  t->cell = cell;
  t->submitted = initial;
  t->stream = stream;
  t->device = device;
  t->owner_pidfd = -1;
  t->part = new Timeline::Part;
  auto& a = all();
  const std::lock_guard lock(a.mutex);
  a.live.insert(t);
  *timeline = t;
  return XHAL_OK;
}

void fail_all_timelines(const ErrorRecord& record, const DeviceRecord* device) noexcept {
  std::vector<Timeline*> list;
  {
    auto& a = all();
    const std::lock_guard lock(a.mutex);
    for (auto* t : a.live) {
      if (device == nullptr || t->device == device) list.push_back(t);
    }
  }
  for (auto* t : list) t->fail(record);
}

void stop_timeline_watchers() noexcept {
  std::vector<std::jthread> watchers;
  {
    const std::lock_guard lock(all().mutex);
    watchers.swap(all().watchers);
  }
}

void timelines_after_fork() noexcept {
  // Other threads of the parent may have held the locks; this process starts with fresh ones and no
  // waiters.
  new (&all()) AllTimelines;
}

// The timeline's end: pending waiters get ABANDONED, importers see the failed flag.
static xhal_status abandon(Timeline& t) {
  ErrorRecord record;
  record.status = XHAL_ERR_ABANDONED;
  record.operation = "xhal_timeline_destroy";
  record.text =
      fmt::format("the timeline was destroyed at {}, below the awaited value", t.cell->value);
  t.fail(std::move(record));
  {
    const std::lock_guard lock(all().mutex);
    all().live.erase(&t);
  }
  if (t.owner_pidfd >= 0) close(t.owner_pidfd);
  // The object stays: a wait may still be on its way out, and late queries get its last state. Only
  // the kind changes.
  t.head.kind = XHAL_KIND_DEAD;
  return XHAL_OK;
}

xhal_status destroy_timeline(Timeline& t) { return abandon(t); }

}  // namespace xhal
