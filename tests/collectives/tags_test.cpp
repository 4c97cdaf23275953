// SPDX-License-Identifier: Apache-2.0
// Tags of send and receive: a receive takes the oldest message with its tag, whatever was sent
// before or between.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "elements.hpp"
#include "ranks.hpp"

namespace xcoll::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kLarge = 300'000;  // elements; more than a ring of the transport holds

xcoll_op transfer(xcoll_kind kind, int32_t peer, int32_t tag, void* data, uint64_t count) {
  xcoll_op op{};
  op.struct_size = sizeof(op);
  op.kind = kind;
  op.send = op.recv = data;
  op.count = count;
  op.dtype = XCOLL_I32;
  op.peer = peer;
  op.tag = tag;
  return op;
}

class TagsTest : public ::testing::TestWithParam<Where> {
 protected:
  // Rank 0 sends, without waiting, one message of `counts[tag]` elements for each tag in order.
  static void run(const std::vector<uint64_t>& counts,
                  const std::function<void(xcoll_comm*)>& receive) {
    run_ranks(2, GetParam(), [&](const Rank& rank) {
      const Comm comm(rank);
      if (rank.is(1)) {
        receive(comm);
        EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
        return;
      }
      std::vector<Bytes> data;
      std::vector<xcoll_request*> requests(counts.size());
      for (size_t tag = 0; tag < counts.size(); ++tag) {
        data.push_back(input_of(static_cast<int32_t>(tag), counts[tag], XCOLL_I32));
      }
      for (size_t tag = 0; tag < counts.size(); ++tag) {
        const xcoll_op op =
            transfer(XCOLL_SEND, 1, static_cast<int32_t>(tag), data[tag].data(), counts[tag]);
        EXPECT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, nullptr, &requests[tag]));
      }
      for (xcoll_request* request : requests) {
        EXPECT_XCOLL(XCOLL_OK, xcoll_request_wait(request, UINT64_MAX));
        xcoll_request_free(request);
      }
      EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    });
  }

  static void expect_message(int32_t tag, const Bytes& got, uint64_t count) {
    EXPECT_EQ(difference(input_of(tag, count, XCOLL_I32), got.data(), XCOLL_I32), "equal")
        << "tag " << tag;
  }
};

TEST_P(TagsTest, BlockingReceivesInTheReverseOrderGetTheirOwnMessages) {
  const std::vector<uint64_t> counts{3, kLarge, 0, 5, kLarge / 2};
  run(counts, [&](xcoll_comm* comm) {
    for (size_t tag = counts.size(); tag-- > 0;) {
      Bytes got(counts[tag] * 4);
      const xcoll_op op =
          transfer(XCOLL_RECV, 0, static_cast<int32_t>(tag), got.data(), counts[tag]);
      ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, nullptr, nullptr));
      expect_message(static_cast<int32_t>(tag), got, counts[tag]);
    }
  });
}

TEST_P(TagsTest, ReceivesOfOneGroupGetTheirOwnMessagesInAnyOrder) {
  const std::vector<uint64_t> counts{kLarge, 7, kLarge, 1};
  run(counts, [&](xcoll_comm* comm) {
    const int32_t order[] = {2, 0, 3, 1};
    std::vector<Bytes> got(counts.size());
    std::vector<xcoll_op> ops;
    for (const int32_t tag : order) {
      const auto index = static_cast<size_t>(tag);
      got[index].resize(counts[index] * 4);
      ops.push_back(transfer(XCOLL_RECV, 0, tag, got[index].data(), counts[index]));
    }
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, ops.data(), ops.size(), nullptr, nullptr));
    for (const int32_t tag : order) {
      expect_message(tag, got[static_cast<size_t>(tag)], counts[static_cast<size_t>(tag)]);
    }
  });
}

TEST_P(TagsTest, MessagesOfOneTagKeepTheirOrderAlsoWhenTheyWerePutAside) {
  run_ranks(2, GetParam(), [](const Rank& rank) {
    const Comm comm(rank);
    constexpr int32_t kMessages = 50;
    std::vector<int32_t> words(2 * kMessages);
    std::vector<xcoll_op> ops;
    for (int32_t i = 0; i < kMessages; ++i) {
      for (const int32_t tag : {4, 9}) {
        const auto at = static_cast<size_t>(2 * i + (tag == 9));
        words[at] = rank.is(0) ? 1000 * tag + i : -1;
        if (rank.is(0)) ops.push_back(transfer(XCOLL_SEND, 1, tag, &words[at], 1));
      }
    }
    if (rank.is(0)) {
      ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, ops.data(), ops.size(), nullptr, nullptr));
      return;
    }
    for (const int32_t tag : {9, 4}) {  // all of tag 4 is put aside while tag 9 is received
      for (int32_t i = 0; i < kMessages; ++i) {
        int32_t got = -1;
        const xcoll_op op = transfer(XCOLL_RECV, 0, tag, &got, 1);
        ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, nullptr, nullptr));
        ASSERT_EQ(got, 1000 * tag + i);
      }
    }
  });
}

TEST_P(TagsTest, AMessageThatWasPutAsideIsStillCheckedAgainstItsReceive) {
  Gate seen;
  run_ranks(2, GetParam(), [&](const Rank& rank) {
    const Comm comm(rank);
    int32_t data[4] = {};
    if (rank.is(0)) {
      const xcoll_op ops[] = {transfer(XCOLL_SEND, 1, 1, data, 4),
                              transfer(XCOLL_SEND, 1, 2, data, 1)};
      EXPECT_XCOLL(XCOLL_OK, xcoll_submit(comm, ops, 2, nullptr, nullptr));
      seen.wait();
    } else {
      const xcoll_op second = transfer(XCOLL_RECV, 0, 2, data, 1);
      EXPECT_XCOLL(XCOLL_OK, xcoll_submit(comm, &second, 1, nullptr, nullptr));
      const xcoll_op first = transfer(XCOLL_RECV, 0, 1, data, 3);
      EXPECT_XCOLL(XCOLL_ERR_MISMATCH, xcoll_submit(comm, &first, 1, nullptr, nullptr));
      EXPECT_THAT(xcoll_last_error(), HasSubstr("recv from rank 0 with tag 1"));
      EXPECT_THAT(xcoll_last_error(), HasSubstr("i32 x 4"));
      seen.open();
    }
    EXPECT_XCOLL(XCOLL_ERR_MISMATCH, xcoll_barrier(comm, nullptr));
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, TagsTest, ::testing::Values(Where::kProcesses, Where::kThreads),
                         [](const auto& info) { return name_of(info.param); });

}  // namespace
}  // namespace xcoll::testing
