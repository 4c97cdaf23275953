// SPDX-License-Identifier: Apache-2.0
// timeline_life.cpp: where timelines come from and what becomes of them.
#include <unistd.h>

#include <vector>

#include "core/locks.hpp"
#include "core/state.hpp"
#include "sync/cells.hpp"
#include "sync/stream_state.hpp"
#include "sync/timeline_callbacks.hpp"
#include "sync/timestamps.hpp"

namespace xhal {
namespace {

Mutex& list_lock() {
  static auto* mutex = new Mutex(Rank::timelines);
  return *mutex;
}
const AtLoad list_lock_at_load(list_lock);

// The program's own timelines; a stream's are in the lists of its device.
TimelineLists& own_lists() {
  static auto* lists = new TimelineLists;
  return *lists;
}
const AtLoad own_lists_at_load(own_lists);
TimelineLists& lists_of(const DeviceRecord* device) {
  return device == nullptr ? own_lists() : const_cast<DeviceRecord*>(device)->timelines;
}

// Devices' lists are for ever.
std::vector<DeviceRecord*>& devices() {
  static auto* d = new std::vector<DeviceRecord*>;
  return *d;
}
const AtLoad devices_at_load(devices);
template <class Function>
void for_each_list(Function&& function) {
  function(own_lists());
  for (auto* d : devices()) function(d->timelines);
}

void push(Timeline*& list, Timeline& t) {
  t.before = nullptr;
  t.after = list;
  if (list != nullptr) list->before = &t;
  list = &t;
}

void unlink(Timeline*& list, Timeline& t) {
  if (t.before != nullptr) t.before->after = t.after;
  if (t.after != nullptr) t.after->before = t.before;
  if (list == &t) list = t.after;
  t.before = t.after = nullptr;
}

Timeline* pop(Timeline*& list) {
  Timeline* t = list;
  if (t != nullptr) unlink(list, *t);
  return t;
}

// Everything that was ever asked of it was reached.
bool is_settled(const Timeline& t) {
  const uint64_t reached = t.last_reached();
  return t.asked.load() <= reached && t.submitted.load() <= reached && t.recorded.load() <= reached;
}

// What an ended timeline still owns.
void strip(Timeline& t) {
  std::unique_ptr<Timeline::Callbacks> callbacks;
  std::unique_ptr<ExportedView> view;
  {
    const std::lock_guard lock(timeline_lock(t));
    callbacks.reset(std::exchange(t.callbacks, nullptr));
    view.reset(t.exported.exchange(nullptr));
  }
  if (t.imported) {
    t.cell.store(no_cell(), std::memory_order_release);
    t.imported_view.unmap();
  }
}

// Nobody waits for it any more, and no device writes to its cell.
void settle(Timeline& t) {
  if (t.imported) {  // a plugin that was given it may still look at it
    if (t.asked.load() > t.last_reached()) return;
    t.~Timeline();
    object_free(&t);
    return;
  }
  if (is_settled(t) && !objects_quarantined()) {
    const std::lock_guard lock(list_lock());
    std::atomic_ref(t.head.kind).store(XHAL_KIND_DEAD, std::memory_order_relaxed);
    push(lists_of(t.device).spare, t);
    return;
  }
  // Its events go on to be answered, by what it keeps of its failure. A device that was given
  // signals of a program's own timeline may still raise that.
  auto* const c = t.cell.exchange(no_cell(), std::memory_order_acq_rel);
  const uint64_t reached = t.last_reached();
  const bool written = t.device == nullptr && t.submitted.load() > reached;
  const bool read = t.asked.load() > reached;  // a device may look whether it has failed
  if (c == no_cell() || written || read || !t.failed()) return;
  std::atomic_ref(c->failed).store(0, std::memory_order_relaxed);
  std::atomic_ref(c->notify).store(0, std::memory_order_relaxed);
  give_cell(c);
}

// The last user of an ended timeline has gone.
void retire(Timeline& t) {
  t.life.fetch_add(1, std::memory_order_seq_cst);
  strip(t);
  if (t.device != nullptr && t.device->lost) {  // its process may hang, and wake up
    const std::lock_guard lock(list_lock());
    push(lists_of(t.device).limbo, t);
    return;
  }
  settle(t);
}

// In the child of a fork: the cells are copies, and what was exported is the parent's.
void in_forked_child() {
  cells_after_fork();
  timestamps_after_fork();
  for_each_list([](TimelineLists& lists) {
    lists.spare = lists.limbo = nullptr;  // their cells are in no shared memory
    for (auto* t = lists.live; t != nullptr; t = t->after) {
      if (auto* view = t->exported.exchange(nullptr); view != nullptr) view->forget();
      t->callbacks = nullptr;  // its parent's; what they own is left alone
      t->has_submitting = false;
      if (t->imported) continue;
      auto* const c = t->cell.load(std::memory_order_relaxed);
      std::atomic_ref(c->waiters).store(0);
      std::atomic_ref(c->notify).store(0);
    }
  });
}

}  // namespace

static const AtLoad forks([] { run_in_forked_child(in_forked_child); });

// Until now it has told that it was destroyed.
static void begin_again(Timeline& t) {
  const std::lock_guard lock(timeline_lock(t));
  t.failure_record.reset();
  auto* const c = t.cell.load(std::memory_order_relaxed);
  std::atomic_ref(c->failed).store(0, std::memory_order_relaxed);
  std::atomic_ref(c->notify).store(0, std::memory_order_relaxed);
  t.condition.store(Timeline::kSound, std::memory_order_seq_cst);
}

xhal_status make_timeline(uint64_t initial, StreamState* stream, DeviceRecord* device,
                          Timeline** timeline) {
  Timeline* t = nullptr;
  {
    const std::lock_guard lock(list_lock());
    auto& spare = lists_of(device).spare;
    t = pop(spare);
  }
  constexpr uint64_t kWornOut = uint64_t{1}
                                << 62;  // values that could run out are not gone on with
  if (t == nullptr || t->value() >= kWornOut) {
    auto* cell = take_cell();
    while (cell != nullptr && cell->value >= kWornOut) cell = take_cell();
    void* memory = nullptr;
    if (cell == nullptr || object_alloc(libxhal_table(), device, 0, XHAL_KIND_TIMELINE,
                                        sizeof(Timeline), &memory) != XHAL_OK) {
      if (cell != nullptr) give_cell(cell);
      return fail(XHAL_ERR_OUT_OF_MEMORY, "xhal_timeline_create",
                  "no memory or descriptor for a timeline");
    }
    const xhal_object_head head = *static_cast<const xhal_object_head*>(memory);
    t = new (memory) Timeline;
    t->head = head;
    t->cell.store(cell, std::memory_order_relaxed);
    t->device = device;
  }
  begin_again(*t);
  const uint64_t first = t->value();
  if (device == nullptr) {
    t->first = first;
    t->shown_first = initial;
  }
  t->submitted = t->asked = t->recorded = first;
  t->signalled_by = 0;
  {
    const std::lock_guard lock(list_lock());
    std::atomic_ref(t->head.kind).store(XHAL_KIND_TIMELINE, std::memory_order_relaxed);
    t->stream = stream;
    push(lists_of(device).live, *t);
  }
  // A shutdown or loss that has not seen it in the list is seen here.
  if (!is_running() || (device != nullptr && device->lost)) {
    end_timeline(*t);
    return is_running() ? set_error(*device->lost_error) : fail_state("xhal_timeline_create");
  }
  *timeline = t;
  return XHAL_OK;
}

xhal_status make_imported(const ImportedView& view, Timeline** timeline) {
  void* memory = nullptr;
  if (const auto s =
          object_alloc(libxhal_table(), nullptr, 0, XHAL_KIND_TIMELINE, sizeof(Timeline), &memory);
      s != XHAL_OK)
    return s;
  const xhal_object_head head = *static_cast<const xhal_object_head*>(memory);
  auto* t = new (memory) Timeline;
  t->head = head;
  t->imported = true;
  t->imported_view = view;
  t->cell.store(view.page, std::memory_order_relaxed);
  {
    const std::lock_guard lock(list_lock());
    push(own_lists().live, *t);
  }
  if (!is_running()) {  // a shutdown that has not seen it in the list
    end_timeline(*t);
    return fail_state("xhal_timeline_import");
  }
  *timeline = t;
  return XHAL_OK;
}

void release_from_stream(Timeline& t) noexcept {
  const std::lock_guard lock(list_lock());
  t.stream = nullptr;
}

void adopt_by_stream(Timeline& t, StreamState& stream) noexcept {
  const std::lock_guard lock(list_lock());
  t.stream = &stream;
}

StreamRef stream_of(const Timeline& t) noexcept {
  const std::lock_guard lock(list_lock());
  return StreamRef(t.stream);
}

xhal_status too_far(const char* operation, uint64_t value) noexcept {
  return fail(
      XHAL_ERR_INVALID_ARGUMENT, operation,
      "{}: {} is 2^63 or more above the timeline's first value; UINT64_MAX reaches everything",
      operation, value);
}

void end_timeline(Timeline& t) noexcept {
  {
    const std::lock_guard lock(list_lock());
    unlink(lists_of(t.device).live, t);
    t.stream = nullptr;
    // A stream's goes on to answer for what it never reached.
    if (t.device == nullptr)
      std::atomic_ref(t.head.kind).store(XHAL_KIND_DEAD, std::memory_order_relaxed);
  }
  ErrorRecord record;
  record.status = XHAL_ERR_ABANDONED;
  try {
    record.operation = "xhal_timeline_destroy";
    record.text = fmt::format("the timeline was destroyed at {}, below the awaited value",
                              t.shown(t.last_reached()));
  } catch (...) {  // the status itself still arrives
  }
  t.fail(make_failure(std::move(record)));
  t.users.fetch_or(Timeline::kEnded, std::memory_order_acq_rel);
  if (t.has_no_user()) retire(t);
}

void Timeline::unpin() noexcept {
  if (users.fetch_sub(1, std::memory_order_acq_rel) == (kEnded | 1) && has_no_user()) retire(*this);
}

// True for one of those who ask, once nobody uses an ended timeline. Somebody may still pin it
// after that: it finds another life, and goes.
bool Timeline::has_no_user() noexcept {
  uint32_t ended = kEnded;
  return users.compare_exchange_strong(ended, 0, std::memory_order_acq_rel);
}

void adopt_device_timelines(DeviceRecord& device) {
  const std::lock_guard lock(list_lock());
  devices().push_back(&device);
}

void fail_all_timelines(const Failure& record, const DeviceRecord* device) noexcept {
  // A few at a time, pinned: no memory is needed, and those that begin or end meanwhile do no harm.
  constexpr size_t kBatch = 64;
  for (;;) {
    TimelinePin pins[kBatch];
    size_t count = 0;
    const auto collect = [&](const TimelineLists& lists) {
      for (auto* t = lists.live; t != nullptr && count < kBatch; t = t->after) {
        if (!t->failed()) pins[count++] = TimelinePin(*t);
      }
    };
    {
      const std::lock_guard lock(list_lock());
      if (device != nullptr) {
        collect(device->timelines);
      } else {
        for_each_list(collect);
      }
    }
    if (count == 0) return;
    for (size_t i = 0; i < count; ++i) pins[i]->fail(record);
  }
}

void tell_of_raised_cells() noexcept {
  std::vector<TimelinePin> raised;
  try {
    const std::lock_guard lock(list_lock());
    for (auto* t = lists_of(nullptr).live; t != nullptr; t = t->after) {
      auto* const c = t->cell.load(std::memory_order_relaxed);
      const bool awaited = std::atomic_ref(c->notify).load() != 0 ||
                           std::atomic_ref(c->waiters).load() != 0 || t->has_submitting;
      if (!t->imported && awaited) raised.emplace_back(*t);
    }
  } catch (...) {  // without memory those that were found are told
  }
  for (const auto& t : raised) t->tell_raised();
}

void timelines_of_closed_device(DeviceRecord& device, bool quiet) noexcept {
  for (;;) {
    Timeline* t = nullptr;
    {
      const std::lock_guard lock(list_lock());
      t = pop(device.timelines.limbo);
    }
    if (t == nullptr) return;
    if (quiet)
      settle(*t);
    else
      t->cell.store(no_cell(), std::memory_order_release);  // and the cell is kept from others
  }
}

}  // namespace xhal
