// SPDX-License-Identifier: Apache-2.0
// pool_blocks.hpp: the pieces of a pool's slabs: finding a free one of a size, cutting, joining,
// and whose they are. Calls nothing outside; the pool has the lock.
#pragma once

#include <boost/intrusive/set.hpp>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "sync/stream_state.hpp"

namespace xhal {

// Small requests share slabs, large ones get their own, so that a long-lived small block does not
// pin a large slab.
inline constexpr uint64_t kAlignment = 512;
inline constexpr uint64_t kSmallBytes = 1 << 20;
inline constexpr uint64_t kSmallSlab = 2 << 20;
inline constexpr uint64_t kMiddleBytes = 10 << 20;
inline constexpr uint64_t kMiddleSlab = 20 << 20;
inline constexpr uint64_t kLargeRound = 2 << 20;

constexpr uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

struct Block;
struct Slab {
  uint64_t base, size;
  bool small;
  Block* first;
};

struct Owner;
enum class BlockState : uint8_t {
  free,     // in its owner's tree
  warm,     // free, but not yet joined with its neighbours
  used,     // handed out
  pending,  // given back, waits for events
  parked,   // given back inside a capture whose own events it waits for: until the capture is over
  taken     // a call that has let go of the lock is at work on it
};

// A piece of a slab; neighbours are linked in address order, so that free ones can be joined. It
// carries its own place in the trees, so that an allocation from the cache allocates nothing.
struct Block {
  uint64_t address = 0, size = 0, requested = 0;
  Slab* slab = nullptr;
  Block *before = nullptr, *after = nullptr;
  Owner* owner = nullptr;
  BlockState state = BlockState::taken;
  std::string tag;
  boost::intrusive::set_member_hook<> hook;  // free: by size; pending: in a timeline's queue
  uint64_t awaited = 0;                      // pending: the value of that timeline
  std::vector<xhal_event> later_events;      // pending, parked: what else it waits for
};

struct BySize {
  bool operator()(const Block& a, const Block& b) const {
    return a.size != b.size ? a.size < b.size : a.address < b.address;
  }
  bool operator()(const Block& a, uint64_t size) const { return a.size < size; }
};
using FreeTree = boost::intrusive::multiset<
    Block, boost::intrusive::member_hook<Block, boost::intrusive::set_member_hook<>, &Block::hook>,
    boost::intrusive::compare<BySize>, boost::intrusive::constant_time_size<false>>;

// The free blocks of one owner and kind of slab. The blocks that were freed last are kept apart,
// not yet joined with their neighbours: the next allocation is often of one of their sizes. For
// their neighbours they still count as used.
struct Bin {
  static constexpr uint32_t kWarm = 8;
  FreeTree tree;
  uint64_t warm_size[kWarm];
  Block* warm[kWarm];
  uint32_t warm_count = 0;
};

// In whose order blocks are free or used: a stream's, that of a capture's stream, or nobody's.
struct Owner {
  StreamRef stream;      // null: nobody's
  uint64_t capture = 0;  // its blocks belong to this capture and its graph
  bool over = false;     // the capture is over: what is still out goes to the stream's own order
  uint64_t blocks = 0;   // that name it, in any state
  Bin bins[2];

  Bin& bin(bool small) { return bins[small ? 1 : 0]; }
};

// All blocks of a pool by their first address.
class BlockTable {
 public:
  Block* find(uint64_t address) const;
  // Room for `count` more, so that insert() does not fail.
  void reserve(size_t count);
  void insert(Block* b);
  void erase(uint64_t address);
  size_t size() const { return size_; }
  template <class Body>
  void for_each(Body&& body) const {
    for (auto* b : slots_) {
      if (b != nullptr) body(*b);
    }
  }

 private:
  size_t place(uint64_t address) const {
    return static_cast<size_t>((address >> 9) * 0x9E3779B97F4A7C15u >> shift_);
  }
  std::vector<Block*> slots_;  // open addressing; at most half full
  size_t size_ = 0;
  int shift_ = 64;
};

class Blocks {
 public:
  Blocks() = default;
  Blocks(const Blocks&) = delete;
  ~Blocks() { clear(); }

  // Memory for a slab and a cut, so that nothing fails between taking a block and handing it out.
  void prepare();
  // The owner's smallest free block that is large enough; nullptr when there is none.
  Block* take(Owner& owner, uint64_t size, bool small);
  // Cuts off what is not needed; the rest stays free for the same owner. After prepare().
  void split(Block* b, uint64_t size);
  // Frees a block that is likely to be wanted again at once, in the same size.
  void put_back(Block* b);
  // Frees a block and joins it with free neighbours of the same owner.
  void make_free(Block* b);
  // Everything that is free for an owner.
  void take_all(Owner& owner, std::vector<Block*>* taken);
  // Coalesces the free neighbours that put_back() leaves unmerged.
  void cool(Owner& owner);
  void give(Block* b, Owner& owner);

  // The whole of a new slab, taken. May fail before anything has changed.
  Block* add_slab(uint64_t base, uint64_t size, bool small, Owner& owner);
  // A slab that is out of the records while its memory is given back: the device may give the same
  // address to another slab before the call returns.
  struct Detached {
    Block* block = nullptr;
    std::map<uint64_t, Slab>::node_type slab;
  };
  // `whole`, taken, is all of the slab.
  Detached detach_slab(Block* whole) noexcept;
  // Puts it back. May fail before anything has changed.
  void attach_slab(Detached& slab);
  // It has been given back.
  void forget_slab(Detached& slab) { recycle(slab.block); }
  const std::map<uint64_t, Slab>& slabs() const { return slabs_; }
  Block* find(uint64_t address) const { return table_.find(address); }
  // The block an address lies in.
  Block* containing(uint64_t address) const;
  template <class Body>
  void for_each(Body&& body) const {
    table_.for_each(body);
  }

  Owner& nobody() { return nobody_; }
  // The owner for a stream (null: nobody) and a capture (0: none); made when there is none.
  Owner& owner(StreamState* stream, uint64_t capture);
  // Whose the owner's blocks are by now: of streams that are gone and captures that
  // are over, others.
  Owner& heir(Owner& owner);
  const std::vector<std::unique_ptr<Owner>>& owners() const { return owners_; }
  // Gives what is free of gone streams and ended captures to their heirs, and forgets owners
  // without blocks. Looks at `count` owners, the next ones each time.
  void sweep(size_t count);

  uint64_t largest() const;
  // Coalesces free neighbours.
  uint64_t largest_joined();
  // Forgets everything.
  void clear();

 private:
  struct Key {
    const StreamState* stream;
    uint64_t capture;
    bool operator==(const Key&) const = default;
  };
  struct HashKey {
    size_t operator()(const Key& k) const {
      return (reinterpret_cast<uintptr_t>(k.stream) >> 6) * 31 + k.capture;
    }
  };
  Owner& make_owner(StreamState* stream, uint64_t capture);
  Block* spare();
  void recycle(Block* b);

  BlockTable table_;
  std::map<uint64_t, Slab> slabs_;
  Owner nobody_;
  std::vector<std::unique_ptr<Owner>> owners_;  // but nobody_
  std::unordered_map<Key, Owner*, HashKey> by_key_;
  Owner* last_ = nullptr;  // found last
  size_t next_swept_ = 0;
  Block* spares_ = nullptr;  // linked by `after`
  size_t spare_count_ = 0;
};

}  // namespace xhal
