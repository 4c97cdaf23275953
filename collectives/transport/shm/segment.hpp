// SPDX-License-Identifier: Apache-2.0
// segment.hpp: the shared memory of one communicator, mapped into one rank.
//
// It is a sealed memfd that rank 0 makes and hands to the others over the bootstrap's sockets: no
// name, no quota of /dev/shm, nothing left behind by a crash, and no peer can shrink it under us.
#pragma once

#include <memory>

#include "base/fd.hpp"
#include "transport/shm/layout.hpp"

namespace xcoll::shm {

class Segment {
 public:
  // Makes a zeroed segment; `fd` receives the descriptor to hand on.
  static Segment create(uint32_t ranks, Fd* fd);
  // Maps what another rank made, after checking seals, size and header. Throws.
  static Segment map(const Fd& fd, uint32_t ranks);

  const Layout& layout() const { return layout_; }
  uint32_t ranks() const { return layout_.ranks; }

  Header& header() const { return *at<Header>(0); }
  RankInfo& info(uint32_t rank) const { return at<RankInfo>(layout_.infos)[rank]; }
  FailureRecord& failure_record(uint32_t rank) const {
    return at<FailureRecord>(layout_.failures)[rank];
  }
  Board& board(uint32_t rank) const { return at<Board>(layout_.boards)[rank]; }
  Doorbell& doorbell(uint32_t rank) const { return at<Doorbell>(layout_.doorbells)[rank]; }
  Entry& entry(uint32_t rank, uint64_t sequence) const {
    return at<Entry>(layout_.entries)[rank * 2 + (sequence & 1)];
  }
  std::byte* post(uint32_t rank, uint64_t sequence) const {
    return at<std::byte>(layout_.posts) + (rank * 2 + (sequence & 1)) * kPostBytes;
  }

  Counter& out_counter(uint32_t rank) const { return at<Counter>(layout_.out_counters)[rank]; }
  Counter& ack_counter(uint32_t rank) const { return at<Counter>(layout_.ack_counters)[rank]; }
  Counter& cell_counter(uint32_t from, uint32_t to) const {
    return at<Counter>(layout_.cell_counters)[pair(from, to)];
  }
  std::byte* out(uint32_t rank, uint64_t slot) const {
    return at<std::byte>(layout_.outs) + (rank * kSlots + slot % kSlots) * layout_.cell_bytes;
  }
  std::byte* cell(uint32_t from, uint32_t to, uint64_t slot) const {
    return at<std::byte>(layout_.cells) +
           (pair(from, to) * kSlots + slot % kSlots) * layout_.cell_bytes;
  }

  Counter& sent_counter(uint32_t from, uint32_t to) const {
    return at<Counter>(layout_.sent_counters)[pair(from, to)];
  }
  Counter& taken_counter(uint32_t from, uint32_t to) const {
    return at<Counter>(layout_.taken_counters)[pair(from, to)];
  }
  Piece& piece(uint32_t from, uint32_t to, uint64_t slot) const {
    return *at<Piece>(layout_.pieces +
                      (pair(from, to) * kSlots + slot % kSlots) * layout_.piece_bytes());
  }

 private:
  struct Unmap {
    uint64_t bytes = 0;
    void operator()(std::byte* base) const;
  };

  Segment(std::byte* base, uint32_t ranks);
  static std::byte* map_whole(int fd, uint64_t bytes);

  template <typename T>
  T* at(uint64_t offset) const {
    return reinterpret_cast<T*>(base_.get() + offset);
  }
  uint64_t pair(uint32_t from, uint32_t to) const {
    return static_cast<uint64_t>(from) * layout_.ranks + to;
  }

  Layout layout_;
  std::unique_ptr<std::byte, Unmap> base_;
};

}  // namespace xcoll::shm
