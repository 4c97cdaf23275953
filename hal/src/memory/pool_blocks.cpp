// SPDX-License-Identifier: Apache-2.0
#include "memory/pool_blocks.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace xhal {

Block* BlockTable::find(uint64_t address) const {
  if (slots_.empty()) return nullptr;
  for (size_t i = place(address);; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i] == nullptr || slots_[i]->address == address) return slots_[i];
  }
}

void BlockTable::reserve(size_t count) {
  if ((size_ + count) * 2 <= slots_.size()) return;
  std::vector<Block*> old(std::max<size_t>(64, std::bit_ceil((size_ + count) * 2)), nullptr);
  old.swap(slots_);
  shift_ = 64 - std::countr_zero(slots_.size());
  size_ = 0;
  for (auto* b : old) {
    if (b != nullptr) insert(b);
  }
}

void BlockTable::insert(Block* b) {
  size_t i = place(b->address);
  while (slots_[i] != nullptr) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = b;
  ++size_;
}

void BlockTable::erase(uint64_t address) {
  const size_t mask = slots_.size() - 1;
  size_t hole = place(address);
  while (slots_[hole]->address != address) hole = (hole + 1) & mask;
  // What stands behind the hole moves into it, unless its own place lies behind the hole, too.
  for (size_t i = (hole + 1) & mask; slots_[i] != nullptr; i = (i + 1) & mask) {
    if (((i - place(slots_[i]->address)) & mask) < ((i - hole) & mask)) continue;
    slots_[hole] = slots_[i];
    hole = i;
  }
  slots_[hole] = nullptr;
  --size_;
}

void Blocks::prepare() {
  table_.reserve(2);
  while (spare_count_ < 2) {
    auto* b = new Block;
    b->after = spares_;
    spares_ = b;
    ++spare_count_;
  }
}

Block* Blocks::spare() {
  Block* b = spares_;
  spares_ = b->after;
  --spare_count_;
  b->after = nullptr;
  return b;
}

void Blocks::recycle(Block* b) {
  constexpr size_t kSpares = 64;
  --b->owner->blocks;
  if (spare_count_ >= kSpares) {
    delete b;
    return;
  }
  b->after = spares_;
  spares_ = b;
  ++spare_count_;
}

Block* Blocks::take(Owner& owner, uint64_t size, bool small) {
  auto& bin = owner.bin(small);
  for (uint32_t i = bin.warm_count; i-- > 0;) {
    if (bin.warm_size[i] != size) continue;
    Block* b = bin.warm[i];
    --bin.warm_count;
    for (uint32_t k = i; k < bin.warm_count; ++k) {
      bin.warm[k] = bin.warm[k + 1];
      bin.warm_size[k] = bin.warm_size[k + 1];
    }
    b->state = BlockState::taken;
    return b;
  }
  auto it = bin.tree.lower_bound(size, BySize{});
  if (it == bin.tree.end() && bin.warm_count > 0) {
    cool(owner);
    it = bin.tree.lower_bound(size, BySize{});
  }
  if (it == bin.tree.end()) return nullptr;
  Block& b = *it;
  bin.tree.erase(it);
  b.state = BlockState::taken;
  return &b;
}

void Blocks::split(Block* b, uint64_t size) {
  const uint64_t rest = b->size - size;
  if (rest < (b->slab->small ? kAlignment : kSmallBytes)) return;
  Block* r = spare();
  r->address = b->address + size;
  r->size = rest;
  r->slab = b->slab;
  r->before = b;
  r->after = b->after;
  r->owner = b->owner;
  ++r->owner->blocks;
  if (b->after != nullptr) b->after->before = r;
  b->after = r;
  b->size = size;
  table_.insert(r);
  make_free(r);
}

void Blocks::put_back(Block* b) {
  auto& bin = b->owner->bin(b->slab->small);
  if (bin.warm_count == Bin::kWarm) {
    Block* oldest = bin.warm[0];
    --bin.warm_count;
    for (uint32_t k = 0; k < bin.warm_count; ++k) {
      bin.warm[k] = bin.warm[k + 1];
      bin.warm_size[k] = bin.warm_size[k + 1];
    }
    make_free(oldest);
  }
  b->state = BlockState::warm;
  bin.warm[bin.warm_count] = b;
  bin.warm_size[bin.warm_count++] = b->size;
}

void Blocks::make_free(Block* b) {
  auto& tree = b->owner->bin(b->slab->small).tree;
  const auto joinable = [&](const Block* n) {
    return n != nullptr && n->state == BlockState::free && n->owner == b->owner;
  };
  if (joinable(b->before)) {
    Block* n = b->before;
    tree.erase(tree.iterator_to(*n));
    n->size += b->size;
    n->after = b->after;
    if (b->after != nullptr) b->after->before = n;
    table_.erase(b->address);
    recycle(b);
    b = n;
  }
  if (joinable(b->after)) {
    Block* n = b->after;
    tree.erase(tree.iterator_to(*n));
    b->size += n->size;
    b->after = n->after;
    if (n->after != nullptr) n->after->before = b;
    table_.erase(n->address);
    recycle(n);
  }
  b->state = BlockState::free;
  tree.insert(*b);
}

void Blocks::take_all(Owner& owner, std::vector<Block*>* taken) {
  cool(owner);
  for (auto& bin : owner.bins) {
    while (!bin.tree.empty()) {
      Block& b = *bin.tree.begin();
      taken->push_back(&b);
      bin.tree.erase(bin.tree.begin());
      b.state = BlockState::taken;
    }
  }
}

void Blocks::cool(Owner& owner) {
  for (auto& bin : owner.bins) {
    while (bin.warm_count > 0) make_free(bin.warm[--bin.warm_count]);
  }
}

void Blocks::give(Block* b, Owner& owner) {
  --b->owner->blocks;
  b->owner = &owner;
  ++owner.blocks;
}

Block* Blocks::add_slab(uint64_t base, uint64_t size, bool small, Owner& owner) {
  prepare();
  auto& slab = slabs_.emplace(base, Slab{base, size, small, nullptr}).first->second;
  Block* b = spare();
  b->address = base;
  b->size = size;
  b->slab = &slab;
  b->before = b->after = nullptr;
  b->owner = &owner;
  b->state = BlockState::taken;
  ++owner.blocks;
  slab.first = b;
  table_.insert(b);
  return b;
}

Blocks::Detached Blocks::detach_slab(Block* whole) noexcept {
  table_.erase(whole->address);
  return {whole, slabs_.extract(whole->address)};
}

void Blocks::attach_slab(Detached& slab) {
  table_.reserve(1);
  slabs_.insert(std::move(slab.slab));
  table_.insert(slab.block);
}

Block* Blocks::containing(uint64_t address) const {
  if (auto* b = table_.find(address); b != nullptr) return b;
  auto it = slabs_.upper_bound(address);
  if (it == slabs_.begin()) return nullptr;
  --it;
  if (address - it->second.base >= it->second.size) return nullptr;
  Block* b = it->second.first;
  while (address - b->address >= b->size) b = b->after;
  return b;
}

Owner& Blocks::owner(StreamState* stream, uint64_t capture) {
  if (stream == nullptr && capture == 0) return nobody_;
  if (last_ != nullptr && last_->stream.get() == stream && last_->capture == capture) return *last_;
  if (const auto it = by_key_.find({stream, capture}); it != by_key_.end())
    return *(last_ = it->second);
  // One comes, so two are looked at: then those that are over cannot become many.
  sweep(2);
  return *(last_ = &make_owner(stream, capture));
}

Owner& Blocks::make_owner(StreamState* stream, uint64_t capture) {
  Owner& made = *owners_.emplace_back(std::make_unique<Owner>());
  made.stream = stream;
  made.capture = capture;
  try {
    by_key_.emplace(Key{stream, capture}, &made);
  } catch (...) {
    owners_.pop_back();
    throw;
  }
  return made;
}

Owner& Blocks::heir(Owner& o) {
  if (&o == &nobody_ || (o.capture != 0 && !o.over)) return o;
  if (o.stream == nullptr || o.stream->ended.load(std::memory_order_acquire)) return nobody_;
  if (o.capture == 0) return o;
  const auto it = by_key_.find({o.stream.get(), 0});
  return it != by_key_.end() ? *it->second : make_owner(o.stream.get(), 0);
}

void Blocks::sweep(size_t count) {
  count = std::min(count, owners_.size());
  for (; count > 0 && !owners_.empty(); --count) {
    if (next_swept_ >= owners_.size()) next_swept_ = 0;
    Owner* const o = owners_[next_swept_].get();
    if (Owner& next = o->blocks > 0 ? heir(*o) : *o; &next != o) {
      cool(*o);
      for (auto& bin : o->bins) {
        while (!bin.tree.empty()) {
          Block& b = *bin.tree.begin();
          bin.tree.erase(bin.tree.begin());
          b.state = BlockState::taken;
          give(&b, next);
          make_free(&b);
        }
      }
    }
    if (o->blocks > 0) {
      ++next_swept_;
      continue;
    }
    if (last_ == o) last_ = nullptr;
    by_key_.erase({o->stream.get(), o->capture});
    std::swap(owners_[next_swept_], owners_.back());
    owners_.pop_back();
  }
}

uint64_t Blocks::largest() const {
  uint64_t largest = 0;
  const auto look = [&](const Owner& o) {
    for (const auto& bin : o.bins) {
      if (!bin.tree.empty()) largest = std::max(largest, bin.tree.rbegin()->size);
    }
  };
  look(nobody_);
  for (const auto& o : owners_) look(*o);
  return largest;
}

uint64_t Blocks::largest_joined() {
  cool(nobody_);
  for (auto& o : owners_) cool(*o);
  return largest();
}

void Blocks::clear() {
  const auto empty = [](Owner& o) {
    for (auto& bin : o.bins) {
      bin.tree.clear();
      bin.warm_count = 0;
    }
    o.blocks = 0;
  };
  empty(nobody_);
  for (auto& o : owners_) empty(*o);
  table_.for_each([](Block& b) { delete &b; });
  table_ = {};
  slabs_.clear();
  owners_.clear();
  by_key_.clear();
  last_ = nullptr;
  next_swept_ = 0;
  while (spares_ != nullptr) delete std::exchange(spares_, spares_->after);
  spare_count_ = 0;
}

}  // namespace xhal
