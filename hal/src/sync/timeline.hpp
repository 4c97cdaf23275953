// SPDX-License-Identifier: Apache-2.0
// timeline.hpp: the one implementation of timelines.
//
// The value lives in a cell of shared memory (host.h). This process's part, the object, holds
// what cannot be shared: the failure, callbacks, and how far signals have been submitted, which
// is what wait-before-signal needs.
//
// Values here are the cell's. They go on from one owner of a cell to the next, so a program's own
// timeline, which begins where the program says, shows them shifted (shown, inner); a stream's
// timeline shows them as they are.
//
// Lifetime: an ended timeline is used again, with its cell, once nothing can ask it for a value
// that it never reached: then whoever still holds its handle or an event finds "reached", for the
// next owner continues the values. One that failed is kept for its events, without its cell.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "core/device_record.hpp"
#include "core/error.hpp"
#include "core/object.hpp"
#include "sync/exported_view.hpp"
#include "xhal/timeline.h"

namespace xhal {

struct StreamState;
using Failure = std::shared_ptr<const ErrorRecord>;

struct Timeline {
  static constexpr uint64_t kFurthest = uint64_t{1} << 63;
  enum Condition : uint32_t { kSound, kFailing, kFailed };
  using Notified = std::function<void(xhal_status)>;

  // What is asked for on every call, in one cache line.
  xhal_object_head head{};
  std::atomic<xhal_timeline_cell*> cell{nullptr};
  std::atomic<uint32_t> condition{kSound};
  std::atomic<bool> has_submitting{false};
  bool imported = false;
  uint64_t failed_at = 0;              // valid once kFailed: the last value that was reached
  std::atomic<uint64_t> submitted{0};  // signals up to here have been given to a device
  std::atomic<uint64_t> recorded{0};   // a stream's own: the value of its last event

  std::atomic<uint64_t> signalled_by{0};  // the last thread of this process, and its processor
  std::atomic<uint64_t> asked{0};         // the highest value that a plugin was given to wait for
  std::atomic<uint32_t> users{0};         // waits and gates under way; kEnded
  std::atomic<uint32_t> life{0};          // how often it has ended
  // The cell's value when it began, and what that is shown as. Of a program's own only: a stream's
  // shows the cell's values, so that an event answers for ever, whichever stream has it by now.
  uint64_t first = 0, shown_first = 0;
  DeviceRecord* device = nullptr;                // of the stream that owns it
  StreamState* stream = nullptr;                 // likewise; under the lock of the list
  Timeline *before = nullptr, *after = nullptr;  // in the list of those that live

  struct Callbacks;
  Callbacks* callbacks = nullptr;  // made with the first one; under the timeline's lock
  Failure failure_record;          // likewise
  std::atomic<ExportedView*> exported{nullptr};
  ImportedView imported_view;

  static Timeline* of(xhal_timeline* handle) { return reinterpret_cast<Timeline*>(handle); }
  xhal_timeline* handle() { return reinterpret_cast<xhal_timeline*>(this); }

  // ---- values
  uint64_t value() const noexcept {
    return std::atomic_ref(cell.load(std::memory_order_acquire)->value)
        .load(std::memory_order_seq_cst);
  }
  bool reached(uint64_t v) const noexcept {
    const bool there = value() >= v;
    if (condition.load(std::memory_order_seq_cst) == kSound) [[likely]]
      return there;
    return reached_before_failure(v);
  }
  bool failed() const noexcept { return condition.load(std::memory_order_seq_cst) != kSound; }
  // A value as the program sees it, and back.
  // A timeline goes less than 2^63 beyond where it began, or to UINT64_MAX, which is all there is.
  uint64_t shown(uint64_t inner) const noexcept {
    if (device != nullptr || inner == UINT64_MAX) return inner;
    return shown_first + (inner - first);
  }
  uint64_t inner(uint64_t shown) const noexcept {
    return device != nullptr ? shown : inner_of_own(shown);
  }
  uint64_t inner_of_own(uint64_t shown) const noexcept;
  bool can_reach(uint64_t shown) const noexcept {
    return device != nullptr || shown == UINT64_MAX || shown <= shown_first ||
           shown - shown_first < kFurthest;
  }
  uint64_t last_reached() const noexcept;  // where it stands

  // Raises it from this process. Callbacks may run inside.
  void advance(uint64_t value) noexcept;
  // Only the first failure counts. Callbacks may run inside.
  void fail(Failure record) noexcept;
  // XHAL_OK, XHAL_NOT_READY or the failure's status, without touching the thread's error record.
  xhal_status poll(uint64_t value) noexcept;
  // The record of its failure, never null once failed() is true.
  Failure failure() const noexcept;
  // As poll; a failure is left in the thread's error record.
  xhal_status query(uint64_t value) noexcept;
  // Imported: fails it when its owner is gone.
  void check_owner() noexcept;
  // Waits; failures are left in the thread's error record. `operation` names the call in texts.
  xhal_status wait(uint64_t value, uint64_t timeout_ns, const char* operation) noexcept;

  // ---- callbacks, run without any lock
  // Calls back once `value` is reached or the timeline has failed, perhaps at once. Returns a
  // number for cancel(). Errors: std::bad_alloc.
  uint64_t notify(uint64_t value, Notified callback);
  // Forgets a notification; false: it has been called, or is being called.
  bool cancel(uint64_t value, uint64_t number) noexcept;
  // Whoever raised the cell may have died before it told anybody.
  void tell_raised() noexcept;
  // Calls back what has come due. Who raises the cell by other means than advance() calls this.
  void run_callbacks() noexcept;
  void run_due() noexcept;  // the same, whatever it leads to at once

  // ---- submission
  bool is_submitted(uint64_t v) const noexcept {
    return submitted.load(std::memory_order_seq_cst) >= v || value() >= v;
  }
  // A signal of `value` has been given to a device (or the host).
  void mark_submitted(uint64_t value) noexcept;
  // Calls back once a signal of at least `value` has been submitted, or the timeline has failed.
  void when_submitted(uint64_t value, std::function<void()> callback);
  // A plugin will wait for `value` by itself.
  void mark_asked(uint64_t value) noexcept;

  // ---- other processes
  // Its view for other processes, made with the first export; nullptr with the thread's error set.
  ExportedView* export_view(const char* operation) noexcept;

  // ---- keeping it from being used again
  void pin() noexcept { users.fetch_add(1, std::memory_order_acq_rel); }
  void unpin() noexcept;

 private:
  friend void end_timeline(Timeline& timeline) noexcept;
  static constexpr uint32_t kEnded = 1u << 31;
  bool has_no_user() noexcept;
  bool reached_before_failure(uint64_t v) const noexcept;
  void run_submitting() noexcept;
  void publish() noexcept;
};

// Pins a timeline while it lives.
class TimelinePin {
 public:
  TimelinePin() = default;
  explicit TimelinePin(Timeline& t) noexcept : timeline_(&t) { t.pin(); }
  TimelinePin(TimelinePin&& other) noexcept : timeline_(std::exchange(other.timeline_, nullptr)) {}
  TimelinePin& operator=(TimelinePin&& other) noexcept {
    std::swap(timeline_, other.timeline_);
    return *this;
  }
  ~TimelinePin() {
    if (timeline_ != nullptr) timeline_->unpin();
  }
  Timeline* get() const { return timeline_; }
  Timeline* operator->() const { return timeline_; }
  explicit operator bool() const { return timeline_ != nullptr; }

 private:
  Timeline* timeline_ = nullptr;
};

// ---- timeline_life.cpp
// A program's own, or, with `stream` and `device`, a stream's, which shows its inner values.
xhal_status make_timeline(uint64_t initial, StreamState* stream, DeviceRecord* device,
                          Timeline** timeline);
// A view of another process's.
xhal_status make_imported(const ImportedView& view, Timeline** timeline);
// Ends it: waiters for values that are not reached get ABANDONED. Nothing of a device writes to its
// cell any more.
void end_timeline(Timeline& timeline) noexcept;
// Refuses a value for which `can_reach` is false.
xhal_status too_far(const char* operation, uint64_t value) noexcept;
// A stream's timeline whose stream ends or has another one by now: it no longer leads to the
// stream. Before the plugin's stream_destroy.
void release_from_stream(Timeline& timeline) noexcept;
// And back, when the plugin has not destroyed it.
void adopt_by_stream(Timeline& timeline, StreamState& stream) noexcept;
// Fails everything that is not reached: shutdown of the library, loss of a device.
void fail_all_timelines(const Failure& record, const DeviceRecord* device = nullptr) noexcept;
// A device is lost: it may have raised programs' timelines and told nobody.
void tell_of_raised_cells() noexcept;
// Once for each device record, before it has streams.
void adopt_device_timelines(DeviceRecord& device);
// The device is closed: `quiet` when nothing of it writes to cells any more, so that they can
// be used again.
void timelines_of_closed_device(DeviceRecord& device, bool quiet) noexcept;
// The lock of a timeline's callbacks and failure.
std::mutex& timeline_lock(const Timeline& timeline) noexcept;

Failure make_failure(ErrorRecord&& record) noexcept;
// The failure that a call in this thread has just returned.
Failure failure_of_call(xhal_status status) noexcept;

// Absolute deadlines on CLOCK_MONOTONIC, in ns; XHAL_FOREVER maps to XHAL_FOREVER.
uint64_t now_ns() noexcept;
uint64_t deadline_after(uint64_t timeout_ns) noexcept;

}  // namespace xhal
