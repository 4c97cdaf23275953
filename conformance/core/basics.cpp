// SPDX-License-Identifier: Apache-2.0
// What every other test stands on. Its tests come first (CMakeLists.txt), so that a device without
// one of these is told that, and not only what follows from it.
#include <atomic>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

TEST(Basics, AStreamIsMadeAndFinishes) { EXPECT_TRUE(Stream().finishes()); }

TEST(Basics, ACopyBringsBytesToTheDeviceAndBack) {
  const auto bytes = counting(256);
  const Buffer buffer(256);
  buffer.write(bytes.data(), bytes.size());
  EXPECT_TRUE(same(buffer.read(), bytes));
}

TEST(Basics, AFillFills) {
  const Buffer buffer(256);
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 256, 0x5a, 1)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(buffer.read(), std::vector<uint8_t>(256, 0x5a)));
}

TEST(Basics, AHostCallIsCalled) {
  const Stream stream;
  std::atomic<int> calls = 0;
  ASSERT_TRUE(ok(xhal_stream_host_call(
      stream, [](void* user, xhal_status) { ++*static_cast<std::atomic<int>*>(user); }, &calls,
      0)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_EQ(calls, 1) << "calls of the callback of a host call, which was accepted; the stream has "
                         "finished";
}

TEST(Basics, ASignalRaisesItsTimeline) {
  const Stream stream;
  const Timeline timeline;
  ASSERT_TRUE(ok(xhal_stream_signal(stream, timeline, 1)));
  EXPECT_TRUE(ok(xhal_timeline_wait(timeline, 1, deadline_ns())));
}

}  // namespace
}  // namespace xhal::cts
