// SPDX-License-Identifier: Apache-2.0
// Every collective x type x {empty, one, odd, several pieces} x {2, 3, 4 ranks} x {processes,
// threads}, out of place and in place, against the reference.
#include <gtest/gtest.h>

#include <numeric>

#include "elements.hpp"
#include "ranks.hpp"

namespace xcoll::testing {
namespace {

// Around the borders of the inline payload, of a post, and of the pieces of the rings.
constexpr uint64_t kCounts[] = {0, 1, 3, 17, 1023, 2049, 50'001};

class CollectivesTest : public ::testing::TestWithParam<std::tuple<int32_t, Where>> {
 protected:
  static void for_each_type(
      const std::function<void(const Rank&, xcoll_comm*, xcoll_dtype, uint64_t)>& body) {
    run_ranks(std::get<0>(GetParam()), std::get<1>(GetParam()), [&](const Rank& rank) {
      const Comm comm(rank);
      for (const xcoll_dtype dtype : kAllTypes) {
        for (const uint64_t count : kCounts) {
          SCOPED_TRACE(name_of(dtype) + " x " + std::to_string(count) + " on rank " +
                       std::to_string(rank.rank));
          body(rank, comm, dtype, count);
        }
      }
    });
  }
};

std::vector<Bytes> inputs_of_all(const Rank& rank, uint64_t count, xcoll_dtype dtype) {
  std::vector<Bytes> inputs;
  for (int32_t r = 0; r < rank.size; ++r) inputs.push_back(input_of(r, count, dtype));
  return inputs;
}

Bytes joined(const std::vector<Bytes>& parts) {
  Bytes all;
  for (const Bytes& bytes : parts) all.insert(all.end(), bytes.begin(), bytes.end());
  return all;
}

// Rank r's share of the v-kinds: unequal, and none at all for one rank.
std::vector<uint64_t> uneven_counts(int32_t ranks, uint64_t count) {
  std::vector<uint64_t> counts;
  for (int32_t r = 0; r < ranks; ++r) {
    counts.push_back(r == 1 ? 0 : count / static_cast<uint64_t>(r + 1) + static_cast<uint64_t>(r));
  }
  return counts;
}

TEST_P(CollectivesTest, AllReduceGivesEveryRankTheReduction) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const std::vector<Bytes> inputs = inputs_of_all(rank, count, dtype);
    const Bytes& mine = inputs[static_cast<size_t>(rank.rank)];
    for (const xcoll_reduction reduction : kAllReductions) {
      if (!is_defined(dtype, reduction)) continue;
      SCOPED_TRACE(name_of_reduction(reduction));
      const Bytes expected = reduced(inputs, dtype, reduction);
      Bytes out(mine.size());
      ASSERT_XCOLL(XCOLL_OK, xcoll_all_reduce(comm, mine.data(), out.data(), count, dtype,
                                              reduction, nullptr));
      ASSERT_EQ(difference(expected, out.data(), dtype), "equal");
      Bytes in_place = mine;
      ASSERT_XCOLL(XCOLL_OK, xcoll_all_reduce(comm, in_place.data(), in_place.data(), count, dtype,
                                              reduction, nullptr));
      ASSERT_EQ(difference(expected, in_place.data(), dtype), "equal");
    }
  });
}

TEST_P(CollectivesTest, ReduceGivesTheRootTheReduction) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const std::vector<Bytes> inputs = inputs_of_all(rank, count, dtype);
    const int32_t root = static_cast<int32_t>(count) % rank.size;
    for (const xcoll_reduction reduction : {XCOLL_SUM, XCOLL_MAX, XCOLL_PROD}) {
      const Bytes expected = reduced(inputs, dtype, reduction);
      Bytes buffer = inputs[static_cast<size_t>(rank.rank)];
      ASSERT_XCOLL(XCOLL_OK,
                   xcoll_reduce(comm, buffer.data(), rank.is(root) ? buffer.data() : nullptr, count,
                                dtype, reduction, root, nullptr));
      const Bytes& wanted = rank.is(root) ? expected : inputs[static_cast<size_t>(rank.rank)];
      ASSERT_EQ(difference(wanted, buffer.data(), dtype), "equal");
    }
  });
}

TEST_P(CollectivesTest, BroadcastGivesEveryRankWhatTheRootHas) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const int32_t root = static_cast<int32_t>(count) % rank.size;
    const Bytes expected = input_of(root, count, dtype);
    const Bytes send = rank.is(root) ? expected : Bytes();
    Bytes out(expected.size());
    ASSERT_XCOLL(XCOLL_OK, xcoll_broadcast(comm, rank.is(root) ? send.data() : nullptr, out.data(),
                                           count, dtype, root, nullptr));
    ASSERT_EQ(difference(expected, out.data(), dtype), "equal");
    Bytes in_place = rank.is(root) ? expected : Bytes(expected.size());
    ASSERT_XCOLL(XCOLL_OK, xcoll_broadcast(comm, in_place.data(), in_place.data(), count, dtype,
                                           root, nullptr));
    ASSERT_EQ(difference(expected, in_place.data(), dtype), "equal");
  });
}

TEST_P(CollectivesTest, AllGatherGivesEveryRankTheSharesInRankOrder) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const std::vector<Bytes> inputs = inputs_of_all(rank, count, dtype);
    const Bytes& mine = inputs[static_cast<size_t>(rank.rank)];
    const Bytes expected = joined(inputs);
    Bytes out(expected.size());
    ASSERT_XCOLL(XCOLL_OK, xcoll_all_gather(comm, mine.data(), out.data(), count, dtype, nullptr));
    ASSERT_EQ(difference(expected, out.data(), dtype), "equal");
    Bytes in_place(expected.size());
    unsigned char* own = in_place.data() + mine.size() * static_cast<size_t>(rank.rank);
    std::copy(mine.begin(), mine.end(), own);
    ASSERT_XCOLL(XCOLL_OK, xcoll_all_gather(comm, own, in_place.data(), count, dtype, nullptr));
    ASSERT_EQ(difference(expected, in_place.data(), dtype), "equal");
  });
}

TEST_P(CollectivesTest, AllGatherVTakesUnequalShares) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const std::vector<uint64_t> counts = uneven_counts(rank.size, count);
    std::vector<Bytes> inputs;
    for (int32_t r = 0; r < rank.size; ++r) {
      inputs.push_back(input_of(r, counts[static_cast<size_t>(r)], dtype));
    }
    const Bytes expected = joined(inputs);
    Bytes out(expected.size());
    ASSERT_XCOLL(XCOLL_OK, xcoll_all_gather_v(comm, inputs[static_cast<size_t>(rank.rank)].data(),
                                              out.data(), counts.data(), dtype, nullptr));
    ASSERT_EQ(difference(expected, out.data(), dtype), "equal");
  });
}

TEST_P(CollectivesTest, ReduceScatterGivesEachRankItsShareOfTheReduction) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const auto me = static_cast<uint64_t>(rank.rank);
    const std::vector<Bytes> inputs =
        inputs_of_all(rank, count * static_cast<uint64_t>(rank.size), dtype);
    for (const xcoll_reduction reduction : {XCOLL_SUM, XCOLL_MIN}) {
      const Bytes expected = part(reduced(inputs, dtype, reduction), me * count, count, dtype);
      Bytes out(expected.size());
      ASSERT_XCOLL(XCOLL_OK, xcoll_reduce_scatter(comm, inputs[me].data(), out.data(), count, dtype,
                                                  reduction, nullptr));
      ASSERT_EQ(difference(expected, out.data(), dtype), "equal");
      Bytes in_place = inputs[me];
      unsigned char* own = in_place.data() + expected.size() * me;
      ASSERT_XCOLL(XCOLL_OK, xcoll_reduce_scatter(comm, in_place.data(), own, count, dtype,
                                                  reduction, nullptr));
      ASSERT_EQ(difference(expected, own, dtype), "equal");
    }
  });
}

TEST_P(CollectivesTest, ReduceScatterVGivesUnequalShares) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const std::vector<uint64_t> counts = uneven_counts(rank.size, count);
    const auto me = static_cast<size_t>(rank.rank);
    const std::vector<Bytes> inputs =
        inputs_of_all(rank, std::accumulate(counts.begin(), counts.end(), uint64_t{0}), dtype);
    const uint64_t begin = std::accumulate(counts.begin(), counts.begin() + rank.rank, uint64_t{0});
    const Bytes expected = part(reduced(inputs, dtype, XCOLL_SUM), begin, counts[me], dtype);
    Bytes out(expected.size());
    ASSERT_XCOLL(XCOLL_OK, xcoll_reduce_scatter_v(comm, inputs[me].data(), out.data(),
                                                  counts.data(), dtype, XCOLL_SUM, nullptr));
    ASSERT_EQ(difference(expected, out.data(), dtype), "equal");
  });
}

TEST_P(CollectivesTest, GatherGivesTheRootTheShares) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const int32_t root = rank.size - 1;
    const std::vector<Bytes> inputs = inputs_of_all(rank, count, dtype);
    const Bytes expected = joined(inputs);
    Bytes out(rank.is(root) ? expected.size() : 0);
    ASSERT_XCOLL(XCOLL_OK, xcoll_gather(comm, inputs[static_cast<size_t>(rank.rank)].data(),
                                        out.data(), count, dtype, root, nullptr));
    if (rank.is(root)) {
      ASSERT_EQ(difference(expected, out.data(), dtype), "equal");
    }
  });
}

TEST_P(CollectivesTest, ScatterGivesEachRankItsShareOfTheRoot) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const int32_t root = static_cast<int32_t>(count) % rank.size;
    const Bytes all = input_of(root, count * static_cast<uint64_t>(rank.size), dtype);
    const Bytes expected = part(all, count * static_cast<uint64_t>(rank.rank), count, dtype);
    Bytes out(expected.size());
    ASSERT_XCOLL(XCOLL_OK, xcoll_scatter(comm, rank.is(root) ? all.data() : nullptr, out.data(),
                                         count, dtype, root, nullptr));
    ASSERT_EQ(difference(expected, out.data(), dtype), "equal");
  });
}

TEST_P(CollectivesTest, AllToAllTransposesTheShares) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const auto me = static_cast<uint64_t>(rank.rank);
    const std::vector<Bytes> inputs =
        inputs_of_all(rank, count * static_cast<uint64_t>(rank.size), dtype);
    std::vector<Bytes> shares;
    for (const Bytes& input : inputs) shares.push_back(part(input, me * count, count, dtype));
    const Bytes expected = joined(shares);
    Bytes out(expected.size());
    ASSERT_XCOLL(XCOLL_OK,
                 xcoll_all_to_all(comm, inputs[me].data(), out.data(), count, dtype, nullptr));
    ASSERT_EQ(difference(expected, out.data(), dtype), "equal");
    Bytes in_place = inputs[me];
    ASSERT_XCOLL(XCOLL_OK,
                 xcoll_all_to_all(comm, in_place.data(), in_place.data(), count, dtype, nullptr));
    ASSERT_EQ(difference(expected, in_place.data(), dtype), "equal");
  });
}

TEST_P(CollectivesTest, AllToAllVMovesADifferentCountForEachPair) {
  for_each_type([](const Rank& rank, xcoll_comm* comm, xcoll_dtype dtype, uint64_t count) {
    const auto size = static_cast<size_t>(rank.size);
    const auto me = static_cast<size_t>(rank.rank);
    const auto pair = [&](size_t from, size_t to) { return (from + 2 * to) % 3 * (count / 2); };
    std::vector<uint64_t> send_counts, recv_counts;
    std::vector<Bytes> to_send, to_receive;
    for (size_t other = 0; other < size; ++other) {
      send_counts.push_back(pair(me, other));
      recv_counts.push_back(pair(other, me));
      to_send.push_back(input_of(rank.rank, pair(me, other), dtype, other));
      to_receive.push_back(input_of(static_cast<int32_t>(other), pair(other, me), dtype, me));
    }
    const Bytes send = joined(to_send), expected = joined(to_receive);
    Bytes out(expected.size());
    ASSERT_XCOLL(XCOLL_OK, xcoll_all_to_all_v(comm, send.data(), send_counts.data(), out.data(),
                                              recv_counts.data(), dtype, nullptr));
    ASSERT_EQ(difference(expected, out.data(), dtype), "equal");
  });
}

TEST_P(CollectivesTest, NobodyLeavesABarrierBeforeAllHaveEntered) {
  const auto [size, where] = GetParam();
  run_ranks(size, where, [](const Rank& rank) {
    const Comm comm(rank);
    for (int32_t round = 0; round < 200; ++round) {
      // Each rank in turn is the last to enter: it enters only after a word from the others.
      const int32_t last = round % rank.size;
      uint8_t word = 0;
      if (rank.is(last)) {
        for (int32_t r = 0; r < rank.size; ++r) {
          if (r != last) {
            ASSERT_XCOLL(XCOLL_OK, xcoll_recv(comm, &word, 1, XCOLL_U8, r, nullptr));
          }
        }
      } else {
        ASSERT_XCOLL(XCOLL_OK, xcoll_send(comm, &word, 1, XCOLL_U8, last, nullptr));
      }
      ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
      EXPECT_EQ(xcoll_comm_sequence(comm), static_cast<uint64_t>(round) + 1);
    }
  });
}

TEST_P(CollectivesTest, ManyDifferentCollectivesInARowKeepTheirData) {
  const auto [size, where] = GetParam();
  run_ranks(size, where, [](const Rank& rank) {
    const Comm comm(rank);
    const auto n = static_cast<uint64_t>(rank.size);
    uint64_t state = 12345;  // the same on all ranks
    for (int round = 0; round < 300; ++round) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const uint64_t count = (state >> 33) % ((state >> 20) % 2 ? 40'000 : 300);
      const Bytes mine = input_of(rank.rank, count * n, XCOLL_I32, static_cast<uint64_t>(round));
      std::vector<Bytes> all;
      for (int32_t r = 0; r < rank.size; ++r) {
        all.push_back(input_of(r, count * n, XCOLL_I32, static_cast<uint64_t>(round)));
      }
      Bytes out(mine.size());
      switch ((state >> 40) % 3) {
        case 0: {
          ASSERT_XCOLL(XCOLL_OK, xcoll_all_reduce(comm, mine.data(), out.data(), count, XCOLL_I32,
                                                  XCOLL_SUM, nullptr));
          for (Bytes& input : all) input = part(input, 0, count, XCOLL_I32);
          ASSERT_EQ(difference(reduced(all, XCOLL_I32, XCOLL_SUM), out.data(), XCOLL_I32), "equal");
          break;
        }
        case 1: {
          const int32_t root = round % rank.size;
          ASSERT_XCOLL(XCOLL_OK, xcoll_broadcast(comm, mine.data(), out.data(), count, XCOLL_I32,
                                                 root, nullptr));
          const Bytes expected = part(all[static_cast<size_t>(root)], 0, count, XCOLL_I32);
          ASSERT_EQ(difference(expected, out.data(), XCOLL_I32), "equal");
          break;
        }
        default: {
          ASSERT_XCOLL(XCOLL_OK,
                       xcoll_all_gather(comm, mine.data(), out.data(), count, XCOLL_I32, nullptr));
          for (Bytes& input : all) input = part(input, 0, count, XCOLL_I32);
          ASSERT_EQ(difference(joined(all), out.data(), XCOLL_I32), "equal");
        }
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, CollectivesTest,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4),
                                            ::testing::Values(Where::kProcesses, Where::kThreads)),
                         [](const auto& info) {
                           return std::to_string(std::get<0>(info.param)) +
                                  name_of(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace xcoll::testing
