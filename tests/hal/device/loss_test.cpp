// SPDX-License-Identifier: Apache-2.0
// A device that is lost takes its own work with it and nothing else, whenever it is lost.
#include <fcntl.h>
#include <poll.h>

#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

class LossTest : public FaultyTest {};

// The memory of a destroyed stream is used again, by another device too.
TEST_F(LossTest, ALostDeviceLeavesAnotherDevicesStreamAlone) {
  const auto lost = open_device("faulty:0", XHAL_OPEN_CONTROL), healthy = open_device("faulty:1");
  for (int i = 0; i < 8; ++i) {
    const auto destroyed = lost.stream();
    ASSERT_OK(xhal_stream_synchronize(destroyed.get(), kSoon));
  }
  std::vector<Stream> streams;
  for (int i = 0; i < 8; ++i) streams.push_back(healthy.stream());
  const auto from = alloc(healthy, 4096), to = alloc(healthy, 4096);
  lose(lost);
  board().record();
  for (const auto& stream : streams) {
    ASSERT_OK(xhal_stream_fill(stream.get(), from, 4096, 5, 1));
    ASSERT_OK(xhal_stream_copy(stream.get(), to, from, 4096));
    ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  }
  EXPECT_EQ(board().calls("stream_copy").size(), streams.size());
  EXPECT_EQ(read(streams[0].get(), to, 4096), std::vector<uint8_t>(4096, 5));
}

// Also where the pool has a block that lies ready.
TEST_F(LossTest, APoolOfALostDeviceGivesNothing) {
  const auto d = open_device("faulty:0", XHAL_OPEN_CONTROL);
  const auto stream = d.stream();
  const auto pool = d.pool();
  uint64_t address = 0;
  ASSERT_OK(xhal_pool_alloc(pool.get(), stream.get(), 4096, {}, &address));
  ASSERT_OK(xhal_pool_free(pool.get(), address, nullptr, 0));
  lose(d);
  EXPECT_EQ(xhal_pool_alloc(pool.get(), stream.get(), 4096, {}, &address), XHAL_ERR_DEVICE_LOST);
  EXPECT_EQ(last_error_info().device, "faulty:0");
  EXPECT_EQ(xhal_stream_recover(stream.get()), XHAL_ERR_DEVICE_LOST);
  EXPECT_EQ(last_error_info().operation, "xhal_stream_recover");
}

// The plugin says DEVICE_LOST of a stream that failed for another device's sake, without a name.
TEST_F(LossTest, AStreamThatRepeatsAnothersLossDoesNotLoseItsDevice) {
  const auto lost = open_device("faulty:0", XHAL_OPEN_CONTROL), healthy = open_device("faulty:1");
  const auto stream = healthy.stream(), other = healthy.stream();
  const auto never = timeline();
  const auto source = lost.stream();
  ASSERT_OK(xhal_stream_wait(source.get(), never.get(), 1));
  xhal_event event{};
  ASSERT_OK(xhal_event_record(source.get(), 0, &event));
  ASSERT_OK(xhal_stream_wait_event(stream.get(), &event));
  lose(lost);
  ASSERT_EQ(xhal_stream_synchronize(stream.get(), kSoon), XHAL_ERR_DEVICE_LOST);
  board().before("stream_recover", [](const Call&) { return XHAL_ERR_DEVICE_LOST; });
  ASSERT_EQ(xhal_stream_recover(stream.get()), XHAL_ERR_DEVICE_LOST);
  board().forget("stream_recover");
  EXPECT_OK(xhal_stream_synchronize(other.get(), kSoon));
  EXPECT_OK(xhal_stream_recover(stream.get()));
}

TEST_F(LossTest, ADeviceMayBeLostInsideStreamCreate) {
  board().before("stream_create", [](const Call& call) {
    call.lose();
    return XHAL_ERR_DEVICE_LOST;
  });
  const auto d = open_device("faulty:0");
  const auto other = open_device("faulty:1");
  xhal_stream* stream = nullptr;
  EXPECT_EQ(xhal_stream_create(d.context(), nullptr, &stream), XHAL_ERR_DEVICE_LOST);
  EXPECT_EQ(last_error_info().device, "faulty:0");
  EXPECT_EQ(xhal_stream_create(d.context(), nullptr, &stream), XHAL_ERR_DEVICE_LOST);
  board().forget("stream_create");
  EXPECT_OK(xhal_stream_create(other.context(), nullptr, &stream));
  const auto again = open_device("faulty:0");
  EXPECT_EQ(again.info().generation, d.info().generation + 1);
  EXPECT_OK(xhal_stream_synchronize(again.stream().get(), kSoon));
}

// In every slot that a caller waits in: what the call returns is typed, nothing hangs or crashes.
TEST_F(LossTest, ADeviceMayBeLostInsideAnySlot) {
  for (const char* slot :
       {"memory_alloc", "memory_free", "host_register", "stream_create", "stream_copy",
        "stream_fill", "stream_host_call", "stream_wait", "stream_signal", "stream_destroy",
        "stream_begin_capture", "stream_end_capture", "graph_launch", "op_prepare", "op_launch",
        "context_create", "context_destroy", "device_close"}) {
    expect_child(
        [slot] {
          board().before(slot, [](const Call& call) {
            call.lose();
            return XHAL_OK;
          });
          const auto d = open_device("faulty:0");
          const auto typed = [&](xhal_status s) {
            EXPECT_TRUE(s == XHAL_OK || s == XHAL_ERR_DEVICE_LOST) << xhal_status_name(s);
            return s == XHAL_OK;
          };
          uint64_t memory = 0;
          xhal_stream* stream = nullptr;
          xhal_context* context = nullptr;
          if (typed(xhal_context_create(d.get(), nullptr, &context)))
            typed(xhal_context_destroy(context));
          if (!typed(try_alloc(d.context(), 4096, &memory))) return;
          if (!typed(xhal_stream_create(d.context(), nullptr, &stream))) return;
          std::vector<uint8_t> host(4096);
          typed(xhal_stream_fill(stream, memory, 4096, 1, 1));
          typed(xhal_stream_copy(stream, memory, address_of(host.data()), 4096));
          typed(xhal_stream_host_call(
              stream, [](void*, xhal_status) {}, nullptr, 0));
          const auto t = timeline();
          typed(xhal_stream_signal(stream, t.get(), 1));
          typed(xhal_stream_wait(stream, t.get(), 2));
          (void)xhal_timeline_signal(t.get(), 2);
          typed(xhal_stream_synchronize(stream, kSoon));
          xhal_op_info info{};
          info.struct_size = sizeof info;
          xhal_op* op = nullptr;
          if (typed(xhal_op_prepare(d.context(), &info, &op)))
            typed(xhal_op_launch(stream, op, nullptr, 0, nullptr, 0, 0));
          xhal_graph* graph = nullptr;
          if (typed(xhal_stream_begin_capture(stream, nullptr)) &&
              typed(xhal_stream_end_capture(stream, &graph)))
            typed(xhal_graph_launch(stream, graph));
          typed(xhal_stream_destroy(stream));
          typed(xhal_memory_free(d.context(), memory));
        },
        "lost inside " + std::string(slot));
  }
}

// Waiters learn at once, not when somebody else's driver has started.
TEST_F(LossTest, WaitersOfALostDeviceWakeWhileAnotherDeviceIsBeingOpened) {
  const auto d = open_device("faulty:0", XHAL_OPEN_CONTROL);
  const auto stream = d.stream();
  xhal_timeline* t = nullptr;
  ASSERT_OK(xhal_stream_timeline(stream.get(), &t));
  uint64_t at = 0;  // it may have been another stream's before
  ASSERT_OK(xhal_timeline_query(t, 0, &at));
  std::promise<void> opening, woken;
  board().before("device_open", [&](const Call&) {
    opening.set_value();
    woken.get_future().wait();  // the driver starts when the waiter has woken, not before
    return XHAL_OK;
  });
  within_deadline("a waiter of a lost device while another device is being opened", [&] {
    std::thread opener(
        [] { EXPECT_OK(xhal_stream_synchronize(open_device("faulty:1").stream().get(), kSoon)); });
    opening.get_future().wait();
    std::thread waiter([&] {
      EXPECT_EQ(xhal_timeline_wait(t, at + 1, XHAL_FOREVER), XHAL_ERR_DEVICE_LOST);
      woken.set_value();
    });
    lose(d);
    opener.join();
    waiter.join();
  });
}

// Enumerating and querying go on while a driver starts.
TEST_F(LossTest, ASlowOpenKeepsNobodyElseWaiting) {
  const auto d = open_device("faulty:0");
  std::promise<void> opening, used;
  board().before("device_open", [&](const Call&) {
    opening.set_value();
    used.get_future().wait();
    return XHAL_OK;
  });
  within_deadline("the use of an open device while another one is being opened", [&] {
    std::thread opener([] { const auto other = open_device("faulty:1"); });
    opening.get_future().wait();
    const auto stream = d.stream();
    const auto memory = alloc(d, 4096);
    EXPECT_OK(xhal_stream_fill(stream.get(), memory, 4096, 4, 1));
    EXPECT_EQ(read(stream.get(), memory, 4096), std::vector<uint8_t>(4096, 4));
    used.set_value();
    opener.join();
  });
}

TEST_F(LossTest, ShutdownAndALossAtTheSameTimeBothEnd) {
  expect_child([] {
    xhal_device* device = nullptr;
    const Call* last = nullptr;
    Call remembered;
    board().before("stream_create", [&](const Call& call) {
      remembered = call;
      last = &remembered;
      return XHAL_OK;
    });
    // The plugin joins its monitor thread in shutdown, as it must; that thread reports a loss.
    board().before("shutdown", [&](const Call&) {
      std::thread([&] { last->lose(); }).join();
      return XHAL_OK;
    });
    auto d = std::make_unique<Device>(open_device("faulty:0"));
    device = d->get();
    const auto stream = d->stream();
    EXPECT_OK(xhal_shutdown());
    EXPECT_LT(xhal_device_close(device), 1);
    (void)d.release();
  });
}

TEST_F(LossTest, ALossReportedWhileTheDeviceIsBeingClosedEnds) {
  expect_child([] {
    board().before("device_close", [](const Call& call) {
      std::thread([call] { call.lose(); }).join();
      return XHAL_OK;
    });
    {
      const auto d = open_device("faulty:0");
      const auto stream = d.stream();
      EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
    }
    board().forget("device_close");
    const auto again = open_device("faulty:0");
    EXPECT_OK(xhal_stream_synchronize(again.stream().get(), kSoon));
  });
}

// ---- the events descriptor

TEST_F(LossTest, AnEventsDescriptorThatWasClosedKillsNobody) {
  expect_child([] {
    signal(SIGPIPE, SIG_DFL);
    const auto d = open_device("faulty:0", XHAL_OPEN_CONTROL);
    int32_t closed = -1, open = -1;
    EXPECT_OK(xhal_device_events_fd(d.get(), &closed));
    EXPECT_OK(xhal_device_events_fd(d.get(), &open));
    ::close(closed);
    for (int i = 0; i < 3; ++i) inject(d, "event");
    xhal_device_event event{};
    EXPECT_EQ(::read(open, &event, sizeof event), static_cast<ssize_t>(sizeof event));
    EXPECT_EQ(event.kind, static_cast<uint32_t>(XHAL_DEVICE_EVENT_HEALTH));
    ::close(open);
    lose(d);
  });
}

TEST_F(LossTest, AReaderOfEventsThatNeverReadsKeepsNobodyWaiting) {
  const auto d = open_device("faulty:0", XHAL_OPEN_CONTROL);
  int32_t fd = -1;
  ASSERT_OK(xhal_device_events_fd(d.get(), &fd));
  within_deadline("a health event to a descriptor that nobody reads", [&] {
    for (int i = 0; i < 20'000; ++i) inject(d, "event");
  });
  pollfd readable{fd, POLLIN, 0};
  EXPECT_EQ(poll(&readable, 1, 0), 1);
  ::close(fd);
}

}  // namespace
}  // namespace xhal::test
