// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <memory>
#include <thread>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

uint64_t pointer(const void* p) { return reinterpret_cast<uintptr_t>(p); }

TEST(Stream, AnEmptyStreamIsFinished) { EXPECT_TRUE(Stream().finishes()); }

TEST(Stream, WorkRunsInTheOrderOfItsSubmission) {
  const Buffer buffer(4096);
  const Stream stream;
  for (uint64_t value = 1; value <= 50; ++value) {
    ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 4096, value, 1)));
  }
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(4096, 50)));
}

TEST(Stream, CopiesOnTheDevice) {
  const Buffer a(10'000), b(10'000);
  const auto bytes = counting(10'000);
  a.write(bytes.data(), bytes.size());
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_copy(stream, b.address(), a.address(), 10'000)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(b.read(), bytes));
}

TEST(Stream, CopiesAnyPartOfOddLength) {
  const Buffer a(1000), b(1000);
  const auto bytes = counting(1000);
  a.write(bytes.data(), bytes.size());
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_fill(stream, b.address(), 1000, 0xee, 1)));
  ASSERT_TRUE(ok(xhal_stream_copy(stream, b.address() + 7, a.address() + 13, 501)));
  ASSERT_TRUE(stream.finishes());
  std::vector<uint8_t> expected(1000, 0xee);
  std::copy_n(bytes.begin() + 13, 501, expected.begin() + 7);
  EXPECT_TRUE(same(b.read(), expected));
}

TEST(Stream, CopiesFromHostToHost) {
  const auto bytes = counting(777);
  std::vector<uint8_t> to(777);
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_copy(stream, pointer(to.data()), pointer(bytes.data()), 777)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(to, bytes));
}

TEST(Stream, ACopyOfNothingIsLegal) {
  const Buffer buffer(64);
  const Stream stream;
  EXPECT_TRUE(ok(xhal_stream_copy(stream, buffer.address(), buffer.address() + 32, 0)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Stream, ACopyThatLeavesItsAllocationIsRefused) {
  const Buffer buffer(4096);
  std::vector<uint8_t> host(8192);
  const Stream stream;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT,
                 xhal_stream_copy(stream, pointer(host.data()), buffer.address() + 100, 4096)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_stream_copy(stream, buffer.address() + 1,
                                                                     pointer(host.data()), 4096)));
  // Also where the range that it would take overlaps the other one.
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT,
                         xhal_stream_copy(stream, buffer.address() + 200, buffer.address(), 4096)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Stream, ACopyOntoAnOverlappingRangeIsRefused) {
  const Buffer buffer(4096);
  const Stream stream;
  EXPECT_TRUE(fails_with(XHAL_ERR_OVERLAP,
                         xhal_stream_copy(stream, buffer.address() + 1, buffer.address(), 100)));
  EXPECT_TRUE(ok(xhal_stream_copy(stream, buffer.address(), buffer.address(), 100)));
  EXPECT_TRUE(stream.finishes());
}

class FillPattern : public testing::TestWithParam<uint32_t> {};

TEST_P(FillPattern, RepeatsTheLowBytesOfThePattern) {
  const uint32_t width = GetParam();
  constexpr uint64_t kPattern = 0x8877665544332211;
  const Buffer buffer(2048);
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 2048, 0, 1)));
  ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address() + 8, 1000, kPattern, width)));
  ASSERT_TRUE(stream.finishes());
  std::vector<uint8_t> expected(2048, 0);
  for (size_t i = 0; i < 1000; ++i)
    expected[8 + i] = static_cast<uint8_t>(kPattern >> i % width * 8);
  EXPECT_TRUE(same(buffer.read(), expected));
}
INSTANTIATE_TEST_SUITE_P(Width, FillPattern, testing::Values(1u, 2u, 4u, 8u));

TEST(Stream, AFillOfAnotherWidthIsRefused) {
  const Buffer buffer(64);
  const Stream stream;
  for (const uint32_t width : {0u, 3u, 16u}) {
    EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT,
                           xhal_stream_fill(stream, buffer.address(), 48, 0, width)))
        << width;
  }
  EXPECT_TRUE(stream.finishes());
}

TEST(Stream, AFillThatIsNoMultipleOfItsPatternIsRefused) {
  const Buffer buffer(64);
  const Stream stream;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_stream_fill(stream, buffer.address(), 7, 0, 4)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT,
                         xhal_stream_fill(stream, buffer.address() + 2, 8, 0, 4)));
}

TEST(Stream, AFillOutsideOfAllMemoryIsRefused) {
  const Buffer buffer(4096);
  const Stream stream;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT,
                         xhal_stream_fill(stream, buffer.address(), uint64_t{1} << 40, 0, 1)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Stream, HostCallsRunInStreamOrder) {
  const Buffer buffer(64);
  const Stream stream;
  std::vector<uint8_t> seen(64);
  std::atomic<int> calls = 0;
  ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 64, 9, 1)));
  ASSERT_TRUE(ok(xhal_stream_copy(stream, pointer(seen.data()), buffer.address(), 64)));
  struct Look {
    std::vector<uint8_t>* seen;
    std::atomic<int>* calls;
    bool right;
  } look{&seen, &calls, false};
  ASSERT_TRUE(ok(xhal_stream_host_call(
      stream,
      [](void* user, xhal_status status) {
        auto* l = static_cast<Look*>(user);
        l->right = status == XHAL_OK && *l->seen == std::vector<uint8_t>(64, 9);
        ++*l->calls;
      },
      &look, 0)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(look.right);
}

TEST(Stream, AHostCallMaySubmitWorkAndSignal) {
  const Buffer buffer(64);
  const Stream first, second;
  const Timeline done;
  struct Work {
    xhal_stream* stream;
    xhal_timeline* timeline;
    uint64_t address;
    xhal_status status;
  } work{second, done, buffer.address(), XHAL_OK};
  ASSERT_TRUE(ok(xhal_stream_host_call(
      first,
      [](void* user, xhal_status) {
        auto* w = static_cast<Work*>(user);
        w->status = xhal_stream_fill(w->stream, w->address, 64, 3, 1);
        if (w->status == XHAL_OK) w->status = xhal_stream_signal(w->stream, w->timeline, 1);
      },
      &work, 0)));
  ASSERT_TRUE(first.finishes());
  ASSERT_TRUE(ok(xhal_timeline_wait(done, 1, deadline_ns())));
  EXPECT_TRUE(ok(work.status));
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(64, 3)));
}

TEST(Stream, ANonBlockingHostCallIsStillCalledOnce) {
  const Stream stream;
  const Timeline called;
  ASSERT_TRUE(ok(xhal_stream_host_call(
      stream,
      [](void* user, xhal_status) { xhal_timeline_signal(static_cast<xhal_timeline*>(user), 1); },
      static_cast<xhal_timeline*>(called), XHAL_HOST_CALL_NON_BLOCKING)));
  EXPECT_TRUE(stream.finishes());
  EXPECT_TRUE(ok(xhal_timeline_wait(called, 1, deadline_ns())));
}

TEST(Stream, PrioritiesAreAcceptedAndClamped) {
  for (const int32_t priority : {0, -1, 1, -1000, 1000}) {
    auto info = versioned<xhal_stream_info>();
    info.priority = priority;
    EXPECT_TRUE(Stream(&info).finishes());
  }
}

TEST(Stream, ManyStreamsLiveTogether) {
  const Buffer buffer(64 * 64);
  std::vector<std::unique_ptr<Stream>> streams;
  for (uint64_t i = 0; i < 64; ++i) {
    streams.push_back(std::make_unique<Stream>());
    ASSERT_TRUE(ok(xhal_stream_fill(*streams[i], buffer.address() + i * 64, 64, i, 1)));
  }
  for (const auto& stream : streams) ASSERT_TRUE(stream->finishes());
  const auto bytes = buffer.read();
  for (size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], i / 64);
}

TEST(Stream, SubmittingNeverWaitsForOtherWork) {
  const Buffer buffer(64);
  const Stream stream;
  const Timeline gate;
  ASSERT_TRUE(ok(xhal_stream_wait(stream, gate, 1)));
  for (int i = 0; i < 1000; ++i)
    ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 64, 5, 1)));
  EXPECT_EQ(xhal_timeline_query(gate, 1, nullptr), XHAL_NOT_READY);
  ASSERT_TRUE(ok(xhal_timeline_signal(gate, 1)));
  ASSERT_TRUE(stream.finishes());
}

TEST(Stream, SubmittingNeverWaitsForWorkThatRuns) {
  const Buffer buffer(128);  // half for each stream: their fills are not ordered
  const Stream first, second;
  Busy busy(first);
  xhal_event event{};
  ASSERT_TRUE(ok(xhal_event_record(first, 0, &event)));
  ASSERT_TRUE(ok(xhal_stream_fill(first, buffer.address(), 64, 5, 1)));
  ASSERT_TRUE(ok(xhal_stream_wait_event(second, &event)));
  ASSERT_TRUE(ok(xhal_stream_fill(second, buffer.address() + 64, 64, 5, 1)));
  if (busy.passed()) GTEST_SKIP() << "the device works inside of the submission";
  EXPECT_EQ(xhal_event_query(&event), XHAL_NOT_READY)
      << "the submissions came back only when the work before them had run";
  busy.open();
  EXPECT_TRUE(first.finishes());
  EXPECT_TRUE(second.finishes());
}

TEST(Stream, OneStreamTakesWorkFromManyThreads) {
  const Stream stream;
  std::atomic<int> calls = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        xhal_stream_host_call(
            stream, [](void* user, xhal_status) { ++*static_cast<std::atomic<int>*>(user); },
            &calls, 0);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  ASSERT_TRUE(stream.finishes());
  EXPECT_EQ(calls, 200);
}

TEST(Stream, DestroyingItWaitsForItsWork) {
  const Buffer buffer(1 << 20);
  {
    const Stream stream;
    ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 1 << 20, 6, 1)));
  }
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(1 << 20, 6)));
}

TEST(Stream, DestroyingItWaitsForWorkThatIsQueuedBehindOther) {
  const Buffer buffer(64);
  for (uint64_t round = 1; round <= 10; ++round) {
    {
      const Stream stream;
      const Busy busy(stream);
      ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 64, round, 1)));
    }  // opened, and destroyed at once
    ASSERT_TRUE(same(buffer.read(), std::vector<uint8_t>(64, static_cast<uint8_t>(round))));
  }
}

TEST(Stream, RecoveringAHealthyStreamDoesNothing) {
  const Stream stream;
  EXPECT_TRUE(ok(xhal_stream_recover(stream)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Stream, SynchronizeTimesOutAndMayBeCalledAgain) {
  const Stream stream;
  const Timeline gate;
  ASSERT_TRUE(ok(xhal_stream_wait(stream, gate, 1)));
  EXPECT_TRUE(fails_with(XHAL_ERR_TIMEOUT, xhal_stream_synchronize(stream, 1000)));
  ASSERT_TRUE(ok(xhal_timeline_signal(gate, 1)));
  EXPECT_TRUE(stream.finishes());
}

}  // namespace
}  // namespace xhal::cts
