// SPDX-License-Identifier: Apache-2.0
// tuner.hpp: which algorithm a collective takes. Every rank must come to the same answer from
// the same arguments; the choice is part of the fingerprint, so a difference is an error and not
// a wrong result.
#pragma once

#include <cstdint>

#include "schedule/schedule.hpp"

namespace xcoll::tuner {

struct Question {
  xcoll_kind kind;
  uint32_t ranks;
  uint64_t post_bytes;  // what the rank that posts most would post
};

class Tuner {
 public:
  // Reads XCOLL_ALGORITHM (flat, pipelined; unset: by size). Throws INVALID_ARGUMENT
  // on another word.
  Tuner();
  schedule::Algorithm choose(const Question& question) const;

 private:
  enum class Wish { kBySize, kFlat, kPipelined } wish_ = Wish::kBySize;
};

}  // namespace xcoll::tuner
