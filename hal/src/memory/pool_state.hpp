// pool_state.hpp: what a pool is: slabs, blocks in use, blocks that wait for events, and the streams
// and captures in whose order free ones may be used again.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "core/context_state.hpp"
#include "core/object.hpp"
#include "memory/pool.hpp"
#include "memory/pool_blocks.hpp"

namespace xhal {

// An object of libxhal's own, so it needs no table.
struct Pool {
  xhal_object_head head;
  struct Part;
  Part* part;
  static Pool* of(xhal_pool* handle) { return reinterpret_cast<Pool*>(handle); }
};

struct Pending {
  Block* block;
  std::vector<xhal_event> events;
};

struct Pool::Part {
  std::mutex mutex;  // of everything; the functions expect it to be held
  ContextState* context;
  xhal_pool* handle;
  xhal_pool_info info;
  xhal_pool_stats stats{};
  FreeBlocks free_blocks;
  Used blocks;  // in use, by address
  std::list<Pending> pending;
  std::list<std::unique_ptr<Slab>> slabs;
  uint64_t capture = 0;
  uint32_t graphs = 0;
  std::set<uint64_t> capture_keys;

  xhal_status alloc(xhal_stream* stream, uint64_t requested, xhal_string tag, uint64_t* address);
  xhal_status free(uint64_t address, const xhal_event* events, uint32_t count);
  // Frees the blocks whose events are reached.
  void poll_pending();
  // Gives free slabs back until at most `keep` bytes are held.
  void trim(uint64_t keep);
  // Gives what belongs to one owner to another.
  void rename(uint64_t from, uint64_t to);
  void release_all();
  // Who holds the memory, for a person who has to find out.
  std::string holders() const;
  xhal_status out_of_memory(uint64_t size, xhal_status cause);

 private:
  bool is_capture(uint64_t owner) const { return capture_keys.contains(owner); }
  xhal_status new_slab(uint64_t size, bool small, uint64_t owner, Block** block);
  // Takes a free block of another stream and makes `stream` wait for that one's present work.
  Block* steal(xhal_stream* stream, uint64_t size, bool small);
  void give_back(Slab* slab);
};

// Gives a pool's memory and its handle back; the part is the caller's then.
Pool::Part* end_pool(xhal_pool* pool) noexcept;

}  // namespace xhal
