// SPDX-License-Identifier: Apache-2.0
// schedule.hpp: a collective as data: what one rank does, step by step. The engine executes it, a
// simulator can cost it; neither knows an algorithm, and an algorithm knows neither.
//
// A schedule is symbolic. It names places (the user's buffers, the posts and rings of
// layout.hpp), ranks and blocks, but no addresses, sizes or types; one schedule serves every call
// of its kind. Execution:
//
//   before                      put the own contribution where all can read it
//   enter                       publish the own entry, wait for those of all ranks, check the
//   fingerprints loop, for i = 0, 1, 2 ...   each step of the body works on piece number i -
//   step.lag
//
// `lag` is the software pipeline: in one iteration a rank puts piece i, reduces piece i-1 and
// copies piece i-2 out, so that nobody waits for what its peers do in the same iteration.
#pragma once

#include <cstdint>
#include <vector>

#include "xcoll/group.h"

namespace xcoll::schedule {

enum class Algorithm : uint8_t {
  kFlat = 0,       // one shot: everybody posts, everybody reads the posts. Latency.
  kPipelined = 1,  // two shots through rings, in pieces of one cell. Bandwidth.
};

enum class Place : uint8_t {
  kNone,
  kSend,  // the user's input
  kRecv,  // the user's output
  kPost,  // what `rank` posted before it entered
  kOut,   // the ring of `rank` that all read
  kCell,  // the ring from `rank` to `to`
};

inline constexpr int16_t kAll = -1;  // the whole buffer instead of one block

struct Operand {
  Place place = Place::kNone;
  uint16_t rank = 0;
  uint16_t to = 0;
  int16_t block = kAll;  // which rank's share of the buffer
};

enum class StepKind : uint8_t {
  kPut,     // user memory -> shared memory (on other transports: to a peer)
  kCopy,    // shared or user memory -> user memory
  kReduce,  // block `from.block` of the own send and of every peer's post or cell -> `to`, and
            // `also`
  kSignal,  // own counter := piece
  kWait,    // until the counter has reached the piece
};

enum class CounterKind : uint8_t { kOut, kAck, kCell };

struct Step {
  StepKind kind;
  uint8_t lag = 0;
  Operand to{};
  Operand from{};
  Operand also{};
  CounterKind counter = CounterKind::kOut;
  uint16_t owner = 0;   // of the counter
  uint16_t toward = 0;  // kCell: the other end
};

struct Schedule {
  std::vector<Step> before;
  std::vector<Step> loop;
  bool in_pieces = false;  // the loop runs over pieces of one cell; otherwise once, over everything
  uint8_t max_lag = 0;     // iterations to add until the last piece is through
};

struct Key {
  xcoll_kind kind;
  Algorithm algorithm;
  int32_t root;  // -1 for kinds without one
  uint16_t ranks;
  uint16_t rank;
  uint8_t ring_depth;  // cells of a ring
};

// The schedule of one rank. Point-to-point kinds have none: they are not matched between all ranks.
Schedule build(const Key& key);

}  // namespace xcoll::schedule
