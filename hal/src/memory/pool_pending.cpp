// SPDX-License-Identifier: Apache-2.0
#include "memory/pool_pending.hpp"

namespace xhal {

void PendingBlocks::add(Block* b) {
  constexpr size_t kSpares = 16;
  const xhal_event event = b->later_events.back();
  auto found = by_timeline_.find(event.timeline);
  if (found == by_timeline_.end()) {
    spares_.reserve(kSpares);
    if (spares_.empty()) {
      found = by_timeline_.try_emplace(event.timeline).first;
    } else {
      auto node = std::move(spares_.back());
      spares_.pop_back();
      node.key() = event.timeline;
      found = by_timeline_.insert(std::move(node)).position;
    }
    found->second.timeline = event.timeline;
    queues_.push_back(found->second);
  }
  b->later_events.pop_back();
  b->awaited = event.value;
  b->state = BlockState::pending;
  auto& blocks = found->second.blocks;
  blocks.insert(blocks.end(), *b);
}

void PendingBlocks::look_at_next(Look* look) {
  auto& queue = queues_.front();
  queues_.pop_front();
  queues_.push_back(queue);
  look->timeline = queue.timeline;
  look->values[0] = queue.blocks.begin()->awaited;
  look->count = 1;
}

void PendingBlocks::look(xhal_timeline* timeline, uint32_t most, Look* look) const {
  look->timeline = timeline;
  look->count = 0;
  const auto found = by_timeline_.find(timeline);
  if (found == by_timeline_.end()) return;
  for (const auto& b : found->second.blocks) {
    if (look->count == most) return;
    look->values[look->count++] = b.awaited;
  }
}

Block* PendingBlocks::pop(xhal_timeline* timeline, uint64_t value) {
  const auto found = by_timeline_.find(timeline);
  if (found == by_timeline_.end()) return nullptr;
  auto& queue = found->second;
  Block& b = *queue.blocks.begin();
  if (b.awaited > value) return nullptr;
  queue.blocks.erase(queue.blocks.begin());
  b.state = BlockState::taken;
  if (queue.blocks.empty()) {
    queues_.erase(queues_.iterator_to(queue));
    auto node = by_timeline_.extract(found);
    if (spares_.size() < spares_.capacity()) spares_.push_back(std::move(node));
  }
  return &b;
}

std::vector<xhal_timeline*> PendingBlocks::timelines() const {
  std::vector<xhal_timeline*> all;
  all.reserve(by_timeline_.size());
  for (const auto& queue : queues_) all.push_back(queue.timeline);
  return all;
}

void PendingBlocks::clear() {
  for (auto& queue : queues_) queue.blocks.clear();
  queues_.clear();
  by_timeline_.clear();
  spares_.clear();
}

}  // namespace xhal
