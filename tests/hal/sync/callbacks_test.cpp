// SPDX-License-Identifier: Apache-2.0
// What a callback may call: everything but what blocks on xHAL work. No lock of libxhal is held
// while a callback or a plugin's function runs, so none of this can hang.
#include <atomic>
#include <fstream>
#include <functional>

#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

class CallbackTest : public FaultyTest, public testing::WithParamInterface<const char*> {
 protected:
  // Calls `body` when `t` reaches `value`, on whatever thread that is.
  static void on_value(xhal_timeline* t, uint64_t value, std::function<void(xhal_status)> body) {
    check(xhal_timeline_notify(
        t, value,
        [](void* user, xhal_status status) {
          const std::unique_ptr<std::function<void(xhal_status)>> owned(
              static_cast<std::function<void(xhal_status)>*>(user));
          (*owned)(status);
        },
        new std::function<void(xhal_status)>(std::move(body))));
  }
  static void on_stream(xhal_stream* stream, std::function<void(xhal_status)> body) {
    check(xhal_stream_host_call(
        stream,
        [](void* user, xhal_status status) {
          const std::unique_ptr<std::function<void(xhal_status)>> owned(
              static_cast<std::function<void(xhal_status)>*>(user));
          (*owned)(status);
        },
        new std::function<void(xhal_status)>(std::move(body)), 0));
  }
  static xhal_timeline* own(const Stream& stream) {
    xhal_timeline* t = nullptr;
    check(xhal_stream_timeline(stream.get(), &t));
    return t;
  }
};

TEST_P(CallbackTest, ACallbackMayRecordAnEventOnTheStreamThatSignalled) {
  const auto& d = device(GetParam());
  const auto stream = d.stream();
  std::promise<xhal_status> recorded;
  on_value(own(stream), 1, [&](xhal_status) {
    xhal_event event{};
    recorded.set_value(xhal_event_record(stream.get(), 0, &event));
  });
  within_deadline("xhal_event_record in a callback of the stream's own timeline", [&] {
    xhal_event event{};
    EXPECT_OK(xhal_event_record(stream.get(), 0, &event));
    EXPECT_EQ(recorded.get_future().get(), XHAL_OK);
  });
}

// Under pressure the pool itself records events; the callbacks of those free blocks of the pool.
TEST_P(CallbackTest, ACallbackMayFreeABlockOfThePoolThatIsAllocating) {
  const auto& d = device(GetParam());
  const auto stream = d.stream(), other = d.stream();
  const auto pool = d.pool(2 << 20);
  uint64_t given_back = 0, kept = 0, wanted = 0;
  ASSERT_OK(xhal_pool_alloc(pool.get(), stream.get(), 512 << 10, str("a"), &given_back));
  ASSERT_OK(xhal_pool_alloc(pool.get(), stream.get(), 512 << 10, str("b"), &kept));
  ASSERT_OK(xhal_pool_free(pool.get(), given_back, nullptr, 0));
  std::promise<xhal_status> freed;
  on_value(own(stream), 1,
           [&](xhal_status) { freed.set_value(xhal_pool_free(pool.get(), kept, nullptr, 0)); });
  within_deadline("xhal_pool_free in a callback that an allocation under pressure called", [&] {
    // Whether there is room depends on when the callback runs; that both calls end does not.
    (void)xhal_pool_alloc(pool.get(), other.get(), 1500 << 10, str("c"), &wanted);
    xhal_event event{};
    EXPECT_OK(xhal_event_record(stream.get(), 0, &event));  // now the callback runs at the latest
    EXPECT_EQ(freed.get_future().get(), XHAL_OK);
    if (wanted == 0) {
      EXPECT_OK(xhal_pool_alloc(pool.get(), other.get(), 1 << 20, str("d"), &wanted));
    }
  });
}

TEST_P(CallbackTest, CallbacksMayRecordFreeAllocateAndSubmit) {
  const auto& d = device(GetParam());
  const auto stream = d.stream(), other = d.stream();
  const auto pool = d.pool();
  const auto memory = alloc(d, 8192);  // a half for each stream
  const auto mine = timeline();
  uint64_t block = 0;
  ASSERT_OK(xhal_pool_alloc(pool.get(), stream.get(), 4096, str("block"), &block));
  const auto everything = [&](xhal_status status) {
    EXPECT_EQ(status, XHAL_OK);
    for (auto* s : {stream.get(), other.get()}) {
      xhal_event event{};
      EXPECT_OK(xhal_event_record(s, 0, &event));
      (void)xhal_event_query(&event);
      EXPECT_OK(xhal_stream_wait_event(other.get(), &event));
      EXPECT_OK(xhal_stream_fill(s, s == stream.get() ? memory : memory + 4096, 4096, 3, 1));
      uint64_t another = 0;
      EXPECT_OK(xhal_pool_alloc(pool.get(), s, 4096, str("another"), &another));
      EXPECT_OK(xhal_pool_free(pool.get(), another, &event, 1));
    }
    const auto fresh = d.stream();
    const auto t = timeline();
    EXPECT_OK(xhal_timeline_signal(t.get(), 1));
    xhal_pool_stats stats{};
    stats.struct_size = sizeof stats;
    EXPECT_OK(xhal_pool_query(pool.get(), &stats));
    EXPECT_OK(xhal_pool_trim(pool.get(), 1 << 20));
    xhal_pointer_info info{};
    EXPECT_OK(xhal_pointer_query(memory, &info));
    EXPECT_EQ(xhal_timeline_wait(mine.get(), 1000, 0), XHAL_ERR_TIMEOUT) << "0 only looks";
  };
  std::atomic<int> ended{0};
  within_deadline("a callback that records, frees, allocates and submits", [&] {
    on_value(mine.get(), 1, [&](xhal_status status) {
      everything(status);
      EXPECT_OK(xhal_pool_free(pool.get(), block, nullptr, 0));
      EXPECT_OK(xhal_timeline_signal(mine.get(), 2));
      ++ended;
    });
    on_value(mine.get(), 2, [&](xhal_status) { ++ended; });
    on_stream(stream.get(), [&](xhal_status status) {
      everything(status);
      ++ended;
    });
    EXPECT_OK(xhal_stream_signal(stream.get(), mine.get(), 1));
    EXPECT_OK(xhal_timeline_wait(mine.get(), 2, kSoon));
    EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
    EXPECT_OK(xhal_stream_synchronize(other.get(), kSoon));
    while (ended < 3) std::this_thread::yield();  // they run on the thread that signals
  });
}

INSTANTIATE_TEST_SUITE_P(Plugins, CallbackTest, testing::Values("faulty", "template", "cpu"));

// Whether a thread of this process sleeps in the kernel.
bool is_asleep(pid_t thread) {
  std::ifstream stat("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string text;
  std::getline(stat, text);
  const auto after_name = text.rfind(')');
  return after_name != text.npos && text.substr(after_name + 2, 1) == "S";
}

// Waiting with no lock: who waits in the library keeps nobody else from going on.
TEST_F(FaultyTest, AnAllocationThatWaitsForASignalDoesNotKeepOthersFromThePool) {
  const auto& d = device("cpu");
  const auto stream = d.stream();
  const auto pool = d.pool(2 << 20);
  const auto gate = timeline();
  uint64_t block = 0;
  ASSERT_OK(xhal_pool_alloc(pool.get(), stream.get(), 1 << 20, str("block"), &block));
  ASSERT_OK(xhal_stream_wait(stream.get(), gate.get(), 1));
  ASSERT_OK(xhal_pool_free(pool.get(), block, nullptr, 0));
  within_deadline("the pool beside an allocation that waits for its gate", [&] {
    std::atomic<pid_t> waiter{0};
    std::atomic<bool> ended{false};
    std::thread waits([&] {
      waiter = gettid();
      // It may be refused instead: pool.h promises that only a new slab blocks.
      uint64_t another = 0;
      const auto status = xhal_pool_alloc(pool.get(), nullptr, 1 << 20, str("waits"), &another);
      EXPECT_TRUE(status == XHAL_OK || status == XHAL_ERR_OUT_OF_MEMORY);
      ended = true;
    });
    while (!ended && !(waiter != 0 && is_asleep(waiter))) std::this_thread::yield();
    xhal_pool_stats stats{};
    stats.struct_size = sizeof stats;
    EXPECT_OK(xhal_pool_query(pool.get(), &stats));
    EXPECT_OK(xhal_pool_free(pool.get(), 0, nullptr, 0));
    EXPECT_OK(xhal_timeline_signal(gate.get(), 1));
    waits.join();
  });
}

using NestingTest = FaultyTest;

// Each signals the next one: on one stack that would be 50,000 calls deep.
TEST_F(NestingTest, CallbacksThatSignalDoNotNestWithoutEnd) {
  constexpr size_t kCount = 50'000;
  struct Link {
    xhal_timeline* timeline = nullptr;
    Link* next = nullptr;
    uint32_t* called = nullptr;
  };
  std::vector<Link> chain(kCount);
  std::vector<Timeline> timelines;
  uint32_t called = 0;
  for (auto& link : chain) {
    timelines.push_back(timeline());
    link = {timelines.back().get(), &link + 1 == chain.data() + kCount ? nullptr : &link + 1,
            &called};
    ASSERT_OK(xhal_timeline_notify(
        link.timeline, 1,
        [](void* user, xhal_status) {
          const auto& self = *static_cast<Link*>(user);
          ++*self.called;
          if (self.next != nullptr) (void)xhal_timeline_signal(self.next->timeline, 1);
        },
        &link));
  }
  ASSERT_OK(xhal_timeline_signal(chain.front().timeline, 1));
  EXPECT_EQ(called, kCount);
}

}  // namespace
}  // namespace xhal::test
