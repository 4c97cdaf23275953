// SPDX-License-Identifier: Apache-2.0
// pool_pressure.cpp: what a pool does when the cache has no block: further slabs, blocks of other
// streams, slabs given back; and its end.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/locks.hpp"
#include "core/tables.hpp"
#include "memory/address_map.hpp"
#include "memory/pool_state.hpp"
#include "sync/capture.hpp"

namespace xhal {

// Lets go of the mutex for a call that others, short of memory, may wait for the end of. They do
// not wait inside such a call of their own: two threads could wait for each other.
class Pool::Part::Busy {
 public:
  Busy(Part& part, std::unique_lock<std::mutex>& lock, PoolRequest& r)
      : part_(part), lock_(lock), request_(r), outer_(std::exchange(here, this)) {
    ++part_.busy;
    lock_.unlock();
  }
  ~Busy() {
    lock_.lock();
    --part_.busy;
    ++request_.own_changes;
    part_.count_change();
    here = outer_;
  }
  Busy(const Busy&) = delete;
  static bool inside() { return here != nullptr; }

 private:
  static thread_local Busy* here;
  Part& part_;
  std::unique_lock<std::mutex>& lock_;
  PoolRequest& request_;
  Busy* outer_;
};
constinit thread_local Pool::Part::Busy* Pool::Part::Busy::here = nullptr;

xhal_status Pool::Part::allocate(uint64_t bytes, uint64_t* base) {
  if (info.kind == XHAL_MEMORY_HOST) {
    void* p = nullptr;
    if (const auto s = xhal_host_alloc(bytes, &p); s != XHAL_OK) return s;
    *base = reinterpret_cast<uint64_t>(p);
  } else {
    xhal_memory_info memory{};
    memory.struct_size = sizeof memory;
    memory.kind = info.kind;
    memory.flags = info.flags;
    memory.size_bytes = bytes;
    memory.alignment_bytes = kAlignment;
    if (const auto s = xhal_memory_alloc(context->handle, &memory, base); s != XHAL_OK) return s;
  }
  address_map().set_pool(*base, handle);
  return XHAL_OK;
}

xhal_status Pool::Part::give_back(uint64_t base) {
  address_map().set_pool(base, nullptr);
  const auto status = info.kind == XHAL_MEMORY_HOST ? xhal_host_free(reinterpret_cast<void*>(base))
                                                    : xhal_memory_free(context->handle, base);
  if (status < 0) address_map().set_pool(base, handle);
  return status;
}

Block* Pool::Part::make_slab(std::unique_lock<std::mutex>& lock, PoolRequest& r) {
  const uint64_t wanted = r.small                 ? kSmallSlab
                          : r.size < kMiddleBytes ? kMiddleSlab
                                                  : round_up(r.size, kLargeRound);
  Block* b = make_slab(lock, r, wanted);
  // Near a limit of the pool or of its context, a slab for just this block.
  if (b == nullptr && id == r.pool_id && wanted != r.size) b = make_slab(lock, r, r.size);
  return b;
}

Block* Pool::Part::make_slab(std::unique_lock<std::mutex>& lock, PoolRequest& r, uint64_t bytes) {
  // What is being made counts, so that no two calls use the same room below the limit.
  if (info.limit_bytes != 0 && stats.reserved_bytes + making_bytes + bytes > info.limit_bytes) {
    r.refusal = "the pool's limit is reached";
    return nullptr;
  }
  making_bytes += bytes;
  uint64_t base = 0;
  xhal_status status;
  {
    const Busy busy(*this, lock, r);
    status = allocate(bytes, &base);
    if (status != XHAL_OK) r.refusal = last_error().text;
  }
  if (id != r.pool_id) {
    lock.unlock();
    if (status == XHAL_OK) give_back(base);
    lock.lock();
    return nullptr;
  }
  making_bytes -= bytes;
  if (status != XHAL_OK) return nullptr;
  Block* b = nullptr;
  try {
    b = blocks.add_slab(base, bytes, r.small, blocks.owner(r.stream, r.capture));
  } catch (...) {
    lock.unlock();
    give_back(base);
    throw;
  }
  stats.slab_count = blocks.slabs().size();
  ++stats.slab_allocation_count;
  stats.reserved_bytes += bytes;
  stats.reserved_peak_bytes = std::max(stats.reserved_peak_bytes, stats.reserved_bytes);
  if (observer.on()) {
    r.slabs.push_back({XHAL_POOL_SLAB_ALLOC,
                       0,
                       base,
                       bytes,
                       r.stream == nullptr ? nullptr : r.stream->handle,
                       {}});
  }
  return b;
}

namespace {

// Makes sure that `stream`'s present work is over before the request's block is used.
bool order(StreamState& stream, const PoolRequest& r, bool wait) {
  xhal_event event{};
  const auto status = record_hidden_event(stream, &event);
  if (status != XHAL_OK) return false;  // captured, failed, or on its way out
  if (r.stream != nullptr && !r.captured) return wait_event(*r.stream, event) == XHAL_OK;
  if (poll_event(event) == XHAL_OK) return true;
  return wait && xhal_event_wait(&event, XHAL_FOREVER) == XHAL_OK;
}

// Whether the stream has nothing to do. One whose recorded events are all reached mostly only needs
// a moment to say so: the thread that ran its last work may not have let go of it yet.
bool is_idle(StreamState& stream) {
  constexpr uint64_t kMomentNs = 20'000'000;
  xhal_event event{};
  if (record_hidden_event(stream, &event) != XHAL_OK) return false;
  if (poll_event(event) == XHAL_OK) return true;
  return Timeline::of(event.timeline)->reached(event.value - 1) &&
         xhal_event_wait(&event, kMomentNs) == XHAL_OK;
}

std::vector<StreamRef> eager_streams(const Blocks& blocks) {
  std::vector<StreamRef> streams;
  streams.reserve(blocks.owners().size());
  for (const auto& owner : blocks.owners()) {
    if (owner->capture == 0) streams.push_back(owner->stream);
  }
  return streams;
}

}  // namespace

Block* Pool::Part::steal(std::unique_lock<std::mutex>& lock, PoolRequest& r, bool wait) {
  for (const auto& stream : eager_streams(blocks)) {
    if (stream.get() == r.stream) continue;
    blocks.prepare();
    Owner& owner = blocks.owner(stream.get(), 0);
    Block* b = blocks.take(owner, r.size, r.small);
    if (b == nullptr) continue;
    blocks.split(b, r.size);  // the rest is there for others meanwhile
    bool ordered;
    if (wait) {  // perhaps for long: nobody is to wait for this call
      lock.unlock();
      ordered = order(*stream, r, true);
      lock.lock();
    } else {
      const Busy busy(*this, lock, r);
      ordered = order(*stream, r, false);
    }
    if (id != r.pool_id) return nullptr;
    if (ordered) return b;
    blocks.make_free(b);
  }
  return nullptr;
}

// What is free in the order of a stream that has nothing to do is nobody's.
void Pool::Part::take_from_idle(std::unique_lock<std::mutex>& lock, PoolRequest& r) {
  std::vector<Block*> taken;
  for (const auto& stream : eager_streams(blocks)) {
    taken.clear();
    blocks.take_all(blocks.owner(stream.get(), 0), &taken);
    if (taken.empty()) continue;
    bool idle;
    {
      const Busy busy(*this, lock, r);
      idle = is_idle(*stream);
    }
    if (id != r.pool_id) return;
    for (auto* b : taken) {
      if (idle) blocks.give(b, blocks.nobody());
      blocks.make_free(b);
    }
  }
}

xhal_status Pool::Part::trim(std::unique_lock<std::mutex>& lock, uint64_t keep, PoolRequest& r) {
  xhal_status failed = XHAL_OK;
  blocks.sweep(blocks.owners().size());
  if (stats.reserved_bytes - leaving_bytes > keep) take_from_idle(lock, r);
  if (id != r.pool_id) return failed;
  blocks.cool(blocks.nobody());
  struct Leaving {
    Blocks::Detached slab;
    bool gone = false;
  };
  std::vector<Leaving> whole;
  for (auto& bin : blocks.nobody().bins) {
    for (auto it = bin.tree.begin(); it != bin.tree.end();) {
      Block& b = *it;
      if (stats.reserved_bytes - leaving_bytes <= keep) break;
      if (b.size != b.slab->size) {
        ++it;
        continue;
      }
      whole.emplace_back();
      it = bin.tree.erase(it);
      b.state = BlockState::taken;
      leaving_bytes += b.size;
      whole.back().slab = blocks.detach_slab(&b);
    }
  }
  if (!whole.empty()) {
    const Busy busy(*this, lock, r);
    for (auto& leaving : whole) {
      const xhal_status status = give_back(leaving.slab.block->address);
      leaving.gone = status >= 0;
      if (!leaving.gone) failed = status;
    }
  }
  if (id != r.pool_id) {  // the pool has ended, and its records with it
    for (auto& leaving : whole) delete leaving.slab.block;
    return failed;
  }
  for (auto& leaving : whole) leaving_bytes -= leaving.slab.block->size;
  for (auto& [slab, gone] : whole) {
    Block* const b = slab.block;
    if (!gone) {
      blocks.attach_slab(slab);
      blocks.make_free(b);
      continue;
    }
    stats.reserved_bytes -= b->size;
    if (observer.on())
      r.slabs.push_back({XHAL_POOL_SLAB_FREE, 0, b->address, b->size, nullptr, {}});
    blocks.forget_slab(slab);
  }
  stats.slab_count = blocks.slabs().size();
  blocks.sweep(blocks.owners().size());
  return failed;
}

xhal_status Pool::Part::trim(uint64_t keep) {
  PoolRequest r{};
  xhal_status status;
  collect_all();
  {
    std::unique_lock lock(mutex);
    r.pool_id = id;
    status = trim(lock, keep, r);
  }
  for (const auto& slab : r.slabs) observer.call(&slab);
  return status;
}

xhal_status Pool::Part::alloc_slowly(PoolRequest& r, uint64_t* address) {
  constexpr int kRounds = 16;
  for (int round = 0;; ++round) {
    collect_all();
    std::unique_lock lock(mutex);
    const uint64_t seen = changes;
    r.own_changes = 0;
    blocks.sweep(blocks.owners().size());
    Block* b = from_cache(owner_for(r), r.size, r.small);
    if (b == nullptr) b = make_slab(lock, r);
    if (b == nullptr) {
      if (round == 0) ++stats.retry_count;
      b = steal(lock, r, false);
    }
    if (b == nullptr) {
      trim(lock, 0, r);
      b = from_cache(owner_for(r), r.size, r.small);
    }
    if (b == nullptr) b = make_slab(lock, r);
    if (b == nullptr && r.stream == nullptr) b = steal(lock, r, true);
    if (id != r.pool_id) {
      return fail(XHAL_ERR_INVALID_HANDLE, "xhal_pool_alloc",
                  "xhal_pool_alloc: the pool has ended meanwhile: its context was destroyed");
    }
    if (b != nullptr) {
      *address = hand_out(b, owner_for(r), r.requested, r.size, r.tag);
      r.given = b->size;
      return XHAL_OK;
    }
    // What other calls have in their hands, or have given back meanwhile, may be enough.
    if (round < kRounds && changes - seen != r.own_changes) continue;
    if (round < kRounds && busy > 0 && !Busy::inside()) {
      ++waiting;
      changed.wait(lock, [&, now = changes] { return changes != now; });
      --waiting;
      continue;
    }
    lock.unlock();
    return out_of_memory(r.requested, r.refusal);
  }
}

std::string Pool::Part::holders() const {
  std::map<std::string, std::pair<uint64_t, uint64_t>> by_tag;
  blocks.for_each([&](const Block& b) {
    if (b.state != BlockState::used) return;
    auto& entry = by_tag[b.tag.empty() ? "(untagged)" : b.tag];
    entry.first += b.size;
    ++entry.second;
  });
  std::vector<std::pair<std::string, std::pair<uint64_t, uint64_t>>> sorted(by_tag.begin(),
                                                                            by_tag.end());
  std::sort(sorted.begin(), sorted.end(),
            [](auto& a, auto& b) { return a.second.first > b.second.first; });
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(sorted.size(), 5); ++i) {
    const auto [bytes, count] = sorted[i].second;
    const bool small = bytes < 1048576;
    text += fmt::format("\n    {:>9.1f} {} in {} block{}: {}",
                        static_cast<double>(bytes) / (small ? 1024.0 : 1048576.0),
                        small ? "KiB" : "MiB", count, count == 1 ? "" : "s", sorted[i].first);
  }
  if (!text.empty()) return text;
  return stats.reserved_bytes == 0 ? "\n    nobody: the device itself is full"
                                   : "\n    nobody: what is free is only for streams that are "
                                     "captured or have failed, or "
                                     "too small";
}

xhal_status Pool::Part::out_of_memory(uint64_t size, const std::string& why) {
  constexpr const char* op = "xhal_pool_alloc";
  const auto mib = [](uint64_t bytes) { return static_cast<double>(bytes) / 1048576.0; };
  xhal_status status;
  {
    const std::lock_guard lock(mutex);
    ++stats.out_of_memory_count;
    status =
        fail(XHAL_ERR_OUT_OF_MEMORY, op,
             "{}: out of memory for {} bytes ({:.1f} MiB): {}\n"
             "  The pool holds {:.1f} MiB in slabs, {:.1f} MiB of it in use, {:.1f} MiB "
             "waiting for events; the largest "
             "free block is {:.1f} MiB. Held by:{}\n"
             "  Use a smaller batch, or free what is listed.",
             context->device->id(), size, mib(size), why, mib(stats.reserved_bytes),
             mib(stats.used_bytes), mib(stats.pending_bytes), mib(blocks.largest()), holders());
  }
  return annotate(status, context->handle, op);
}

xhal_status Pool::Part::destroy() {
  constexpr const char* op = "xhal_pool_destroy";
  std::vector<xhal_event> events;
  std::vector<StreamRef> streams;
  {
    const std::lock_guard lock(mutex);
    if (used_count > 0 || !captures.empty() || busy > 0) {
      return annotate(
          fail(XHAL_ERR_BUSY, op,
               "{}: still in use: blocks {} ({} bytes), captures and graphs {}:{}", op, used_count,
               stats.used_bytes, captures.size(), used_count > 0 ? holders() : std::string()),
          context->handle, op);
    }
    streams = eager_streams(blocks);
    pending.for_each([&](xhal_timeline* timeline, const Block& b) {
      events.push_back({timeline, b.awaited, 0, 0});
      events.insert(events.end(), b.later_events.begin(), b.later_events.end());
    });
  }
  // Work that still uses free blocks in the order of its stream.
  for (const auto& stream : streams) {
    xhal_event event{};
    const auto status = record_hidden_event(*stream, &event);
    if (status == XHAL_OK) events.push_back(event);
    if (status == XHAL_ERR_CAPTURE) {
      return annotate(fail(XHAL_ERR_BUSY, op,
                           "{}: a stream that its blocks were allocated for is being captured; "
                           "end the capture first",
                           op),
                      context->handle, op);
    }
  }
  for (const auto& e : events)  // failed is over, too
    (void)Timeline::of(e.timeline)->wait(e.value, XHAL_FOREVER, op);
  return XHAL_OK;
}

xhal_status Pool::Part::end() {
  std::vector<std::pair<uint64_t, uint64_t>> slabs;
  {
    const std::lock_guard lock(mutex);
    for (const auto& [base, slab] : blocks.slabs()) slabs.emplace_back(base, slab.size);
    id = 0;
    pending.clear();
    blocks.clear();
    captures.clear();
    making_bytes = leaving_bytes = used_count = parked_count = 0;
    stats = {};
    count_change();
  }
  xhal_status failed = XHAL_OK;
  for (const auto& [base, size] : slabs) {
    // What cannot be wiped stays with the context, and is nobody's pool's.
    if (const auto status = give_back(base); status < 0) {
      failed = status;
      address_map().set_pool(base, nullptr);
    }
    if (observer.on()) tell(XHAL_POOL_SLAB_FREE, base, size, nullptr, {});
  }
  if (!observer.replace(nullptr, nullptr)) observer.forget();  // it ends inside its observer
  return failed;
}

namespace {

StripedMutex& locks() {
  static auto* locks = new StripedMutex(Rank::pool);
  return *locks;
}
const AtLoad locks_at_load(locks);
StripedMutex& observer_locks() {
  static auto* locks = new StripedMutex(Rank::observer);
  return *locks;
}
const AtLoad observer_locks_at_load(observer_locks);

// The states of pools that have ended are used again and never freed: a call of another thread may
// still be on its way out of one.
struct SpareParts {
  Mutex mutex{Rank::pool};
  std::vector<Pool::Part*> list;
};
SpareParts& spare_parts() {
  static auto* s = new SpareParts;
  return *s;
}
const AtLoad spare_parts_at_load(spare_parts);

}  // namespace

Pool::Part::Part() : mutex(locks().of(this)), observer(observer_locks().of(this)) {}

void Pool::Part::count_change() {
  ++changes;
  if (waiting > 0) changed.notify_all();
}

Pool::Part* begin_pool() {
  static std::atomic<uint64_t> last_id{0};
  Pool::Part* part = nullptr;
  {
    auto& spare = spare_parts();
    const std::lock_guard<std::mutex> lock(spare.mutex);
    if (!spare.list.empty()) {
      part = spare.list.back();
      spare.list.pop_back();
    } else {
      spare.list.reserve(spare.list.capacity() +
                         1);  // one place for each, so that it can come back
    }
  }
  if (part == nullptr) part = new Pool::Part;
  const std::lock_guard lock(part->mutex);
  part->id = last_id.fetch_add(1, std::memory_order_relaxed) + 1;
  return part;
}

xhal_status end_pool(xhal_pool* pool) {
  auto* part = Pool::of(pool)->part;
  {
    const std::lock_guard<std::mutex> lock(ContextState::mutex());
    part->context->pools.erase(pool);
  }
  const xhal_status status = part->end();
  object_free(pool);
  auto& spare = spare_parts();
  const std::lock_guard<std::mutex> lock(spare.mutex);
  spare.list.push_back(part);
  return status;
}

void abandon_pool(xhal_pool* pool) noexcept {
  (void)guarded("xhal_context_destroy", [&] { return end_pool(pool); });
}

}  // namespace xhal
