// SPDX-License-Identifier: Apache-2.0
// Who may write a timeline: its owner and nobody else. Views, forked children, peers and cards that
// were declared dead never make an unreached value look reached.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <atomic>
#include <functional>
#include <future>

#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

struct Exported {
  explicit Exported(const Timeline& t) { check(xhal_timeline_export(t.get(), &fd, &offset)); }
  ~Exported() { ::close(fd); }
  Timeline import() const {
    xhal_timeline* view = nullptr;
    check(xhal_timeline_import(fd, offset, &view));
    return Timeline(view);
  }
  int32_t fd = -1;
  uint64_t offset = 0;
};

class CellTest : public FaultyTest {
 protected:
  // The owner is as it was: nothing reached, and what it signals is reached and no more.
  static void expect_untouched(xhal_timeline* t) {
    EXPECT_EQ(xhal_timeline_wait(t, 7, 0), XHAL_ERR_TIMEOUT);
    EXPECT_OK(xhal_timeline_signal(t, 1));
    EXPECT_OK(xhal_timeline_wait(t, 1, 0));
    uint64_t stands_at = 99;
    EXPECT_EQ(xhal_timeline_query(t, 2, &stands_at), XHAL_NOT_READY);
    EXPECT_EQ(stands_at, 1u);
  }
};

TEST_F(CellTest, ADestroyedViewLeavesTheOwnerUnreached) {
  const auto owner = timeline();
  const Exported exported(owner);
  exported.import().reset();
  expect_untouched(owner.get());
}

TEST_F(CellTest, AViewMayBeImportedTwiceAndDestroyedOnce) {
  const auto owner = timeline();
  const Exported exported(owner);
  auto first = exported.import();
  const auto second = exported.import();
  first.reset();
  EXPECT_EQ(xhal_timeline_query(second.get(), 1, nullptr), XHAL_NOT_READY);
  EXPECT_OK(xhal_timeline_signal(owner.get(), 1));
  EXPECT_OK(xhal_timeline_wait(second.get(), 1, kSoon));
}

TEST_F(CellTest, AnExportedTimelineCannotBeWrittenByItsImporter) {
  const auto owner = timeline();
  const Exported exported(owner);
  struct stat file {};
  ASSERT_EQ(fstat(exported.fd, &file), 0);
  const auto size = static_cast<size_t>(file.st_size);
  void* const writable = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, exported.fd, 0);
  EXPECT_EQ(writable, MAP_FAILED) << "an importer could raise the owner's cell";
  const uint64_t value = 1000;
  EXPECT_NE(pwrite(exported.fd, &value, sizeof value, static_cast<off_t>(exported.offset)),
            static_cast<ssize_t>(sizeof value));
  EXPECT_NE(ftruncate(exported.fd, 0), 0) << "an importer could take the cell away";
  // A descriptor can be opened again by its name in /proc, with other rights.
  const std::string name = "/proc/self/fd/" + std::to_string(exported.fd);
  if (const int again = open(name.c_str(), O_RDWR); again >= 0) {
    EXPECT_EQ(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0), MAP_FAILED);
    EXPECT_NE(pwrite(again, &value, sizeof value, static_cast<off_t>(exported.offset)),
              static_cast<ssize_t>(sizeof value));
    ::close(again);
  }
  expect_untouched(owner.get());
}

// The whole reading of what one descriptor shows: another timeline made beside it is not there.
TEST_F(CellTest, AnExportedDescriptorShowsNoOtherTimeline) {
  const auto before = timeline(), owner = timeline(), after = timeline();
  const Exported exported(owner);
  EXPECT_OK(xhal_timeline_signal(before.get(), 0x1122334455667788));
  EXPECT_OK(xhal_timeline_signal(after.get(), 0x1122334455667788));
  struct stat file {};
  ASSERT_EQ(fstat(exported.fd, &file), 0);
  std::vector<uint64_t> words(static_cast<size_t>(file.st_size) / 8);
  const auto got = pread(exported.fd, words.data(), words.size() * 8, 0);
  ASSERT_GT(got, 0);
  words.resize(static_cast<size_t>(got) / 8);
  for (const auto word : words) ASSERT_NE(word, 0x1122334455667788u);
}

TEST_F(CellTest, AnImportAtASenselessOffsetIsRefused) {
  const auto owner = timeline();
  const Exported exported(owner);
  struct stat file {};
  ASSERT_EQ(fstat(exported.fd, &file), 0);
  const auto size = static_cast<uint64_t>(file.st_size);
  for (const uint64_t offset :
       {uint64_t{0} - 64, uint64_t{0} - 1, exported.offset + 1, exported.offset + 8, size, size - 8,
        size + 4096, ~uint64_t{0} / 2, uint64_t{1} << 63}) {
    expect_child(
        [&] {
          xhal_timeline* view = nullptr;
          EXPECT_EQ(xhal_timeline_import(exported.fd, offset, &view), XHAL_ERR_INVALID_ARGUMENT);
        },
        "offset " + std::to_string(offset));
  }
}

TEST_F(CellTest, AForkedChildsDestroyLeavesItsParentAlone) {
  const auto owner = timeline();
  expect_child([&] { (void)xhal_timeline_destroy(owner.get()); });
  expect_untouched(owner.get());
}

TEST_F(CellTest, AForkedChildsSignalLeavesItsParentAlone) {
  const auto owner = timeline();
  expect_child([&] { (void)xhal_timeline_signal(owner.get(), 100); });
  expect_untouched(owner.get());
}

TEST_F(CellTest, AForkedChildsShutdownLeavesItsParentAlone) {
  const auto owner = timeline();
  expect_child([&] { (void)xhal_shutdown(); });
  expect_untouched(owner.get());
}

TEST_F(CellTest, AForkedChildOfAProcessWithOpenDevicesLeavesItAlone) {
  auto device = open_device("faulty:0");
  const auto stream = device.stream();
  const auto owner = timeline();
  xhal_timeline* own = nullptr;
  ASSERT_OK(xhal_stream_timeline(stream.get(), &own));
  expect_child([&] {
    (void)xhal_timeline_destroy(owner.get());
    (void)xhal_stream_destroy(stream.get());
    (void)xhal_device_close(device.get());
    (void)xhal_shutdown();
  });
  expect_untouched(owner.get());
  EXPECT_EQ(xhal_timeline_query(own, 1, nullptr), XHAL_NOT_READY);
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
}

// Only a live owner is waited for; whether it lives is not a question of process numbers, which
// another namespace has of its own.
TEST_F(CellTest, AnImporterInAnotherPidNamespaceSeesALivingOwner) {
  const auto owner = timeline();
  const Exported exported(owner);
  const auto end = in_child([&] {
    if (unshare(CLONE_NEWPID) != 0) _exit(0);  // only root may
    expect_child([&] {
      const auto view = exported.import();
      EXPECT_EQ(xhal_timeline_wait(view.get(), 1, 0), XHAL_ERR_TIMEOUT);
    });
  });
  EXPECT_EQ(end, "");
  expect_untouched(owner.get());
}

// A device in another process writes `failed` itself, without a record: that is no success.
TEST_F(CellTest, ACellThatADeviceFailsByItselfIsAnInternalErrorNotSuccess) {
  const auto device = open_device("faulty:0");
  const auto stream = device.stream();
  const auto t = timeline();
  board().before("stream_signal", [&](const Call& call) {
    std::atomic_ref(call.host->timeline_cell(call.timeline)->failed).store(1);
    return XHAL_ERR_DEVICE;
  });
  EXPECT_EQ(xhal_stream_signal(stream.get(), t.get(), 1), XHAL_ERR_DEVICE);
  EXPECT_EQ(xhal_timeline_wait(t.get(), 1, 0), XHAL_ERR_INTERNAL);
  EXPECT_EQ(xhal_timeline_query(t.get(), 1, nullptr), XHAL_ERR_INTERNAL);
  EXPECT_EQ(xhal_timeline_signal(t.get(), 1), XHAL_ERR_INTERNAL);
}

class DeadCardTest : public CellTest {
 protected:
  void SetUp() override {
    CellTest::SetUp();
    board().before("stream_create", [this](const Call& call) {
      cell = call.host->timeline_cell(call.timeline);
      return XHAL_OK;
    });
  }
  // What a card does that was declared dead and goes on.
  void raise(uint64_t value) { std::atomic_ref(cell->value).store(value); }
  xhal_timeline_cell* cell = nullptr;
};

TEST_F(DeadCardTest, ACardThatWakesUpAfterItsLossReachesNothing) {
  const auto device = open_device("faulty:0", XHAL_OPEN_CONTROL);
  auto stream = device.stream();
  xhal_event reached{};
  ASSERT_OK(xhal_event_record(stream.get(), 0, &reached));
  xhal_timeline* t = nullptr;
  ASSERT_OK(xhal_stream_timeline(stream.get(), &t));
  lose(device);
  EXPECT_EQ(xhal_timeline_query(t, 9, nullptr), XHAL_ERR_DEVICE_LOST);
  raise(9);
  EXPECT_EQ(xhal_timeline_query(t, 9, nullptr), XHAL_ERR_DEVICE_LOST);
  EXPECT_EQ(xhal_timeline_wait(t, 9, 0), XHAL_ERR_DEVICE_LOST);
  EXPECT_OK(xhal_event_query(&reached)) << "what was reached stays reached";
}

// Its cells are given to nobody before its device is closed and so known to be quiet.
TEST_F(DeadCardTest, ACardThatWakesUpAfterItsLossReachesNoTimelineMadeLater) {
  const auto device = open_device("faulty:0", XHAL_OPEN_CONTROL);
  const auto other = open_device("faulty:1");
  auto stream = device.stream();
  lose(device);
  stream.reset();
  auto* const of_the_dead = cell;
  std::vector<Timeline> later;
  std::vector<Stream> streams;
  for (int i = 0; i < 1000; ++i) {
    later.push_back(timeline());
    if (i % 10 == 0) streams.push_back(other.stream());
  }
  std::atomic_ref(of_the_dead->value).store(uint64_t{1} << 40);
  for (const auto& t : later) ASSERT_EQ(xhal_timeline_query(t.get(), 1, nullptr), XHAL_NOT_READY);
  for (const auto& s : streams) {
    xhal_timeline* t = nullptr;
    ASSERT_OK(xhal_stream_timeline(s.get(), &t));
    ASSERT_EQ(xhal_timeline_query(t, uint64_t{1} << 39, nullptr), XHAL_NOT_READY);
  }
}

class ReachedForEverTest : public FaultyTest {};

TEST_F(ReachedForEverTest, AReachedEventStaysReachedWhenItsStreamItsDeviceAndTheirSuccessorsEnd) {
  std::vector<xhal_event> reached;
  const auto expect_all = [&](const char* after) {
    for (const auto& event : reached) {
      ASSERT_OK(xhal_event_query(&event)) << after;
      ASSERT_OK(xhal_event_wait(&event, 0)) << after;
    }
  };
  {
    auto device = open_device("faulty:0", XHAL_OPEN_CONTROL);
    for (int round = 0; round < 200; ++round) {
      const auto stream = device.stream();
      for (int i = 0; i < 3; ++i)
        ASSERT_OK(xhal_event_record(stream.get(), 0, &reached.emplace_back()));
    }
    expect_all("the streams were destroyed");
    lose(device);
    expect_all("the device was lost");
  }
  expect_all("the device was closed");
  const auto other = open_device("faulty:1");
  std::vector<Stream> successors;
  for (int i = 0; i < 500; ++i) successors.push_back(other.stream());
  expect_all("other streams were made");
  const auto another = other.stream();
  for (const auto& event : reached) {
    ASSERT_OK(xhal_stream_wait_event(another.get(), &event));
  }
  EXPECT_OK(xhal_stream_synchronize(another.get(), kSoon));
}

TEST_F(ReachedForEverTest, AReachedValueOfADestroyedTimelineStaysReached) {
  auto t = timeline();
  ASSERT_OK(xhal_timeline_signal(t.get(), 5));
  const xhal_event reached{t.get(), 5, 0, 0}, never{t.get(), 6, 0, 0};
  t.reset();
  EXPECT_OK(xhal_event_query(&reached));
  EXPECT_OK(xhal_event_wait(&reached, kSoon));
  EXPECT_EQ(xhal_event_query(&never), XHAL_ERR_ABANDONED);
}

// The memory of a stream is used again; what it never reached is not reached by its successors.
TEST_F(ReachedForEverTest, AnEventOfAFailedStreamIsNeverReachedByALaterStream) {
  const auto d = open_device("faulty:0");
  std::vector<xhal_event> never;
  for (int i = 0; i < 20; ++i) {
    auto stream = d.stream();
    auto gate = timeline();
    ASSERT_OK(xhal_stream_wait(stream.get(), gate.get(), 1));
    for (int k = 0; k < 3; ++k)
      ASSERT_OK(xhal_event_record(stream.get(), 0, &never.emplace_back()));
    gate.reset();  // abandoned: nobody signals it any more
    ASSERT_LT(xhal_event_wait(&never.back(), kSoon), 0);
    if (i % 2 == 0) {
      ASSERT_OK(xhal_stream_recover(stream.get()));
    }
  }
  for (int i = 0; i < 500; ++i) {
    const auto later = d.stream();
    for (int k = 0; k < 10; ++k) ASSERT_OK(xhal_stream_synchronize(later.get(), kSoon));
    for (const auto& event : never) ASSERT_LT(xhal_event_query(&event), 0) << "stream " << i;
  }
}

TEST_F(ReachedForEverTest, ATimelineThatTakesTheMemoryOfAnotherStandsWhereItWasTold) {
  for (int i = 0; i < 1000; ++i) {
    const auto t = timeline(static_cast<uint64_t>(i % 7));
    uint64_t stands_at = 99;
    ASSERT_EQ(xhal_timeline_query(t.get(), 8, &stands_at), XHAL_NOT_READY);
    ASSERT_EQ(stands_at, static_cast<uint64_t>(i % 7));
    ASSERT_OK(xhal_timeline_signal(t.get(), 1000 + static_cast<uint64_t>(i)));
  }
}

TEST_F(ReachedForEverTest, AViewsReachedValueStaysReachedWhenItsOwnerIsGone) {
  auto owner = timeline();
  const Exported exported(owner);
  const auto view = exported.import();
  ASSERT_OK(xhal_timeline_signal(owner.get(), 2));
  owner.reset();
  EXPECT_OK(xhal_timeline_query(view.get(), 2, nullptr));
  EXPECT_EQ(xhal_timeline_wait(view.get(), 3, kSoon), XHAL_ERR_PEER_LOST);
  EXPECT_OK(xhal_timeline_wait(view.get(), 2, kSoon));
}

// What a plugin does not destroy it still has, and so has libxhal: the handle stays good.
TEST_F(CellTest, ADestroyThatThePluginRefusesLeavesTheObjectUsable) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d);
  xhal_stream* stream = nullptr;
  ASSERT_OK(xhal_stream_create(context, nullptr, &stream));
  for (const char* slot : {"stream_destroy", "context_destroy"})
    board().before(slot, [](const Call&) { return XHAL_ERR_TIMEOUT; });
  EXPECT_EQ(xhal_stream_destroy(stream), XHAL_ERR_TIMEOUT);
  xhal_event event{};
  EXPECT_OK(xhal_event_record(stream, 0, &event));
  EXPECT_OK(xhal_event_wait(&event, kSoon));
  board().forget("stream_destroy");
  EXPECT_EQ(xhal_context_destroy(context), XHAL_ERR_TIMEOUT);
  EXPECT_OK(xhal_memory_free(context, alloc_in(context, 4096)));
  board().forget("context_destroy");
  EXPECT_OK(xhal_context_destroy(context));
}

// A graph without work that the program believes to be in it would compute something else.
TEST_F(CellTest, ACaptureThatLostASubmissionMakesNoGraph) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto host = timeline();
  const std::function<xhal_status()> refused[] = {
      [&] { return xhal_stream_wait(stream.get(), host.get(), 1); },
      [&] { return xhal_stream_signal(stream.get(), host.get(), 1); },
      [&] { return xhal_stream_host_call(stream.get(), nullptr, nullptr, 0); },
      [&] { return xhal_op_launch(stream.get(), nullptr, nullptr, 0, nullptr, 0, 0); },
      [&] { return xhal_event_record(stream.get(), 0, nullptr); },
      [&] { return xhal_stream_wait_event(stream.get(), nullptr); }};
  for (size_t i = 0; i < std::size(refused); ++i) {
    SCOPED_TRACE(i);
    ASSERT_OK(xhal_stream_begin_capture(stream.get(), nullptr));
    EXPECT_LT(refused[i](), 0);
    xhal_graph* graph = nullptr;
    EXPECT_EQ(xhal_stream_end_capture(stream.get(), &graph), XHAL_ERR_CAPTURE);
    EXPECT_EQ(graph, nullptr);
  }
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
}

// A card may die between raising a cell and telling anybody.
TEST_F(CellTest, ALostDeviceThatRaisedATimelineLosesNoCallback) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto t = timeline();
  std::promise<xhal_status> called;
  ASSERT_OK(xhal_timeline_notify(
      t.get(), 1,
      [](void* user, xhal_status s) {
        static_cast<std::promise<xhal_status>*>(user)->set_value(s);
      },
      &called));
  board().before("stream_signal", [](const Call& call) {
    auto* const cell = call.host->timeline_cell(call.timeline);
    std::atomic_ref(cell->value).store(call.value);
    call.lose();
    return XHAL_ERR_DEVICE_LOST;
  });
  EXPECT_EQ(xhal_stream_signal(stream.get(), t.get(), 1), XHAL_ERR_DEVICE_LOST);
  auto answer = called.get_future();
  ASSERT_EQ(answer.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_EQ(answer.get(), XHAL_OK);
}

}  // namespace
}  // namespace xhal::test
