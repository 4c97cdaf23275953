// pool_blocks.hpp: the pieces of a pool's slabs: cutting, joining, and finding a free one of a
// size. Knows nothing of devices, streams and events; the pool has the lock.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

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

struct Slab {
  uint64_t base, size;
  bool small;
};

struct Block;
struct BySize {
  bool operator()(const Block* a, const Block* b) const;
};
using Bin = std::set<Block*, BySize>;
using Used = std::unordered_map<uint64_t, Block*>;

// A piece of a slab; neighbours are linked in address order, so that free ones can be joined. It
// carries its own place in the bins and in the map of used blocks, so that an allocation from the
// cache allocates nothing.
struct Block {
  uint64_t address, size, requested;
  Slab* slab;
  Block *before, *after;
  uint64_t owner;  // the stream (or capture) in whose order it is free or used; 0 = nobody's
  bool used;       // also while it waits for events after its free
  std::string tag;
  Bin::node_type bin_node = {};
  Used::node_type used_node = {};
};

using BinKey = std::pair<uint64_t, bool>;  // owner, small

// The free blocks of a pool, by owner. A block that is taken belongs to the caller until it is put
// back.
class FreeBlocks {
 public:
  // The smallest one that is large enough; nullptr when there is none.
  Block* take(uint64_t owner, uint64_t size, bool small);
  // Cuts what is not needed off; the rest stays free for the same owner.
  void split(Block* b, uint64_t size);
  // Frees a block that is likely to be wanted again at once, in the same size.
  void put_back(Block* b);
  // Frees a block and joins it with free neighbours of the same owner.
  void make_free(Block* b);
  // Puts a block back exactly as it was taken.
  void insert_free(Block* b);
  // Joins what put_back() left apart.
  void cool_all();
  // Gives the free blocks of one owner to another.
  void rename(uint64_t from, uint64_t to);
  uint64_t largest() const;
  // Forgets them; nothing may have been left apart.
  void clear();

  std::map<BinKey, Bin>& bins() { return bins_; }

 private:
  Bin& bin(uint64_t owner, bool small) { return bins_[{owner, small}]; }
  void cool(BinKey key);

  std::map<BinKey, Bin> bins_;
  // The block freed last in each bin, not yet joined with its neighbours: the next allocation is
  // often of the same size. For its neighbours it still counts as used.
  std::map<BinKey, Block*> warm_;
};

}  // namespace xhal
