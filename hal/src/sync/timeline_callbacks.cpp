// SPDX-License-Identifier: Apache-2.0
// timeline_callbacks.cpp: what is called back when a timeline gets somewhere.
#include <algorithm>
#include <vector>

#include "core/locks.hpp"
#include "sync/import_watcher.hpp"
#include "sync/timeline.hpp"
#include "sync/timeline_callbacks.hpp"

namespace xhal {
namespace {

std::atomic<uint64_t> last_number{0};

}  // namespace

static StripedMutex& locks() {
  static auto* locks = new StripedMutex(Rank::timeline);
  return *locks;
}
static const AtLoad locks_at_load(locks);

std::mutex& timeline_lock(const Timeline& timeline) noexcept { return locks().of(&timeline); }

// Devices look at `notify` of the cell: it tells them that raising it is not enough. An imported
// cell is another process's.
static void tell_device(Timeline& t, size_t waiting) noexcept {
  if (t.imported) return;
  const size_t count = waiting + (t.exported.load(std::memory_order_relaxed) != nullptr ? 1 : 0);
  std::atomic_ref(t.cell.load(std::memory_order_relaxed)->notify)
      .store(static_cast<uint32_t>(std::min<size_t>(count, UINT32_MAX)), std::memory_order_seq_cst);
}

static Timeline::Callbacks& callbacks_of(Timeline& t) {
  if (t.callbacks == nullptr) t.callbacks = new Timeline::Callbacks;
  return *t.callbacks;
}

uint64_t Timeline::notify(uint64_t v, Notified callback) {
  const uint64_t number = last_number.fetch_add(1, std::memory_order_relaxed) + 1;
  {
    const std::lock_guard lock(timeline_lock(*this));
    auto& waiting = callbacks_of(*this).waiting;
    waiting.emplace(std::pair(v, number), std::move(callback));
    tell_device(*this, waiting.size());
  }
  if (imported) {
    try {
      watch_import(*this);
    } catch (...) {  // nobody looks: what is refused is not called later
      if (cancel(v, number)) throw;
    }
  }
  // The value may have been reached between the caller's look and the registration.
  if (poll(v) != XHAL_NOT_READY) run_callbacks();
  return number;
}

bool Timeline::cancel(uint64_t v, uint64_t number) noexcept {
  decltype(Callbacks::waiting)::node_type dropped;  // destroyed without the lock: it owns things
  const std::lock_guard lock(timeline_lock(*this));
  if (callbacks == nullptr) return false;
  dropped = callbacks->waiting.extract(std::pair(v, number));
  if (dropped.empty()) return false;
  tell_device(*this, callbacks->waiting.size());
  return true;
}

// A callback may signal, and that may run callbacks that signal: the calls nest only so deep, what
// comes then is left to the outermost.
void Timeline::run_callbacks() noexcept {
  constexpr uint32_t kDeepest = 16;
  static thread_local uint32_t depth = 0;
  static thread_local std::vector<TimelinePin>* later = nullptr;
  publish();
  if (depth == kDeepest) {
    try {
      later->emplace_back(*this);
      return;
    } catch (...) {  // without memory it is done at once
    }
  }
  std::vector<TimelinePin> mine;
  if (depth == 0) later = &mine;
  ++depth;
  run_due();
  for (size_t i = 0; i < mine.size(); ++i) {
    const TimelinePin next = std::move(mine[i]);
    next->run_due();
  }
  --depth;
}

void Timeline::run_due() noexcept {
  for (;;) {
    decltype(Callbacks::waiting)::node_type due;
    xhal_status status = XHAL_OK;
    {
      const std::lock_guard lock(timeline_lock(*this));
      if (callbacks == nullptr || callbacks->waiting.empty()) return;
      auto& waiting = callbacks->waiting;
      const uint64_t wanted = waiting.begin()->first.first;
      const bool has_failed = condition.load(std::memory_order_relaxed) == kFailed;
      const bool there = has_failed ? wanted <= failed_at : value() >= wanted;
      if (!there && !has_failed) return;
      if (!there) status = failure_record->status;
      due = waiting.extract(waiting.begin());
      tell_device(*this, waiting.size());
    }
    due.mapped()(status);
  }
}

void Timeline::publish() noexcept {
  if (exported.load(std::memory_order_acquire) == nullptr) return;
  const std::lock_guard lock(timeline_lock(*this));
  if (auto* view = exported.load(std::memory_order_relaxed); view != nullptr) {
    const bool has_failed = condition.load(std::memory_order_relaxed) != kSound;
    view->publish(shown(has_failed ? failed_at : value()), has_failed);
  }
}

ExportedView* Timeline::export_view(const char* operation) noexcept {
  if (auto* view = exported.load(std::memory_order_acquire); view != nullptr) return view;
  std::unique_ptr<ExportedView> fresh(ExportedView::make(operation));
  if (fresh == nullptr) return nullptr;
  ExportedView* view = nullptr;
  {
    const std::lock_guard lock(timeline_lock(*this));
    view = exported.load(std::memory_order_relaxed);
    if (view == nullptr) {
      view = fresh.release();
      exported.store(view, std::memory_order_release);
      tell_device(*this, callbacks == nullptr ? 0 : callbacks->waiting.size());
    }
  }
  publish();  // what was raised before its device was told
  return view;
}

void Timeline::run_submitting() noexcept {
  std::list<Callbacks::Submitting> due;
  {
    const std::lock_guard lock(timeline_lock(*this));
    if (callbacks == nullptr) return;
    auto& list = callbacks->submitting;
    const bool all = failed();
    for (auto it = list.begin(); it != list.end();) {
      const auto next = std::next(it);
      if (all || is_submitted(it->value)) due.splice(due.end(), list, it);
      it = next;
    }
    has_submitting = !list.empty();
  }
  for (auto& d : due) d.callback();
}

void Timeline::when_submitted(uint64_t v, std::function<void()> callback) {
  {
    const std::lock_guard lock(timeline_lock(*this));
    auto& list = callbacks_of(*this).submitting;
    has_submitting.store(true, std::memory_order_seq_cst);
    if (!is_submitted(v) && !failed()) {
      list.push_back({v, std::move(callback)});
      return;
    }
    has_submitting = !list.empty();
  }
  callback();
}

}  // namespace xhal
