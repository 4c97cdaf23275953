// SPDX-License-Identifier: Apache-2.0
// engine_watch.cpp: the engine when nothing moves: it sleeps, looks after the other ranks and the
// deadlines, and fails what is under way.
#include <algorithm>

#include "base/failure.hpp"
#include "engine/engine.hpp"
#include "engine/failure_board.hpp"

namespace xcoll::engine {
namespace {

// A sleeper looks this often whether the others live; bounds how late a death is seen.
constexpr uint64_t kLookAroundNs = 10'000'000;
// While nothing has started there is nobody to look after.
constexpr uint64_t kIdleNs = 200'000'000;

}  // namespace

// ---- waiting

// The oldest task that has begun and waits for another rank; null when there is none.
const Task* Engine::started_and_blocked() const {
  if (!collectives_.empty() && collectives_.front()->begun()) return collectives_.front();
  for (const Task* task : transfers_) {
    if (task->begun()) return task;
  }
  return nullptr;
}

void Engine::nap() {
  shm::Nap nap(segment_, rank_);
  const bool something_new = has_inbox_ || has_failed(segment_) || closing_ || advance_all(0);
  if (something_new) return;
  const Task* blocked = started_and_blocked();
  const uint64_t now = now_ns();
  const uint64_t deadline = next_deadline_ns();
  const uint64_t limit_ns = blocked ? kLookAroundNs : kIdleNs;
  std::atomic<int32_t>& waiting_on = segment_.board(rank_).waiting_on;
  if (blocked) waiting_on.store(static_cast<int32_t>(blocked->blocked_on()));
  nap.sleep(deadline > now ? std::min(limit_ns, deadline - now) : 0);
  waiting_on.store(-1);
  if (!collectives_.empty() && find_lost(*collectives_.front())) return;
  for (Task* task : transfers_) {
    if (find_lost(*task)) return;
  }
  check_deadlines();
}

// Has the rank that this task waits for failed? True: a sticky error was published, or something
// moved.
bool Engine::find_lost(Task& task) {
  if (!task.begun()) return false;
  Scene scene{task.operation, task.sequence, task.blocked_on()};
  const int32_t lost = diagnosis_.find_lost(scene);
  if (lost < 0) return false;
  // It may have done its part before it went: look once more, now that nothing more can come.
  scene.blocked_on = static_cast<uint32_t>(lost);
  if (advance_all(0)) return true;
  publish(diagnosis_.lost(static_cast<uint32_t>(lost), &scene));
  return true;
}

uint64_t Engine::next_deadline_ns() const {
  uint64_t next = UINT64_MAX;
  for (const Task* task : collectives_) next = std::min(next, task->deadline_ns());
  for (const Task* task : transfers_) next = std::min(next, task->deadline_ns());
  return next;
}

void Engine::check_deadlines() {
  const uint64_t now = now_ns();
  const auto is_over = [now](const Task* task) { return task->deadline_ns() <= now; };
  const auto collective = std::ranges::find_if(collectives_, is_over);
  if (collective != collectives_.end()) return publish(timeout_of(**collective, now));
  const auto transfer = std::ranges::find_if(transfers_, is_over);
  if (transfer != transfers_.end()) publish(timeout_of(**transfer, now));
}

// What `task` is queued behind; the task itself when nothing is in its way.
const Task& Engine::oldest_before(const Task& task) const {
  const Operation& operation = task.operation;
  if (!operation.is_transfer()) return *collectives_.front();
  const auto same_channel = [&](const Task* other) {
    return other->operation.kind == operation.kind && other->operation.peer == operation.peer &&
           (operation.kind == XCOLL_SEND || other->operation.tag == operation.tag);
  };
  return **std::ranges::find_if(transfers_, same_channel);
}

xcoll_failure Engine::timeout_of(const Task& task, uint64_t now) const {
  const auto scene_of = [](const Task& of) {
    return Scene{of.operation, of.sequence, of.blocked_on()};
  };
  const uint64_t waited_ns = now - task.submitted_ns;
  if (task.begun()) return diagnosis_.timeout(scene_of(task), waited_ns);
  const Task& first = oldest_before(task);
  if (first.begun()) return diagnosis_.timeout_behind(scene_of(task), waited_ns, scene_of(first));
  const Scene behind = scene_of(first);
  return diagnosis_.timeout_of_stream(scene_of(task), waited_ns,
                                      &first == &task ? nullptr : &behind);
}

// ---- failure

xcoll_status Engine::sticky_error() const {
  if (!has_failed(segment_)) return XCOLL_OK;
  const xcoll_failure failure = read_failure(segment_);
  return set_last_error(failure.status, failure.text);
}

void Engine::publish(const xcoll_failure& failure) noexcept { publish_failure(segment_, failure); }

void Engine::cannot_go_on(const char* why) noexcept {
  publish(diagnosis_.rank_failed(why));
  meet_failure();
}

void Engine::meet_failure() noexcept {
  const xcoll_failure failure = read_failure(segment_);
  if (!failure_met_) {
    failure_met_ = true;
    try {
      if (on_failure) on_failure();
    } catch (...) {
      // The sticky error is what matters to the callers; a record that cannot be written must not
      // hide it.
    }
  }
  fail_everything(failure.status, failure.text);
}

void Engine::fail(Batch& batch, xcoll_status status, std::string_view text) noexcept {
  for (const Task& task : batch.tasks) {
    if (task.begun() && !task.finished) recorder_.finish(task.record, status);
  }
  batch.fail(status, text);
  batch.remaining = 0;
}

// Allocates nothing: memory may be what is missing.
void Engine::fail_everything(xcoll_status status, std::string_view text) noexcept {
  collectives_.clear();
  transfers_.clear();
  std::vector<std::shared_ptr<Batch>> under_way, submitted;
  {
    const std::lock_guard lock(mutex_);
    under_way.swap(alive_);
    submitted.swap(inbox_);
    has_inbox_.store(false);
  }
  if (lone_.remaining > 0) fail(lone_, status, text);
  for (const auto* batches : {&under_way, &submitted}) {
    for (const std::shared_ptr<Batch>& batch : *batches) {
      fail(*batch, status, text);
      batch->complete();
    }
  }
  notify_callers();
}

}  // namespace xcoll::engine
