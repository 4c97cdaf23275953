// SPDX-License-Identifier: Apache-2.0
// Failure is a state of a timeline: what was reached stays, the rest carries the first failure, and
// the stream recovers.
#include <atomic>

#include <memory>
#include "harness/cts.hpp"
#include "xhal/catalog.h"

namespace xhal::cts {
namespace {

// Any device can be failed from outside: a stream waits for a timeline that is then destroyed
// below the value.
class Failure : public testing::Test {
 protected:
  void fail_stream() {
    Timeline never;
    ASSERT_TRUE(ok(xhal_stream_wait(stream_, never, 1)));
    ASSERT_TRUE(ok(xhal_timeline_destroy(never)));
    never.release();
  }
  xhal_event record() {
    xhal_event event{};
    EXPECT_TRUE(ok(xhal_event_record(stream_, 0, &event)));
    return event;
  }
  Stream stream_;
};

TEST_F(Failure, IsADependencyWithTheOriginAsItsCause) {
  fail_stream();
  EXPECT_TRUE(fails_with(XHAL_ERR_DEPENDENCY, xhal_stream_synchronize(stream_, deadline_ns())));
  auto error = versioned<xhal_error>();
  ASSERT_EQ(xhal_last_error(&error), XHAL_OK);
  EXPECT_EQ(error.cause, XHAL_ERR_ABANDONED);
}

TEST_F(Failure, WhatWasReachedStaysReached) {
  const auto before = record();
  ASSERT_TRUE(ok(xhal_event_wait(&before, deadline_ns())));
  fail_stream();
  EXPECT_NE(xhal_stream_synchronize(stream_, deadline_ns()), XHAL_OK);
  EXPECT_EQ(xhal_event_query(&before), XHAL_OK);
  EXPECT_TRUE(ok(xhal_event_wait(&before, 0)));
}

TEST_F(Failure, WaitersForLaterValuesGetIt) {
  Timeline never;
  ASSERT_TRUE(ok(xhal_stream_wait(stream_, never, 1)));
  const auto after = record();
  ASSERT_TRUE(ok(xhal_timeline_destroy(never)));
  never.release();
  EXPECT_TRUE(fails_with(XHAL_ERR_DEPENDENCY, xhal_event_wait(&after, deadline_ns())));
}

TEST_F(Failure, DropsTheWorkBehindIt) {
  const Buffer buffer(64);
  const auto bytes = counting(64);
  buffer.write(bytes.data(), 64);
  Timeline never;
  ASSERT_TRUE(ok(xhal_stream_wait(stream_, never, 1)));
  ASSERT_TRUE(ok(xhal_stream_fill(stream_, buffer.address(), 64, 0xdd, 1)));
  ASSERT_TRUE(ok(xhal_timeline_destroy(never)));
  never.release();
  EXPECT_NE(xhal_stream_synchronize(stream_, deadline_ns()), XHAL_OK);
  EXPECT_TRUE(same(buffer.read(), bytes));
}

TEST_F(Failure, HostCallsOfDroppedWorkAreCalledOnceWithIt) {
  struct Seen {
    std::atomic<int> calls = 0;
    std::atomic<xhal_status> status = XHAL_OK;
  } seen;
  const Timeline called;
  Timeline never;
  ASSERT_TRUE(ok(xhal_stream_wait(stream_, never, 1)));
  ASSERT_TRUE(ok(xhal_stream_host_call(
      stream_,
      [](void* user, xhal_status status) {
        auto* s = static_cast<Seen*>(user);
        s->status = status;
        ++s->calls;
        s->calls.notify_all();
      },
      &seen, 0)));
  ASSERT_TRUE(ok(xhal_timeline_destroy(never)));
  never.release();
  seen.calls.wait(0);
  EXPECT_NE(xhal_stream_synchronize(stream_, deadline_ns()), XHAL_OK);
  EXPECT_EQ(seen.calls, 1);
  EXPECT_EQ(seen.status, XHAL_ERR_DEPENDENCY);
}

TEST_F(Failure, SubmissionsReturnItUntilRecovery) {
  const Buffer buffer(64);
  fail_stream();
  ASSERT_NE(xhal_stream_synchronize(stream_, deadline_ns()), XHAL_OK);
  xhal_event event{};
  EXPECT_TRUE(
      fails_with(XHAL_ERR_DEPENDENCY, xhal_stream_fill(stream_, buffer.address(), 64, 1, 1)));
  EXPECT_TRUE(fails_with(XHAL_ERR_DEPENDENCY, xhal_event_record(stream_, 0, &event)));
}

TEST_F(Failure, SpreadsToStreamsThatWaitForIt) {
  const Stream dependent;
  Timeline never;
  ASSERT_TRUE(ok(xhal_stream_wait(stream_, never, 1)));
  const auto event = record();
  ASSERT_TRUE(ok(xhal_stream_wait_event(dependent, &event)));
  ASSERT_TRUE(ok(xhal_timeline_destroy(never)));
  never.release();
  EXPECT_TRUE(fails_with(XHAL_ERR_DEPENDENCY, xhal_stream_synchronize(dependent, deadline_ns())));
}

TEST_F(Failure, FailsTheTimelinesTheStreamWasToSignal) {
  const Timeline promised(4);
  Timeline never;
  ASSERT_TRUE(ok(xhal_stream_wait(stream_, never, 1)));
  ASSERT_TRUE(ok(xhal_stream_signal(stream_, promised, 5)));
  ASSERT_TRUE(ok(xhal_timeline_destroy(never)));
  never.release();
  EXPECT_TRUE(fails_with(XHAL_ERR_DEPENDENCY, xhal_timeline_wait(promised, 5, deadline_ns())));
  EXPECT_EQ(xhal_timeline_query(promised, 4, nullptr), XHAL_OK);
}

TEST_F(Failure, LeavesOtherStreamsAlone) {
  const Buffer buffer(64);
  const Stream other;
  fail_stream();
  ASSERT_NE(xhal_stream_synchronize(stream_, deadline_ns()), XHAL_OK);
  EXPECT_TRUE(ok(xhal_stream_fill(other, buffer.address(), 64, 1, 1)));
  EXPECT_TRUE(other.finishes());
}

TEST_F(Failure, RecoveryMakesTheStreamUsableAgain) {
  const Buffer buffer(64);
  fail_stream();
  ASSERT_NE(xhal_stream_synchronize(stream_, deadline_ns()), XHAL_OK);
  ASSERT_TRUE(ok(xhal_stream_recover(stream_)));
  ASSERT_TRUE(ok(xhal_stream_fill(stream_, buffer.address(), 64, 0x33, 1)));
  ASSERT_TRUE(stream_.finishes());
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(64, 0x33)));
}

TEST_F(Failure, RecoveryGivesAFreshTimelineAndTheOldOneKeepsIt) {
  Timeline never;
  ASSERT_TRUE(ok(xhal_stream_wait(stream_, never, 1)));
  const auto lost = record();
  ASSERT_TRUE(ok(xhal_timeline_destroy(never)));
  never.release();
  ASSERT_NE(xhal_event_wait(&lost, deadline_ns()), XHAL_OK);
  ASSERT_TRUE(ok(xhal_stream_recover(stream_)));
  const auto fresh = record();
  EXPECT_NE(fresh.timeline, lost.timeline);
  EXPECT_TRUE(ok(xhal_event_wait(&fresh, deadline_ns())));
  EXPECT_TRUE(fails_with(XHAL_ERR_DEPENDENCY, xhal_event_wait(&lost, 0)));
}

TEST_F(Failure, ManyRoundsOfFailureAndRecoveryWork) {
  for (int round = 0; round < 20; ++round) {
    fail_stream();
    ASSERT_NE(xhal_stream_synchronize(stream_, deadline_ns()), XHAL_OK);
    ASSERT_TRUE(ok(xhal_stream_recover(stream_)));
    ASSERT_TRUE(stream_.finishes());
  }
}

// stream.h, xhal_stream_abort.
class Abort : public Failure {
 protected:
  void SetUp() override {
    if (!can(XHAL_CAP_ABORT)) GTEST_SKIP() << "the device does not claim abort";
  }
};

TEST_F(Abort, DropsWhatWaitsAndFailsTheStream) {
  const Buffer buffer(64);
  const auto bytes = counting(64);
  buffer.write(bytes.data(), 64);
  std::atomic<xhal_status> told = XHAL_OK;
  const Timeline later;
  ASSERT_TRUE(ok(xhal_stream_wait(stream_, later, 1)));
  ASSERT_TRUE(ok(xhal_stream_fill(stream_, buffer.address(), 64, 0xdd, 1)));
  ASSERT_TRUE(ok(xhal_stream_host_call(
      stream_, [](void* user, xhal_status s) { *static_cast<std::atomic<xhal_status>*>(user) = s; },
      &told, 0)));
  const auto after = record();
  ASSERT_TRUE(ok(xhal_stream_abort(stream_)));
  EXPECT_TRUE(fails_with(XHAL_ERR_DEVICE, xhal_event_wait(&after, deadline_ns())));
  EXPECT_TRUE(ok(xhal_timeline_signal(later, 1)));
  EXPECT_TRUE(fails_with(XHAL_ERR_DEVICE, xhal_stream_fill(stream_, buffer.address(), 64, 1, 1)))
      << "it refuses until it is recovered";
  ASSERT_TRUE(ok(xhal_stream_recover(stream_)));
  EXPECT_EQ(told, XHAL_ERR_DEVICE) << "a dropped host call is called with the failure";
  EXPECT_TRUE(same(buffer.read(), bytes)) << "what was aborted never runs";
  ASSERT_TRUE(ok(xhal_stream_fill(stream_, buffer.address(), 64, 0x33, 1)));
  ASSERT_TRUE(stream_.finishes());
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(64, 0x33)));
}

TEST_F(Abort, DropsAWaitWithNothingBehindIt) {
  const Timeline later;
  ASSERT_TRUE(ok(xhal_stream_wait(stream_, later, 1)));
  ASSERT_TRUE(ok(xhal_stream_abort(stream_)));
  EXPECT_TRUE(fails_with(XHAL_ERR_DEVICE, xhal_stream_synchronize(stream_, deadline_ns())));
}

TEST_F(Abort, OfAStreamThatHasNothingToDoDoesNothing) {
  EXPECT_TRUE(ok(xhal_stream_abort(stream_)));
  EXPECT_TRUE(stream_.finishes());
  fail_stream();
  ASSERT_NE(xhal_stream_synchronize(stream_, deadline_ns()), XHAL_OK);
  EXPECT_TRUE(ok(xhal_stream_abort(stream_))) << "likewise when it has failed";
}

TEST_F(Abort, LeavesOtherStreamsAlone) {
  const Buffer buffer(64);
  const Stream other;
  const Timeline later;
  ASSERT_TRUE(ok(xhal_stream_wait(stream_, later, 1)));
  ASSERT_TRUE(ok(xhal_stream_wait(other, later, 1)));
  ASSERT_TRUE(ok(xhal_stream_fill(other, buffer.address(), 64, 0x44, 1)));
  ASSERT_TRUE(ok(xhal_stream_abort(stream_)));
  ASSERT_TRUE(ok(xhal_timeline_signal(later, 1)));
  EXPECT_TRUE(other.finishes());
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(64, 0x44)));
}

// An operation that fails on the device itself, where the plugin has one: an index
// that lies outside.
class OperatorFailure : public testing::Test {
 protected:
  void SetUp() override {
    xhal_tensor_desc rows{}, index{}, out{};
    rows.code = out.code = XHAL_CODE_FLOAT;
    rows.bits = out.bits = 32;
    index.code = XHAL_CODE_INT;
    index.bits = 64;
    rows.lanes = out.lanes = index.lanes = 1;
    rows.ndim = out.ndim = 2;
    index.ndim = 1;
    rows.sizes[0] = 4;
    index.sizes[0] = out.sizes[0] = 2;
    rows.sizes[1] = out.sizes[1] = 8;
    rows.strides[0] = out.strides[0] = 8;
    rows.strides[1] = out.strides[1] = index.strides[0] = 1;
    const xhal_tensor_desc operands[] = {rows, index, out};
    const uint32_t groups[] = {1, 1, 1};
    auto info = versioned<xhal_op_info>();
    info.id = XHAL_OP_index_select;
    info.group_count = info.operand_count = 3;
    info.group_sizes = groups;
    info.operands = operands;
    const auto status = xhal_op_prepare(context(), &info, &op_);
    if (status == XHAL_ERR_UNSUPPORTED)
      GTEST_SKIP() << "the plugin has no operator that can fail on the device (index_select)";
    ASSERT_TRUE(ok(status));
    const std::vector<float> zeros(32, 0);
    rows_.write(zeros.data(), 128);
  }
  void TearDown() override {
    if (op_ != nullptr) xhal_op_destroy(op_);
  }
  xhal_status launch(xhal_stream* stream, int64_t index) {
    const int64_t indices[] = {0, index};
    indices_.write(indices, sizeof indices);
    const uint64_t addresses[] = {rows_.address(), indices_.address(), out_.address()};
    auto properties = versioned<xhal_op_properties>();
    EXPECT_TRUE(ok(xhal_op_query(op_, &properties, nullptr, 0)));
    if (properties.workspace_bytes > 0)
      workspace_ = std::make_unique<Buffer>(properties.workspace_bytes);
    return xhal_op_launch(stream, op_, addresses, 3, nullptr, 0,
                          workspace_ ? workspace_->address() : 0);
  }
  xhal_op* op_ = nullptr;
  Buffer rows_{128}, indices_{16}, out_{64};
  std::unique_ptr<Buffer> workspace_;
};

TEST_F(OperatorFailure, NamesTheOperation) {
  const Stream stream;
  const auto launched = launch(stream, 99);
  if (launched == XHAL_OK) {
    EXPECT_TRUE(fails_with(XHAL_ERR_DEVICE, xhal_stream_synchronize(stream, deadline_ns())));
  } else {
    EXPECT_TRUE(fails_with(XHAL_ERR_DEVICE, launched));
  }
  auto error = versioned<xhal_error>();
  ASSERT_EQ(xhal_last_error(&error), XHAL_OK);
  const std::string words = std::string(error.operation.data, error.operation.size) + " " +
                            std::string(error.text.data, error.text.size);
  EXPECT_NE(words.find("index_select"), std::string::npos) << words;
  EXPECT_EQ(error.scope, static_cast<uint32_t>(XHAL_SCOPE_OPERATION));
}

TEST_F(OperatorFailure, LeavesTheDeviceUsable) {
  const Stream stream;
  (void)launch(stream, 99);
  EXPECT_NE(xhal_stream_synchronize(stream, deadline_ns()), XHAL_OK);
  ASSERT_TRUE(ok(xhal_stream_recover(stream)));
  ASSERT_TRUE(ok(launch(stream, 3)));
  EXPECT_TRUE(stream.finishes());
}

TEST_F(OperatorFailure, SpreadsAsADependency) {
  const Stream stream, dependent;
  const Timeline gate;
  ASSERT_TRUE(ok(xhal_stream_wait(stream, gate, 1)));
  ASSERT_TRUE(ok(launch(stream, -50)));
  xhal_event event{};
  ASSERT_TRUE(ok(xhal_event_record(stream, 0, &event)));
  ASSERT_TRUE(ok(xhal_stream_wait_event(dependent, &event)));
  ASSERT_TRUE(ok(xhal_timeline_signal(gate, 1)));
  EXPECT_TRUE(fails_with(XHAL_ERR_DEPENDENCY, xhal_stream_synchronize(dependent, deadline_ns())));
  auto error = versioned<xhal_error>();
  ASSERT_EQ(xhal_last_error(&error), XHAL_OK);
  EXPECT_EQ(error.cause, XHAL_ERR_DEVICE);
}

}  // namespace
}  // namespace xhal::cts
