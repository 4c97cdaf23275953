// SPDX-License-Identifier: Apache-2.0
// chaos.cpp: the adversary. Submissions of every stream are held and released in an order the
// contract allows but nobody expects: mostly the stream that was submitted to last goes first. A
// program that forgot a wait then computes with data that is not there yet, on any seed, instead of
// once a month.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "core/environment.hpp"
#include "core/locks.hpp"
#include "core/log.hpp"
#include "layers/layer_tables.hpp"
#include "sync/deferral.hpp"
#include "sync/release_policy.hpp"

namespace xhal {
namespace {

void run();

using namespace std::chrono_literals;

constexpr auto kPatience = 250ms;     // without a waiter
constexpr uint64_t kLongQueue = 512;  // submissions since the last release

struct Chaos final : ReleasePolicy {
  Mutex mutex{Rank::layer};
  std::condition_variable work;
  std::map<StreamState*, uint64_t> streams;  // -> when it was last given something
  uint64_t clock = 0;
  uint64_t woken = 0;
  std::atomic<uint64_t> waiters{0};  // threads that wait for a result
  std::atomic<uint64_t> waits{0};    // how many waits have begun
  bool stop = false;
  StreamState* busy = nullptr;  // being drained, outside the lock
  std::condition_variable idle;
  std::mt19937_64 random;
  std::thread thread;

  void stream_begins(StreamState& stream) override;
  void stream_ends(StreamState& stream) noexcept override;
  void something_held(StreamState& stream) noexcept override;
  void host_waits(bool begins) noexcept override;
};
Chaos& chaos() {
  static auto* c = new Chaos;
  return *c;
}
const AtLoad chaos_at_load(chaos);

// The thread and those that wait for it are the parent's.
void in_forked_child() {
  auto& c = chaos();
  new (&c.thread) std::thread;
  new (&c.work) std::condition_variable;
  new (&c.idle) std::condition_variable;
  c.busy = nullptr;
  c.waiters = 0;
}
const AtLoad forks([] { run_in_forked_child(in_forked_child); });

// Release order of one round: newest first; after the first round also, one time in
// eight, at random.
std::vector<StreamState*> order(Chaos& c, bool first) {
  std::vector<std::pair<uint64_t, StreamState*>> list;
  for (auto& [side, when] : c.streams) list.emplace_back(when, side);
  std::sort(list.rbegin(), list.rend());
  std::vector<StreamState*> sides;
  for (auto& [when, side] : list) sides.push_back(side);
  if (!first && c.random() % 8 == 0) std::shuffle(sides.begin(), sides.end(), c.random);
  return sides;
}

void run() {
  auto& c = chaos();
  std::unique_lock<std::mutex> lock(c.mutex);
  uint64_t seen = 0, seen_waits = 0;
  while (!c.stop) {
    c.work.wait(lock, [&] { return c.stop || c.woken != seen || c.waits != seen_waits; });
    c.work.wait_for(lock, kPatience,
                    [&] { return c.stop || c.waiters > 0 || c.woken - seen > kLongQueue; });
    seen = c.woken;
    seen_waits = c.waits;
    bool first = true;
    // A turn ends with the wait it serves: what the host submits afterwards is for the next one,
    // even if the host waits again before this thread has noticed.
    const bool forced = c.waiters == 0;
    const auto wanted = [&] { return forced || (c.waiters > 0 && c.waits == seen_waits); };
    const auto go_on = [&] { return !c.stop && wanted() && (!forced || c.woken == seen); };
    for (bool progress = true; progress && go_on(); first = false) {
      progress = false;
      for (auto* side : order(c, first)) {
        if (!c.streams.contains(side)) continue;
        const uint64_t burst = 1 + c.random() % 32;
        c.busy = side;
        lock.unlock();
        bool moved = false;
        for (uint64_t i = 0; i < burst && wanted() && drain_one(*side); ++i) moved = true;
        lock.lock();
        c.busy = nullptr;
        c.idle.notify_all();
        progress |= moved;
        if (moved) break;  // look again: what was just released may have brought newer work
      }
    }
  }
}

void Chaos::host_waits(bool begins) noexcept {
  const std::lock_guard lock(mutex);
  begins ? (++waits, ++waiters) : --waiters;
  work.notify_all();
}

void Chaos::stream_begins(StreamState& stream) {
  const std::lock_guard lock(mutex);
  if (!thread.joinable()) thread = std::thread(run);
  streams[&stream] = ++clock;
}

void Chaos::stream_ends(StreamState& stream) noexcept {
  std::unique_lock<std::mutex> lock(mutex);
  streams.erase(&stream);
  idle.wait(lock, [&] { return busy != &stream; });
}

void Chaos::something_held(StreamState& stream) noexcept {
  const std::lock_guard lock(mutex);
  if (const auto it = streams.find(&stream); it != streams.end()) it->second = ++clock;
  ++woken;
  work.notify_all();
}

}  // namespace

void chaos_start(bool on) {
  auto& c = chaos();
  if (on == (policy() != nullptr)) return;
  if (on) {
    const auto asked = environment_number<uint64_t>("XHAL_CHAOS_SEED", 0, UINT64_MAX);
    if (!asked.problem.empty()) log(XHAL_LOG_WARN, "{}; taking 1", asked.problem);
    const uint64_t seed = asked.value.value_or(1);
    c.random.seed(seed);
    c.stop = false;
    c.woken = 0;  // the thread begins to count at 0, too
    c.waits = 0;
    release_policy = &c;
    log(XHAL_LOG_INFO, "chaos: seed {}", seed);
    return;  // the thread starts with the first stream: xhal_init makes none
  }
  std::thread ended;
  {
    const std::lock_guard lock(c.mutex);
    c.stop = true;
    c.work.notify_all();
    ended.swap(c.thread);
  }
  if (ended.joinable()) ended.join();
  release_policy = nullptr;
}

}  // namespace xhal
