// SPDX-License-Identifier: Apache-2.0
// pool_state.hpp: what a pool is.
//
// Its mutex guards bookkeeping only. Slabs are made and given back, streams are ordered and events
// asked for without it: what such a call works on is taken out of the lists first (a block is
// `taken`, the bytes of a slab to come are reserved), and put back if it comes to nothing.
#pragma once

#include <condition_variable>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/context_state.hpp"
#include "core/object.hpp"
#include "core/replaceable_callback.hpp"
#include "memory/pool.hpp"
#include "memory/pool_blocks.hpp"
#include "memory/pool_pending.hpp"

namespace xhal {

// An object of libxhal's own, so it needs no table.
struct Pool {
  xhal_object_head head;
  struct Part;
  Part* part;
  static Pool* of(xhal_pool* handle) { return reinterpret_cast<Pool*>(handle); }
};

// An allocation on its way.
struct PoolRequest {
  StreamState* stream;  // null: none
  uint64_t capture;     // that the block is to belong to
  bool captured;        // the stream cannot be made to wait for what runs now
  bool small;
  uint64_t requested, size;
  std::string_view tag;
  uint64_t pool_id = 0, given = 0;      // size of the block in the end
  uint64_t own_changes = 0;             // how often this call has counted Part::changes up
  std::string refusal;                  // why there is no further slab
  std::vector<xhal_pool_record> slabs;  // to tell the observer
};

struct Pool::Part {
  Part();

  std::mutex& mutex;  // of what follows, but the observer
  uint64_t id = 0;    // never used again; 0: the pool has ended
  ContextState* context = nullptr;
  xhal_pool* handle = nullptr;
  xhal_pool_info info{};
  xhal_pool_stats stats{};
  Blocks blocks;
  PendingBlocks pending;
  uint64_t used_count = 0;
  uint64_t parked_count = 0;
  std::set<uint64_t> captures;  // under way with this pool, or with a graph that lives
  uint64_t making_bytes = 0;    // slabs that are being made
  uint64_t leaving_bytes = 0;   // and given back
  uint32_t busy = 0;            // calls that have let go of the mutex with memory in their hands
  uint64_t changes = 0;         // memory has become available, or a busy call has ended
  uint32_t waiting = 0;         // for the next change
  std::condition_variable changed;
  ReplaceableCallback<xhal_pool_fn> observer;

  // These take the mutex.
  xhal_status alloc(xhal_stream* stream, uint64_t requested, xhal_string tag, uint64_t* address);
  xhal_status free(uint64_t address, const xhal_event* events, uint32_t count);
  xhal_status trim(uint64_t keep);
  // Frees every block whose events are reached.
  void collect_all();
  xhal_status destroy();
  // The first error of a slab that could not be given back.
  xhal_status end();
  void capture_over(uint64_t capture);
  xhal_status out_of_memory(uint64_t size, const std::string& why);

 private:
  class Busy;
  xhal_status alloc_slowly(PoolRequest& r, uint64_t* address);
  // Whether a block went on to wait for another event.
  bool collect(xhal_timeline* timeline);
  void tell(uint32_t kind, uint64_t address, uint64_t size, xhal_stream* stream, xhal_string tag);
  // The mutex is held.
  void collect_some();
  Owner& owner_for(const PoolRequest& r) {
    blocks.prepare();
    return blocks.owner(r.stream, r.capture);
  }
  Block* from_cache(Owner& owner, uint64_t size, bool small);
  uint64_t hand_out(Block* b, Owner& owner, uint64_t requested, uint64_t size,
                    std::string_view tag);
  // A block's event is reached; false when it goes on waiting for another.
  bool release(Block* b);
  void available(Block* b);
  void count_change();
  // The mutex is let go meanwhile.
  Block* make_slab(std::unique_lock<std::mutex>& lock, PoolRequest& r);
  Block* make_slab(std::unique_lock<std::mutex>& lock, PoolRequest& r, uint64_t bytes);
  Block* steal(std::unique_lock<std::mutex>& lock, PoolRequest& r, bool wait);
  void take_from_idle(std::unique_lock<std::mutex>& lock, PoolRequest& r);
  xhal_status trim(std::unique_lock<std::mutex>& lock, uint64_t keep, PoolRequest& r);
  // Without the mutex.
  xhal_status allocate(uint64_t bytes, uint64_t* base);
  xhal_status give_back(uint64_t base);
  // Who holds the memory, for a person who has to find out.
  std::string holders() const;
};

// The state of a new pool, perhaps of one that was.
Pool::Part* begin_pool();
// Gives a pool's slabs and its handle back.
xhal_status end_pool(xhal_pool* pool);

}  // namespace xhal
