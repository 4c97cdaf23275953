// SPDX-License-Identifier: Apache-2.0
// What libxcoll refuses, when a deadline ends what has not begun, and what must be the same on
// every rank whatever the calling thread has set.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cfenv>
#include <csignal>
#include <thread>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "deny.hpp"
#include "elements.hpp"
#include "ranks.hpp"

namespace xcoll::testing {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

xcoll_op make_op(xcoll_kind kind, void* data, uint64_t count, xcoll_dtype dtype = XCOLL_I32) {
  xcoll_op op{};
  op.struct_size = sizeof(op);
  op.kind = kind;
  op.send = op.recv = data;
  op.count = count;
  op.dtype = dtype;
  return op;
}

// ---- mismatches

// Rank 2 of three makes the second call: the fingerprints of such pairs were once equal.
struct Pair {
  xcoll_kind kind;
  int32_t root;
  xcoll_kind odd_kind;
  int32_t odd_root;
};

TEST(MismatchTest, RootedCallsOfDifferentKindsAndRootsAreAlwaysAMismatch) {
  const xcoll_kind kinds[] = {XCOLL_BROADCAST, XCOLL_REDUCE, XCOLL_GATHER, XCOLL_SCATTER};
  std::vector<Pair> pairs;
  for (const xcoll_kind kind : kinds) {
    for (const xcoll_kind odd_kind : kinds) {
      for (int32_t root = 0; root < 3; ++root) {
        for (int32_t odd_root = 0; odd_root < 3; ++odd_root) {
          if (kind == odd_kind && root == odd_root) continue;
          pairs.push_back({kind, root, odd_kind, odd_root});
        }
      }
    }
  }
  run_ranks(3, Where::kThreads, [&](const Rank& rank) {
    const Comm world(rank);
    for (const Pair& pair : pairs) {
      SCOPED_TRACE(::testing::Message() << pair.kind << " root " << pair.root << " against "
                                        << pair.odd_kind << " root " << pair.odd_root);
      xcoll_comm* part = nullptr;
      ASSERT_XCOLL(XCOLL_OK, xcoll_comm_split(world, 0, 0, &part));
      const Comm comm(part);
      std::array<int32_t, 12> send{}, recv{};
      recv.fill(-1);
      const bool odd = rank.is(2);
      xcoll_op op = make_op(odd ? pair.odd_kind : pair.kind, nullptr, 4);
      op.send = send.data();
      op.recv = recv.data();
      op.peer = odd ? pair.odd_root : pair.root;
      EXPECT_XCOLL(XCOLL_ERR_MISMATCH, xcoll_submit(comm, &op, 1, nullptr, nullptr));
      EXPECT_THAT(recv, Each(-1)) << "no data may be delivered";
    }
  });
}

// ---- one result on every rank

struct FloatMode {
  const char* name;
  void (*set)();
};

const FloatMode kFloatModes[] = {
    {"RoundUp", [] { std::fesetround(FE_UPWARD); }},
    {"RoundToZero", [] { std::fesetround(FE_TOWARDZERO); }},
#if defined(__x86_64__)
    {"FlushToZero", [] { _mm_setcsr(_mm_getcsr() | 0x8040); }},
#endif
};

class FloatModeTest : public ::testing::TestWithParam<FloatMode> {};

TEST_P(FloatModeTest, OfTheCallingThreadDoesNotChangeAResult) {
  const float inputs[] = {std::bit_cast<float>(0x00000400u), 1.0f, -3.0f, 16777216.0f};
  run_ranks(3, Where::kThreads, [&](const Rank& rank) {
    const Comm comm(rank);
    // The progress thread is made before the mode is set, and does not have it.
    const xcoll_op barrier = make_op(XCOLL_BARRIER, nullptr, 0);
    xcoll_request* request = nullptr;
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &barrier, 1, nullptr, &request));
    ASSERT_XCOLL(XCOLL_OK, xcoll_request_wait(request, UINT64_MAX));
    xcoll_request_free(request);
    GetParam().set();
    for (const uint64_t repeats : {uint64_t{1}, uint64_t{20'000}}) {
      std::vector<float> data;
      for (uint64_t i = 0; i < repeats; ++i) {
        // Sums that need rounding, and one of subnormal numbers.
        data.insert(data.end(), std::begin(inputs), std::end(inputs));
        data.back() += rank.is(0) ? 0.0f : -16777216.0f + 1.0f;
        data[data.size() - 2] = rank.is(0) ? -3.0f : 1e-9f;
      }
      const xcoll_op op = make_op(XCOLL_ALL_REDUCE, data.data(), data.size(), XCOLL_F32);
      if (rank.is(0)) {  // in the calling thread
        ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, nullptr, nullptr));
      } else {  // in the progress thread
        ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, nullptr, &request));
        ASSERT_XCOLL(XCOLL_OK, xcoll_request_wait(request, UINT64_MAX));
        xcoll_request_free(request);
      }
      for (uint64_t i = 0; i < data.size(); i += 4) {
        ASSERT_EQ(std::bit_cast<uint32_t>(data[i]), 0x00000c00u);
        ASSERT_EQ(std::bit_cast<uint32_t>(data[i + 2]), std::bit_cast<uint32_t>(-3.0f));
        ASSERT_EQ(std::bit_cast<uint32_t>(data[i + 3]), std::bit_cast<uint32_t>(16777216.0f));
      }
    }
  });
}

TEST_P(FloatModeTest, OfTheCallingThreadIsTheSameAfterwards) {
  run_ranks(2, Where::kThreads, [](const Rank& rank) {
    const Comm comm(rank);
    GetParam().set();
    const int rounding = std::fegetround();
    float value = 1;
    ASSERT_XCOLL(XCOLL_OK,
                 xcoll_all_reduce(comm, &value, &value, 1, XCOLL_F32, XCOLL_SUM, nullptr));
    EXPECT_EQ(std::fegetround(), rounding);
#if defined(__x86_64__)
    const unsigned control = _mm_getcsr() & 0xffc0;
    GetParam().set();
    EXPECT_EQ(_mm_getcsr() & 0xffc0, control);
#endif
  });
}

INSTANTIATE_TEST_SUITE_P(Modes, FloatModeTest, ::testing::ValuesIn(kFloatModes),
                         [](const auto& info) { return info.param.name; });

// ---- deadlines of what has not begun

TEST(DeadlineTest, ACallBehindAnotherThatWaitsEndsAtItsOwnDeadline) {
  Gate over;
  run_ranks(2, Where::kProcesses, [&](const Rank& rank) {
    const Comm comm(rank);  // a minute
    if (rank.is(1)) {
      over.wait();
      return;
    }
    float value = 1;
    const xcoll_op first = make_op(XCOLL_ALL_REDUCE, &value, 1, XCOLL_F32);
    xcoll_request* request = nullptr;
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &first, 1, nullptr, &request));
    xcoll_op second = make_op(XCOLL_BARRIER, nullptr, 0);
    second.timeout_ns = 200'000'000;
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT, xcoll_submit(comm, &second, 1, nullptr, nullptr));
    EXPECT_THAT(xcoll_last_error(),
                AllOf(HasSubstr("barrier #2 timed out after"),
                      HasSubstr("queued behind all-reduce #1 (f32 x 1, sum), which waits: rank 1"),
                      HasSubstr("is alive and has not entered")));
    EXPECT_EQ(comm.failure().culprit, 1);
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT, xcoll_request_wait(request, UINT64_MAX));
    xcoll_request_free(request);
    over.open();
  });
}

TEST(DeadlineTest, TheLongestDeadlineIsNever) {
  run_ranks(2, Where::kThreads, [](const Rank& rank) {
    const Comm comm(rank, UINT64_MAX / 1'000'000);
    ASSERT_XCOLL(XCOLL_OK, xcoll_comm_set_timeout(comm, UINT64_MAX));
    const xcoll_op op = make_op(XCOLL_BARRIER, nullptr, 0);
    xcoll_request* request = nullptr;
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, nullptr, &request));
    EXPECT_XCOLL(XCOLL_OK, xcoll_request_wait(request, UINT64_MAX));
    xcoll_request_free(request);
    EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
  });
}

// ---- refusals

TEST(RefusalTest, ASubmissionThatIsRefusedForWantOfAThreadNeverRuns) {
  run_ranks(1, Where::kProcesses, [](const Rank& rank) {
    const Comm comm(rank);
    deny_system_calls({SYS_clone, SYS_clone3}, EAGAIN);
    std::array<int32_t, 64> in{}, out{};
    in.fill(7);
    xcoll_op op = make_op(XCOLL_ALL_REDUCE, in.data(), in.size());
    op.recv = out.data();
    xcoll_request* request = nullptr;
    EXPECT_XCOLL(XCOLL_ERR_SYSTEM, xcoll_submit(comm, &op, 1, nullptr, &request));
    EXPECT_THAT(xcoll_last_error(),
                AllOf(HasSubstr("nothing was started"), HasSubstr("ulimit -u")));
    EXPECT_EQ(request, nullptr);
    EXPECT_EQ(xcoll_comm_sequence(comm), 0u);
    EXPECT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    EXPECT_THAT(out, Each(0));
  });
}

TEST(RefusalTest, AnArrayOfALongerStructureIsReadWithItsOwnStride) {
  run_ranks(1, Where::kThreads, [](const Rank& rank) {
    struct Longer {
      xcoll_op op;
      uint64_t newer = 0;
    };
    const Comm comm(rank);
    std::array<int32_t, 4> in{1, 2, 3, 4}, out{};
    Longer ops[2];
    for (int i = 0; i < 2; ++i) {
      ops[i].op = make_op(XCOLL_ALL_REDUCE, &in[static_cast<size_t>(2 * i)], 2);
      ops[i].op.recv = &out[static_cast<size_t>(2 * i)];
      ops[i].op.struct_size = sizeof(Longer);
    }
    EXPECT_XCOLL(XCOLL_OK, xcoll_submit(comm, &ops[0].op, 2, nullptr, nullptr));
    EXPECT_EQ(out, in);
    ops[1].newer = 1;
    EXPECT_XCOLL(XCOLL_ERR_UNKNOWN_FIELD, xcoll_submit(comm, &ops[0].op, 2, nullptr, nullptr));
    ops[1].newer = 0;
    ops[1].op.struct_size = sizeof(xcoll_op);
    EXPECT_XCOLL(XCOLL_ERR_STRUCT_SIZE, xcoll_submit(comm, &ops[0].op, 2, nullptr, nullptr));
    EXPECT_THAT(xcoll_last_error(), HasSubstr("operation 1 of the group"));
  });
}

TEST(RefusalTest, ARequestInAForkedChildIsTheParents) {
  run_ranks(2, Where::kProcesses, [](const Rank& rank) {
    const Comm comm(rank);
    int32_t value = 5;
    if (rank.is(1)) {
      ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
      EXPECT_XCOLL(XCOLL_OK, xcoll_send(comm, &value, 1, XCOLL_I32, 0, nullptr));
      return;
    }
    xcoll_op op = make_op(XCOLL_RECV, &value, 1);
    op.peer = 1;
    xcoll_request* request = nullptr;
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, nullptr, &request));
    const pid_t child = ::fork();
    if (child == 0) {
      const bool told = xcoll_request_wait(request, UINT64_MAX) == XCOLL_ERR_FORKED &&
                        xcoll_request_test(request) == XCOLL_ERR_FORKED;
      xcoll_request_free(request);
      ::_exit(told ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    EXPECT_XCOLL(XCOLL_OK, xcoll_request_wait(request, UINT64_MAX));
    xcoll_request_free(request);
  });
}

// ---- kernels and containers without pidfd_open

TEST(OldKernelTest, WithoutPidfdsADeathIsStillFound) {
  const std::vector<Ending> endings = run_processes(3, [](const Rank& rank) {
    deny_system_calls({SYS_pidfd_open}, ENOSYS);
    const Comm comm(rank);
    EXPECT_XCOLL(XCOLL_OK, xcoll_comm_async_error(comm));
    ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
    if (rank.is(2)) ::kill(::getpid(), SIGKILL);
    EXPECT_XCOLL(XCOLL_ERR_RANK_FAILED, xcoll_barrier(comm, nullptr));
    const xcoll_failure failure = comm.failure();
    EXPECT_EQ(failure.culprit, 2);
    EXPECT_EQ(failure.culprit_state, XCOLL_RANK_DEAD);
  });
  EXPECT_EQ(endings[0].exit_code, 0);
  EXPECT_EQ(endings[1].exit_code, 0);
}

}  // namespace
}  // namespace xcoll::testing
