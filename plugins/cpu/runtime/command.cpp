// SPDX-License-Identifier: Apache-2.0
#include "command.hpp"

#include <atomic>
#include <new>

namespace xhal::cpu {

CommandQueue::~CommandQueue() {
  for (Chunk* c = read_; c != nullptr;) {
    Chunk* next = c->next;
    ::operator delete (c, std::align_val_t{64});
    c = next;
  }
  if (Chunk* spare = spare_.load()) ::operator delete (spare, std::align_val_t{64});
}

CommandQueue::Chunk* CommandQueue::new_chunk(uint64_t at_least) {
  if (at_least <= kChunkBytes) {
    if (Chunk* spare = spare_.exchange(nullptr, std::memory_order_acquire)) {
      spare->next = nullptr;
      return spare;
    }
  }
  const uint64_t capacity = at_least <= kChunkBytes ? kChunkBytes : at_least;
  auto* chunk =
      static_cast<Chunk*>(::operator new (sizeof(Chunk) + capacity, std::align_val_t{64}));
  chunk->next = nullptr;
  chunk->capacity = capacity;
  return chunk;
}

void CommandQueue::give_back(Chunk* chunk) {
  if (chunk->capacity == kChunkBytes) chunk = spare_.exchange(chunk, std::memory_order_acq_rel);
  if (chunk != nullptr) ::operator delete (chunk, std::align_val_t{64});
}

// A chunk always keeps a line free for the command that says where the next one is.
void* CommandQueue::room(uint32_t bytes) {
  constexpr uint64_t kJump = 64;
  if (write_ == nullptr) {
    read_ = write_ = new_chunk(bytes + kJump);
  } else if (write_offset_ + bytes + kJump > write_->capacity) {
    Chunk* fresh = new_chunk(bytes + kJump);
    auto* jump = reinterpret_cast<Command*>(write_->at(write_offset_));
    jump->bytes = kJump;
    jump->kind = Kind::jump;
    write_->next = fresh;
    write_ = fresh;
    write_offset_ = 0;
  }
  void* place = write_->at(write_offset_);
  write_offset_ += bytes;
  return place;
}

Command* CommandQueue::front() {
  auto* command = reinterpret_cast<Command*>(read_->at(read_offset_));
  if (command->kind == Kind::jump) {
    Chunk* old = read_;
    read_ = old->next;
    read_offset_ = 0;
    give_back(old);
    command = reinterpret_cast<Command*>(read_->at(0));
  }
  front_bytes_ = command->bytes;
  return command;
}

}  // namespace xhal::cpu
