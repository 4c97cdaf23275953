// SPDX-License-Identifier: Apache-2.0
// Work that libxhal holds back until a signal comes: it runs what it was given, whatever was
// destroyed meanwhile, and a wrong submission is refused when it is made.
#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

Op fill_op(const Device& device, int64_t elements) {
  return prepare(device.context(), XHAL_OP_fill, {{tensor(XHAL_CODE_FLOAT, 32, {elements})}});
}

// On devices that compute: the result shows which operator ran. Under chaos cpu is held, too.
class HeldOperatorTest : public FaultyTest, public testing::WithParamInterface<const char*> {};

TEST_P(HeldOperatorTest, AHeldLaunchRunsTheOperatorItWasGivenAfterItsHandleIsDestroyed) {
  constexpr int64_t kElements = 1024;
  const auto& d = device(GetParam());
  const auto stream = d.stream();
  const auto memory = alloc(d, kElements * sizeof(float));
  auto op = fill_op(d, kElements);
  Gate gate(stream.get());
  const auto seven = scalar(7.0);
  ASSERT_OK(xhal_op_launch(stream.get(), op.get(), &memory, 1, &seven, 1, 0));
  op.reset();
  std::vector<Op> successors;  // one of them takes its place
  for (int i = 0; i < 4; ++i) successors.push_back(fill_op(d, 1));
  gate.open();
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  EXPECT_EQ(read<float>(stream.get(), memory, kElements), std::vector<float>(kElements, 7.0f));
}

TEST_P(HeldOperatorTest, HundredsOfLaunchesOnFourStreamsOutliveTheirOperator) {
  constexpr int64_t kElements = 1024;
  const auto& d = device(GetParam());
  std::vector<Stream> streams;
  std::vector<uint64_t> memory;
  auto op = fill_op(d, kElements);
  const auto t = timeline();
  for (int i = 0; i < 4; ++i) {
    streams.push_back(d.stream());
    memory.push_back(alloc(d, kElements * sizeof(float)));
    ASSERT_OK(xhal_stream_wait(streams[i].get(), t.get(), 1));
  }
  for (int round = 1; round <= 50; ++round) {
    for (int i = 0; i < 4; ++i) {
      const auto value = scalar(static_cast<double>(round));
      ASSERT_OK(xhal_op_launch(streams[i].get(), op.get(), &memory[i], 1, &value, 1, 0));
    }
  }
  op.reset();
  ASSERT_OK(xhal_timeline_signal(t.get(), 1));
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK(xhal_stream_synchronize(streams[i].get(), kSoon));
    EXPECT_EQ(read<float>(streams[i].get(), memory[i], kElements),
              std::vector<float>(kElements, 50.0f));
  }
}

TEST_P(HeldOperatorTest, AHeldLaunchWithWrongCountsIsRefusedAtOnceAndTheStreamGoesOn) {
  const auto& d = device(GetParam());
  const auto stream = d.stream();
  const auto memory = alloc(d, 4096);
  const auto op = fill_op(d, 4);
  const uint64_t addresses[] = {memory, memory};
  const auto value = scalar(1.0);
  Gate gate(stream.get());
  EXPECT_EQ(xhal_op_launch(stream.get(), op.get(), addresses, 2, &value, 1, 0),
            XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_op_launch(stream.get(), op.get(), nullptr, 0, &value, 1, 0),
            XHAL_ERR_INVALID_ARGUMENT);
  const std::vector<xhal_scalar> many(9, value);
  EXPECT_EQ(xhal_op_launch(stream.get(), op.get(), addresses, 1, many.data(), 9, 0),
            XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_OK(xhal_op_launch(stream.get(), op.get(), addresses, 1, &value, 1, 0));
  gate.open();
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon)) << "a refused launch fails nothing";
  EXPECT_EQ(read<float>(stream.get(), memory, 4), std::vector<float>(4, 1.0f));
}

INSTANTIATE_TEST_SUITE_P(Plugins, HeldOperatorTest, testing::Values("template", "cpu"));

class HeldTest : public FaultyDeviceTest {
 protected:
  Op make_op() {
    xhal_op_info info{};
    info.struct_size = sizeof info;
    xhal_op* op = nullptr;
    check(xhal_op_prepare(device_->context(), &info, &op));
    return Op(op);
  }
  Module make_module() {
    xhal_module_info info{};
    info.struct_size = sizeof info;
    info.format = str("faulty");
    info.name = str("kernels");
    xhal_module* module = nullptr;
    check(xhal_module_load(device_->context(), &info, &module));
    return Module(module);
  }
};

TEST_F(HeldTest, ThePluginIsNeverGivenADestroyedOperator) {
  board().record();
  auto op = make_op();
  Gate gate(stream_.get());
  ASSERT_OK(xhal_op_launch(stream_.get(), op.get(), nullptr, 0, nullptr, 0, 0));
  op.reset();
  EXPECT_TRUE(board().calls("op_launch").empty());
  gate.open();
  ASSERT_OK(xhal_stream_synchronize(stream_.get(), kSoon));
  const auto launches = board().calls("op_launch");
  ASSERT_EQ(launches.size(), 1u);
  EXPECT_EQ(launches[0].object_kind, static_cast<uint32_t>(XHAL_KIND_OP));
}

TEST_F(HeldTest, ThePluginIsNeverGivenTheKernelOfADestroyedModule) {
  board().record();
  auto module = make_module();
  xhal_kernel* kernel = nullptr;
  ASSERT_OK(xhal_module_kernel(module.get(), str("nothing"), &kernel));
  xhal_grid grid{};
  grid.struct_size = sizeof grid;
  Gate gate(stream_.get());
  ASSERT_OK(xhal_kernel_launch(stream_.get(), kernel, &grid, nullptr, 0));
  module.reset();
  gate.open();
  ASSERT_OK(xhal_stream_synchronize(stream_.get(), kSoon));
  const auto launches = board().calls("kernel_launch");
  ASSERT_EQ(launches.size(), 1u);
  EXPECT_EQ(launches[0].object_kind, static_cast<uint32_t>(XHAL_KIND_KERNEL));
}

// graph.h: destroying one waits for its replays; a held one must run first, and may be released by
// another thread only.
TEST_F(HeldTest, AHeldReplayRunsThoughItsGraphIsDestroyedMeanwhile) {
  const auto memory = alloc(*device_, 4096);
  ASSERT_OK(xhal_stream_begin_capture(stream_.get(), nullptr));
  ASSERT_OK(xhal_stream_fill(stream_.get(), memory, 4096, 0x5A, 1));
  xhal_graph* graph = nullptr;
  ASSERT_OK(xhal_stream_end_capture(stream_.get(), &graph));
  Gate gate(stream_.get());
  ASSERT_OK(xhal_graph_launch(stream_.get(), graph));
  std::thread destroyer([&] { EXPECT_OK(xhal_graph_destroy(graph)); });
  gate.open();
  within_deadline("xhal_graph_destroy of a graph with a held replay", [&] { destroyer.join(); });
  ASSERT_OK(xhal_stream_synchronize(stream_.get(), kSoon));
  EXPECT_EQ(read(stream_.get(), memory, 4096), std::vector<uint8_t>(4096, 0x5A));
}

TEST_F(HeldTest, HeldWorkCarriesTheCorrelationIdOfItsSubmitter) {
  board().record();
  const auto op = make_op();
  ASSERT_OK(xhal_correlation_push(42));
  ASSERT_OK(xhal_op_launch(stream_.get(), op.get(), nullptr, 0, nullptr, 0, 0));
  Gate gate(stream_.get());
  ASSERT_OK(xhal_op_launch(stream_.get(), op.get(), nullptr, 0, nullptr, 0, 0));
  ASSERT_OK(xhal_correlation_pop(nullptr));
  ASSERT_OK(xhal_correlation_push(7));  // of the thread that releases it
  gate.open();
  ASSERT_OK(xhal_stream_synchronize(stream_.get(), kSoon));
  ASSERT_OK(xhal_correlation_pop(nullptr));
  const auto launches = board().calls("op_launch");
  ASSERT_EQ(launches.size(), 2u);
  EXPECT_EQ(launches[0].correlation, 42u);
  EXPECT_EQ(launches[1].correlation, 42u);
}

// A plugin that takes foreign timelines but no wait before its signal: the signal of an imported
// timeline is another process's, so it counts as submitted only when it is reached.
TEST_F(HeldTest, AWaitForAnImportedTimelineEndsWhenItsOwnerSignals) {
  board().capabilities = Board::kUsualCapabilities | cap(XHAL_CAP_FOREIGN_TIMELINE);
  open_again();
  const auto owner = timeline();
  int32_t fd = -1;
  uint64_t offset = 0;
  ASSERT_OK(xhal_timeline_export(owner.get(), &fd, &offset));
  xhal_timeline* imported = nullptr;
  ASSERT_OK(xhal_timeline_import(fd, offset, &imported));
  const Timeline view(imported);
  ::close(fd);
  ASSERT_OK(xhal_stream_wait(stream_.get(), view.get(), 1));
  xhal_event after{};
  ASSERT_OK(xhal_event_record(stream_.get(), 0, &after));
  EXPECT_EQ(xhal_event_query(&after), XHAL_NOT_READY);
  ASSERT_OK(xhal_timeline_signal(owner.get(), 1));
  EXPECT_OK(xhal_event_wait(&after, kSoon));
}

// The plugin knows nothing of what libxhal holds, so the abort of its slot cannot drop it.
class HeldAbortTest : public FaultyDeviceTest {
 protected:
  HeldAbortTest() : FaultyDeviceTest(Board::kUsualCapabilities | cap(XHAL_CAP_ABORT)) {}
};

TEST_F(HeldAbortTest, AnAbortDropsWhatLibxhalHoldsBack) {
  const auto memory = alloc(*device_, 64);
  std::vector<uint8_t> before = read(stream_.get(), memory, 64);
  Gate gate(stream_.get());
  ASSERT_OK(xhal_stream_fill(stream_.get(), memory, 64, 0x77, 1));
  ASSERT_OK(xhal_stream_abort(stream_.get()));
  EXPECT_EQ(xhal_stream_fill(stream_.get(), memory, 64, 0x78, 1), XHAL_ERR_DEVICE);
  EXPECT_THAT(error_text(), HasSubstr("aborted"));
  gate.open();
  ASSERT_OK(xhal_stream_recover(stream_.get()));
  EXPECT_EQ(read(stream_.get(), memory, 64), before);
}

TEST_F(HeldAbortTest, AnAbortThePluginRefusesLeavesHeldWorkAsItWas) {
  board().before("stream_abort", [](const Call&) { return XHAL_ERR_DEVICE; });
  const auto memory = alloc(*device_, 64);
  Gate gate(stream_.get());
  ASSERT_OK(xhal_stream_fill(stream_.get(), memory, 64, 0x77, 1));
  EXPECT_EQ(xhal_stream_abort(stream_.get()), XHAL_ERR_DEVICE);
  EXPECT_THAT(error_text(), HasSubstr("stream_abort failed, as it was asked to"));
  gate.open();
  EXPECT_EQ(read(stream_.get(), memory, 64), std::vector<uint8_t>(64, 0x77));
}

TEST_F(HeldAbortTest, TheWayOutOfAWaitNobodySignalsIsAnAbort) {
  Gate never(stream_.get());
  ASSERT_OK(xhal_stream_abort(stream_.get()));
  within_deadline("xhal_stream_destroy behind an aborted wait", [&] { stream_.reset(); });
}

TEST_F(HeldAbortTest, WithoutTheCapabilityItIsRefusedAndNothingIsDropped) {
  board().capabilities = Board::kUsualCapabilities;
  open_again();
  const auto memory = alloc(*device_, 64);
  Gate gate(stream_.get());
  ASSERT_OK(xhal_stream_fill(stream_.get(), memory, 64, 0x77, 1));
  EXPECT_EQ(xhal_stream_abort(stream_.get()), XHAL_ERR_UNSUPPORTED);
  gate.open();
  EXPECT_EQ(read(stream_.get(), memory, 64), std::vector<uint8_t>(64, 0x77));
}

}  // namespace
}  // namespace xhal::test
