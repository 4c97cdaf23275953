// SPDX-License-Identifier: Apache-2.0
#include "tuner/tuner.hpp"

#include "base/failure.hpp"
#include "transport/shm/layout.hpp"
#include "xhal_base/environment.hpp"

namespace xcoll::tuner {
namespace {

// Flat makes every rank read every post: from here on splitting the work wins (measured
// with 2 ranks).
constexpr uint64_t kFlatBytes = 8 * 1024;

}  // namespace

Tuner::Tuner() {
  const auto wish = xhal::base::environment_choice("XCOLL_ALGORITHM", {"flat", "pipelined"});
  if (!wish.problem.empty()) {
    throw Failure(XCOLL_ERR_INVALID_ARGUMENT, "{}; unset, it is chosen by size", wish.problem);
  }
  if (wish.value) wish_ = *wish.value == 0 ? Wish::kFlat : Wish::kPipelined;
}

schedule::Algorithm Tuner::choose(const Question& question) const {
  using schedule::Algorithm;
  if (question.kind == XCOLL_BARRIER) return Algorithm::kFlat;
  // All-to-all-v posts its table of counts, so its data go through the rings.
  if (question.kind == XCOLL_ALL_TO_ALL_V || question.post_bytes > shm::kPostBytes) {
    return Algorithm::kPipelined;
  }
  if (wish_ == Wish::kBySize) {
    return question.post_bytes <= kFlatBytes ? Algorithm::kFlat : Algorithm::kPipelined;
  }
  return wish_ == Wish::kFlat ? Algorithm::kFlat : Algorithm::kPipelined;
}

}  // namespace xcoll::tuner
