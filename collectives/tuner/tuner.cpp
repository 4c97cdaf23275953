#include "tuner/tuner.hpp"

#include <cstdlib>
#include <string_view>

#include "base/failure.hpp"
#include "transport/shm/layout.hpp"

namespace xcoll::tuner {
namespace {

// Flat makes every rank read every post: from here on splitting the work wins (measured with 2
// ranks).
constexpr uint64_t kFlatBytes = 8 * 1024;

}  // namespace

Tuner::Tuner() {
  const char* text = std::getenv("XCOLL_ALGORITHM");
  const std::string_view wish = text ? text : "";
  if (wish.empty()) return;
  if (wish != "flat" && wish != "pipelined") {
    throw Failure(
        XCOLL_ERR_INVALID_ARGUMENT,
        "XCOLL_ALGORITHM is '{}'; it may be flat or pipelined, or unset to choose by size", wish);
  }
  wish_ = wish == "flat" ? Wish::kFlat : Wish::kPipelined;
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
