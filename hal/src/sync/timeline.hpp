// timeline.hpp: the one implementation of timelines.
//
// The value lives in a cell of shared memory (host.h). This process's part, the object, holds what
// cannot be shared: the failure's record, callbacks, and how far signals have been submitted, which
// is what wait-before-signal needs.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/error.hpp"
#include "core/object.hpp"
#include "xhal/timeline.h"

namespace xhal {

struct Timeline {
  xhal_object_head head;
  xhal_timeline_cell* cell;
  std::atomic<uint64_t> submitted;
  std::atomic<uint64_t> signalled_by;  // the last thread of this process, and its processor
  StreamState* stream;                  // of the stream that owns it; nullptr otherwise
  DeviceRecord* device;                // of that stream
  int owner_pidfd;                     // imported: of the exporting process; -1 otherwise
  bool imported;

  struct Part;
  Part* part;  // never freed, so that late queries are safe

  static Timeline* of(xhal_timeline* handle) { return reinterpret_cast<Timeline*>(handle); }
  xhal_timeline* handle() { return reinterpret_cast<xhal_timeline*>(this); }

  bool reached(uint64_t value) const {
    return std::atomic_ref(cell->value).load(std::memory_order_seq_cst) >= value;
  }
  bool failed() const { return std::atomic_ref(cell->failed).load(std::memory_order_seq_cst) != 0; }

  void advance(uint64_t value) noexcept;
  void fail(ErrorRecord record) noexcept;  // only the first failure counts
  // XHAL_OK, XHAL_NOT_READY or the failure's status, without touching the thread's error record.
  xhal_status poll(uint64_t value) const noexcept;
  // The record of its failure; valid for ever once failed() is true.
  const ErrorRecord& failure() const noexcept;
  // Waits; failures are left in the thread's error record.
  xhal_status wait(uint64_t value, uint64_t timeout_ns, const char* operation) noexcept;
  void notify(uint64_t value, std::function<void(xhal_status)> callback);

  // A signal of `value` has been given to a device (or the host).
  void mark_submitted(uint64_t value) noexcept;
  // Calls back once a signal of at least `value` has been submitted, or the timeline has failed.
  void when_submitted(uint64_t value, std::function<void()> callback);
};

// Makes one; `stream` and `device` are set for a stream's own timeline.
xhal_status make_timeline(uint64_t initial, StreamState* stream, DeviceRecord* device,
                          Timeline** timeline);
// Its waiters get ABANDONED. One whose stream was never made, or has another by now, is released
// from it first (`stream` = nullptr).
xhal_status destroy_timeline(Timeline& timeline);
// Fails everything that is not reached: shutdown of the library, loss of a device.
void fail_all_timelines(const ErrorRecord& record, const DeviceRecord* device = nullptr) noexcept;
// In the child of a fork: nobody will ever signal here.
void timelines_after_fork() noexcept;
// Joins the threads that watch imported timelines.
void stop_timeline_watchers() noexcept;

// Absolute deadlines on CLOCK_MONOTONIC, in ns; XHAL_FOREVER stays itself.
uint64_t now_ns() noexcept;
uint64_t deadline_after(uint64_t timeout_ns) noexcept;

}  // namespace xhal
