// SPDX-License-Identifier: Apache-2.0
// operation.hpp: one checked operation, as the engine runs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/blocks.hpp"
#include "engine/kernels/reduce.hpp"
#include "tuner/tuner.hpp"
#include "xcoll/group.h"

namespace xcoll::engine {

// Everything about a call that all ranks must agree on, in the words that travel in an Entry.
struct Signature {
  uint32_t words = 0;  // kind | reduction << 8 | type << 16 | algorithm << 24
  int32_t root = -1;
  uint64_t count = 0;        // 0 for the _v kinds, whose counts are in the fingerprint
  uint64_t fingerprint = 0;  // of all of these, the counts, and the sequence

  xcoll_kind kind() const { return static_cast<xcoll_kind>(words & 0xff); }
  kernels::Reduction reduction() const {
    return static_cast<kernels::Reduction>(words >> 8 & 0xff);
  }
  kernels::Type type() const { return static_cast<kernels::Type>(words >> 16 & 0xff); }
  schedule::Algorithm algorithm() const { return static_cast<schedule::Algorithm>(words >> 24); }
};

// "all-reduce (f32 x 1048576, sum)"
std::string describe(const Signature& signature);
const char* kind_name(xcoll_kind kind);
const char* type_name(kernels::Type type);

struct Operation {
  Operation() = default;
  Operation(Operation&&) = default;  // not copied: the blocks may point into the counts
  Operation& operator=(Operation&&) = default;

  // Checks `op` for a rank of a communicator and takes what the engine needs. Throws
  // INVALID_ARGUMENT, UNSUPPORTED, STRUCT_SIZE or UNKNOWN_FIELD.
  static Operation check(const xcoll_op& op, uint32_t ranks, uint32_t rank,
                         const tuner::Tuner& tuner);

  bool is_transfer() const { return kind == XCOLL_SEND || kind == XCOLL_RECV; }
  bool is_all_to_all_v() const { return kind == XCOLL_ALL_TO_ALL_V; }
  uint64_t send_bytes() const { return send_blocks.total() * element_bytes; }
  uint64_t recv_bytes() const { return recv_blocks.total() * element_bytes; }

  xcoll_kind kind = XCOLL_BARRIER;
  kernels::Type type = kernels::kU8;
  uint32_t element_bytes = 1;
  kernels::Combine combine = nullptr;
  const std::byte* send = nullptr;  // null where the role of this rank does not use it
  std::byte* recv = nullptr;
  uint64_t count = 0;
  int32_t peer = -1;  // root, or other side
  int32_t tag = 0;    // of a transfer
  Blocks send_blocks;
  Blocks recv_blocks;
  uint64_t largest_block = 0;  // elements, of any rank: decides the number of pieces
  uint64_t post_bytes = 0;     // of the rank that posts most
  uint64_t timeout_ns = 0;
  Signature signature;           // the sequence is mixed in when the operation is submitted
  std::vector<uint64_t> counts;  // _v: counts and offsets of send, then (all-to-all) of recv
};

// Makes the fingerprint of a sequence number out of that of the arguments.
uint64_t fingerprint_at(uint64_t fingerprint, uint64_t sequence);

}  // namespace xcoll::engine
