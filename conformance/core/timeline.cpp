// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

uint64_t value_of(xhal_timeline* timeline) {
  uint64_t value = 0;
  xhal_timeline_query(timeline, 0, &value);
  return value;
}

bool readable(int fd, int timeout_ms) {
  pollfd p{fd, POLLIN, 0};
  return poll(&p, 1, timeout_ms) == 1;
}

TEST(Timeline, StandsAtItsInitialValue) {
  const Timeline timeline(41);
  EXPECT_EQ(value_of(timeline), 41u);
  EXPECT_EQ(xhal_timeline_query(timeline, 41, nullptr), XHAL_OK);
  EXPECT_EQ(xhal_timeline_query(timeline, 42, nullptr), XHAL_NOT_READY);
}

TEST(Timeline, OnlyGrows) {
  const Timeline timeline(5);
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, 9)));
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, 3)));
  EXPECT_EQ(value_of(timeline), 9u);
}

TEST(Timeline, HoldsTheLargestValue) {
  constexpr uint64_t largest = (uint64_t{1} << 63) - 1;
  const Timeline timeline;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_timeline_signal(timeline, largest + 1)));
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, largest - 1)));
  EXPECT_EQ(xhal_timeline_query(timeline, largest, nullptr), XHAL_NOT_READY);
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, largest)));
  EXPECT_EQ(xhal_timeline_query(timeline, largest, nullptr), XHAL_OK);
}

TEST(Timeline, WaitingForAReachedValueReturnsAtOnce) {
  const Timeline timeline(7);
  EXPECT_TRUE(ok(xhal_timeline_wait(timeline, 7, 0)));
}

TEST(Timeline, ATimeoutChangesNothing) {
  const Timeline timeline;
  EXPECT_TRUE(fails_with(XHAL_ERR_TIMEOUT, xhal_timeline_wait(timeline, 1, 0)));
  EXPECT_TRUE(fails_with(XHAL_ERR_TIMEOUT, xhal_timeline_wait(timeline, 1, 1000)));
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, 1)));
  EXPECT_TRUE(ok(xhal_timeline_wait(timeline, 1, 0)));
}

TEST(Timeline, WakesAWaiterOfAnotherThread) {
  const Timeline timeline;
  xhal_status status = XHAL_ERR_INTERNAL;
  std::thread waiter([&] { status = xhal_timeline_wait(timeline, 3, deadline_ns()); });
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, 3)));
  waiter.join();
  EXPECT_EQ(status, XHAL_OK);
}

TEST(Timeline, AStreamRaisesItAfterItsWork) {
  const Buffer buffer(1 << 20);
  const Stream stream;
  const Timeline timeline;
  ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 1 << 20, 1, 1)));
  ASSERT_TRUE(ok(xhal_stream_signal(stream, timeline, 12)));
  ASSERT_TRUE(ok(xhal_timeline_wait(timeline, 12, deadline_ns())));
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(1 << 20, 1)));
}

TEST(Timeline, AStreamsOwnCannotBeSignalledByOthers) {
  const Stream first, second;
  xhal_timeline* own = nullptr;
  ASSERT_TRUE(ok(xhal_stream_timeline(first, &own)));
  EXPECT_TRUE(fails_with(XHAL_ERR_PERMISSION, xhal_stream_signal(second, own, 1'000'000)));
}

TEST(Timeline, AStreamsOwnCannotBeDestroyed) {
  const Stream stream;
  xhal_timeline* own = nullptr;
  ASSERT_TRUE(ok(xhal_stream_timeline(stream, &own)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_timeline_destroy(own)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Timeline, WaitBeforeSignalOnOneThreadIsNoDeadlock) {
  const Buffer buffer(64);
  const Stream early, late;
  const Timeline timeline;
  ASSERT_TRUE(ok(xhal_stream_wait(early, timeline, 1)));
  ASSERT_TRUE(ok(xhal_stream_fill(early, buffer.address(), 64, 2, 1)));
  ASSERT_TRUE(ok(xhal_stream_fill(late, buffer.address(), 64, 1, 1)));
  ASSERT_TRUE(ok(xhal_stream_signal(late, timeline, 1)));
  ASSERT_TRUE(early.finishes());
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(64, 2)));
}

TEST(Timeline, WaitBeforeSignalFromTheHost) {
  const Stream stream;
  const Timeline timeline;
  std::atomic<bool> ran = false;
  ASSERT_TRUE(ok(xhal_stream_wait(stream, timeline, 1)));
  ASSERT_TRUE(ok(xhal_stream_host_call(
      stream, [](void* user, xhal_status) { *static_cast<std::atomic<bool>*>(user) = true; }, &ran,
      0)));
  EXPECT_FALSE(ran);
  ASSERT_TRUE(ok(xhal_timeline_signal(timeline, 1)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(ran);
}

TEST(Timeline, WaitBeforeSignalFromAnotherThread) {
  const Buffer buffer(64);
  const Stream waiting, signalling;
  const Timeline timeline;
  ASSERT_TRUE(ok(xhal_stream_wait(waiting, timeline, 1)));
  ASSERT_TRUE(ok(xhal_stream_fill(waiting, buffer.address(), 64, 8, 1)));
  std::thread other([&] { EXPECT_TRUE(ok(xhal_stream_signal(signalling, timeline, 1))); });
  EXPECT_TRUE(waiting.finishes());
  other.join();
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(64, 8)));
}

TEST(Timeline, AChainOfStreamsThatWaitForEachOtherRuns) {
  const Buffer buffer(64);
  std::vector<std::unique_ptr<Stream>> streams;
  const Timeline timeline;
  for (uint64_t i = 0; i < 16; ++i) streams.push_back(std::make_unique<Stream>());
  for (uint64_t i = 16; i-- > 0;) {  // the last link first
    ASSERT_TRUE(ok(xhal_stream_wait(*streams[i], timeline, i)));
    ASSERT_TRUE(ok(xhal_stream_fill(*streams[i], buffer.address(), 64, i, 1)));
    ASSERT_TRUE(ok(xhal_stream_signal(*streams[i], timeline, i + 1)));
  }
  ASSERT_TRUE(ok(xhal_timeline_wait(timeline, 16, deadline_ns())));
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(64, 15)));
}

TEST(Timeline, WaitManyWaitsForAll) {
  const Timeline a, b;
  xhal_timeline* both[] = {a, b};
  const uint64_t values[] = {1, 2};
  EXPECT_TRUE(ok(xhal_timeline_signal(a, 1)));
  EXPECT_TRUE(
      fails_with(XHAL_ERR_TIMEOUT, xhal_timeline_wait_many(both, values, 2, 0, 1000, nullptr)));
  EXPECT_TRUE(ok(xhal_timeline_signal(b, 2)));
  EXPECT_TRUE(ok(xhal_timeline_wait_many(both, values, 2, 0, deadline_ns(), nullptr)));
}

TEST(Timeline, WaitManyTellsWhichOneWasReached) {
  const Timeline a, b;
  xhal_timeline* both[] = {a, b};
  const uint64_t values[] = {1, 1};
  uint32_t which = 9;
  std::thread other([&] { xhal_timeline_signal(b, 1); });
  EXPECT_TRUE(ok(xhal_timeline_wait_many(both, values, 2, 1, deadline_ns(), &which)));
  other.join();
  EXPECT_EQ(which, 1u);
}

TEST(Timeline, WaitManyOfNothingReturnsAtOnce) {
  EXPECT_TRUE(ok(xhal_timeline_wait_many(nullptr, nullptr, 0, 0, 0, nullptr)));
}

struct Notice {
  std::atomic<int> calls = 0;
  std::atomic<xhal_status> status = XHAL_ERR_INTERNAL;
  static void call(void* user, xhal_status status) {
    auto* notice = static_cast<Notice*>(user);
    notice->status = status;
    ++notice->calls;
  }
};

TEST(Timeline, NotifyCallsOnceWhenTheValueIsReached) {
  const Timeline timeline;
  Notice notice;
  ASSERT_TRUE(ok(xhal_timeline_notify(timeline, 2, Notice::call, &notice)));
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, 1)));
  EXPECT_EQ(notice.calls, 0);
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, 2)));
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, 3)));
  EXPECT_EQ(notice.calls, 1);
  EXPECT_EQ(notice.status, XHAL_OK);
}

TEST(Timeline, NotifyCallsAtOnceWhenItIsReachedAlready) {
  const Timeline timeline(5);
  Notice notice;
  ASSERT_TRUE(ok(xhal_timeline_notify(timeline, 5, Notice::call, &notice)));
  EXPECT_EQ(notice.calls, 1);
}

TEST(Timeline, NotifyTellsTheFailure) {
  Timeline timeline;
  Notice notice;
  ASSERT_TRUE(ok(xhal_timeline_notify(timeline, 5, Notice::call, &notice)));
  ASSERT_TRUE(ok(xhal_timeline_destroy(timeline)));
  timeline.release();
  EXPECT_EQ(notice.calls, 1);
  EXPECT_EQ(notice.status, XHAL_ERR_ABANDONED);
}

TEST(Timeline, EventfdBecomesReadableWhenTheValueIsReached) {
  const Timeline timeline;
  int32_t fd = -1;
  ASSERT_TRUE(ok(xhal_timeline_eventfd(timeline, 1, &fd)));
  EXPECT_FALSE(readable(fd, 0));
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, 1)));
  EXPECT_TRUE(readable(fd, 60'000));
  close(fd);
}

TEST(Timeline, EventfdServesTheWorkOfAStream) {
  const Buffer buffer(1 << 20);
  const Stream stream;
  const Timeline timeline;
  int32_t fd = -1;
  ASSERT_TRUE(ok(xhal_timeline_eventfd(timeline, 1, &fd)));
  ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 1 << 20, 1, 1)));
  ASSERT_TRUE(ok(xhal_stream_signal(stream, timeline, 1)));
  EXPECT_TRUE(readable(fd, 60'000));
  close(fd);
  EXPECT_TRUE(stream.finishes());
}

TEST(Timeline, DestroyingItEndsItsWaitersWithAbandoned) {
  Timeline timeline;
  std::atomic<bool> began = false;
  xhal_status status = XHAL_OK;
  std::thread waiter([&] {
    began = true;
    began.notify_one();
    status = xhal_timeline_wait(timeline, 1, deadline_ns());
  });
  began.wait(false);
  // Whether the waiter sleeps already or comes to a destroyed timeline: it must not hang.
  EXPECT_TRUE(ok(xhal_timeline_destroy(timeline)));
  waiter.join();
  timeline.release();
  EXPECT_TRUE(status == XHAL_ERR_ABANDONED || status == XHAL_ERR_INVALID_HANDLE)
      << xhal_status_name(status);
}

TEST(Timeline, ImportedViewFollowsTheOriginal) {
  const Timeline timeline(3);
  int32_t fd = -1;
  uint64_t offset = 0;
  ASSERT_TRUE(ok(xhal_timeline_export(timeline, &fd, &offset)));
  xhal_timeline* view = nullptr;
  ASSERT_TRUE(ok(xhal_timeline_import(fd, offset, &view)));
  close(fd);
  EXPECT_EQ(xhal_timeline_query(view, 3, nullptr), XHAL_OK);
  EXPECT_EQ(xhal_timeline_query(view, 4, nullptr), XHAL_NOT_READY);
  EXPECT_TRUE(ok(xhal_timeline_signal(timeline, 4)));
  EXPECT_TRUE(ok(xhal_timeline_wait(view, 4, deadline_ns())));
  EXPECT_TRUE(fails_with(XHAL_ERR_PERMISSION, xhal_timeline_signal(view, 9)));
  EXPECT_TRUE(ok(xhal_timeline_destroy(view)));
}

}  // namespace
}  // namespace xhal::cts
