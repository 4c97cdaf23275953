// SPDX-License-Identifier: Apache-2.0
// layout.hpp: what lies where in the memory that the ranks of one host share.
//
// One writer for each word, except the sticky error (first one wins) and the doorbells.
// Nothing is ever reset: sequence numbers and tags only grow, so a rank that is late or early
// cannot confuse another.
//
// Reuse rule of the data areas. A rank completes collective s only after it has seen the entry of
// every rank for s, and it enters s only after it has finished s-1. Hence:
//   - posts and entries have two places, used by parity of s: whoever writes for s has completed
//   s-1,
//     so all have entered s-1, so all have finished s-2, whose place it is.
//   - rings (outs and cells) are written only after all have entered s, so all have finished s-1:
//   within
//     a collective the schedule looks after reuse, between collectives there is nothing to do.
// The point-to-point rings are outside of this order and have their own credits.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "xcoll/comm.h"

namespace xcoll::shm {

inline constexpr uint64_t kMagic = 0x31306c6c6f637871;  // "qxcoll01"
inline constexpr uint32_t kVersion = 2;
inline constexpr uint32_t kMaxRanks = 128;
inline constexpr uint32_t kSlots = 4;              // depth of every ring
inline constexpr uint64_t kPostBytes = 16 * 1024;  // payload of one small collective
inline constexpr uint64_t kInlineBytes = 32;       // payload that travels in the entry itself
inline constexpr uint64_t kMaxCellBytes = 32 * 1024;
inline constexpr uint64_t kMinCellBytes = 4 * 1024;

static_assert(std::atomic<uint64_t>::is_always_lock_free &&
              std::atomic<uint32_t>::is_always_lock_free);

// What a rank says when it enters a collective: one cache line that carries the flag, the
// fingerprint, the words for an error text, and a small payload.
struct alignas(64) Entry {
  std::atomic<uint64_t> sequence;  // written last
  std::atomic<uint64_t> fingerprint;
  std::atomic<uint64_t> count;
  std::atomic<uint32_t> words;  // kind, reduction, type: see Signature
  std::atomic<int32_t> root;
  std::byte payload[kInlineBytes];
};
static_assert(sizeof(Entry) == 64);

struct alignas(64) Counter {
  std::atomic<uint64_t> value;
};

// Wakes one rank. `word` is a futex.
struct alignas(64) Doorbell {
  std::atomic<uint32_t> word;
  std::atomic<uint32_t> sleeping;
};

// What a rank is doing, for the others' error texts.
struct alignas(64) Board {
  std::atomic<uint64_t> finished;   // last collective that this rank completed
  std::atomic<int32_t> waiting_on;  // rank it sleeps for, -1 when it does not sleep
  std::atomic<uint32_t> left;       // 1: it has destroyed its communicator
};

struct alignas(64) RankInfo {
  int64_t pid;
  uint64_t start_time;  // of the process, in ticks since boot; 0: not known
  uint32_t process;     // ranks of one process have the same number
  uint32_t reserved;
  char host[64];
};

// A failure as one rank found it. A rank writes its own record first and then tries to become
// Header::failed_by: a rank that is killed in between has published nothing.
struct alignas(64) FailureRecord {
  std::atomic<uint32_t> claimed;  // 1: a thread of the rank writes or has written it
  xcoll_failure failure;
};

struct Header {
  uint64_t magic;
  uint32_t version;
  uint32_t ranks;
  uint64_t total_bytes;
  alignas(64) std::atomic<uint32_t> sleepers;  // ranks that sleep: a signaller looks here first
  std::atomic<uint32_t> failed_by;  // 0: no failure; else 1 + the rank whose record is the error
};

// Header of a piece of a message in a point-to-point ring; the data follow.
struct alignas(64) Piece {
  uint64_t count;  // elements of the whole message
  uint64_t bytes;
  int32_t type;
  int32_t tag;
};

// Byte offsets of every area for a number of ranks. Pages that are never touched cost nothing.
struct Layout {
  explicit Layout(uint32_t ranks);

  uint32_t ranks;
  uint64_t cell_bytes;
  uint64_t infos, failures, boards, doorbells, entries, out_counters, ack_counters, cell_counters,
      sent_counters, taken_counters, posts, outs, cells, pieces;
  uint64_t total_bytes;

  uint64_t piece_bytes() const { return sizeof(Piece) + cell_bytes; }
};

}  // namespace xcoll::shm
