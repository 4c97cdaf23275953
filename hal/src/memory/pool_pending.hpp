// SPDX-License-Identifier: Apache-2.0
// pool_pending.hpp: blocks that were given back and wait for events: a queue for each timeline,
// ordered by value. Events of one timeline are reached in order, so only heads have to be looked
// at. The pool has the lock, except while it asks for events.
#pragma once

#include <boost/intrusive/list.hpp>

#include <unordered_map>
#include <vector>

#include "memory/pool_blocks.hpp"

namespace xhal {

struct ByAwaited {
  bool operator()(const Block& a, const Block& b) const { return a.awaited < b.awaited; }
  bool operator()(const Block& a, uint64_t value) const { return a.awaited < value; }
};

struct PendingQueue : boost::intrusive::list_base_hook<> {
  xhal_timeline* timeline = nullptr;
  boost::intrusive::multiset<
      Block,
      boost::intrusive::member_hook<Block, boost::intrusive::set_member_hook<>, &Block::hook>,
      boost::intrusive::compare<ByAwaited>, boost::intrusive::constant_time_size<false>>
      blocks;
};

// Values of one queue to ask for, ascending.
struct Look {
  static constexpr uint32_t kMost = 64;
  xhal_timeline* timeline = nullptr;
  uint32_t count = 0;
  uint64_t values[kMost];
};

class PendingBlocks {
 public:
  bool empty() const { return queues_.empty(); }
  // Queues it by the last of its later_events, which leaves them.
  void add(Block* b);
  // Of the next queue in turn: its first value.
  void look_at_next(Look* look);
  // Of one queue: its first values.
  void look(xhal_timeline* timeline, uint32_t most, Look* look) const;
  // Unlinks one block of the queue whose value is at most `value`; nullptr when there is none.
  Block* pop(xhal_timeline* timeline, uint64_t value);
  std::vector<xhal_timeline*> timelines() const;
  template <class Body>
  void for_each(Body&& body) const {
    for (const auto& queue : queues_) {
      for (const auto& b : queue.blocks) body(queue.timeline, b);
    }
  }
  void clear();

 private:
  using Map = std::unordered_map<xhal_timeline*, PendingQueue>;
  Map by_timeline_;
  boost::intrusive::list<PendingQueue> queues_;  // the one to look at next is in front
  std::vector<Map::node_type> spares_;  // so that a queue that comes and goes costs nothing
};

}  // namespace xhal
