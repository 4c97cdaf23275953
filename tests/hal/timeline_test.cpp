// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "hal_test.hpp"

namespace xhal::test {
namespace {

class TimelineTest : public HalTest {
 protected:
  Timeline make(uint64_t initial = 0) {
    xhal_timeline* t = nullptr;
    check(xhal_timeline_create(initial, &t));
    return Timeline(t);
  }
};

TEST_F(TimelineTest, ValuesOnlyGrow) {
  auto t = make(5);
  EXPECT_OK(xhal_timeline_signal(t.get(), 9));
  EXPECT_OK(xhal_timeline_signal(t.get(), 7));
  uint64_t current = 0;
  EXPECT_OK(xhal_timeline_query(t.get(), 9, &current));
  EXPECT_EQ(current, 9u);
  EXPECT_EQ(xhal_timeline_query(t.get(), 10, nullptr), XHAL_NOT_READY);
}

TEST_F(TimelineTest, TimeoutTellsWhereItStandsAndChangesNothing) {
  auto t = make(3);
  EXPECT_EQ(xhal_timeline_wait(t.get(), 4, 1'000'000), XHAL_ERR_TIMEOUT);
  EXPECT_THAT(error_text(), HasSubstr("stands at 3"));
  EXPECT_OK(xhal_timeline_signal(t.get(), 4));
  EXPECT_OK(xhal_timeline_wait(t.get(), 4, 0));
}

TEST_F(TimelineTest, WaitersOnAnotherThreadAreReleased) {
  auto t = make();
  std::thread waiter([&] { EXPECT_OK(xhal_timeline_wait(t.get(), 1, kSoon)); });
  EXPECT_OK(xhal_timeline_signal(t.get(), 1));
  waiter.join();
}

TEST_F(TimelineTest, DestroyBelowAnAwaitedValueAbandonsTheWaiter) {
  auto t = make();
  std::thread waiter([handle = t.get()] {
    const auto status = xhal_timeline_wait(handle, 1, kSoon);
    // A wait that only begins after the end finds no timeline any more.
    EXPECT_TRUE(status == XHAL_ERR_ABANDONED || status == XHAL_ERR_INVALID_HANDLE)
        << xhal_status_name(status);
  });
  const xhal_event late{t.get(), 1, 0, 0};
  t.reset();
  waiter.join();
  EXPECT_EQ(xhal_event_query(&late), XHAL_ERR_ABANDONED);
}

TEST_F(TimelineTest, ShutdownReleasesWaitersWithItsOwnError) {
  xhal_timeline* t = nullptr;
  ASSERT_OK(xhal_timeline_create(0, &t));
  std::atomic<bool> waiting{false};
  std::thread waiter([&] {
    waiting = true;
    EXPECT_EQ(xhal_timeline_wait(t, 1, XHAL_FOREVER), XHAL_ERR_SHUTDOWN);
  });
  while (!waiting) std::this_thread::yield();
  session_.reset();
  waiter.join();
}

TEST_F(TimelineTest, NotifyCallsOnceAlsoWhenTheValueIsThereAlready) {
  auto t = make();
  int calls = 0;
  const auto count = [](void* user, xhal_status status) {
    EXPECT_EQ(status, XHAL_OK);
    ++*static_cast<int*>(user);
  };
  EXPECT_OK(xhal_timeline_notify(t.get(), 2, count, &calls));
  EXPECT_OK(xhal_timeline_signal(t.get(), 1));
  EXPECT_EQ(calls, 0);
  EXPECT_OK(xhal_timeline_signal(t.get(), 2));
  EXPECT_OK(xhal_timeline_signal(t.get(), 3));
  EXPECT_EQ(calls, 1);
  EXPECT_OK(xhal_timeline_notify(t.get(), 2, count, &calls));
  EXPECT_EQ(calls, 2);
}

TEST_F(TimelineTest, EventfdBecomesReadable) {
  auto t = make();
  int32_t fd = -1;
  ASSERT_OK(xhal_timeline_eventfd(t.get(), 1, &fd));
  pollfd p{fd, POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 0), 0);
  EXPECT_OK(xhal_timeline_signal(t.get(), 1));
  EXPECT_EQ(poll(&p, 1, 1000), 1);
  ::close(fd);
}

TEST_F(TimelineTest, WaitManyAnyNamesTheFirst) {
  auto a = make(), b = make();
  xhal_timeline* both[] = {a.get(), b.get()};
  const uint64_t values[] = {1, 1};
  uint32_t which = 9;
  EXPECT_EQ(xhal_timeline_wait_many(both, values, 2, 1, 1'000'000, &which), XHAL_ERR_TIMEOUT);
  EXPECT_OK(xhal_timeline_signal(b.get(), 1));
  EXPECT_OK(xhal_timeline_wait_many(both, values, 2, 1, kSoon, &which));
  EXPECT_EQ(which, 1u);
  EXPECT_EQ(xhal_timeline_wait_many(both, values, 2, 0, 1'000'000, nullptr), XHAL_ERR_TIMEOUT);
  EXPECT_OK(xhal_timeline_signal(a.get(), 1));
  EXPECT_OK(xhal_timeline_wait_many(both, values, 2, 0, kSoon, nullptr));
}

// Runs `child` in a fresh process of this test binary's image (fork before any device is
// open is legal).
int in_child(auto&& child) {
  const pid_t pid = fork();
  if (pid == 0) _exit(child());
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

TEST_F(TimelineTest, AnImporterSeesValuesAndIsNotAllowedToSignal) {
  auto t = make();
  int32_t fd = -1;
  uint64_t offset = 0;
  ASSERT_OK(xhal_timeline_export(t.get(), &fd, &offset));
  xhal_timeline* imported = nullptr;
  ASSERT_OK(xhal_timeline_import(fd, offset, &imported));
  EXPECT_EQ(xhal_timeline_signal(imported, 1), XHAL_ERR_PERMISSION);
  EXPECT_EQ(xhal_timeline_query(imported, 1, nullptr), XHAL_NOT_READY);
  EXPECT_OK(xhal_timeline_signal(t.get(), 1));
  EXPECT_OK(xhal_timeline_wait(imported, 1, kSoon));
  EXPECT_OK(xhal_timeline_destroy(imported));
  ::close(fd);
}

TEST_F(TimelineTest, AnImportOfRubbishIsRefused) {
  xhal_timeline* imported = nullptr;
  const int fd = open("/dev/zero", O_RDWR);
  EXPECT_EQ(xhal_timeline_import(fd, 0, &imported), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_timeline_import(-1, 0, &imported), XHAL_ERR_INVALID_ARGUMENT);
  ::close(fd);
}

TEST_F(TimelineTest, TheDeathOfTheSignallingProcessReachesTheImporter) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  int stay[2];
  ASSERT_EQ(pipe(stay), 0);
  const pid_t owner = fork();
  if (owner == 0) {
    xhal_timeline* t = nullptr;
    int32_t fd = -1;
    uint64_t offset = 0;
    if (xhal_timeline_create(0, &t) != XHAL_OK || xhal_timeline_export(t, &fd, &offset) != XHAL_OK)
      _exit(1);
    const uint64_t message[2] = {static_cast<uint64_t>(fd), offset};
    if (write(ends[1], message, sizeof message) != sizeof message) _exit(2);
    char never;
    [[maybe_unused]] const auto got = ::read(stay[0], &never, 1);
    _exit(0);
  }
  uint64_t message[2];
  ASSERT_EQ(::read(ends[0], message, sizeof message), static_cast<ssize_t>(sizeof message));
  const std::string path = "/proc/" + std::to_string(owner) + "/fd/" + std::to_string(message[0]);
  const int fd = open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  xhal_timeline* imported = nullptr;
  ASSERT_OK(xhal_timeline_import(fd, message[1], &imported));
  std::thread killer([&] { kill(owner, SIGKILL); });
  EXPECT_EQ(xhal_timeline_wait(imported, 1, kSoon), XHAL_ERR_PEER_LOST);
  EXPECT_THAT(error_text(), HasSubstr(std::to_string(owner)));
  killer.join();
  waitpid(owner, nullptr, 0);
  EXPECT_EQ(in_child([] { return 0; }), 0);  // this process still may fork: no device was opened
  xhal_timeline_destroy(imported);
  ::close(fd);
}

TEST_F(TimelineTest, AChildOfAForkReachesNobodyOfItsParent) {
  const auto t = make();
  int fd = -1;
  ASSERT_OK(xhal_timeline_eventfd(t.get(), 1, &fd));
  const pid_t child = fork();
  if (child == 0) {
    const bool raised = xhal_timeline_signal(t.get(), 1) == XHAL_OK;
    _exit(raised && xhal_timeline_destroy(t.get()) == XHAL_OK && xhal_shutdown() == XHAL_OK ? 0
                                                                                            : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  pollfd look{fd, POLLIN, 0};
  EXPECT_EQ(poll(&look, 1, 0), 0) << "the child made the parent's descriptor readable";
  EXPECT_EQ(xhal_timeline_query(t.get(), 1, nullptr), XHAL_NOT_READY);
  ASSERT_OK(xhal_timeline_signal(t.get(), 1));
  EXPECT_EQ(poll(&look, 1, 1000), 1);
  ::close(fd);
}

TEST_F(TimelineTest, WaitingForAllEndsWithTheFailureOfALaterOne) {
  const auto never = make(), fails = make();
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    xhal_error error{};
    error.struct_size = sizeof error;
    error.status = XHAL_ERR_DEVICE;
    error.text = str("it broke");
    EXPECT_OK(xhal_timeline_fail(fails.get(), &error));
  });
  xhal_timeline* both[] = {never.get(), fails.get()};
  const uint64_t values[] = {1, 1};
  EXPECT_EQ(xhal_timeline_wait_many(both, values, 2, 0, kSoon, nullptr), XHAL_ERR_DEVICE);
  EXPECT_THAT(error_text(), HasSubstr("it broke"));
  other.join();
}

// 2^63 values are promised; beyond them nothing is rounded to something else.
TEST_F(TimelineTest, AValueTooFarAwayIsRefusedAndChangesNothing) {
  const auto t = make(7);
  EXPECT_EQ(xhal_timeline_signal(t.get(), UINT64_MAX - 3), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_timeline_query(t.get(), 8, nullptr), XHAL_NOT_READY);
  EXPECT_OK(xhal_timeline_signal(t.get(), uint64_t{1} << 62));
  EXPECT_EQ(xhal_timeline_query(t.get(), (uint64_t{1} << 62) + 1, nullptr), XHAL_NOT_READY);
}

}  // namespace
}  // namespace xhal::test
