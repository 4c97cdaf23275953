// SPDX-License-Identifier: Apache-2.0
// pinned_slabs.hpp: the slabs behind pinned memory and the free runs in them. Knows nothing of
// devices; the caller has the lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace xhal {

struct ContextState;

// A slab as one context's device sees it. Lives as long as its slab's entry, and is used again for
// another context when its own has ended, so that readers need no lock.
struct Registration {
  static constexpr uint64_t kBusy = 0;  // being made or undone
  static constexpr uint64_t kRefused = ~uint64_t{0};
  std::atomic<uint64_t> context{0};  // its number; 0: nobody's
  std::atomic<uint64_t> address{kBusy};
  std::atomic<Registration*> next{nullptr};
  ContextState* owner = nullptr;  // of writers
};

struct PinnedSlab {
  uint64_t base = 0, size = 0;
  int fd = -1;  // -1: a copy of what was the parent's before a fork; its blocks are not used again
  uint64_t unit = 0;  // what its blocks are multiples of; 0: one block has it all
  std::atomic<Registration*> registrations{nullptr};
};

// Free memory of the slabs with one unit. The first unit of every slab is never free: it keeps
// slabs that happen to be neighbours apart, and the slab's first address known.
class FreeRuns {
 public:
  // The smallest run that is large enough, cut; 0 when there is none.
  uint64_t take(uint64_t size) noexcept;
  // What a run takes up here. Made beforehand, so that giving back cannot fail half-way.
  class Room {
   public:
    Room() {
      address_.emplace(0, 0);
      size_.emplace(0, 0);
    }

   private:
    friend FreeRuns;
    std::map<uint64_t, uint64_t> address_;
    std::set<std::pair<uint64_t, uint64_t>> size_;
  };
  // Returns the run it has become, joined with its neighbours. `room` is used up.
  std::pair<uint64_t, uint64_t> give(uint64_t address, uint64_t size, Room& room) noexcept;
  void erase(uint64_t address, uint64_t size) noexcept;

 private:
  void insert(uint64_t address, uint64_t size, std::map<uint64_t, uint64_t>::node_type address_node,
              std::set<std::pair<uint64_t, uint64_t>>::node_type size_node) noexcept;

  std::map<uint64_t, uint64_t> by_address_;
  std::set<std::pair<uint64_t, uint64_t>> by_size_;
};

}  // namespace xhal
