// SPDX-License-Identifier: Apache-2.0
// Streams of the cpu plugin: order, inline and queued execution, waits, failures,
// host calls, threads.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <thread>

#include "runtime_harness.hpp"

namespace xhal::cpu::test {
namespace {

TEST_F(RuntimeTest, EnumerationTellsWhatTheDevicesAre) {
  const auto list = cpu_devices();
  ASSERT_FALSE(list.empty());
  for (const auto& d : list) {
    EXPECT_EQ(d.type, XHAL_DEVICE_CPU);
    EXPECT_GT(d.memory_bytes, 0u);
    EXPECT_THAT(d.name, HasSubstr("core"));
  }
  const auto again = cpu_devices();
  for (size_t i = 0; i < list.size(); ++i) {
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(list[i].uuid), 16),
              std::string(reinterpret_cast<const char*>(again[i].uuid), 16));
  }
}

TEST_F(RuntimeTest, EnumerationLeavesNoThreadBehind) {
  (void)cpu_devices();
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word && word != "Threads:") {
  }
  int threads = 0;
  status >> threads;
#if !defined(__SANITIZE_THREAD__)
  EXPECT_EQ(threads, 1);
#endif
}

TEST_F(RuntimeTest, WorkOnAnIdleStreamIsDoneInOrder) {
  auto stream = device().stream();
  const Op fill = fill_op(1000), axpby = axpby_op(1000);
  const uint64_t a = alloc(4000);
  launch(stream.get(), fill, {a}, {scalar(3.0)});
  for (int i = 0; i < 10; ++i) launch(stream.get(), axpby, {a, a}, {scalar(2.0), scalar(1.0)});
  EXPECT_THAT(read(stream.get(), a, 1000), testing::Each(3.0f * 1024 + 1023));
}

TEST_F(RuntimeTest, WorkBehindABusyStreamIsDoneInOrder) {
  auto stream = device().stream();
  const Op fill = fill_op(1000), axpby = axpby_op(1000);
  const uint64_t a = alloc(4000);
  Barrier barrier;
  ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
  barrier.wait_entered();
  launch(stream.get(), fill, {a}, {scalar(3.0)});
  for (int i = 0; i < 10; ++i) launch(stream.get(), axpby, {a, a}, {scalar(2.0), scalar(1.0)});
  xhal_event event{};
  ASSERT_OK(xhal_event_record(stream.get(), 0, &event));
  EXPECT_EQ(xhal_event_query(&event), XHAL_NOT_READY);
  barrier.open();
  EXPECT_THAT(read(stream.get(), a, 1000), testing::Each(3.0f * 1024 + 1023));
}

TEST_F(RuntimeTest, QueuedLaunchesKeepTheirOwnArguments) {
  auto stream = device().stream();
  const Op fill = fill_op(1);
  constexpr int kLaunches = 5000;  // several times the memory of one queue chunk
  const uint64_t a = alloc(kLaunches * 4);
  Barrier barrier;
  ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
  for (int i = 0; i < kLaunches; ++i)
    launch(stream.get(), fill, {a + 4 * static_cast<uint64_t>(i)}, {scalar(double(i))});
  barrier.open();
  const auto values = read(stream.get(), a, kLaunches);
  for (int i = 0; i < kLaunches; ++i)
    ASSERT_EQ(values[static_cast<size_t>(i)], static_cast<float>(i));
}

TEST_F(RuntimeTest, ALaunchWithHundredsOfOperandsIsRunInlineAndQueued) {
  constexpr uint32_t kTensors = 700;
  const std::vector<xhal_tensor_desc> group(kTensors, vector_of(3));
  const Op op = prepare(context(), XHAL_OP_multi_axpby, {group, {}, group});
  const uint64_t a = alloc(kTensors * 64);
  std::vector<uint64_t> addresses;
  for (uint32_t i = 0; i < 2 * kTensors; ++i) addresses.push_back(a + 64 * (i % kTensors));
  auto stream = device().stream();
  ASSERT_OK(xhal_stream_fill(stream.get(), a, kTensors * 64, 0, 8));
  launch(stream.get(), op, addresses, {scalar(1.0), scalar(1.0)});
  Barrier barrier;
  ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
  launch(stream.get(), op, addresses, {scalar(2.0), scalar(1.0)});
  barrier.open();
  const auto values = read(stream.get(), a, kTensors * 16);
  for (uint32_t i = 0; i < kTensors; ++i) ASSERT_EQ(values[16 * i + 2], 3.0f);
}

TEST_F(RuntimeTest, AScalarByAddressIsReadWhenTheOperatorRuns) {
  auto stream = device().stream();
  const Op fill = fill_op(16);
  const uint64_t a = alloc(64), value = alloc(4);
  Barrier barrier;
  ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
  launch(stream.get(), fill, {a}, {by_address(value)});
  auto other = device().stream();
  write<float>(other.get(), value, {42.0f});
  barrier.open();
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(42.0f));
  write<float>(stream.get(), value, {7.0f});
  launch(stream.get(), fill, {a}, {by_address(value)});
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(7.0f));
}

TEST_F(RuntimeTest, AStreamWaitsForASignalSubmittedLater) {
  auto stream = device().stream();
  const Op fill = fill_op(16);
  const uint64_t a = alloc(64);
  const auto t = timeline();
  launch(stream.get(), fill, {a}, {scalar(1.0)});
  ASSERT_OK(xhal_stream_wait(stream.get(), t.get(), 5));
  launch(stream.get(), fill, {a}, {scalar(2.0)});
  xhal_event event{};
  ASSERT_OK(xhal_event_record(stream.get(), 0, &event));
  ASSERT_OK(xhal_timeline_signal(t.get(), 4));
  EXPECT_EQ(xhal_event_query(&event), XHAL_NOT_READY);
  auto other = device().stream();
  EXPECT_THAT(read(other.get(), a, 16), testing::Each(1.0f));
  ASSERT_OK(xhal_timeline_signal(t.get(), 5));
  EXPECT_OK(xhal_event_wait(&event, kSoon));
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(2.0f));
}

TEST_F(RuntimeTest, ManyWaitingStreamsHoldNoThread) {
  const auto t = timeline();
  std::vector<Stream> streams;
  std::vector<xhal_event> events(200);
  for (auto& event : events) {
    streams.push_back(device().stream());
    ASSERT_OK(xhal_stream_wait(streams.back().get(), t.get(), 1));
    ASSERT_OK(xhal_event_record(streams.back().get(), 0, &event));
  }
  // Were they to hold threads, this one would find none.
  auto busy = device().stream();
  std::atomic<bool> called{false};
  ASSERT_OK(xhal_stream_host_call(
      busy.get(),
      [](void* user, xhal_status) { static_cast<std::atomic<bool>*>(user)->store(true); }, &called,
      0));
  ASSERT_OK(xhal_stream_synchronize(busy.get(), kSoon));
  EXPECT_TRUE(called);
  for (auto& event : events) EXPECT_EQ(xhal_event_query(&event), XHAL_NOT_READY);
  ASSERT_OK(xhal_timeline_signal(t.get(), 1));
  for (auto& event : events) EXPECT_OK(xhal_event_wait(&event, kSoon));
}

TEST_F(RuntimeTest, StreamsThatWaitForEachOtherInTurnFinish) {
  auto a = device().stream(), b = device().stream();
  const Op axpby = axpby_op(4);
  const uint64_t memory = alloc(16);
  ASSERT_OK(xhal_stream_fill(a.get(), memory, 16, 0, 4));
  ASSERT_OK(xhal_stream_synchronize(a.get(), kSoon));
  const auto ta = timeline(), tb = timeline();
  constexpr uint64_t kRounds = 300;
  for (uint64_t i = 1; i <= kRounds; ++i) {
    ASSERT_OK(xhal_stream_wait(a.get(), tb.get(), i));  // not submitted yet
    launch(a.get(), axpby, {memory, memory}, {scalar(1.0), scalar(1.0)});
    ASSERT_OK(xhal_stream_signal(a.get(), ta.get(), i));
  }
  for (uint64_t i = 1; i <= kRounds; ++i) {
    ASSERT_OK(xhal_stream_signal(b.get(), tb.get(), i));
    ASSERT_OK(xhal_stream_wait(b.get(), ta.get(), i));
    launch(b.get(), axpby, {memory, memory}, {scalar(1.0), scalar(1.0)});
  }
  ASSERT_OK(xhal_stream_synchronize(a.get(), kSoon));
  EXPECT_THAT(read(b.get(), memory, 4), testing::Each(2.0f * kRounds));
}

TEST_F(RuntimeTest, AFailedOperatorNamesItselfAndLaterWorkIsDropped) {
  auto stream = device().stream();
  const Op fill = fill_op(16);
  const uint64_t a = alloc(64);
  launch(stream.get(), fill, {a}, {scalar(1.0)});
  xhal_event before{};
  ASSERT_OK(xhal_event_record(stream.get(), 0, &before));
  Barrier barrier;
  ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
  fail(stream.get());
  launch(stream.get(), fill, {a}, {scalar(2.0)});
  xhal_event after{};
  ASSERT_OK(xhal_event_record(stream.get(), 0, &after));
  const auto signalled = timeline();
  ASSERT_OK(xhal_stream_signal(stream.get(), signalled.get(), 1));
  std::atomic<int> status{1}, calls{0};
  std::pair<std::atomic<int>*, std::atomic<int>*> both{&status, &calls};
  ASSERT_OK(xhal_stream_host_call(
      stream.get(),
      [](void* user, xhal_status s) {
        auto* p = static_cast<decltype(both)*>(user);
        *p->first = s;
        ++*p->second;
      },
      &both, 0));
  barrier.open();

  EXPECT_LT(xhal_event_wait(&after, kSoon), 0);
  EXPECT_THAT(last_error_info().text, HasSubstr("index_select"));
  EXPECT_EQ(last_error_info().operation, "index_select");
  EXPECT_THAT(last_error_info().device, HasSubstr("cpu:"));
  EXPECT_OK(xhal_event_query(&before));
  EXPECT_EQ(xhal_timeline_wait(signalled.get(), 1, kSoon), XHAL_ERR_DEPENDENCY);
  EXPECT_THAT(last_error_info().text, HasSubstr("index_select"));
  auto other = device().stream();
  EXPECT_THAT(read(other.get(), a, 16), testing::Each(1.0f));
  ASSERT_OK(xhal_stream_recover(stream.get()));
  EXPECT_EQ(calls, 1);
  EXPECT_LT(status, 0);
  launch(stream.get(), fill, {a}, {scalar(3.0)});
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(3.0f));
}

TEST_F(RuntimeTest, AnOperatorThatFailsInlineFailsItsStream) {
  auto stream = device().stream();
  fail(stream.get());
  EXPECT_LT(xhal_stream_synchronize(stream.get(), kSoon), 0);
  EXPECT_THAT(last_error_info().text, HasSubstr("index_select failed: index "))
      << "which operator it was stands there once";
  const Op fill = fill_op(16);
  const uint64_t a = alloc(64);
  EXPECT_THROW(launch(stream.get(), fill, {a}, {scalar(1.0)}), Error);
  ASSERT_OK(xhal_stream_recover(stream.get()));
  launch(stream.get(), fill, {a}, {scalar(1.0)});
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
}

TEST_F(RuntimeTest, AStreamThatWaitsForAFailureFailsWithTheOriginAsItsCause) {
  auto first = device().stream(), second = device().stream();
  Barrier barrier;
  ASSERT_OK(xhal_stream_host_call(first.get(), Barrier::pass, &barrier, 0));
  fail(first.get());
  xhal_event event{};
  ASSERT_OK(xhal_event_record(first.get(), 0, &event));
  ASSERT_OK(xhal_stream_wait_event(second.get(), &event));
  xhal_event end{};
  ASSERT_OK(xhal_event_record(second.get(), 0, &end));
  barrier.open();
  EXPECT_EQ(xhal_event_wait(&end, kSoon), XHAL_ERR_DEPENDENCY);
  EXPECT_THAT(last_error_info().text, HasSubstr("index_select"));
  ASSERT_OK(xhal_stream_recover(second.get()));
  EXPECT_OK(xhal_stream_synchronize(second.get(), kSoon));
}

TEST_F(RuntimeTest, RecoveryEndsAWaitThatNobodyWouldSignal) {
  auto stream = device().stream();
  const auto never = timeline();
  const Op fill = fill_op(16);
  const uint64_t a = alloc(64);
  Barrier barrier;
  ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
  fail(stream.get());
  ASSERT_OK(xhal_stream_wait(stream.get(), never.get(), 1));
  launch(stream.get(), fill, {a}, {scalar(2.0)});
  barrier.open();
  EXPECT_LT(xhal_stream_synchronize(stream.get(), kSoon), 0);
  ASSERT_OK(xhal_stream_recover(stream.get()));
  launch(stream.get(), fill, {a}, {scalar(5.0)});
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(5.0f));
}

TEST_F(RuntimeTest, HostCallsNeverRunOnTheThreadThatSubmitsThem) {
  auto stream = device().stream();
  std::atomic<std::thread::id> where{};
  ASSERT_OK(xhal_stream_host_call(
      stream.get(),
      [](void* user, xhal_status) {
        static_cast<std::atomic<std::thread::id>*>(user)->store(std::this_thread::get_id());
      },
      &where, 0));
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  EXPECT_NE(where.load(), std::this_thread::get_id());
}

TEST_F(RuntimeTest, ANonBlockingHostCallDoesNotHoldItsStreamBack) {
  auto stream = device().stream();
  Barrier barrier;
  ASSERT_OK(
      xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, XHAL_HOST_CALL_NON_BLOCKING));
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  barrier.wait_entered();  // the stream is done, the call is not
  barrier.open();
}

TEST_F(RuntimeTest, BlockedHostCallsDoNotKeepOtherStreamsFromRunning) {
  std::vector<Stream> streams;
  std::vector<Barrier> barriers(20);
  for (auto& barrier : barriers) {
    streams.push_back(device().stream());
    ASSERT_OK(xhal_stream_host_call(streams.back().get(), Barrier::pass, &barrier, 0));
  }
  for (auto& barrier : barriers) barrier.wait_entered();
  for (auto& barrier : barriers) barrier.open();
}

TEST_F(RuntimeTest, AHostCallMaySubmitToItsOwnStream) {
  auto stream = device().stream();
  const auto t = timeline();
  std::pair<xhal_stream*, xhal_timeline*> both{stream.get(), t.get()};
  ASSERT_OK(xhal_stream_host_call(
      stream.get(),
      [](void* user, xhal_status) {
        auto* p = static_cast<decltype(both)*>(user);
        (void)xhal_stream_signal(p->first, p->second, 1);
      },
      &both, 0));
  EXPECT_OK(xhal_timeline_wait(t.get(), 1, kSoon));
}

TEST_F(RuntimeTest, DestroyingAStreamRunsItsWorkFirst) {
  const Op fill = fill_op(16);
  const uint64_t a = alloc(64);
  Barrier barrier;
  auto stream = device().stream();
  ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
  launch(stream.get(), fill, {a}, {scalar(4.0)});
  std::thread opener([&] {
    barrier.wait_entered();
    barrier.open();
  });
  stream.reset();
  opener.join();
  auto other = device().stream();
  EXPECT_THAT(read(other.get(), a, 16), testing::Each(4.0f));
}

TEST_F(RuntimeTest, AnOperatorDestroyedAfterItsLaunchStillRuns) {
  auto stream = device().stream();
  const uint64_t a = alloc(64);
  Barrier barrier;
  ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
  launch(stream.get(), fill_op(16), {a}, {scalar(9.0)});
  for (int i = 0; i < 50; ++i)
    (void)fill_op(17 + i);  // gives freed memory every chance to be used again
  barrier.open();
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(9.0f));
}

TEST_F(RuntimeTest, ThreadsThatSubmitToOneStreamLoseNothing) {
  auto stream = device().stream();
  constexpr int kThreads = 4, kEach = 2000;
  const Op axpby = axpby_op(1);
  const uint64_t a = alloc(4);
  ASSERT_OK(xhal_stream_fill(stream.get(), a, 4, 0, 4));
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) {
        launch(stream.get(), axpby, {a, a}, {scalar(1.0), scalar(1.0)});
        if (i % 100 == 0)
          check(xhal_stream_host_call(
              stream.get(), [](void*, xhal_status) {}, nullptr, 0));
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(read(stream.get(), a, 1)[0], static_cast<float>(kThreads * kEach));
}

TEST_F(RuntimeTest, ThreadsThatUseTheirOwnStreamsShareTheDevice) {
  constexpr int kThreads = 4;
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  (void)device();
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      auto stream = device().stream();
      constexpr int64_t kCount = 300'000;  // enough for the worker pool
      const Op fill = fill_op(kCount), axpby = axpby_op(kCount);
      const uint64_t a = alloc(kCount * 4);
      for (int round = 0; round < 10; ++round) {
        launch(stream.get(), fill, {a}, {scalar(double(t))});
        launch(stream.get(), axpby, {a, a}, {scalar(2.0), scalar(double(round))});
        const auto values = read(stream.get(), a, kCount);
        const float expected = static_cast<float>(2 * t + round);
        if (std::all_of(values.begin(), values.end(), [&](float v) { return v == expected; }))
          ++right;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(right, kThreads * 10);
}

TEST_F(RuntimeTest, ResultsDoNotDependOnWhoHelps) {
  const int64_t kCount = 1'000'003;
  const Op random = prepare(context(), XHAL_OP_normal, {{vector_of(kCount)}});
  const std::vector<int64_t> dims = {0};
  const Op sum =
      prepare(context(), XHAL_OP_sum, {{vector_of(kCount)}, {vector_of(1)}}, {attribute(0, dims)});
  const uint64_t a = alloc(kCount * 4), out = alloc(4);
  auto stream = device().stream();
  launch(stream.get(), random, {a},
         {scalar(0.0), scalar(1.0), scalar(int64_t{7}), scalar(int64_t{0})});
  std::vector<float> seen;
  for (int i = 0; i < 20; ++i) {
    launch(stream.get(), sum, {a, out});
    seen.push_back(read(stream.get(), out, 1)[0]);
  }
  EXPECT_THAT(seen, testing::Each(seen[0]));
}

TEST_F(RuntimeTest, TimedEventsTellHowLongWorkTook) {
  auto stream = device().stream();
  xhal_event start{}, end{};
  ASSERT_OK(xhal_event_record(stream.get(), XHAL_EVENT_TIMED, &start));
  const uint64_t a = alloc(1 << 20);
  ASSERT_OK(xhal_stream_fill(stream.get(), a, 1 << 20, 1, 1));
  ASSERT_OK(xhal_event_record(stream.get(), XHAL_EVENT_TIMED, &end));
  ASSERT_OK(xhal_event_wait(&end, kSoon));
  int64_t elapsed = 0;
  ASSERT_OK(xhal_event_elapsed(&start, &end, &elapsed));
  EXPECT_GT(elapsed, 0);
}

TEST_F(RuntimeTest, ActivityTellsEachOperationWithItsCorrelation) {
  auto stream = device().stream();
  const Op fill = fill_op(16);
  const uint64_t a = alloc(64);
  std::vector<xhal_activity> seen;
  ASSERT_OK(xhal_activity_enable(
      device().get(),
      [](void* user, const xhal_activity* records, uint32_t count) {
        static_cast<std::vector<xhal_activity>*>(user)->insert(
            static_cast<std::vector<xhal_activity>*>(user)->end(), records, records + count);
      },
      &seen));
  ASSERT_OK(xhal_correlation_push(77));
  launch(stream.get(), fill, {a}, {scalar(1.0)});
  uint64_t id = 0;
  ASSERT_OK(xhal_correlation_pop(&id));
  ASSERT_OK(xhal_stream_fill(stream.get(), a, 64, 0, 1));
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  ASSERT_OK(xhal_activity_flush(device().get()));
  ASSERT_OK(xhal_activity_enable(device().get(), nullptr, nullptr));
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].correlation, 77u);
  EXPECT_EQ(seen[0].operation, static_cast<uint32_t>(XHAL_OP_fill));
  EXPECT_EQ(seen[1].kind, static_cast<uint32_t>(XHAL_ACTIVITY_FILL));
  EXPECT_EQ(seen[1].bytes, 64u);
  EXPECT_LE(seen[0].start_ns, seen[0].end_ns);
  EXPECT_LE(seen[0].end_ns, seen[1].end_ns);
}

TEST_F(RuntimeTest, TelemetryTellsWhatIsMeasuredAndNothingElse) {
  auto stream = device().stream();
  const uint64_t a = alloc(4096);
  ASSERT_OK(xhal_stream_copy(stream.get(), a, a + 2048, 1000));
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  const auto sample = [&](uint32_t id) {
    xhal_sample s{};
    s.id = id;
    check(xhal_device_telemetry(device().get(), &s, 1));
    return s;
  };
  EXPECT_EQ(sample(XHAL_TELEMETRY_COPY_BYTES).value, 1000.0);
  EXPECT_EQ(sample(XHAL_TELEMETRY_STREAMS).value, 1.0);
  EXPECT_GT(sample(XHAL_TELEMETRY_MEMORY_USED_BYTES).value, 0.0);
  EXPECT_EQ(sample(XHAL_TELEMETRY_POWER).flags, 0u);
  EXPECT_EQ(sample(4711).flags, 0u);
  Device observer(cpu_devices().front().index, XHAL_OPEN_OBSERVE);
  xhal_sample s{};
  s.id = XHAL_TELEMETRY_MEMORY_TOTAL_BYTES;
  ASSERT_OK(xhal_device_telemetry(observer.get(), &s, 1));
  EXPECT_EQ(s.flags, static_cast<uint32_t>(XHAL_SAMPLE_VALID));
}

TEST_F(RuntimeTest, WrongLaunchesAreRefusedWithTheReason) {
  auto stream = device().stream();
  const Op fill = fill_op(16);
  const uint64_t a = alloc(64);
  const auto refused = [&](std::vector<uint64_t> addresses, std::vector<xhal_scalar> scalars,
                           const char* why) {
    try {
      launch(stream.get(), fill, addresses, scalars);
      ADD_FAILURE() << "accepted; expected: " << why;
    } catch (const Error& e) {
      EXPECT_EQ(e.info.status, XHAL_ERR_INVALID_ARGUMENT);
      EXPECT_THAT(e.info.text, HasSubstr(why));
    }
  };
  refused({}, {}, "number of addresses");
  refused({0}, {}, "address 0");
  refused({a}, {scalar(1.0), scalar(2.0)}, "more scalars");
  xhal_scalar unknown = scalar(1.0);
  unknown.kind = 9;
  refused({a}, {unknown}, "no known kind");
  refused({a}, {by_address(0)}, "address 0");
  EXPECT_EQ(xhal_stream_fill(stream.get(), a, 64, 0, 3), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_stream_host_call(stream.get(), nullptr, nullptr, 0), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
}

TEST_F(RuntimeTest, APreparedOperatorTellsItsAliases) {
  const Op op = axpby_op(16);
  xhal_op_properties properties{};
  properties.struct_size = sizeof properties;
  xhal_operand_need needs[2] = {};
  ASSERT_OK(xhal_op_query(op.get(), &properties, needs, 2));
  EXPECT_EQ(needs[0].may_alias, 0u);
  EXPECT_EQ(needs[1].may_alias, 1u);
  EXPECT_NE(properties.flags & XHAL_OP_IS_DETERMINISTIC, 0u);
  EXPECT_GT(properties.bytes, 0.0);
  const std::vector<xhal_tensor_desc> group(3, vector_of(4));
  const Op many = prepare(context(), XHAL_OP_multi_sgd, {group, group, group, {}, group, group});
  std::vector<xhal_operand_need> more(15);
  ASSERT_OK(xhal_op_query(many.get(), &properties, more.data(), 15));
  EXPECT_EQ(more[10].may_alias, 2u);  // param_out[1] on param[1]
  EXPECT_EQ(more[14].may_alias, 9u);  // momentum_out[2] on momentum[2]
}

TEST_F(RuntimeTest, AForkedChildIsToldAndDoesNotHang) {
  auto stream = device().stream();
  const uint64_t a = alloc(1 << 22);
  ASSERT_OK(xhal_stream_fill(stream.get(), a, 1 << 22, 1, 1));
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  const pid_t child = fork();
  if (child == 0) {
    const bool told = xhal_stream_fill(stream.get(), a, 64, 1, 1) == XHAL_ERR_FORKED &&
                      xhal_stream_destroy(stream.release()) == XHAL_OK;
    _exit(told ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(RuntimeTest, ClosingADeviceWithQueuedWorkReturns) {
  const auto t = timeline();
  {
    Device mine(cpu_devices().front().index, XHAL_OPEN_CONTROL);
    auto stream = mine.stream();
    for (int i = 0; i < 100; ++i)
      ASSERT_OK(xhal_stream_host_call(
          stream.get(), [](void*, xhal_status) {}, nullptr, 0));
    ASSERT_OK(xhal_stream_signal(stream.get(), t.get(), 1));
    stream.release();  // the context ends it
  }
  EXPECT_OK(xhal_timeline_query(t.get(), 1, nullptr));
}

}  // namespace
}  // namespace xhal::cpu::test
