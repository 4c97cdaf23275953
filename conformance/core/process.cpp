// SPDX-License-Identifier: Apache-2.0
// What of the process is the program's: a plugin in it leaves that as it is.
#include "harness/cts.hpp"
#include "xhal/catalog.h"

namespace xhal::cts {
namespace {

TEST(Process, LoadingThePluginLeavesItAsItIs) {
  EXPECT_TRUE(unchanged(target().before_loading, target().after_loading))
      << "by loading the plugin (xhal_plugin_negotiate, enumerate)";
}

TEST(Process, OpeningTheDeviceLeavesItAsItIs) {
  if (!in_own_process()) return;
  const auto before = surroundings();
  device();
  EXPECT_TRUE(unchanged(before, surroundings())) << "by opening the device (device_open)";
}

TEST(Process, WorkLeavesItAsItIs) {
  if (!in_own_process()) return;
  device();
  const auto before = surroundings();
  {
    xhal_op* op = nullptr;
    ASSERT_TRUE(ok(prepare_operator(XHAL_OP_fill, {floats_of(1024)}, &op)));
    const Buffer buffer(4096);
    const auto bytes = counting(4096);
    buffer.write(bytes.data(), bytes.size());
    const Stream stream;
    const uint64_t address = buffer.address();
    EXPECT_TRUE(ok(xhal_stream_fill(stream, address, 4096, 1, 1)));
    EXPECT_TRUE(ok(xhal_op_launch(stream, op, &address, 1, nullptr, 0, 0)));
    EXPECT_TRUE(stream.finishes());
    EXPECT_TRUE(ok(xhal_op_destroy(op)));
  }
  EXPECT_TRUE(unchanged(before, surroundings())) << "by memory, streams and an operator";
  close_device();
  EXPECT_TRUE(unchanged(before, surroundings())) << "by closing the device (device_close)";
}

}  // namespace
}  // namespace xhal::cts
