// SPDX-License-Identifier: Apache-2.0
#include "sync/import_watcher.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <vector>

#include "core/locks.hpp"
#include "sync/timeline_callbacks.hpp"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449  // Linux 5.16
#endif

namespace xhal {
namespace {

// Owners are looked at this often; without futex_waitv values are looked at more often.
constexpr uint64_t kOwnerCheckNs = 20'000'000;
constexpr uint64_t kPollNs = 1'000'000;
constexpr size_t kMostWords = 128;

struct WaitWord {  // struct futex_waitv
  uint64_t value;
  uint64_t address;
  uint32_t flags;
  uint32_t reserved;
};
constexpr uint32_t kWord32 = 2, kPrivate = 128;

struct Watcher {
  Mutex mutex{Rank::imports};
  std::vector<TimelinePin> watched;
  std::thread thread;
  bool running = false;
  std::atomic<uint32_t> changed{0};  // a futex: something was added
};
Watcher& watcher() {
  static auto* w = new Watcher;
  return *w;
}
const AtLoad watcher_at_load(watcher);

// The thread is the parent's: the child makes its own when it needs one.
void in_forked_child() {
  new (&watcher().thread) std::thread;
  watcher().running = false;
}
const AtLoad forks([] { run_in_forked_child(in_forked_child); });

bool has_callbacks(Timeline& t) {
  const std::lock_guard lock(timeline_lock(t));
  return t.callbacks != nullptr && !t.callbacks->waiting.empty();
}

// Sleeps until one of the timelines or the list has changed, at most until the next look at owners.
void sleep(const std::vector<Timeline*>& list, std::vector<WaitWord>& words, uint32_t changed) {
  words.assign(1, {changed, reinterpret_cast<uint64_t>(&watcher().changed), kWord32 | kPrivate, 0});
  const auto at_most = [](uint64_t ns) {
    const uint64_t until = now_ns() + ns;
    return timespec{static_cast<time_t>(until / 1'000'000'000u),
                    static_cast<long>(until % 1'000'000'000u)};
  };
  if (list.size() < kMostWords) {
    for (auto* t : list) {
      auto* cell = t->cell.load(std::memory_order_acquire);
      const uint32_t wake = std::atomic_ref(cell->wake).load(std::memory_order_seq_cst);
      words.push_back({wake, reinterpret_cast<uint64_t>(&cell->wake), kWord32, 0});
    }
    // After the words were read, and before the sleep: what has come meanwhile is seen here.
    for (auto* t : list) t->run_callbacks();
    const timespec until = at_most(kOwnerCheckNs);
    if (syscall(SYS_futex_waitv, words.data(), words.size(), 0, &until, CLOCK_MONOTONIC) >= 0 ||
        errno == EAGAIN || errno == EINTR || errno == ETIMEDOUT)
      return;
  }
  for (auto* t : list) t->run_callbacks();
  const timespec pause{0, kPollNs};
  nanosleep(&pause, nullptr);
}

void watch() noexcept {
  auto& w = watcher();
  std::vector<WaitWord> words;
  std::vector<Timeline*> list;
  uint64_t owners_seen = 0;
  for (;;) {
    std::vector<TimelinePin> done;
    const uint32_t changed = w.changed.load(std::memory_order_seq_cst);
    try {
      const std::lock_guard lock(w.mutex);
      const auto split = std::partition(w.watched.begin(), w.watched.end(),
                                        [](const auto& t) { return has_callbacks(*t.get()); });
      done.assign(std::make_move_iterator(split), std::make_move_iterator(w.watched.end()));
      w.watched.erase(split, w.watched.end());
      if (w.watched.empty()) {
        w.running = false;
        return;
      }
      list.clear();
      for (const auto& t : w.watched) list.push_back(t.get());
      words.reserve(list.size() + 1);
    } catch (...) {  // no memory: the list of the last round does, and nothing is forgotten
    }
    done.clear();  // unpins without the lock
    if (const uint64_t now = now_ns(); now - owners_seen >= kOwnerCheckNs) {
      owners_seen = now;
      for (auto* t : list) t->check_owner();
    }
    sleep(list, words, changed);
  }
}

}  // namespace

void watch_import(Timeline& timeline) {
  auto& w = watcher();
  std::thread ended;
  {
    const std::lock_guard lock(w.mutex);
    const bool known = std::any_of(w.watched.begin(), w.watched.end(),
                                   [&](const auto& t) { return t.get() == &timeline; });
    if (!known) w.watched.emplace_back(timeline);
    if (!w.running) {
      std::thread next(watch);  // where there is none, nothing has changed
      ended.swap(w.thread);
      w.thread.swap(next);
      w.running = true;
    }
  }
  w.changed.fetch_add(1, std::memory_order_seq_cst);
  syscall(SYS_futex, &w.changed, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  if (ended.joinable()) ended.join();  // it has left its loop
}

void stop_import_watcher() noexcept {
  auto& w = watcher();
  std::thread ended;
  {
    const std::lock_guard lock(w.mutex);
    ended.swap(w.thread);
  }
  w.changed.fetch_add(1, std::memory_order_seq_cst);
  syscall(SYS_futex, &w.changed, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  if (!ended.joinable()) return;
  if (ended.get_id() == std::this_thread::get_id())
    ended.detach();
  else
    ended.join();
}

}  // namespace xhal
