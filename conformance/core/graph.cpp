// SPDX-License-Identifier: Apache-2.0
// Graphs, for devices that claim them.
#include "harness/cts.hpp"
#include "xhal/catalog.h"

namespace xhal::cts {
namespace {

class Graph : public testing::Test {
 protected:
  void SetUp() override {
    if (!can(XHAL_CAP_GRAPH)) GTEST_SKIP() << "the device does not claim graphs";
    set(buffer_, 1);
  }
  void TearDown() override {
    if (graph_ == nullptr) return;
    EXPECT_TRUE(ok(xhal_graph_destroy(graph_)));
  }
  static void set(const Buffer& buffer, uint8_t value) {
    const std::vector<uint8_t> bytes(buffer.size(), value);
    buffer.write(bytes.data(), bytes.size());
  }
  void begin() { ASSERT_TRUE(ok(xhal_stream_begin_capture(stream_, nullptr))); }
  void end() { ASSERT_TRUE(ok(xhal_stream_end_capture(stream_, &graph_))); }
  void replay() { ASSERT_TRUE(ok(xhal_graph_launch(stream_, graph_))); }
  xhal_status fill(xhal_stream* stream, uint8_t value) {
    return xhal_stream_fill(stream, buffer_.address(), buffer_.size(), value, 1);
  }
  Buffer buffer_{256};
  Stream stream_;
  xhal_graph* graph_ = nullptr;
};

TEST_F(Graph, CapturedWorkRunsOnlyWhenTheGraphIsLaunched) {
  begin();
  ASSERT_TRUE(ok(fill(stream_, 2)));
  end();
  ASSERT_TRUE(stream_.finishes());
  EXPECT_TRUE(same(buffer_.read(), std::vector<uint8_t>(256, 1)));
  replay();
  ASSERT_TRUE(stream_.finishes());
  EXPECT_TRUE(same(buffer_.read(), std::vector<uint8_t>(256, 2)));
}

TEST_F(Graph, IsLaunchedAsOftenAsOneLikes) {
  const Buffer counter(256);
  begin();
  ASSERT_TRUE(ok(xhal_stream_copy(stream_, counter.address(), buffer_.address(), 256)));
  end();
  for (uint8_t value = 3; value < 8; ++value) {
    set(buffer_, value);
    replay();
    ASSERT_TRUE(stream_.finishes());
    ASSERT_TRUE(same(counter.read(), std::vector<uint8_t>(256, value)));
  }
}

TEST_F(Graph, TellsWhetherAStreamIsCapturing) {
  uint32_t capturing = 7;
  ASSERT_TRUE(ok(xhal_stream_capturing(stream_, &capturing)));
  EXPECT_EQ(capturing, 0u);
  begin();
  ASSERT_TRUE(ok(xhal_stream_capturing(stream_, &capturing)));
  EXPECT_EQ(capturing, 1u);
  end();
}

TEST_F(Graph, HasANodeForEachSubmission) {
  begin();
  for (uint8_t value = 0; value < 5; ++value) ASSERT_TRUE(ok(fill(stream_, value)));
  end();
  uint64_t nodes = 0;
  ASSERT_TRUE(ok(xhal_graph_size(graph_, &nodes)));
  EXPECT_GE(nodes, 5u);
}

TEST_F(Graph, AnEmptyOneMayBeLaunched) {
  begin();
  end();
  replay();
  EXPECT_TRUE(stream_.finishes());
}

TEST_F(Graph, EndingWhatNeverBeganIsACaptureError) {
  EXPECT_TRUE(fails_with(XHAL_ERR_CAPTURE, xhal_stream_end_capture(stream_, &graph_)));
  EXPECT_TRUE(stream_.finishes());
}

TEST_F(Graph, BeginningTwiceIsACaptureError) {
  begin();
  EXPECT_TRUE(fails_with(XHAL_ERR_CAPTURE, xhal_stream_begin_capture(stream_, nullptr)));
  (void)xhal_stream_end_capture(stream_, &graph_);
  EXPECT_TRUE(stream_.finishes());
}

TEST_F(Graph, WaitingForACapturingStreamIsACaptureError) {
  begin();
  EXPECT_TRUE(fails_with(XHAL_ERR_CAPTURE, xhal_stream_synchronize(stream_, deadline_ns())));
  EXPECT_TRUE(fails_with(XHAL_ERR_CAPTURE, xhal_stream_end_capture(stream_, &graph_)))
      << "the program takes what it waited for as done, and a graph would do it again";
  EXPECT_TRUE(stream_.finishes());
}

TEST_F(Graph, WaitingForACapturedEventIsACaptureErrorToo) {
  begin();
  xhal_event event{};
  ASSERT_TRUE(ok(xhal_event_record(stream_, 0, &event)));
  EXPECT_TRUE(fails_with(XHAL_ERR_CAPTURE, xhal_event_wait(&event, deadline_ns())));
  EXPECT_TRUE(fails_with(XHAL_ERR_CAPTURE, xhal_stream_end_capture(stream_, &graph_)));
  EXPECT_TRUE(stream_.finishes());
}

TEST_F(Graph, ACapturedEventIsOnlyGoodInsideItsCapture) {
  begin();
  xhal_event event{};
  ASSERT_TRUE(ok(xhal_event_record(stream_, 0, &event)));
  EXPECT_NE(event.flags & XHAL_EVENT_CAPTURED, 0u);
  EXPECT_TRUE(fails_with(XHAL_ERR_CAPTURE, xhal_event_query(&event)));
  end();
}

TEST_F(Graph, AnotherStreamJoinsByAnEventAndIsJoinedBack) {
  const Stream other;
  const Buffer second(256);
  begin();
  xhal_event fork{}, join{};
  ASSERT_TRUE(ok(xhal_event_record(stream_, 0, &fork)));
  ASSERT_TRUE(ok(xhal_stream_wait_event(other, &fork)));
  ASSERT_TRUE(ok(xhal_stream_fill(other, second.address(), 256, 5, 1)));
  ASSERT_TRUE(ok(fill(stream_, 4)));
  ASSERT_TRUE(ok(xhal_event_record(other, 0, &join)));
  ASSERT_TRUE(ok(xhal_stream_wait_event(stream_, &join)));
  ASSERT_TRUE(ok(xhal_stream_copy(stream_, second.address(), buffer_.address(), 128)));
  end();
  replay();
  ASSERT_TRUE(stream_.finishes());
  auto expected = std::vector<uint8_t>(256, 5);
  std::fill_n(expected.begin(), 128, uint8_t{4});
  EXPECT_TRUE(same(second.read(), expected));
}

TEST_F(Graph, AStreamThatIsNotJoinedBackSpoilsTheCapture) {
  const Stream other;
  begin();
  xhal_event fork{};
  ASSERT_TRUE(ok(xhal_event_record(stream_, 0, &fork)));
  ASSERT_TRUE(ok(xhal_stream_wait_event(other, &fork)));
  ASSERT_TRUE(ok(fill(other, 9)));
  EXPECT_TRUE(fails_with(XHAL_ERR_CAPTURE, xhal_stream_end_capture(stream_, &graph_)));
  EXPECT_TRUE(stream_.finishes());
  EXPECT_TRUE(other.finishes());
  EXPECT_TRUE(same(buffer_.read(), std::vector<uint8_t>(256, 1)))
      << "what was captured must not have run";
}

TEST_F(Graph, OtherStreamsWorkGoesOnDuringACapture) {
  const Stream other;
  begin();
  ASSERT_TRUE(ok(fill(other, 6)));
  EXPECT_TRUE(other.finishes());
  end();
  EXPECT_TRUE(same(buffer_.read(), std::vector<uint8_t>(256, 6)));
}

TEST_F(Graph, ReplaysSeeNewScalarsThatWereGivenByAddress) {
  xhal_tensor_desc t{};
  t.code = XHAL_CODE_FLOAT;
  t.bits = 32;
  t.lanes = 1;
  t.ndim = 1;
  t.sizes[0] = 16;
  t.strides[0] = 1;
  const xhal_tensor_desc operands[] = {t, t};
  const uint32_t groups[] = {1, 0, 1};
  auto info = versioned<xhal_op_info>();
  info.id = XHAL_OP_axpby;
  info.group_count = 3;
  info.operand_count = 2;
  info.group_sizes = groups;
  info.operands = operands;
  xhal_op* op = nullptr;
  ASSERT_TRUE(ok(xhal_op_prepare(context(), &info, &op)));
  const Buffer x(64), out(64), alpha(4);
  const std::vector<float> ones(16, 1.0f);
  x.write(ones.data(), 64);
  xhal_scalar scalars[2] = {};
  scalars[0].kind = XHAL_SCALAR_ADDRESS;
  scalars[0].code = XHAL_CODE_FLOAT;
  scalars[0].bits = 32;
  scalars[0].value.address = alpha.address();
  scalars[1].kind = XHAL_SCALAR_FLOAT;
  const uint64_t addresses[] = {x.address(), out.address()};
  begin();
  ASSERT_TRUE(ok(xhal_op_launch(stream_, op, addresses, 2, scalars, 2, 0)));
  end();
  for (const float value : {2.0f, 7.0f}) {
    alpha.write(&value, 4);
    replay();
    ASSERT_TRUE(stream_.finishes());
    ASSERT_TRUE(same(as<float>(out.read()), std::vector<float>(16, value)));
  }
  EXPECT_TRUE(ok(xhal_op_destroy(op)));
}

}  // namespace
}  // namespace xhal::cts
