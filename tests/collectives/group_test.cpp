// SPDX-License-Identifier: Apache-2.0
// Send and receive, groups and requests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "elements.hpp"
#include "ranks.hpp"

namespace xcoll::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kLarge = 300'000;  // elements; more than a ring of the transport holds

xcoll_op send_op(const void* data, uint64_t count, int32_t peer, xcoll_dtype dtype = XCOLL_I32) {
  xcoll_op op{};
  op.struct_size = sizeof(op);
  op.kind = XCOLL_SEND;
  op.send = data;
  op.count = count;
  op.dtype = dtype;
  op.peer = peer;
  return op;
}
xcoll_op recv_op(void* data, uint64_t count, int32_t peer, xcoll_dtype dtype = XCOLL_I32) {
  xcoll_op op = send_op(nullptr, count, peer, dtype);
  op.kind = XCOLL_RECV;
  op.recv = data;
  return op;
}
xcoll_op all_reduce_op(void* data, uint64_t count) {
  xcoll_op op = send_op(data, count, 0);
  op.kind = XCOLL_ALL_REDUCE;
  op.recv = data;
  op.reduction = XCOLL_SUM;
  return op;
}

class GroupTest : public ::testing::TestWithParam<std::tuple<int32_t, Where>> {
 protected:
  static void run(const Body& body) {
    run_ranks(std::get<0>(GetParam()), std::get<1>(GetParam()), body);
  }
};

TEST_P(GroupTest, BlockingSendAndReceiveMoveARing) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    const int32_t next = (rank.rank + 1) % rank.size;
    const int32_t previous = (rank.rank + rank.size - 1) % rank.size;
    for (const uint64_t count : {uint64_t{0}, uint64_t{1}, uint64_t{10'001}, kLarge}) {
      const Bytes send = input_of(rank.rank, count, XCOLL_I32);
      const Bytes expected = input_of(previous, count, XCOLL_I32);
      Bytes out(expected.size());
      if (rank.is(0)) {
        ASSERT_XCOLL(XCOLL_OK, xcoll_send(comm, send.data(), count, XCOLL_I32, next, nullptr));
      }
      ASSERT_XCOLL(XCOLL_OK, xcoll_recv(comm, out.data(), count, XCOLL_I32, previous, nullptr));
      if (!rank.is(0)) {
        ASSERT_XCOLL(XCOLL_OK, xcoll_send(comm, send.data(), count, XCOLL_I32, next, nullptr));
      }
      ASSERT_EQ(difference(expected, out.data(), XCOLL_I32), "equal");
    }
  });
}

TEST_P(GroupTest, ReceiveBeforeSendInOneGroupDoesNotDeadlock) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    std::vector<Bytes> in, out;
    std::vector<xcoll_op> ops;
    for (int32_t peer = 0; peer < rank.size; ++peer) {
      in.push_back(input_of(rank.rank, kLarge, XCOLL_I32, static_cast<uint64_t>(peer)));
      out.emplace_back(in.back().size());
    }
    for (int32_t peer = 0; peer < rank.size; ++peer) {
      ops.push_back(recv_op(out[static_cast<size_t>(peer)].data(), kLarge, peer));
    }
    for (int32_t peer = 0; peer < rank.size; ++peer) {
      ops.push_back(send_op(in[static_cast<size_t>(peer)].data(), kLarge, peer));
    }
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, ops.data(), ops.size(), nullptr, nullptr));
    for (int32_t peer = 0; peer < rank.size; ++peer) {
      const Bytes expected = input_of(peer, kLarge, XCOLL_I32, static_cast<uint64_t>(rank.rank));
      ASSERT_EQ(difference(expected, out[static_cast<size_t>(peer)].data(), XCOLL_I32), "equal");
    }
  });
}

TEST_P(GroupTest, MessagesOfOnePairArriveInTheOrderInWhichTheyWereSent) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    if (rank.is(0)) {
      std::vector<xcoll_op> ops;
      std::vector<uint64_t> words(100);
      for (uint64_t i = 0; i < words.size(); ++i) {
        words[i] = i;
        ops.push_back(send_op(&words[i], 1, rank.size - 1, XCOLL_U64));
      }
      ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, ops.data(), ops.size(), nullptr, nullptr));
    }
    if (rank.is(rank.size - 1)) {
      for (uint64_t i = 0; i < 100; ++i) {
        uint64_t word = 0;
        ASSERT_XCOLL(XCOLL_OK, xcoll_recv(comm, &word, 1, XCOLL_U64, 0, nullptr));
        ASSERT_EQ(word, i);
      }
    }
  });
}

TEST_P(GroupTest, AGroupMayMixCollectivesAndTransfers) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    const int32_t next = (rank.rank + 1) % rank.size;
    const int32_t previous = (rank.rank + rank.size - 1) % rank.size;
    int32_t a = rank.rank, b = 1, got = -1;
    xcoll_group* group = nullptr;
    ASSERT_XCOLL(XCOLL_OK, xcoll_group_begin(comm, &group));
    for (const xcoll_op& op : {all_reduce_op(&a, 1), recv_op(&got, 1, previous),
                               all_reduce_op(&b, 1), send_op(&rank.rank, 1, next)}) {
      ASSERT_XCOLL(XCOLL_OK, xcoll_group_add(group, &op));
    }
    ASSERT_XCOLL(XCOLL_OK, xcoll_group_end(group, nullptr, nullptr));
    EXPECT_EQ(a, rank.size * (rank.size - 1) / 2);
    EXPECT_EQ(b, rank.size);
    EXPECT_EQ(got, previous);
  });
}

TEST_P(GroupTest, AnEmptyGroupCompletesAtOnce) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    xcoll_group* group = nullptr;
    xcoll_request* request = nullptr;
    ASSERT_XCOLL(XCOLL_OK, xcoll_group_begin(comm, &group));
    ASSERT_XCOLL(XCOLL_OK, xcoll_group_end(group, nullptr, &request));
    EXPECT_XCOLL(XCOLL_OK, xcoll_request_test(request));
    xcoll_request_free(request);
  });
}

TEST_P(GroupTest, ADiscardedGroupCommunicatesNothing) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    int32_t value = 1;
    xcoll_group* group = nullptr;
    ASSERT_XCOLL(XCOLL_OK, xcoll_group_begin(comm, &group));
    const xcoll_op op = all_reduce_op(&value, 1);
    ASSERT_XCOLL(XCOLL_OK, xcoll_group_add(group, &op));
    xcoll_group_discard(group);
    EXPECT_EQ(xcoll_comm_sequence(comm), 0u);
    ASSERT_XCOLL(XCOLL_OK,
                 xcoll_all_reduce(comm, &value, &value, 1, XCOLL_I32, XCOLL_SUM, nullptr));
    EXPECT_EQ(value, rank.size);
  });
}

TEST_P(GroupTest, AGroupWithARefusedOperationStartsNone) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    int32_t value = 1;
    const xcoll_op ops[] = {all_reduce_op(&value, 1), send_op(&value, 1, rank.size)};
    EXPECT_XCOLL(XCOLL_ERR_INVALID_ARGUMENT, xcoll_submit(comm, ops, 2, nullptr, nullptr));
    EXPECT_THAT(xcoll_last_error(), HasSubstr("operation 1 of the group"));
    EXPECT_EQ(xcoll_comm_sequence(comm), 0u);
    EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
  });
}

TEST_P(GroupTest, RequestsCompleteInTheBackground) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    constexpr size_t kRequests = 20;
    std::vector<std::vector<int32_t>> data;
    std::vector<xcoll_request*> requests(kRequests);
    for (size_t i = 0; i < kRequests; ++i) data.emplace_back(i * 1000 + 1, rank.rank + 1);
    for (size_t i = 0; i < kRequests; ++i) {
      const xcoll_op op = all_reduce_op(data[i].data(), data[i].size());
      ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, nullptr, &requests[i]));
    }
    for (size_t i = kRequests; i-- > 0;) {
      ASSERT_XCOLL(XCOLL_OK, xcoll_request_wait(requests[i], UINT64_MAX));
      EXPECT_XCOLL(XCOLL_OK, xcoll_request_test(requests[i]));
      EXPECT_THAT(data[i], ::testing::Each(rank.size * (rank.size + 1) / 2));
      xcoll_request_free(requests[i]);
    }
  });
}

TEST_P(GroupTest, AnAsynchronousReceiveDoesNotHoldUpALaterSend) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    const int32_t next = (rank.rank + 1) % rank.size;
    const int32_t previous = (rank.rank + rank.size - 1) % rank.size;
    const Bytes send = input_of(rank.rank, kLarge, XCOLL_I32);
    Bytes out(send.size());
    xcoll_request* receiving = nullptr;
    const xcoll_op receive = recv_op(out.data(), kLarge, previous);
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &receive, 1, nullptr, &receiving));
    // Nobody has sent: the receive is under way on every rank, and the blocking calls pass it.
    ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    EXPECT_EQ(xcoll_request_test(receiving), XCOLL_NOT_READY);
    ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    ASSERT_XCOLL(XCOLL_OK, xcoll_send(comm, send.data(), kLarge, XCOLL_I32, next, nullptr));
    ASSERT_XCOLL(XCOLL_OK, xcoll_request_wait(receiving, UINT64_MAX));
    xcoll_request_free(receiving);
    EXPECT_EQ(difference(input_of(previous, kLarge, XCOLL_I32), out.data(), XCOLL_I32), "equal");
  });
}

TEST_P(GroupTest, ARequestMayBeFreedBeforeItIsComplete) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    int32_t value = 1;
    const xcoll_op op = all_reduce_op(&value, 1);
    xcoll_request* request = nullptr;
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, nullptr, &request));
    xcoll_request_free(request);
    ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));  // behind it, so it is done
    EXPECT_EQ(value, rank.size);
  });
}

TEST_P(GroupTest, SeveralThreadsMayCallOneCommunicator) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    const int32_t next = (rank.rank + 1) % rank.size;
    const int32_t previous = (rank.rank + rank.size - 1) % rank.size;
    // One thread exchanges, one receives, one reduces, at the same time.
    constexpr int kRounds = 200;
    std::thread sender([&] {
      for (int i = 0; i < kRounds; ++i) {
        EXPECT_XCOLL(XCOLL_OK, xcoll_send(comm, &i, 1, XCOLL_I32, next, nullptr));
      }
    });
    std::thread receiver([&] {
      for (int i = 0; i < kRounds; ++i) {
        int got = -1;
        EXPECT_XCOLL(XCOLL_OK, xcoll_recv(comm, &got, 1, XCOLL_I32, previous, nullptr));
        EXPECT_EQ(got, i);
      }
    });
    for (int i = 0; i < kRounds; ++i) {
      int32_t value = 1;
      EXPECT_XCOLL(XCOLL_OK,
                   xcoll_all_reduce(comm, &value, &value, 1, XCOLL_I32, XCOLL_SUM, nullptr));
      EXPECT_EQ(value, rank.size);
    }
    sender.join();
    receiver.join();
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, GroupTest,
                         ::testing::Combine(::testing::Values(2, 3, 4),
                                            ::testing::Values(Where::kProcesses, Where::kThreads)),
                         [](const auto& info) {
                           return std::to_string(std::get<0>(info.param)) +
                                  name_of(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace xcoll::testing
