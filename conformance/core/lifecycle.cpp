// SPDX-License-Identifier: Apache-2.0
// What ends or spoils a process: each of these runs in a child of its own.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

size_t threads() { return traces().threads; }
size_t descriptors() { return traces().descriptors; }

uint64_t address_space() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// Runs `body` in a forked child and gives its result, or -1 when the child ended before it had one.
// Nothing of GoogleTest works there.
template <class Body>
int in_forked_child(Body&& body) {
  constexpr int kHasResult = 64;
  const pid_t child = fork();
  if (child == 0) _exit(kHasResult + body());
  int status = -1;
  waitpid(child, &status, 0);
  const bool has_result = WIFEXITED(status) && WEXITSTATUS(status) >= kHasResult;
  return has_result ? WEXITSTATUS(status) - kHasResult : -1;
}

// The suite's own library object has initialised once; this ends that one.
void shut_down() { ASSERT_TRUE(ok(xhal_shutdown())); }

TEST(Fork, TheChildOfAProcessWithAnOpenDeviceIsToldSo) {
  if (!in_own_process()) return;
  const Stream stream;
  const Buffer buffer(64);
  const int result = in_forked_child([&] {
    uint64_t value = 0;
    uint64_t address = 0;
    auto info = versioned<xhal_memory_info>();
    info.kind = XHAL_MEMORY_DEVICE;
    info.size_bytes = 64;
    if (xhal_stream_fill(stream, buffer.address(), 64, 1, 1) != XHAL_ERR_FORKED) return 1;
    if (xhal_stream_synchronize(stream, deadline_ns()) != XHAL_ERR_FORKED) return 2;
    if (xhal_device_limit(device(), XHAL_LIMIT_STREAMS, &value) != XHAL_ERR_FORKED) return 3;
    if (xhal_memory_alloc(context(), &info, &address) != XHAL_ERR_FORKED) return 4;
    if (xhal_init(nullptr) != XHAL_ERR_FORKED) return 5;
    return 0;
  });
  EXPECT_EQ(result, 0);
  EXPECT_TRUE(stream.finishes()) << "the parent goes on";
}

TEST(Fork, WaitsInTheChildEnd) {
  if (!in_own_process()) return;
  const Timeline timeline;
  device();
  EXPECT_EQ(in_forked_child([&] {
              return xhal_timeline_wait(timeline, 1, XHAL_FOREVER) == XHAL_ERR_FORKED ? 0 : 1;
            }),
            0);
}

TEST(Fork, DestroyingInTheChildDoesNotHangOrCrash) {
  if (!in_own_process()) return;
  xhal_stream* stream = nullptr;
  ASSERT_TRUE(ok(xhal_stream_create(context(), nullptr, &stream)));
  EXPECT_EQ(in_forked_child([&] {
              xhal_stream_destroy(stream);
              return 0;
            }),
            0);
  EXPECT_TRUE(ok(xhal_stream_destroy(stream)));
}

TEST(Fork, AChildOfAProcessThatOnlyEnumeratedUsesTheDevice) {
  if (!in_own_process()) return;
  uint32_t count = 0;
  ASSERT_TRUE(ok(xhal_enumerate(0, nullptr, 0, &count)));
  EXPECT_EQ(in_forked_child([] {
              xhal_stream* stream = nullptr;
              if (xhal_stream_create(context(), nullptr, &stream) != XHAL_OK) return 1;
              if (xhal_stream_synchronize(stream, deadline_ns()) != XHAL_OK) return 2;
              return xhal_stream_destroy(stream) == XHAL_OK ? 0 : 3;
            }),
            0);
}

TEST(Enumeration, LeavesNoThreadAndNoDescriptorBehind) {
  if (!in_own_process()) return;
  shut_down();
  const size_t threads_before = threads(), descriptors_before = descriptors();
  ASSERT_TRUE(ok(xhal_init(nullptr)));
  uint32_t count = 0;
  for (const uint32_t flags : {uint32_t{0}, uint32_t{XHAL_ENUMERATE_REFRESH}})
    ASSERT_TRUE(ok(xhal_enumerate(flags, nullptr, 0, &count)));
  EXPECT_EQ(threads(), threads_before) << "threads, before and after";
  EXPECT_EQ(descriptors(), descriptors_before) << "descriptors, before and after";
}

// What is made once, on the first call, is there for the second already.
TEST(Enumeration, TheFirstOneLeavesNoThreadAndNoDescriptorBehind) {
  const auto &before = target().before_enumeration, &after = target().after_enumeration;
  EXPECT_EQ(after.threads, before.threads)
      << "threads after the plugin was loaded and enumerated, and before";
  EXPECT_EQ(after.descriptors, before.descriptors)
      << "descriptors after the plugin was loaded and enumerated, and before";
}

TEST(Shutdown, CallsAfterItSayShutdown) {
  if (!in_own_process()) return;
  xhal_stream* stream = nullptr;
  ASSERT_TRUE(ok(xhal_stream_create(context(), nullptr, &stream)));
  auto* opened = device();
  shut_down();
  uint64_t value = 0;
  EXPECT_TRUE(fails_with(XHAL_ERR_SHUTDOWN, xhal_stream_fill(stream, 0, 0, 0, 1)));
  EXPECT_TRUE(fails_with(XHAL_ERR_SHUTDOWN, xhal_stream_synchronize(stream, deadline_ns())));
  EXPECT_TRUE(fails_with(XHAL_ERR_SHUTDOWN, xhal_device_limit(opened, XHAL_LIMIT_STREAMS, &value)));
  ASSERT_TRUE(ok(xhal_init(nullptr)));
}

TEST(Shutdown, EndsEveryWaiter) {
  if (!in_own_process()) return;
  device();
  const Stream stream;
  Timeline timeline;
  std::atomic<int> began = 0;
  xhal_status host_status = XHAL_OK, stream_status = XHAL_OK;
  ASSERT_TRUE(ok(xhal_stream_wait(stream, timeline, 1)));
  std::thread host_waiter([&] {
    ++began;
    began.notify_all();
    host_status = xhal_timeline_wait(timeline, 1, XHAL_FOREVER);
  });
  std::thread stream_waiter([&] {
    ++began;
    began.notify_all();
    stream_status = xhal_stream_synchronize(stream, XHAL_FOREVER);
  });
  for (int seen = began; seen < 2; seen = began) began.wait(seen);
  shut_down();
  host_waiter.join();
  stream_waiter.join();
  EXPECT_EQ(host_status, XHAL_ERR_SHUTDOWN) << xhal_status_name(host_status);
  EXPECT_TRUE(stream_status == XHAL_ERR_SHUTDOWN || stream_status == XHAL_ERR_DEPENDENCY)
      << xhal_status_name(stream_status);
  timeline.release();
  ASSERT_TRUE(ok(xhal_init(nullptr)));
}

TEST(Shutdown, LeavesNoThreadOfTheDeviceBehind) {
  if (!in_own_process()) return;
  std::thread([] {}).join();  // ThreadSanitizer's own comes with the first
  const size_t before = threads();
  {
    const Stream stream;
    EXPECT_TRUE(stream.finishes());
  }
  close_device();
  shut_down();
  EXPECT_EQ(threads(), before);
  ASSERT_TRUE(ok(xhal_init(nullptr)));
}

TEST(Shutdown, AnInitAfterItStartsAfresh) {
  if (!in_own_process()) return;
  device();
  close_device();
  shut_down();
  ASSERT_TRUE(ok(xhal_init(nullptr)));
  const Buffer buffer(64);
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 64, 7, 1)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(64, 7)));
}

TEST(Shutdown, IsCounted) {
  if (!in_own_process()) return;
  ASSERT_TRUE(ok(xhal_init(nullptr)));
  ASSERT_TRUE(ok(xhal_shutdown()));
  EXPECT_TRUE(Stream().finishes());
}

TEST(Shutdown, OneTooManyIsNotInitialized) {
  if (!in_own_process()) return;
  shut_down();
  EXPECT_TRUE(fails_with(XHAL_ERR_NOT_INITIALIZED, xhal_shutdown()));
  ASSERT_TRUE(ok(xhal_init(nullptr)));
}

TEST(Leaks, OpeningAndClosingLeavesNothingBehind) {
  if (!in_own_process()) return;
  const auto open_and_close = [] {
    {
      const Buffer buffer(4096);
      const Stream stream;
      EXPECT_TRUE(stream.finishes());
    }
    close_device();
  };
  open_and_close();  // what is kept for good is there from now on
  const size_t threads_before = threads(), descriptors_before = descriptors();
  for (int i = 0; i < 20; ++i) open_and_close();
  EXPECT_EQ(threads(), threads_before);
  // A slab that the library shares among many objects may be added, not one for each of them.
  EXPECT_LE(descriptors(), descriptors_before + 2);
}

TEST(Leaks, StreamsAndTimelinesLeaveNoDescriptorsBehind) {
  if (!in_own_process()) return;
  { const Stream warm; }
  const size_t threads_before = threads(), descriptors_before = descriptors();
  for (int i = 0; i < 200; ++i) {
    const Stream stream;
    const Timeline timeline;
    EXPECT_TRUE(stream.finishes());
  }
  EXPECT_EQ(threads(), threads_before);
  // A slab that the library shares among many objects may be added, not one for each of them.
  EXPECT_LE(descriptors(), descriptors_before + 2);
}

// Other processes may take of the same memory meanwhile, as they do where the host's is the
// device's: a leak shows in every round, their share does not.
TEST(Leaks, FreedMemoryIsFreeAgain) {
  constexpr uint64_t kSize = 1 << 20, kBuffers = 100, kSlack = 16 << 20, kRounds = 5;
  uint64_t before = 0, after = 0;
  if (xhal_device_limit(device(), XHAL_LIMIT_MEMORY_FREE_BYTES, &before) != XHAL_OK)
    GTEST_SKIP() << "the device does not tell its free memory";
  { const Buffer warm(kSize); }
  for (uint64_t round = 0; round < kRounds; ++round) {
    ASSERT_TRUE(ok(xhal_device_limit(device(), XHAL_LIMIT_MEMORY_FREE_BYTES, &before)));
    for (uint64_t i = 0; i < kBuffers; ++i) const Buffer buffer(kSize);
    ASSERT_TRUE(ok(xhal_device_limit(device(), XHAL_LIMIT_MEMORY_FREE_BYTES, &after)));
    if (after + kSlack >= before) return;
  }
  ADD_FAILURE() << "in each of " << kRounds << " rounds " << kBuffers
                << " MiB were allocated and freed one by one; of free bytes there were " << before
                << " before the last and " << after << " after it";
}

TEST(Leaks, FreedMemoryCanBeAllocatedAgain) {
  uint64_t total = 0;
  ASSERT_TRUE(ok(xhal_device_limit(device(), XHAL_LIMIT_MEMORY_TOTAL_BYTES, &total)));
  for (int round = 0; round < 40; ++round) {
    const Buffer buffer(total / 16);
    ASSERT_NE(buffer.address(), 0u)
        << "a sixteenth of the memory was allocated and freed " << round << " times before";
  }
}

// Where the device's memory lies in the process at all.
TEST(Leaks, FreedMemoryLeavesNoAddressSpaceBehind) {
  if (!in_own_process()) return;
  constexpr uint64_t kSize = 64 << 20, kRounds = 64;
  { const Buffer warm(kSize); }
  const uint64_t before = address_space();
  for (uint64_t round = 0; round < kRounds; ++round) const Buffer buffer(kSize);
  EXPECT_LT(address_space(), before + kRounds * kSize / 4)
      << "bytes of address space after " << kRounds << " allocations of " << kSize << " and before";
}

}  // namespace
}  // namespace xhal::cts
