// SPDX-License-Identifier: Apache-2.0
// Forked children: whatever the parent's threads are doing at that moment, a child gets an answer.
#include <atomic>

#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

class ForkTest : public FaultyTest {};

// Threads that keep the library's locks busy while the process forks.
class BusyThreads {
 public:
  explicit BusyThreads(std::vector<std::function<void()>> bodies) {
    for (auto& body : bodies) {
      threads_.emplace_back([this, body = std::move(body)] {
        while (!stop_) body();
      });
    }
  }
  ~BusyThreads() {
    stop_ = true;
    for (auto& t : threads_) t.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// A process with no open device may go on in its child; every lock must be free there.
TEST_F(ForkTest, AForkedChildMayUsePinnedMemoryAndTimelinesWhileItsParentsThreadsDo) {
  const BusyThreads busy({[] {
                            void* memory = nullptr;
                            if (xhal_host_alloc(4096, &memory) == XHAL_OK) xhal_host_free(memory);
                          },
                          [] {
                            const auto t = timeline();
                            (void)xhal_timeline_notify(
                                t.get(), 1, [](void*, xhal_status) {}, nullptr);
                            (void)xhal_timeline_signal(t.get(), 1);
                          },
                          [] {
                            xhal_pointer_info info{};
                            (void)xhal_pointer_query(4096, &info);
                          }});
  for (int i = 0; i < 200; ++i) {
    expect_child(
        [] {
          void* memory = nullptr;
          EXPECT_OK(xhal_host_alloc(4096, &memory));
          xhal_pointer_info info{};
          EXPECT_OK(xhal_pointer_query(address_of(memory), &info));
          EXPECT_OK(xhal_host_free(memory));
          const auto t = timeline();
          EXPECT_OK(xhal_timeline_signal(t.get(), 1));
          EXPECT_OK(xhal_timeline_wait(t.get(), 1, 0));
        },
        "child " + std::to_string(i));
  }
}

// With open devices the child is FORKED: every call answers, none hangs.
TEST_F(ForkTest, EveryCallOfAForkedChildEndsWhileItsParentsThreadsSubmit) {
  const auto d = open_device("faulty:0");
  auto* const further = context_in(d);
  const auto stream = d.stream(), in_further = stream_in(further);
  const auto pool = d.pool();
  const auto memory = alloc(d, 4096);
  const auto t = timeline();
  const BusyThreads busy({[&] {
                            const auto mine = d.stream();
                            (void)xhal_stream_fill(mine.get(), memory, 64, 1, 1);
                            (void)xhal_stream_synchronize(mine.get(), kSoon);
                          },
                          [&] {
                            uint64_t block = 0;
                            if (xhal_pool_alloc(pool.get(), stream.get(), 4096, str(""), &block) ==
                                XHAL_OK)
                              xhal_pool_free(pool.get(), block, nullptr, 0);
                          },
                          [&] {
                            uint64_t address = 0;
                            if (try_alloc(further, 4096, &address) == XHAL_OK)
                              xhal_memory_free(further, address);
                          },
                          [&] { const auto other = open_device("faulty:1"); }});
  for (int i = 0; i < 100; ++i) {
    expect_child(
        [&] {
          uint64_t value = 0;
          xhal_event event{};
          EXPECT_EQ(xhal_event_record(stream.get(), 0, &event), XHAL_ERR_FORKED);
          EXPECT_EQ(xhal_pool_alloc(pool.get(), stream.get(), 64, str(""), &value),
                    XHAL_ERR_FORKED);
          (void)xhal_pool_free(pool.get(), value, nullptr, 0);
          (void)xhal_timeline_query(t.get(), 1, nullptr);
          (void)xhal_timeline_wait(t.get(), 1, 0);
          (void)xhal_memory_free(d.context(), memory);
          xhal_pointer_info info{};
          (void)xhal_pointer_query(memory, &info);
          (void)xhal_stream_destroy(in_further.get());
          (void)xhal_pool_destroy(pool.get());
          (void)xhal_context_destroy(further);
          (void)xhal_device_close(d.get());
          (void)xhal_shutdown();
        },
        "child " + std::to_string(i));
  }
}

TEST_F(ForkTest, AContextIsDestroyedInAForkedChildWithoutItsStreams) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d);
  const auto stream = stream_in(context);
  expect_child([&] { (void)xhal_context_destroy(context); });
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon)) << "the parent goes on";
}

TEST_F(ForkTest, AForkedChildThatWaitsForItsParentsTimelineIsToldThatItIsForked) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto t = timeline();
  expect_child([&] {
    const auto status = xhal_timeline_wait(t.get(), 1, XHAL_FOREVER);
    EXPECT_TRUE(status == XHAL_ERR_FORKED || status == XHAL_ERR_PEER_LOST)
        << xhal_status_name(status);
  });
}

// ---- the end of a process

xhal_timeline* left_over = nullptr;

void fails_at_exit() {
  uint64_t value = 0;
  (void)xhal_timeline_query(left_over, 5, &value);  // a destroyed handle: an error with a text
  (void)xhal_timeline_wait(left_over, 5, 0);
  (void)xhal_timeline_destroy(left_over);
  xhal_error error{};
  error.struct_size = sizeof error;
  if (xhal_last_error(&error) != XHAL_OK || error.text.size == 0) _exit(3);
}

struct FailsInItsDestructor {
  ~FailsInItsDestructor() { fails_at_exit(); }
};

TEST_F(ForkTest, StaticDestructorsAndExitHandlersMayCallAFailingFunction) {
  expect_child(
      [] {
        std::atexit(fails_at_exit);
        static const FailsInItsDestructor in_a_static_destructor;
        check(xhal_timeline_create(0, &left_over));
        // The thread has a record with a text before its destructors run.
        EXPECT_EQ(xhal_timeline_wait(left_over, 7, 0), XHAL_ERR_TIMEOUT);
        EXPECT_OK(xhal_timeline_destroy(left_over));
      },
      "", End::through_exit);
}

TEST_F(ForkTest, AThreadsDestructorsMayCallAFailingFunction) {
  expect_child([] {
    std::thread([] {
      thread_local const FailsInItsDestructor in_a_thread_destructor;
      (void)in_a_thread_destructor;
      check(xhal_timeline_create(0, &left_over));
      EXPECT_EQ(xhal_timeline_wait(left_over, 7, 0), XHAL_ERR_TIMEOUT);
      EXPECT_OK(xhal_timeline_destroy(left_over));
    }).join();
  });
}

TEST_F(ForkTest, AProgramMayExitWithItsDevicesOpenAndThreadsAtWork) {
  expect_child(
      [] {
        auto* const d = new Device(open_device("faulty:0"));
        auto* const stream = new Stream(d->stream());
        static const auto memory = alloc(*d, 4096);
        std::thread([stream] {
          for (;;) (void)xhal_stream_fill(stream->get(), memory, 4096, 1, 1);
        }).detach();
      },
      "", End::through_exit);
}

}  // namespace
}  // namespace xhal::test
