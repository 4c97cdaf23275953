// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <memory>
#include <thread>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

xhal_event record(xhal_stream* stream, uint32_t flags = 0) {
  xhal_event event{};
  EXPECT_TRUE(ok(xhal_event_record(stream, flags, &event)));
  return event;
}

TEST(Event, NeverRecordedCountsAsReached) {
  const xhal_event event{};
  EXPECT_EQ(xhal_event_query(&event), XHAL_OK);
  EXPECT_TRUE(ok(xhal_event_wait(&event, 0)));
}

TEST(Event, IsReachedAfterTheWorkBeforeIt) {
  const Buffer buffer(1 << 20);
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 1 << 20, 4, 1)));
  const auto event = record(stream);
  ASSERT_TRUE(ok(xhal_event_wait(&event, deadline_ns())));
  EXPECT_EQ(xhal_event_query(&event), XHAL_OK);
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(1 << 20, 4)));
}

TEST(Event, IsNotReadyWhileItsStreamWaits) {
  const Stream stream;
  const Timeline gate;
  ASSERT_TRUE(ok(xhal_stream_wait(stream, gate, 1)));
  const auto event = record(stream);
  EXPECT_EQ(xhal_event_query(&event), XHAL_NOT_READY);
  EXPECT_TRUE(fails_with(XHAL_ERR_TIMEOUT, xhal_event_wait(&event, 1000)));
  ASSERT_TRUE(ok(xhal_timeline_signal(gate, 1)));
  EXPECT_TRUE(ok(xhal_event_wait(&event, deadline_ns())));
}

TEST(Event, CoversOnlyWhatWasSubmittedBeforeIt) {
  const Stream stream;
  const Timeline gate;
  const auto event = record(stream);
  ASSERT_TRUE(ok(xhal_stream_wait(stream, gate, 1)));
  EXPECT_TRUE(ok(xhal_event_wait(&event, deadline_ns())));
  ASSERT_TRUE(ok(xhal_timeline_signal(gate, 1)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Event, ValuesOfAStreamRise) {
  const Stream stream;
  const auto first = record(stream), second = record(stream);
  EXPECT_EQ(first.timeline, second.timeline);
  EXPECT_LT(first.value, second.value);
}

TEST(Event, StaysAnswerableAfterItsStreamIsDestroyed) {
  xhal_event event{};
  {
    const Stream stream;
    event = record(stream);
  }
  EXPECT_EQ(xhal_event_query(&event), XHAL_OK);
}

TEST(Event, OrdersStreams) {
  const Buffer buffer(1 << 20);
  const Stream first, second;
  for (uint64_t round = 1; round <= 20; ++round) {
    ASSERT_TRUE(ok(xhal_stream_fill(first, buffer.address(), 1 << 20, round, 1)));
    const auto filled = record(first);
    ASSERT_TRUE(ok(xhal_stream_wait_event(second, &filled)));
    std::vector<uint8_t> bytes(1 << 20);
    ASSERT_TRUE(ok(xhal_stream_copy(second, reinterpret_cast<uintptr_t>(bytes.data()),
                                    buffer.address(), bytes.size())));
    const auto copied = record(second);
    ASSERT_TRUE(ok(xhal_stream_wait_event(first, &copied)));
    ASSERT_TRUE(ok(xhal_event_wait(&copied, deadline_ns())));
    ASSERT_TRUE(same(bytes, std::vector<uint8_t>(1 << 20, static_cast<uint8_t>(round))));
  }
}

TEST(Event, WaitingForOneThatWasNeverRecordedIsNothing) {
  const Stream stream;
  const xhal_event event{};
  EXPECT_TRUE(ok(xhal_stream_wait_event(stream, &event)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Event, TimedEventsMeasureTheTimeBetween) {
  if (!can(XHAL_CAP_TIMESTAMP)) GTEST_SKIP() << "the device does not claim timestamps";
  const Buffer buffer(1 << 20);
  const Stream stream;
  const auto start = record(stream, XHAL_EVENT_TIMED);
  ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 1 << 20, 1, 1)));
  const auto end = record(stream, XHAL_EVENT_TIMED);
  EXPECT_NE(start.timestamp_slot, 0u);
  ASSERT_TRUE(stream.finishes());
  int64_t elapsed = -1, backwards = 1;
  ASSERT_TRUE(ok(xhal_event_elapsed(&start, &end, &elapsed)));
  EXPECT_GE(elapsed, 0);
  ASSERT_TRUE(ok(xhal_event_elapsed(&end, &start, &backwards)));
  EXPECT_EQ(backwards, -elapsed);
}

uint64_t monotonic_ns() {
  return static_cast<uint64_t>(
      std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

// What was measured lies between what the host saw at least and at most, whatever the load.
TEST(Event, TimedEventsRunAtTheRateOfTheHostsClock) {
  if (!can(XHAL_CAP_TIMESTAMP)) GTEST_SKIP() << "the device does not claim timestamps";
  const Buffer buffer(1 << 20);
  const Stream stream;
  const uint64_t before = monotonic_ns();
  const auto start = record(stream, XHAL_EVENT_TIMED);
  ASSERT_TRUE(ok(xhal_event_wait(&start, deadline_ns())));
  const uint64_t started = monotonic_ns();
  uint64_t last = started;
  while (last < started + 50'000'000) {
    ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 1 << 20, 1, 1)));
    ASSERT_TRUE(stream.finishes());
    last = monotonic_ns();
  }
  const auto end = record(stream, XHAL_EVENT_TIMED);
  ASSERT_TRUE(ok(xhal_event_wait(&end, deadline_ns())));
  const uint64_t after = monotonic_ns();
  int64_t elapsed = 0;
  ASSERT_TRUE(ok(xhal_event_elapsed(&start, &end, &elapsed)));
  EXPECT_GT(elapsed, static_cast<int64_t>((last - started) / 2))
      << "ns of the device between two events, at least " << last - started << " of the host's";
  EXPECT_LT(elapsed, static_cast<int64_t>((after - before) * 2))
      << "ns of the device between two events, at most " << after - before << " of the host's";
}

TEST(Event, IsNotReadyWhileTheWorkBeforeItRuns) {
  const Stream stream;
  Busy busy(stream);
  const auto event = record(stream);
  if (busy.passed()) GTEST_SKIP() << "the device works inside of the submission";
  EXPECT_EQ(xhal_event_query(&event), XHAL_NOT_READY);
  busy.open();
  EXPECT_TRUE(ok(xhal_event_wait(&event, deadline_ns())));
}

TEST(Event, HoldsAStreamThatWaitsForWorkThatRuns) {
  const Stream first, second;
  Busy busy(first);
  const auto event = record(first);
  ASSERT_TRUE(ok(xhal_stream_wait_event(second, &event)));
  const auto behind = record(second);
  if (busy.passed()) GTEST_SKIP() << "the device works inside of the submission";
  EXPECT_EQ(xhal_event_query(&behind), XHAL_NOT_READY);
  busy.open();
  EXPECT_TRUE(ok(xhal_event_wait(&behind, deadline_ns())));
}

TEST(Event, ElapsedNeedsTimedEvents) {
  const Stream stream;
  const auto untimed = record(stream);
  ASSERT_TRUE(stream.finishes());
  int64_t elapsed = 0;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_event_elapsed(&untimed, &untimed, &elapsed)));
}

TEST(Event, ElapsedIsNotReadyBeforeBothAreReached) {
  if (!can(XHAL_CAP_TIMESTAMP)) GTEST_SKIP() << "the device does not claim timestamps";
  const Stream stream;
  const Timeline gate;
  const auto start = record(stream, XHAL_EVENT_TIMED);
  ASSERT_TRUE(ok(xhal_stream_wait(stream, gate, 1)));
  const auto end = record(stream, XHAL_EVENT_TIMED);
  int64_t elapsed = 0;
  EXPECT_EQ(xhal_event_elapsed(&start, &end, &elapsed), XHAL_NOT_READY);
  ASSERT_TRUE(ok(xhal_timeline_signal(gate, 1)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Event, TimesAreOverwrittenWhenTheRingHasComeRound) {
  if (!can(XHAL_CAP_TIMESTAMP)) GTEST_SKIP() << "the device does not claim timestamps";
  uint64_t ring = 0;
  if (xhal_device_limit(device(), XHAL_LIMIT_TIMESTAMP_RING, &ring) != XHAL_OK ||
      ring > (1 << 20)) {
    GTEST_SKIP() << "the ring is too long to go round";
  }
  const Stream stream;
  const auto old = record(stream, XHAL_EVENT_TIMED);
  for (uint64_t i = 0; i < ring; ++i) record(stream, XHAL_EVENT_TIMED);
  const auto recent = record(stream, XHAL_EVENT_TIMED);
  ASSERT_TRUE(stream.finishes());
  int64_t elapsed = 0;
  EXPECT_TRUE(fails_with(XHAL_ERR_EXPIRED, xhal_event_elapsed(&old, &recent, &elapsed)));
  EXPECT_EQ(xhal_event_query(&old), XHAL_OK);
}

TEST(Event, UnknownFlagsAreRefused) {
  const Stream stream;
  xhal_event event{};
  EXPECT_TRUE(fails_with(XHAL_ERR_UNKNOWN_FIELD, xhal_event_record(stream, 0x80, &event)));
}

TEST(Event, RecordsFromManyThreadsAreAllReached) {
  const Stream stream;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        const auto event = record(stream);
        EXPECT_TRUE(ok(xhal_event_wait(&event, deadline_ns())));
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace xhal::cts
