// SPDX-License-Identifier: Apache-2.0
// The failure path that every plugin sees, whatever it claims: a stream is told to wait for a value
// of a stream of the same device that has failed already. Without XHAL_CAP_WAIT_BEFORE_SIGNAL no
// other failure reaches a plugin from outside: libxhal holds the rest back.

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

class DependentFailure : public testing::Test {
 protected:
  void SetUp() override {
    Timeline never;
    ASSERT_TRUE(ok(xhal_stream_wait(origin_, never, 1)));
    ASSERT_TRUE(ok(xhal_event_record(origin_, 0, &failed_)));
    ASSERT_TRUE(ok(xhal_timeline_destroy(never)));
    never.release();
    ASSERT_TRUE(fails_with(XHAL_ERR_DEPENDENCY, xhal_event_wait(&failed_, deadline_ns())));
  }
  // A device may find the failure in the submission, or when the stream comes to it.
  bool accepted(xhal_status status) {
    if (status == XHAL_OK) return true;
    EXPECT_TRUE(fails_with(XHAL_ERR_DEPENDENCY, status));
    return false;
  }
  void wait_for_the_failure() { (void)accepted(xhal_stream_wait_event(stream_, &failed_)); }
  testing::AssertionResult has_failed() {
    return fails_with(XHAL_ERR_DEPENDENCY, xhal_stream_synchronize(stream_, deadline_ns()));
  }
  Stream origin_, stream_;
  xhal_event failed_{};
};

TEST_F(DependentFailure, IsADependencyWithItsOriginAsTheCause) {
  wait_for_the_failure();
  ASSERT_TRUE(has_failed());
  auto error = versioned<xhal_error>();
  ASSERT_EQ(xhal_last_error(&error), XHAL_OK);
  EXPECT_EQ(error.cause, XHAL_ERR_ABANDONED)
      << "the cause is what failed first, not what is between";
}

TEST_F(DependentFailure, DropsTheWorkBehindIt) {
  const Buffer buffer(64);
  const auto bytes = counting(64);
  buffer.write(bytes.data(), 64);
  {
    const Busy busy(stream_);
    wait_for_the_failure();
    (void)accepted(xhal_stream_fill(stream_, buffer.address(), 64, 0xdd, 1));
  }
  EXPECT_TRUE(has_failed());
  EXPECT_TRUE(same(buffer.read(), bytes));
}

struct Seen {
  std::mutex mutex;
  std::condition_variable changed;
  int calls = 0;
  xhal_status status = XHAL_OK;

  static void call(void* user, xhal_status status) {
    auto* seen = static_cast<Seen*>(user);
    const std::lock_guard lock(seen->mutex);
    seen->status = status;
    ++seen->calls;
    seen->changed.notify_all();
  }
  bool was_called() {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::nanoseconds(deadline_ns()),
                            [&] { return calls > 0; });
  }
};

TEST_F(DependentFailure, HostCallsBehindItAreCalledOnceWithTheFailure) {
  Seen seen;
  bool taken = false;
  {
    const Busy busy(stream_);
    wait_for_the_failure();
    taken = accepted(xhal_stream_host_call(stream_, Seen::call, &seen, 0));
  }
  if (taken) {
    ASSERT_TRUE(seen.was_called()) << "the callback of a dropped host call was not called";
    EXPECT_EQ(seen.status, XHAL_ERR_DEPENDENCY);
  }
  EXPECT_TRUE(has_failed());
  EXPECT_TRUE(ok(xhal_stream_recover(stream_)));
  EXPECT_EQ(seen.calls, taken ? 1 : 0);
}

TEST_F(DependentFailure, FailsTheTimelinesTheStreamWasToSignal) {
  const Timeline promised(4);
  {
    const Busy busy(stream_);
    wait_for_the_failure();
    (void)accepted(xhal_stream_signal(stream_, promised, 5));
  }
  EXPECT_TRUE(fails_with(XHAL_ERR_DEPENDENCY, xhal_timeline_wait(promised, 5, deadline_ns())));
  EXPECT_EQ(xhal_timeline_query(promised, 4, nullptr), XHAL_OK);
}

TEST_F(DependentFailure, KeepsWhatWasReached) {
  xhal_event before{};
  ASSERT_TRUE(ok(xhal_event_record(stream_, 0, &before)));
  ASSERT_TRUE(ok(xhal_event_wait(&before, deadline_ns())));
  wait_for_the_failure();
  ASSERT_TRUE(has_failed());
  EXPECT_EQ(xhal_event_query(&before), XHAL_OK);
}

TEST_F(DependentFailure, SubmissionsReturnItUntilRecovery) {
  const Buffer buffer(64);
  wait_for_the_failure();
  ASSERT_TRUE(has_failed());
  EXPECT_TRUE(
      fails_with(XHAL_ERR_DEPENDENCY, xhal_stream_fill(stream_, buffer.address(), 64, 1, 1)));
}

TEST_F(DependentFailure, RecoveryMakesTheStreamUsableAndAbleToFailAgain) {
  const Buffer buffer(64);
  for (uint64_t round = 1; round <= 3; ++round) {
    wait_for_the_failure();
    ASSERT_TRUE(has_failed()) << "round " << round;
    ASSERT_TRUE(ok(xhal_stream_recover(stream_)));
    ASSERT_TRUE(ok(xhal_stream_fill(stream_, buffer.address(), 64, round, 1))) << "recovered";
    ASSERT_TRUE(stream_.finishes()) << "recovered";
    EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(64, static_cast<uint8_t>(round))));
  }
}

}  // namespace
}  // namespace xhal::cts
