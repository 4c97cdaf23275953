// SPDX-License-Identifier: Apache-2.0
// Handing work to the cpu plugin's threads: nothing is lost or run twice, wherever they sleep,
// spin or move.
#include <sched.h>

#include <atomic>
#include <thread>

#include "runtime_harness.hpp"

namespace xhal::cpu::test {
namespace {

void count_up(void* counter, xhal_status status) {
  if (status == XHAL_OK) static_cast<std::atomic<int>*>(counter)->fetch_add(1);
}

// Runs `body` in a thread that may use one processor only: it shares that with whoever serves it,
// until they move.
template <class Body>
void on_one_processor(Body&& body) {
  std::thread thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(sched_getcpu()), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    body();
  });
  thread.join();
}

TEST_F(RuntimeTest, RoundTripsWithoutAPauseEachRunTheirCallFirst) {
  auto stream = device().stream();
  std::atomic<int> done{0};
  on_one_processor([&] {
    for (int i = 0; i < 5000; ++i) {
      ASSERT_OK(xhal_stream_host_call(stream.get(), count_up, &done, 0));
      ASSERT_OK(xhal_stream_synchronize(stream.get(), XHAL_FOREVER));
      ASSERT_EQ(done.load(), i + 1);
    }
  });
}

TEST_F(RuntimeTest, BurstsOfManyThreadsRunEveryCallOnce) {
  constexpr int kThreads = 4, kBursts = 1500;
  std::atomic<int> done{0};
  std::atomic<int> wanted{0};
  Device& shared = device();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      auto stream = shared.stream();
      for (int i = 0; i < kBursts; ++i) {
        const int calls = 1 + (7 * i + t) % 5;
        wanted += calls;
        for (int c = 0; c < calls; ++c) {
          const uint32_t flags = (i + c) % 3 == 0 ? XHAL_HOST_CALL_NON_BLOCKING : 0;
          ASSERT_OK(xhal_stream_host_call(stream.get(), count_up, &done, flags));
        }
        if (i % 3 == 0) continue;
        ASSERT_OK(xhal_stream_synchronize(stream.get(), XHAL_FOREVER));
      }
    });  // destroying the stream runs what is left
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(done.load(), wanted.load());
}

// Submits itself again for as long as it is run.
struct Endless {
  xhal_stream* stream;
  std::atomic<int> runs{0};
  std::atomic<xhal_status> end{XHAL_OK};

  static void call(void* user, xhal_status status) {
    auto* self = static_cast<Endless*>(user);
    self->runs.fetch_add(1);
    if (status == XHAL_OK) status = xhal_stream_host_call(self->stream, call, self, 0);
    if (status != XHAL_OK) self->end.store(status);
  }
};

TEST_F(RuntimeTest, AShutdownDropsWhatIsQueuedAlthoughMoreKeepsComing) {
  auto stream = device().stream();
  Endless endless{stream.get()};
  ASSERT_OK(xhal_stream_host_call(stream.get(), Endless::call, &endless, 0));
  while (endless.runs.load() < 10) std::this_thread::yield();
  session_.reset();
  EXPECT_LT(endless.end.load(), 0);
}

}  // namespace
}  // namespace xhal::cpu::test
