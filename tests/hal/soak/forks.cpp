// SPDX-License-Identifier: Apache-2.0
#include "forks.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <memory>

namespace xhal::soak {
namespace {

// A child leaves its place where the parent sees it. The strings are those of the same image.
Place& child_place() {
  static thread_local Place* const place = [] {
    void* const page =
        mmap(nullptr, sizeof(Place), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return new (page) Place;
  }();
  return *place;
}

// What a forked child may be answered: it is FORKED if its parent had a device open, else it is a
// process like any other.
enum : int { kFine = 0, kWrongAnswer = 10 };
int live_as_a_child(Lease& lease, xhal_stream* stream, xhal_timeline* t) {
  const auto forked = [](xhal_status s) { return s == XHAL_ERR_FORKED; };
  xhal_event event{};
  if (!forked(CALL(xhal_event_record, stream, 0, &event))) return kWrongAnswer;
  uint64_t value = 0;
  if (!forked(CALL(xhal_device_limit, lease.device(), XHAL_LIMIT_MEMORY_TOTAL_BYTES, &value)))
    return kWrongAnswer + 1;
  xhal_timeline* made = nullptr;
  if (!forked(CALL(xhal_timeline_create, 0, &made))) return kWrongAnswer + 2;
  if (CALL(xhal_timeline_query, t, 1, nullptr) == XHAL_OK) return kWrongAnswer + 3;
  (void)CALL(xhal_timeline_wait, t, 1, 0);
  (void)CALL(xhal_timeline_signal, t, 1);
  (void)CALL(xhal_timeline_destroy, t);
  xhal_pointer_info info{};
  (void)CALL(xhal_pointer_query, address_of(&info), &info);
  if (CALL(xhal_stream_destroy, stream) != XHAL_OK) return kWrongAnswer + 4;
  (void)CALL(xhal_device_close, lease.device());
  if (CALL(xhal_shutdown) != XHAL_OK) return kWrongAnswer + 5;
  return kFine;
}

}  // namespace

void forks(Lease& lease) {
  auto* const stream = lease.stream();
  xhal_timeline* t = nullptr;
  if (stream == nullptr || !lease.ok("timeline_create", CALL(xhal_timeline_create, 0, &t))) return;
  const Timeline owned(t);
  const bool leaves_at_once = me->chance(2), lost_before = lease.lost();
  auto& place = child_place();
  me->place->enter("fork");
  const pid_t pid = fork();
  if (pid == 0) {
    if (leaves_at_once) _exit(kFine);
    me->place = &place;
    _exit(live_as_a_child(lease, stream, t));
  }
  if (pid < 0) return complain("fork failed");
  ++totals.forks;
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  pollfd ended{handle, POLLIN, 0};
  if (poll(&ended, 1, 60'000) != 1) {
    complain(std::string("a forked child hangs in ") + place.call.load());
    kill(pid, SIGKILL);
  }
  ::close(handle);
  int status = 0;
  waitpid(pid, &status, 0);
  if (WIFSIGNALED(status)) {
    complain("a forked child was killed by signal " + std::to_string(WTERMSIG(status)) + " in " +
             place.call.load());
  } else if (WEXITSTATUS(status) != kFine && !lost_before) {
    complain("a forked child got a wrong answer from " + std::string(place.call.load()) +
             " (exit " + std::to_string(WEXITSTATUS(status)) + ")");
  }
  const auto still = CALL(xhal_timeline_query, t, 1, nullptr);
  if (still != XHAL_NOT_READY)
    complain(describe("a timeline that a forked child played with: xhal_timeline_query", still));
  if (lease.ok("signal", CALL(xhal_timeline_signal, t, 1)))
    lease.ok("wait", CALL(xhal_timeline_wait, t, 1, 0));
}

// kill -9 of the remote card; the faulty device is told to die.
void losses(Lease& lease) {
  if (!lease.may_be_lost()) return;
  auto* const stream = lease.stream();
  if (stream == nullptr) return;
  xhal_timeline* t = nullptr;
  if (!lease.ok("stream_timeline", CALL(xhal_stream_timeline, stream, &t))) return;
  if (lease.plugin() == "remote") {
    uint64_t pid = 0;
    if (!lease.ok("device_limit",
                  CALL(xhal_device_limit, lease.device(), XHAL_LIMIT_COMPUTE_UNITS, &pid)))
      return;
    kill(static_cast<pid_t>(pid), SIGKILL);  // not reaped before this lease ends
  } else {
    const xhal_control_table* table = nullptr;
    if (!lease.ok("control_table", CALL(xhal_device_control_table, lease.device(), &table))) return;
    me->place->enter("control_table->reset");
    const auto status = table->reset(lease.device());
    if (!lease.ok("reset", status)) return;
  }
  ++totals.losses;
  const auto waited = CALL(xhal_timeline_wait, t, UINT64_MAX - 1, XHAL_FOREVER);
  if (waited == XHAL_OK) complain("a value that nobody records is reached by a loss");
  lease.ok("wait for a stream of a lost device", waited);
  xhal_event event{};
  for (int i = 0; i < 3; ++i) {
    const auto status = CALL(xhal_event_record, stream, 0, &event);
    if (status != XHAL_ERR_DEVICE_LOST)
      complain(describe("a submission to a lost device: xhal_event_record", status));
  }
}

namespace {

// What one callback of the step needs; it lives until all of them have been called.
struct Around {
  Around(xhal_stream* s, xhal_pool* p, bool l) : stream(s), pool(p), may_be_lost(l) {}
  xhal_stream* stream;
  xhal_pool* pool;
  bool may_be_lost;
  std::atomic<int> left{2};
  // A callback may still be setting it when the step has gone on.
  std::shared_ptr<std::promise<void>> ended = std::make_shared<std::promise<void>>();
  std::string wrong;
  uint64_t block = 0;

  void check_answer(const char* what, xhal_status s) {
    if (s == XHAL_OK || s == XHAL_NOT_READY || s == XHAL_ERR_OUT_OF_MEMORY) return;
    if (may_be_lost && s == XHAL_ERR_DEVICE_LOST) return;
    wrong = describe(what, s);
  }
  // Everything but what blocks.
  void call_everything() {
    xhal_event event{};
    check_answer("xhal_event_record in a callback", xhal_event_record(stream, 0, &event));
    check_answer("xhal_event_query in a callback", xhal_event_query(&event));
    check_answer("xhal_stream_wait_event in a callback", xhal_stream_wait_event(stream, &event));
    uint64_t another = 0;
    check_answer("xhal_pool_alloc in a callback",
                 xhal_pool_alloc(pool, stream, 100'000, str("callback"), &another));
    if (another != 0) {
      check_answer("xhal_stream_fill in a callback", xhal_stream_fill(stream, another, 64, 1, 1));
      check_answer("xhal_pool_free in a callback", xhal_pool_free(pool, another, &event, 1));
    }
    xhal_timeline* t = nullptr;
    check_answer("xhal_timeline_create in a callback", xhal_timeline_create(0, &t));
    if (t != nullptr) {
      check_answer("xhal_timeline_signal in a callback", xhal_timeline_signal(t, 1));
      check_answer("xhal_timeline_destroy in a callback", xhal_timeline_destroy(t));
    }
  }
  static void called(void* user, xhal_status) {
    auto& self = *static_cast<Around*>(user);
    self.call_everything();
    ++totals.callbacks_called;
    const auto ended = self.ended;
    if (--self.left == 0) ended->set_value();
  }
};

}  // namespace

void callbacks(Lease& lease) {
  auto* const stream = lease.stream();
  auto* const pool = lease.pool();
  xhal_timeline* t = nullptr;
  if (stream == nullptr || pool == nullptr ||
      !lease.ok("timeline_create", CALL(xhal_timeline_create, 0, &t)))
    return;
  const Timeline owned(t);
  Around around(stream, pool, lease.may_be_lost());
  totals.callbacks_wanted += 2;
  if (!lease.ok("notify", CALL(xhal_timeline_notify, t, 1, Around::called, &around))) {
    totals.callbacks_wanted -= 2;
    return;
  }
  // A refused host call is not called.
  if (!lease.ok("host_call", CALL(xhal_stream_host_call, stream, Around::called, &around, 0))) {
    --totals.callbacks_wanted;
    --around.left;
  }
  // The signal comes from the device, or when that is lost, from here.
  if (lease.lost() || !lease.ok("stream_signal", CALL(xhal_stream_signal, stream, t, 1))) {
    (void)CALL(xhal_timeline_signal, t, 1);
  }
  me->place->enter("(waiting for two callbacks)");
  auto ended = around.ended->get_future();
  // A timeline whose signal died with its device is reached by nobody else; it ends with its owner.
  while (ended.wait_for(std::chrono::milliseconds(20)) != std::future_status::ready) {
    if (CALL(xhal_timeline_query, t, 1, nullptr) == XHAL_NOT_READY &&
        CALL(xhal_stream_synchronize, stream, 0) == XHAL_ERR_DEVICE_LOST)
      (void)CALL(xhal_timeline_signal, t, 1);
  }
  if (!around.wrong.empty()) complain(around.wrong);
  // What the callbacks submitted uses the pool: it ends before the lease does.
  lease.ok("synchronize", CALL(xhal_stream_synchronize, stream, kSoon));
}

}  // namespace xhal::soak
