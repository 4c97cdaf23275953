// SPDX-License-Identifier: Apache-2.0
// pool.cpp: blocks out of the cache and back. What happens when there is none: pool_pressure.cpp.
#include "memory/pool.hpp"

#include <boost/container/small_vector.hpp>

#include <algorithm>

#include "core/tables.hpp"
#include "memory/pool_state.hpp"
#include "sync/capture.hpp"

namespace xhal {
namespace {

constexpr uint64_t rounded(uint64_t size) {
  return round_up(std::max<uint64_t>(size, 1), kAlignment);
}
constexpr bool is_small(uint64_t size) { return size <= kSmallBytes; }

xhal_stream* handle_of(const Owner& owner) {
  const auto& s = owner.stream;
  return s == nullptr || s->gone.load(std::memory_order_relaxed) ? nullptr : s->handle;
}

// Calls nobody back. A failed event is over, too, its work will not run; but while a stream that
// has failed is not recovered, its device may still be in the middle of that work.
bool is_reached(xhal_timeline* timeline, uint64_t value) {
  const auto& t = *Timeline::of(timeline);
  return t.reached(value) || (t.failed() && (t.device == nullptr || stream_of(t) == nullptr));
}

}  // namespace

Block* Pool::Part::from_cache(Owner& owner, uint64_t size, bool small) {
  Block* b = blocks.take(owner, size, small);
  if (b == nullptr && &owner != &blocks.nobody()) b = blocks.take(blocks.nobody(), size, small);
  return b;
}

uint64_t Pool::Part::hand_out(Block* b, Owner& owner, uint64_t requested, uint64_t size,
                              std::string_view tag) {
  try {
    b->tag.assign(tag);
  } catch (...) {
    blocks.put_back(b);
    throw;
  }
  blocks.split(b, size);
  if (b->owner != &owner) blocks.give(b, owner);
  b->state = BlockState::used;
  b->requested = requested;
  ++used_count;
  stats.used_bytes += b->size;
  stats.used_peak_bytes = std::max(stats.used_peak_bytes, stats.used_bytes);
  stats.requested_bytes += requested;
  ++stats.allocation_count;
  return b->address;
}

// Out of the cache it is all under one lock; what an allocation needs beyond that is
// made only then.
xhal_status Pool::Part::alloc(xhal_stream* stream, uint64_t requested, xhal_string tag,
                              uint64_t* address) {
  StreamState* const state = stream == nullptr ? nullptr : state_of(stream);
  const bool captured = state != nullptr && is_captured(*state);
  const uint64_t capture = captured ? capture_of(*state, handle) : 0;
  const uint64_t size = rounded(requested);
  const std::string_view tag_text(tag.size > 0 ? tag.data : "", tag.size);
  uint64_t given = 0, pool_id = 0;
  {
    const std::lock_guard lock(mutex);
    pool_id = id;
    if (!pending.empty()) collect_some();
    blocks.prepare();
    Owner& owner = blocks.owner(state, capture);
    if (Block* b = from_cache(owner, size, is_small(size)); b != nullptr) {
      *address = hand_out(b, owner, requested, size, tag_text);
      given = b->size;
    }
  }
  if (given == 0) {
    PoolRequest r{};
    r.stream = state;
    r.captured = captured;
    r.capture = capture;
    r.requested = requested;
    r.size = size;
    r.small = is_small(size);
    r.tag = tag_text;
    r.pool_id = pool_id;
    const xhal_status status = alloc_slowly(r, address);
    for (const auto& slab : r.slabs) observer.call(&slab);
    if (status != XHAL_OK) {
      if (observer.on()) tell(XHAL_POOL_OUT_OF_MEMORY, 0, requested, stream, tag);
      return status;
    }
    given = r.given;
  }
  if (observer.on()) tell(XHAL_POOL_ALLOC, *address, given, stream, tag);
  return XHAL_OK;
}

xhal_status Pool::Part::free(uint64_t address, const xhal_event* events, uint32_t count) {
  boost::container::small_vector<xhal_event, 4> waiting;
  uint64_t capture = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const auto& e = events[i];
    if (e.timeline == nullptr) continue;
    if ((e.flags & XHAL_EVENT_CAPTURED) != 0) {
      if (const auto of = stream_of(*Timeline::of(e.timeline)); of != nullptr)
        capture = std::max(capture, capture_of(*of, handle));
    } else {
      // The timeline's inner value: its next owner goes on from there.
      const uint64_t value = Timeline::of(e.timeline)->inner(e.value);
      if (is_reached(e.timeline, value)) continue;
      Timeline::of(e.timeline)->mark_asked(value);  // destroyed, it is not made another one
      waiting.push_back({e.timeline, value, 0, 0});
    }
  }
  const bool parked = capture != 0;
  xhal_pool_record record{};
  std::string tag;
  {
    const std::lock_guard lock(mutex);
    Block* b = blocks.find(address);
    if (b == nullptr || b->state != BlockState::used) {
      return annotate(fail(XHAL_ERR_INVALID_ARGUMENT, "xhal_pool_free",
                           "xhal_pool_free: {:#x} is not a block of this pool that is in use "
                           "(freed twice?)",
                           address),
                      context->handle, "xhal_pool_free");
    }
    // What may fail comes before anything changes.
    blocks.give(b, blocks.heir(*b->owner));
    const StreamRef& stream = b->owner->stream;
    if (capture == 0 && stream != nullptr && b->owner->capture == 0)
      capture = capture_of(*stream, handle);
    if (capture != 0 && b->owner->capture == 0) blocks.give(b, blocks.owner(stream.get(), capture));
    if (observer.on()) {
      record = {XHAL_POOL_FREE, 0, address, b->size, handle_of(*b->owner), {}};
      tag = b->tag;
    }
    b->later_events.assign(waiting.begin(), waiting.end());
    if (parked && b->owner->capture == capture) {
      b->state = BlockState::parked;
      ++parked_count;
    } else if (!waiting.empty()) {
      pending.add(b);
    }
    --used_count;
    stats.used_bytes -= b->size;
    stats.requested_bytes -= b->requested;
    ++stats.free_count;
    if (b->state == BlockState::used)
      available(b);
    else
      stats.pending_bytes += b->size;
  }
  if (record.kind != 0) {
    record.tag = {tag.data(), tag.size()};
    observer.call(&record);
  }
  return XHAL_OK;
}

void Pool::Part::available(Block* b) {
  if (Owner& heir = blocks.heir(*b->owner); &heir != b->owner) blocks.give(b, heir);
  blocks.put_back(b);
  count_change();
}

bool Pool::Part::release(Block* b) {
  if (!b->later_events.empty()) {
    pending.add(b);
    return false;
  }
  stats.pending_bytes -= b->size;
  available(b);
  return true;
}

// A bounded amount of work for every allocation, so that what has become ready is used again. Ready
// blocks come back faster than they are made.
void Pool::Part::collect_some() {
  constexpr int kBlocks = 64;
  Look look;
  pending.look_at_next(&look);
  for (int i = 0; i < kBlocks && look.count > 0; ++i) {
    if (!is_reached(look.timeline, look.values[0])) return;
    Block* b = pending.pop(look.timeline, look.values[0]);
    if (b == nullptr) return;
    release(b);
    pending.look(look.timeline, 1, &look);
  }
}

void Pool::Part::collect_all() {
  // Again when a block went on to a queue that may have been looked at before.
  for (bool again = true; again;) {
    again = false;
    std::vector<xhal_timeline*> timelines;
    {
      const std::lock_guard lock(mutex);
      timelines = pending.timelines();
    }
    for (auto* timeline : timelines) again |= collect(timeline);
  }
}

bool Pool::Part::collect(xhal_timeline* timeline) {
  Look look;
  bool moved = false;
  do {
    {
      const std::lock_guard lock(mutex);
      pending.look(timeline, Look::kMost, &look);
    }
    uint64_t* const end = look.values + look.count;
    uint64_t* const unreached = std::partition_point(
        look.values, end, [&](uint64_t value) { return is_reached(timeline, value); });
    if (unreached == look.values) break;
    const std::lock_guard lock(mutex);
    while (Block* b = pending.pop(timeline, unreached[-1])) moved |= !release(b);
    if (unreached != end) break;
  } while (look.count == Look::kMost);
  return moved;
}

void Pool::Part::tell(uint32_t kind, uint64_t address, uint64_t size, xhal_stream* stream,
                      xhal_string tag) {
  const xhal_pool_record record{kind, 0, address, size, stream, tag};
  observer.call(&record);
}

void Pool::Part::capture_over(uint64_t capture) {
  const std::lock_guard lock(mutex);
  if (captures.erase(capture) == 0) return;
  for (const auto& owner : blocks.owners()) {
    if (owner->capture == capture) owner->over = true;
  }
  if (parked_count > 0) {
    std::vector<Block*> parked;
    blocks.for_each([&](Block& b) {
      if (b.state == BlockState::parked && b.owner->capture == capture) parked.push_back(&b);
    });
    parked_count -= parked.size();
    for (auto* b : parked) {
      b->state = BlockState::taken;
      release(b);
    }
  }
  blocks.sweep(blocks.owners().size());
  count_change();
}

xhal_status pool_capture_begins(xhal_pool* pool, uint64_t capture) {
  auto& p = *Pool::of(pool)->part;
  const std::lock_guard lock(p.mutex);
  p.captures.insert(capture);
  return XHAL_OK;
}

void pool_capture_over(xhal_pool* pool, uint64_t capture) noexcept {
  if (!is_live(pool, XHAL_KIND_POOL)) return;
  (void)guarded("xhal_graph_destroy", [&] {
    Pool::of(pool)->part->capture_over(capture);
    return XHAL_OK;
  });
}

bool find_block(xhal_pool* pool, uint64_t address, uint64_t* base, uint64_t* size) noexcept {
  if (!is_live(pool, XHAL_KIND_POOL)) return false;
  auto& p = *Pool::of(pool)->part;
  const std::lock_guard lock(p.mutex);
  const auto* b = p.blocks.containing(address);
  if (b == nullptr || b->state != BlockState::used) return false;
  *base = b->address;
  *size = b->requested;
  return true;
}

}  // namespace xhal
