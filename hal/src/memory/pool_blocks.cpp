#include "memory/pool_blocks.hpp"

#include <algorithm>

namespace xhal {

bool BySize::operator()(const Block* a, const Block* b) const {
  return a->size != b->size ? a->size < b->size : a->address < b->address;
}

Block* FreeBlocks::take(uint64_t owner, uint64_t size, bool small) {
  if (const auto w = warm_.find({owner, small}); w != warm_.end() && w->second != nullptr) {
    if (w->second->size == size) return std::exchange(w->second, nullptr);
    make_free(std::exchange(w->second, nullptr));
  }
  const auto found = bins_.find({owner, small});
  if (found == bins_.end()) return nullptr;
  Block key{0, size, 0, nullptr, nullptr, nullptr, 0, false, {}};
  const auto it = found->second.lower_bound(&key);
  if (it == found->second.end()) return nullptr;
  Block* b = *it;
  b->bin_node = found->second.extract(it);
  return b;
}

void FreeBlocks::split(Block* b, uint64_t size) {
  const uint64_t rest = b->size - size;
  if (rest < (b->slab->small ? kAlignment : kSmallBytes)) return;
  auto* r = new Block{b->address + size, rest, 0, b->slab, b, b->after, b->owner, false, {}};
  if (b->after != nullptr) b->after->before = r;
  b->after = r;
  b->size = size;
  bin(r->owner, r->slab->small).insert(r);
}

void FreeBlocks::put_back(Block* b) {
  auto& place = warm_[{b->owner, b->slab->small}];
  if (place != nullptr) make_free(place);
  place = b;
}

void FreeBlocks::make_free(Block* b) {
  b->used = false;
  const auto joinable = [&](const Block* n) {
    return n != nullptr && !n->used && n->owner == b->owner;
  };
  if (joinable(b->before)) {
    Block* n = b->before;
    bin(n->owner, n->slab->small).erase(n);
    n->size += b->size;
    n->after = b->after;
    if (b->after != nullptr) b->after->before = n;
    delete b;
    b = n;
  }
  if (joinable(b->after)) {
    Block* n = b->after;
    bin(n->owner, n->slab->small).erase(n);
    b->size += n->size;
    b->after = n->after;
    if (n->after != nullptr) n->after->before = b;
    delete n;
  }
  insert_free(b);
}

void FreeBlocks::insert_free(Block* b) {
  auto& list = bin(b->owner, b->slab->small);
  if (b->bin_node.empty())
    list.insert(b);
  else
    list.insert(std::move(b->bin_node));
}

void FreeBlocks::cool(BinKey key) {
  const auto it = warm_.find(key);
  if (it == warm_.end() || it->second == nullptr) return;
  make_free(std::exchange(it->second, nullptr));
}

void FreeBlocks::cool_all() {
  for (auto& [key, b] : warm_) {
    if (b != nullptr) make_free(std::exchange(b, nullptr));
  }
}

void FreeBlocks::rename(uint64_t from, uint64_t to) {
  cool({from, true});
  cool({from, false});
  cool({to, true});
  cool({to, false});
  for (const bool small : {true, false}) {
    const auto it = bins_.find({from, small});
    if (it == bins_.end()) continue;
    Bin moved;
    moved.swap(it->second);
    bins_.erase(it);
    for (auto* b : moved) b->owner = to;
    bin(to, small).merge(moved);
  }
}

uint64_t FreeBlocks::largest() const {
  uint64_t largest = 0;
  for (const auto& [key, list] : bins_) {
    if (!list.empty()) largest = std::max(largest, (*list.rbegin())->size);
  }
  return largest;
}

void FreeBlocks::clear() {
  for (auto& [key, list] : bins_) {
    for (auto* b : list) delete b;
  }
  bins_.clear();
}

}  // namespace xhal
