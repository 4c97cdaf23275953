// SPDX-License-Identifier: Apache-2.0
// What happens when a rank does the wrong thing, nothing, or dies: every rank that is left gets a
// typed error that names the culprit, and nobody hangs or gets a wrong result.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "elements.hpp"
#include "ranks.hpp"

namespace xcoll::testing {
namespace {

using ::testing::HasSubstr;

class FailureTest : public ::testing::TestWithParam<std::tuple<int32_t, Where>> {
 protected:
  static void run(const Body& body) {
    run_ranks(std::get<0>(GetParam()), std::get<1>(GetParam()), body);
  }
};

struct Call {
  const char* name;
  xcoll_status (*call)(xcoll_comm* comm, void* send, void* recv);
};

// Pairs of calls that do not match: all ranks but the last make the first, the last
// makes the second.
struct Pair {
  const char* name;
  Call usual;
  Call odd;
};

constexpr uint64_t kCount = 100'000;

#define XCOLL_CALL(expression)                                                                                           \
  Call {                                                                                                                 \
#expression, [](xcoll_comm* comm, void* send, void* recv) -> xcoll_status { (void)send; (void)recv; return expression; } \
  }

const Pair kPairs[] = {
    {"Count", XCOLL_CALL(xcoll_all_reduce(comm, send, recv, 2, XCOLL_F32, XCOLL_SUM, nullptr)),
     XCOLL_CALL(xcoll_all_reduce(comm, send, recv, 3, XCOLL_F32, XCOLL_SUM, nullptr))},
    {"LargeCount",
     XCOLL_CALL(xcoll_all_reduce(comm, send, recv, kCount, XCOLL_F32, XCOLL_SUM, nullptr)),
     XCOLL_CALL(xcoll_all_reduce(comm, send, recv, kCount / 2, XCOLL_F32, XCOLL_SUM, nullptr))},
    {"Type", XCOLL_CALL(xcoll_all_reduce(comm, send, recv, 4, XCOLL_F32, XCOLL_SUM, nullptr)),
     XCOLL_CALL(xcoll_all_reduce(comm, send, recv, 4, XCOLL_I32, XCOLL_SUM, nullptr))},
    {"Reduction", XCOLL_CALL(xcoll_all_reduce(comm, send, recv, 4, XCOLL_F32, XCOLL_SUM, nullptr)),
     XCOLL_CALL(xcoll_all_reduce(comm, send, recv, 4, XCOLL_F32, XCOLL_MAX, nullptr))},
    {"Root", XCOLL_CALL(xcoll_broadcast(comm, send, recv, 4, XCOLL_F32, 0, nullptr)),
     XCOLL_CALL(xcoll_broadcast(comm, send, recv, 4, XCOLL_F32, 1, nullptr))},
    {"Operation", XCOLL_CALL(xcoll_all_reduce(comm, send, recv, 4, XCOLL_F32, XCOLL_SUM, nullptr)),
     XCOLL_CALL(xcoll_broadcast(comm, send, recv, 4, XCOLL_F32, 0, nullptr))},
    {"SmallAndLarge", XCOLL_CALL(xcoll_barrier(comm, nullptr)),
     XCOLL_CALL(xcoll_all_gather(comm, send, recv, kCount / 4, XCOLL_F32, nullptr))},
};

TEST_P(FailureTest, AMismatchIsAnErrorOnEveryRankAndStaysOne) {
  for (const Pair& pair : kPairs) {
    SCOPED_TRACE(pair.name);
    run([&](const Rank& rank) {
      const Comm comm(rank);
      std::vector<float> send(kCount), recv(kCount);
      ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
      const Call& call = rank.is(rank.size - 1) ? pair.odd : pair.usual;
      EXPECT_XCOLL(XCOLL_ERR_MISMATCH, call.call(comm, send.data(), recv.data()));
      EXPECT_THAT(xcoll_last_error(), HasSubstr("mismatch in collective #2"));
      EXPECT_THAT(xcoll_last_error(), HasSubstr("pid"));
      EXPECT_XCOLL(XCOLL_ERR_MISMATCH, xcoll_barrier(comm, nullptr));
      EXPECT_XCOLL(XCOLL_ERR_MISMATCH, xcoll_comm_async_error(comm));
      const xcoll_failure failure = comm.failure();
      EXPECT_EQ(failure.sequence, 2u);
      // With two ranks nobody can tell which one is right.
      if (rank.size > 2) {
        EXPECT_EQ(failure.culprit, rank.size - 1) << failure.text;
      }
    });
  }
}

TEST_P(FailureTest, ADifferentOrderOfCallsIsAMismatch) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    float value = 1, gathered[8];
    const auto reduce = [&] {
      return xcoll_all_reduce(comm, &value, &value, 1, XCOLL_F32, XCOLL_SUM, nullptr);
    };
    const auto gather = [&] {
      return xcoll_all_gather(comm, &value, gathered, 1, XCOLL_F32, nullptr);
    };
    const xcoll_status first = rank.is(1) ? gather() : reduce();
    const xcoll_status second = rank.is(1) ? reduce() : gather();
    EXPECT_XCOLL(XCOLL_ERR_MISMATCH, first);
    EXPECT_XCOLL(XCOLL_ERR_MISMATCH, second);
    EXPECT_EQ(value, 1) << "no result may be delivered";
  });
}

TEST_P(FailureTest, DisagreeingCountsOfAllToAllVAreFoundByEveryRank) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    const auto size = static_cast<size_t>(rank.size);
    std::vector<uint64_t> send_counts(size, 1), recv_counts(size, 1);
    if (rank.is(1)) recv_counts[0] = 2;
    std::vector<float> send(2 * size), recv(2 * size, -1);
    EXPECT_XCOLL(XCOLL_ERR_MISMATCH,
                 xcoll_all_to_all_v(comm, send.data(), send_counts.data(), recv.data(),
                                    recv_counts.data(), XCOLL_F32, nullptr));
    EXPECT_THAT(recv, ::testing::Each(-1));
  });
}

TEST_P(FailureTest, DisagreeingCountsOfAllGatherVAreFoundByEveryRank) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    std::vector<uint64_t> counts(static_cast<size_t>(rank.size), 1);
    if (rank.is(1)) std::swap(counts[0] = 2, counts.back());
    std::vector<float> send(4), recv(16);
    EXPECT_XCOLL(XCOLL_ERR_MISMATCH, xcoll_all_gather_v(comm, send.data(), recv.data(),
                                                        counts.data(), XCOLL_F32, nullptr));
  });
}

TEST_P(FailureTest, AReceiveThatDoesNotMatchItsSendIsAnErrorOnAllRanks) {
  Gate seen;
  run([&](const Rank& rank) {
    const Comm comm(rank);
    float data[4] = {};
    if (rank.is(0)) {
      EXPECT_XCOLL(XCOLL_OK, xcoll_send(comm, data, 4, XCOLL_F32, 1, nullptr));
    }
    if (rank.is(1)) {
      EXPECT_XCOLL(XCOLL_ERR_MISMATCH, xcoll_recv(comm, data, 3, XCOLL_F32, 0, nullptr));
      EXPECT_THAT(xcoll_last_error(), HasSubstr("f32 x 4"));
      seen.open();
    }
    seen.wait();
    EXPECT_XCOLL(XCOLL_ERR_MISMATCH, xcoll_barrier(comm, nullptr));
  });
}

TEST_P(FailureTest, ARankThatDoesNotEnterIsNamedAtTheDeadline) {
  Gate over;
  run([&](const Rank& rank) {
    const int32_t late = rank.size - 1;
    const Comm comm(rank, 300);
    float value = 1;
    EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    if (rank.is(late)) {
      over.wait();
    } else {
      EXPECT_XCOLL(XCOLL_ERR_TIMEOUT,
                   xcoll_all_reduce(comm, &value, &value, 1, XCOLL_F32, XCOLL_SUM, nullptr));
      const xcoll_failure failure = comm.failure();
      EXPECT_EQ(failure.status, XCOLL_ERR_TIMEOUT);
      EXPECT_EQ(failure.culprit, late);
      EXPECT_EQ(failure.culprit_state, XCOLL_RANK_NOT_ENTERED) << failure.text;
      EXPECT_EQ(failure.culprit_finished, 1u);
      EXPECT_EQ(failure.sequence, 2u);
      EXPECT_THAT(failure.text, HasSubstr("all-reduce #2 (f32 x 1, sum) timed out"));
      over.open();
    }
    // The late one gets the same sticky error instead of a hang.
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT,
                 xcoll_all_reduce(comm, &value, &value, 1, XCOLL_F32, XCOLL_SUM, nullptr));
    EXPECT_EQ(value, 1);
  });
}

TEST_P(FailureTest, AReceiveWithoutASendTimesOutAndNamesThePeer) {
  Gate over;
  run([&](const Rank& rank) {
    const Comm comm(rank, 300);
    float value = 1;
    if (rank.is(0)) {
      EXPECT_XCOLL(XCOLL_ERR_TIMEOUT, xcoll_recv(comm, &value, 1, XCOLL_F32, 1, nullptr));
      EXPECT_THAT(xcoll_last_error(), HasSubstr("recv from rank 1 (f32 x 1) timed out"));
      EXPECT_EQ(comm.failure().culprit, 1);
      over.open();
    }
    over.wait();
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT, xcoll_barrier(comm, nullptr));
  });
}

TEST_P(FailureTest, AnOperationMayHaveADeadlineOfItsOwn) {
  Gate over;
  run([&](const Rank& rank) {
    const Comm comm(rank);
    if (rank.is(1)) {
      over.wait();
      return;
    }
    xcoll_op op{};
    op.struct_size = sizeof(op);
    op.kind = XCOLL_BARRIER;
    op.timeout_ns = 200'000'000;
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT, xcoll_submit(comm, &op, 1, nullptr, nullptr));
    over.open();
  });
}

TEST_P(FailureTest, TheDeadlineOfACommunicatorCanBeChanged) {
  Gate over;
  run([&](const Rank& rank) {
    const Comm comm(rank);
    EXPECT_XCOLL(XCOLL_ERR_INVALID_ARGUMENT, xcoll_comm_set_timeout(comm, 0));
    EXPECT_XCOLL(XCOLL_OK, xcoll_comm_set_timeout(comm, 200'000'000));
    if (rank.is(1)) {
      over.wait();
      return;
    }
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT, xcoll_barrier(comm, nullptr));
    over.open();
  });
}

TEST_P(FailureTest, AbortFromAnotherThreadEndsWhatRunsOnEveryRank) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    std::vector<float> data(kCount);
    std::thread aborter;
    if (rank.is(0)) {
      // Rank 0 does not call: the others are inside and wait for it.
      aborter = std::thread([&] { EXPECT_XCOLL(XCOLL_OK, xcoll_comm_abort(comm, "enough")); });
    } else {
      EXPECT_XCOLL(XCOLL_ERR_ABORTED, xcoll_all_reduce(comm, data.data(), data.data(), kCount,
                                                       XCOLL_F32, XCOLL_SUM, nullptr));
      EXPECT_THAT(xcoll_last_error(), HasSubstr("enough"));
      EXPECT_EQ(comm.failure().culprit, 0);
    }
    if (aborter.joinable()) aborter.join();
    EXPECT_XCOLL(XCOLL_ERR_ABORTED, xcoll_barrier(comm, nullptr));
  });
}

TEST_P(FailureTest, AbortEndsTheOwnBlockedCall) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    float value = 0;
    if (rank.is(0)) {
      std::thread aborter([&] { EXPECT_XCOLL(XCOLL_OK, xcoll_comm_abort(comm, nullptr)); });
      EXPECT_XCOLL(XCOLL_ERR_ABORTED, xcoll_recv(comm, &value, 1, XCOLL_F32, 1, nullptr));
      aborter.join();
    } else {
      EXPECT_XCOLL(XCOLL_ERR_ABORTED, xcoll_recv(comm, &value, 1, XCOLL_F32, 0, nullptr));
    }
  });
}

TEST_P(FailureTest, ARequestThatIsUnderWayGetsTheStickyError) {
  run([](const Rank& rank) {
    const Comm comm(rank);
    float value = 0;
    xcoll_op op{};
    op.struct_size = sizeof(op);
    op.kind = XCOLL_RECV;
    op.recv = &value;
    op.count = 1;
    op.dtype = XCOLL_F32;
    op.peer = (rank.rank + 1) % rank.size;
    xcoll_request* request = nullptr;
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, nullptr, &request));
    ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    if (rank.is(0)) {
      EXPECT_XCOLL(XCOLL_OK, xcoll_comm_abort(comm, "stop"));
    }
    EXPECT_XCOLL(XCOLL_ERR_ABORTED, xcoll_request_wait(request, UINT64_MAX));
    EXPECT_THAT(xcoll_last_error(), HasSubstr("stop"));
    xcoll_request_free(request);
  });
}

TEST_P(FailureTest, ARankThatLeavesWhileItIsNeededIsNamed) {
  run([](const Rank& rank) {
    if (rank.is(1)) {
      const Comm comm(rank);
      EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
      return;
    }
    const Comm comm(rank);
    EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    EXPECT_XCOLL(XCOLL_ERR_RANK_FAILED, xcoll_barrier(comm, nullptr));
    const xcoll_failure failure = comm.failure();
    EXPECT_EQ(failure.culprit_state, XCOLL_RANK_LEFT) << failure.text;
  });
}

TEST_P(FailureTest, WhatARankSentBeforeItLeftStillArrives) {
  Gate left;
  run([&](const Rank& rank) {
    if (rank.is(1)) {
      {
        const Comm comm(rank);
        const float value = 7;
        EXPECT_XCOLL(XCOLL_OK, xcoll_send(comm, &value, 1, XCOLL_F32, 0, nullptr));
      }
      left.open();
      return;
    }
    const Comm comm(rank);
    left.wait();
    float value = 0;
    if (rank.is(0)) {
      EXPECT_XCOLL(XCOLL_OK, xcoll_recv(comm, &value, 1, XCOLL_F32, 1, nullptr));
      EXPECT_EQ(value, 7);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, FailureTest,
                         ::testing::Combine(::testing::Values(2, 3, 4),
                                            ::testing::Values(Where::kProcesses, Where::kThreads)),
                         [](const auto& info) {
                           return std::to_string(std::get<0>(info.param)) +
                                  name_of(std::get<1>(info.param));
                         });

// Ranks that are killed or stopped are processes of their own.
class DeathTest : public ::testing::TestWithParam<int32_t> {};

TEST_P(DeathTest, AKilledRankIsNamedOnEverySurvivor) {
  const int32_t victim = GetParam() - 1;
  const std::vector<Ending> endings = run_processes(GetParam(), [&](const Rank& rank) {
    const Comm comm(rank);
    float value = 1;
    int64_t pids[8] = {};
    const int64_t pid = ::getpid();
    ASSERT_XCOLL(XCOLL_OK, xcoll_all_gather(comm, &pid, pids, 1, XCOLL_I64, nullptr));
    if (rank.is(victim)) ::kill(::getpid(), SIGKILL);
    EXPECT_XCOLL(XCOLL_ERR_RANK_FAILED,
                 xcoll_all_reduce(comm, &value, &value, 1, XCOLL_F32, XCOLL_SUM, nullptr));
    const xcoll_failure failure = comm.failure();
    EXPECT_EQ(failure.culprit, victim);
    EXPECT_EQ(failure.culprit_pid, pids[victim]);
    EXPECT_EQ(failure.culprit_state, XCOLL_RANK_DEAD);
    EXPECT_EQ(failure.culprit_finished, 1u);
    EXPECT_THAT(failure.text, HasSubstr("all-reduce #2 (f32 x 1, sum) failed"));
    EXPECT_THAT(failure.text, HasSubstr("is dead"));
  });
  for (int32_t rank = 0; rank < GetParam(); ++rank) {
    const Ending& ending = endings[static_cast<size_t>(rank)];
    EXPECT_EQ(ending.signal, rank == victim ? SIGKILL : 0) << "rank " << rank;
    if (rank != victim) {
      EXPECT_EQ(ending.exit_code, 0) << "rank " << rank;
    }
  }
}

TEST_P(DeathTest, ARankThatIsKilledInTheMiddleOfALargeOperationIsNamed) {
  const int32_t victim = 0;  // the one that made the communicator
  const std::vector<Ending> endings = run_processes(GetParam(), [&](const Rank& rank) {
    const Comm comm(rank);
    std::vector<float> data(4'000'000);
    std::thread killer;
    xcoll_status status = XCOLL_OK;
    for (int round = 0; status == XCOLL_OK; ++round) {
      if (rank.is(victim) && round == 1) {
        killer = std::thread([] { ::kill(::getpid(), SIGKILL); });
      }
      status = xcoll_all_reduce(comm, data.data(), data.data(), data.size(), XCOLL_F32, XCOLL_SUM,
                                nullptr);
    }
    EXPECT_XCOLL(XCOLL_ERR_RANK_FAILED, status);
    EXPECT_EQ(comm.failure().culprit, victim);
  });
  EXPECT_EQ(endings[0].signal, SIGKILL);
  for (size_t rank = 1; rank < endings.size(); ++rank) EXPECT_EQ(endings[rank].exit_code, 0);
}

TEST_P(DeathTest, AKilledSenderIsNamedByItsReceiver) {
  const std::vector<Ending> endings = run_processes(GetParam(), [&](const Rank& rank) {
    const Comm comm(rank);
    float value = 0;
    if (rank.is(1)) ::kill(::getpid(), SIGKILL);
    if (rank.is(0)) {
      EXPECT_XCOLL(XCOLL_ERR_RANK_FAILED, xcoll_recv(comm, &value, 1, XCOLL_F32, 1, nullptr));
      EXPECT_EQ(comm.failure().culprit, 1);
    } else {
      EXPECT_XCOLL(XCOLL_ERR_RANK_FAILED, xcoll_barrier(comm, nullptr));
    }
  });
  EXPECT_EQ(endings[0].exit_code, 0);
}

TEST_P(DeathTest, AsyncErrorSeesADeathThatNobodyWaitsFor) {
  const std::vector<Ending> endings = run_processes(GetParam(), [&](const Rank& rank) {
    const Comm comm(rank);
    EXPECT_XCOLL(XCOLL_OK, xcoll_comm_async_error(comm));
    EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    if (rank.is(1)) ::kill(::getpid(), SIGKILL);
    while (xcoll_comm_async_error(comm) == XCOLL_OK) std::this_thread::yield();
    EXPECT_XCOLL(XCOLL_ERR_RANK_FAILED, xcoll_comm_async_error(comm));
    EXPECT_EQ(comm.failure().culprit, 1);
  });
  EXPECT_EQ(endings[0].exit_code, 0);
}

TEST_P(DeathTest, AStoppedRankIsNamedAsStoppedAndGetsTheStickyErrorWhenItGoesOn) {
  run_ranks(GetParam(), Where::kProcesses, [&](const Rank& rank) {
    const Comm comm(rank, 500);
    float value = 1;
    EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    if (rank.is(1)) ::raise(SIGSTOP);
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT,
                 xcoll_all_reduce(comm, &value, &value, 1, XCOLL_F32, XCOLL_SUM, nullptr));
    const xcoll_failure failure = comm.failure();
    EXPECT_EQ(failure.culprit, 1);
    EXPECT_EQ(failure.culprit_state, XCOLL_RANK_STOPPED) << failure.text;
    EXPECT_THAT(failure.text, HasSubstr("is stopped"));
    if (!rank.is(1)) ::kill(static_cast<pid_t>(failure.culprit_pid), SIGCONT);
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, DeathTest, ::testing::Values(2, 3, 4),
                         [](const auto& info) { return std::to_string(info.param); });

}  // namespace
}  // namespace xcoll::testing
