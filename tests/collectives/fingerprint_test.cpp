// SPDX-License-Identifier: Apache-2.0
// Ranks compare calls by a fingerprint: calls that differ must never have the same one.
#include <gtest/gtest.h>

#include <map>

#include "elements.hpp"
#include "engine/operation.hpp"

namespace xcoll::testing {
namespace {

bool reduces(xcoll_kind kind) {
  return kind == XCOLL_ALL_REDUCE || kind == XCOLL_REDUCE || kind == XCOLL_REDUCE_SCATTER ||
         kind == XCOLL_REDUCE_SCATTER_V;
}
bool has_root(xcoll_kind kind) {
  return kind == XCOLL_BROADCAST || kind == XCOLL_REDUCE || kind == XCOLL_GATHER ||
         kind == XCOLL_SCATTER;
}

// Every kind with every root, type and reduction that it can have.
std::vector<xcoll_op> every_call(int32_t ranks, uint64_t count, const uint64_t* counts) {
  std::vector<xcoll_op> calls;
  for (xcoll_kind kind = XCOLL_ALL_REDUCE; kind <= XCOLL_BARRIER; ++kind) {
    if (kind == XCOLL_ALL_TO_ALL_V) continue;  // its counts are compared pair by pair
    for (int32_t root = 0; root < (has_root(kind) ? ranks : 1); ++root) {
      for (const xcoll_dtype dtype : kAllTypes) {
        for (const xcoll_reduction reduction : kAllReductions) {
          if (!is_defined(dtype, reduction)) continue;
          xcoll_op op{};
          op.struct_size = sizeof(op);
          op.kind = kind;
          op.peer = root;
          op.count = count;
          op.dtype = dtype;
          op.reduction = reduction;
          op.send_counts = counts;
          calls.push_back(op);
          if (!reduces(kind)) break;
        }
        if (kind == XCOLL_BARRIER) break;
      }
    }
  }
  return calls;
}

TEST(FingerprintTest, NoTwoCallsThatDifferInKindRootTypeOrReductionShareOne) {
  const tuner::Tuner tuner;
  for (const int32_t ranks : {3, 16, 128}) {
    const std::vector<uint64_t> counts(static_cast<size_t>(ranks), 0);
    std::map<uint64_t, std::string> seen;
    for (const xcoll_op& op : every_call(ranks, 0, counts.data())) {
      const auto operation = engine::Operation::check(op, static_cast<uint32_t>(ranks), 0, tuner);
      const std::string call = engine::describe(operation.signature);
      const auto [other, is_new] = seen.try_emplace(operation.signature.fingerprint, call);
      ASSERT_TRUE(is_new) << ranks << " ranks: " << call << " and " << other->second;
    }
    EXPECT_GT(seen.size(), static_cast<size_t>(4 * ranks));
  }
}

}  // namespace
}  // namespace xcoll::testing
