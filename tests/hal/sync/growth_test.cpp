// SPDX-License-Identifier: Apache-2.0
// A program that runs for a month: what was made and destroyed a million times leaves nothing
// behind, no memory, no thread, no descriptor, and nothing becomes slower for it.
#include <poll.h>

#include "../faulty/faulty_test.hpp"
#include "../process_figures.hpp"

namespace xhal::test {
namespace {

constexpr uint64_t kMebibyte = 1 << 20;
// A sanitizer multiplies the time; what it keeps of freed memory hides the figure anyway.
constexpr int kMillion = kMemoryIsTheLibrarysOwn ? 1'000'000 : 20'000;

class GrowthTest : public FaultyTest {
 protected:
  // Runs `body` so often, after a warm-up that makes what is kept for good, and compares.
  static void expect_no_growth(int times, const std::function<void(int)>& body) {
    for (int i = 0; i < 2000; ++i) body(i);
    const auto memory = resident_bytes(), threads = thread_count(),
               descriptors = descriptor_count(), space = address_space_bytes();
    for (int i = 2000; i < times + 2000; ++i) {
      body(i);
      if (testing::Test::HasFatalFailure()) return;
    }
    // A thread of the library may be about to close its end of the last one, and to end itself.
    const auto deadline = std::chrono::steady_clock::now() + kDeadline;
    while ((descriptor_count() > descriptors || thread_count() > threads) &&
           std::chrono::steady_clock::now() < deadline)
      std::this_thread::yield();
    EXPECT_LE(thread_count(), threads);
    EXPECT_LE(descriptor_count(), descriptors);
    if (!kMemoryIsTheLibrarysOwn) return;
    EXPECT_LT(resident_bytes(), memory + kMebibyte);
    // A thread that allocates reserves an arena of 64 MiB; what is kept of each call would be more.
    EXPECT_LT(address_space_bytes(), space + 300 * kMebibyte);
  }
  struct View {
    View() : owner(timeline()) {
      int32_t fd = -1;
      uint64_t offset = 0;
      check(xhal_timeline_export(owner.get(), &fd, &offset));
      xhal_timeline* imported = nullptr;
      check(xhal_timeline_import(fd, offset, &imported));
      ::close(fd);
      view.reset(imported);
    }
    Timeline owner, view;
  };
};

TEST_F(GrowthTest, AMillionTimelinesGrowTheProcessByLessThanAMebibyte) {
  expect_no_growth(kMillion, [](int i) {
    const auto t = timeline();
    if (i % 2 == 0) {
      ASSERT_OK(xhal_timeline_signal(t.get(), 3));
    }
  });
}

TEST_F(GrowthTest, AMillionAbandonedTimelinesGrowTheProcessByLessThanAMebibyte) {
  expect_no_growth(kMillion, [](int) {
    const auto t = timeline(7);
    ASSERT_EQ(xhal_timeline_query(t.get(), 8, nullptr), XHAL_NOT_READY);
  });
}

TEST_F(GrowthTest, AMillionStreamsGrowTheProcessByLessThanAMebibyte) {
  const auto d = open_device("faulty:0");
  expect_no_growth(kMillion, [&](int) {
    const auto stream = d.stream();
    xhal_event event{};
    ASSERT_OK(xhal_event_record(stream.get(), 0, &event));
    ASSERT_OK(xhal_event_query(&event));
  });
}

TEST_F(GrowthTest, AMillionWaitsForAnyOfTwoGrowTheProcessByLessThanAMebibyte) {
  const auto never = timeline(), reached = timeline(1);
  xhal_timeline* const both[] = {never.get(), reached.get()};
  const uint64_t values[] = {1, 1};
  expect_no_growth(kMillion, [&](int) {
    uint32_t which = 9;
    ASSERT_OK(xhal_timeline_wait_many(both, values, 2, 1, XHAL_FOREVER, &which));
    ASSERT_EQ(which, 1u);
  });
  EXPECT_OK(xhal_timeline_signal(never.get(), 1));
}

TEST_F(GrowthTest, AMillionWaitsThatTimeOutGrowTheProcessByLessThanAMebibyte) {
  const auto a = timeline(), b = timeline();
  xhal_timeline* const both[] = {a.get(), b.get()};
  const uint64_t values[] = {1, 1};
  expect_no_growth(kMillion, [&](int i) {
    ASSERT_EQ(xhal_timeline_wait_many(both, values, 2, static_cast<uint32_t>(i % 2), 0, nullptr),
              XHAL_ERR_TIMEOUT);
  });
}

TEST_F(GrowthTest, AMillionCallbacksGrowTheProcessByLessThanAMebibyte) {
  const auto t = timeline();
  uint64_t calls = 0;
  expect_no_growth(kMillion, [&](int i) {
    ASSERT_OK(xhal_timeline_notify(
        t.get(), static_cast<uint64_t>(i) + 1,
        [](void* user, xhal_status) { ++*static_cast<uint64_t*>(user); }, &calls));
    ASSERT_OK(xhal_timeline_signal(t.get(), static_cast<uint64_t>(i) + 1));
  });
  EXPECT_EQ(calls, static_cast<uint64_t>(kMillion) + 2000);
}

TEST_F(GrowthTest, AMillionEventDescriptorsGrowTheProcessByLessThanAMebibyte) {
  const auto t = timeline();
  expect_no_growth(kMillion, [&](int i) {
    int32_t fd = -1;
    ASSERT_OK(xhal_timeline_eventfd(t.get(), static_cast<uint64_t>(i) + 1, &fd));
    ASSERT_OK(xhal_timeline_signal(t.get(), static_cast<uint64_t>(i) + 1));
    pollfd readable{fd, POLLIN, 0};
    ASSERT_EQ(poll(&readable, 1, 0), 1);
    ASSERT_EQ(::close(fd), 0);
  });
}

// The caller closes a descriptor that was never signalled, and destroys its timeline.
TEST_F(GrowthTest, EventDescriptorsClosedUnsignalledLeaveNoDescriptorBehind) {
  expect_no_growth(kMillion / 10, [&](int) {
    const auto t = timeline();
    int32_t fd = -1;
    ASSERT_OK(xhal_timeline_eventfd(t.get(), 1, &fd));
    ASSERT_EQ(::close(fd), 0);
  });
}

TEST_F(GrowthTest, ThousandsOfViewsAndTheirCallbacksLeaveNoThreadBehind) {
  std::atomic<int> calls{0};
  const auto once = [&](int) {
    const View both;
    const auto before = calls.load();
    ASSERT_OK(xhal_timeline_notify(
        both.view.get(), 1,
        [](void* user, xhal_status) { ++*static_cast<std::atomic<int>*>(user); }, &calls));
    ASSERT_OK(xhal_timeline_signal(both.owner.get(), 1));
    ASSERT_OK(xhal_timeline_wait(both.view.get(), 1, kSoon));
    while (calls == before) std::this_thread::yield();  // it comes from a thread of the library
  };
  expect_no_growth(3000, once);
}

TEST_F(GrowthTest, ThousandsOfDescriptorsOnOneViewLeaveNoThreadBehind) {
  const View both;
  expect_no_growth(10'000, [&](int i) {
    const auto value = static_cast<uint64_t>(i) + 1;
    int32_t fd = -1;
    ASSERT_OK(xhal_timeline_eventfd(both.view.get(), value, &fd));
    ASSERT_OK(xhal_timeline_signal(both.owner.get(), value));
    pollfd readable{fd, POLLIN, 0};
    ASSERT_EQ(poll(&readable, 1, static_cast<int>(kSoon / 1'000'000)), 1);
    ASSERT_EQ(::close(fd), 0);
  });
}

// A failure stays answerable for ever, so it may keep its record; everything else is given back.
TEST_F(GrowthTest, ThousandsOfFailuresAndRecoveriesKeepNoMoreThanTheirRecords) {
  constexpr uint64_t kFailures = 20'000, kBytesOfAFailure = 2048;
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto once = [&] {
    const auto t = timeline();
    xhal_error error{};
    error.struct_size = sizeof error;
    error.status = XHAL_ERR_DEVICE;
    error.text = str("on purpose");
    ASSERT_OK(xhal_timeline_fail(t.get(), &error));
    (void)xhal_stream_wait(stream.get(), t.get(), 1);
    ASSERT_EQ(xhal_stream_synchronize(stream.get(), kSoon), XHAL_ERR_DEPENDENCY);
    ASSERT_OK(xhal_stream_recover(stream.get()));
  };
  for (int i = 0; i < 1000; ++i) once();
  const auto memory = resident_bytes(), threads = thread_count();
  for (uint64_t i = 0; i < kFailures; ++i) once();
  EXPECT_EQ(thread_count(), threads);
  if (kMemoryIsTheLibrarysOwn) {
    EXPECT_LT(resident_bytes(), memory + kMebibyte + kFailures * kBytesOfAFailure);
  }
}

TEST_F(GrowthTest, ThousandsOfPinnedBlocksTakeFewDescriptors) {
  const auto before = descriptor_count();
  std::vector<void*> blocks(4000);
  for (auto& block : blocks) ASSERT_OK(xhal_host_alloc(4096, &block));
  EXPECT_LT(descriptor_count(), before + 64);
  for (auto* block : blocks) ASSERT_OK(xhal_host_free(block));
}

TEST_F(GrowthTest, ThousandsOfOpensAndLossesLeaveNoThreadAndNoDescriptor) {
  const auto once = [](int) {
    const auto d = open_device("faulty:0", XHAL_OPEN_CONTROL);
    const auto stream = d.stream();
    lose(d);
    ASSERT_EQ(xhal_stream_synchronize(stream.get(), kSoon), XHAL_ERR_DEVICE_LOST);
  };
  for (int i = 0; i < 100; ++i) once(i);
  const auto threads = thread_count(), descriptors = descriptor_count(), memory = resident_bytes();
  constexpr uint64_t kLosses = 2000;
  for (uint64_t i = 0; i < kLosses; ++i) once(0);
  EXPECT_EQ(thread_count(), threads);
  EXPECT_EQ(descriptor_count(), descriptors);
  // The record of a lost device, its table and its failed stream stay answerable for ever.
  constexpr uint64_t kBytesOfALoss = 16 << 10;
  if (kMemoryIsTheLibrarysOwn) {
    EXPECT_LT(resident_bytes(), memory + kMebibyte + kLosses * kBytesOfALoss);
  }
}

}  // namespace
}  // namespace xhal::test
