// SPDX-License-Identifier: Apache-2.0
// Graphs and modules of the cpu plugin.
#include <atomic>
#include <fstream>
#include <iterator>
#include <thread>

#include "runtime_harness.hpp"

namespace xhal::cpu::test {
namespace {

class GraphTest : public RuntimeTest {
 protected:
  static void begin(const Stream& stream) {
    check(xhal_stream_begin_capture(stream.get(), nullptr));
  }
  static Graph end(const Stream& stream) {
    xhal_graph* graph = nullptr;
    check(xhal_stream_end_capture(stream.get(), &graph));
    return Graph(graph);
  }
  static uint64_t size(const Graph& graph) {
    uint64_t count = 0;
    check(xhal_graph_size(graph.get(), &count));
    return count;
  }
};

TEST_F(GraphTest, CapturedWorkRunsWhenTheGraphIsLaunchedAndNotBefore) {
  auto stream = device().stream();
  const Op fill = fill_op(16), axpby = axpby_op(16);
  const uint64_t a = alloc(64);
  ASSERT_OK(xhal_stream_fill(stream.get(), a, 64, 0, 4));
  begin(stream);
  launch(stream.get(), axpby, {a, a}, {scalar(1.0), scalar(1.0)});
  launch(stream.get(), axpby, {a, a}, {scalar(2.0), scalar(0.0)});
  const Graph graph = end(stream);
  EXPECT_EQ(size(graph), 2u);
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(0.0f));
  for (int i = 0; i < 3; ++i) ASSERT_OK(xhal_graph_launch(stream.get(), graph.get()));
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(14.0f));
}

TEST_F(GraphTest, AReplaySeesNewScalarsByAddressAndKeepsOldOnesByValue) {
  auto stream = device().stream();
  const uint64_t a = alloc(64), rate = alloc(4);
  begin(stream);
  launch(stream.get(), axpby_op(16), {a, a},
         {by_address(rate), scalar(1.0)});  // the operator may go, too
  const Graph graph = end(stream);
  ASSERT_OK(xhal_stream_fill(stream.get(), a, 64, 0, 4));
  for (const float r : {1.0f, 10.0f, 100.0f}) {
    write<float>(stream.get(), rate, {r});
    ASSERT_OK(xhal_graph_launch(stream.get(), graph.get()));
  }
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(1101.0f));
}

TEST_F(GraphTest, StreamsThatJoinACaptureAreRecordedWithTheirOrder) {
  auto first = device().stream(), second = device().stream();
  const Op axpby = axpby_op(16);
  const uint64_t a = alloc(64);
  ASSERT_OK(xhal_stream_fill(first.get(), a, 64, 0, 4));
  begin(first);
  launch(first.get(), axpby, {a, a}, {scalar(1.0), scalar(1.0)});
  xhal_event fork{}, join{};
  ASSERT_OK(xhal_event_record(first.get(), 0, &fork));
  ASSERT_OK(xhal_stream_wait_event(second.get(), &fork));
  launch(second.get(), axpby, {a, a}, {scalar(10.0), scalar(0.0)});
  ASSERT_OK(xhal_event_record(second.get(), 0, &join));
  ASSERT_OK(xhal_stream_wait_event(first.get(), &join));
  launch(first.get(), axpby, {a, a}, {scalar(1.0), scalar(5.0)});
  const Graph graph = end(first);
  ASSERT_OK(xhal_graph_launch(first.get(), graph.get()));
  EXPECT_THAT(read(first.get(), a, 16), testing::Each(15.0f));
  launch(second.get(), axpby, {a, a}, {scalar(0.0), scalar(3.0)});  // eager again
  EXPECT_THAT(read(second.get(), a, 16), testing::Each(3.0f));
}

TEST_F(GraphTest, AStreamThatIsNotJoinedBackSpoilsTheCapture) {
  auto first = device().stream(), second = device().stream();
  const Op fill = fill_op(16);
  const uint64_t a = alloc(64);
  begin(first);
  xhal_event fork{};
  ASSERT_OK(xhal_event_record(first.get(), 0, &fork));
  ASSERT_OK(xhal_stream_wait_event(second.get(), &fork));
  launch(second.get(), fill, {a}, {scalar(1.0)});
  xhal_graph* graph = nullptr;
  EXPECT_EQ(xhal_stream_end_capture(first.get(), &graph), XHAL_ERR_CAPTURE);
  EXPECT_THAT(last_error_info().text, HasSubstr("not joined back"));
  for (auto* s : {&first, &second}) {
    launch(s->get(), fill, {a}, {scalar(2.0)});
    EXPECT_THAT(read(s->get(), a, 16), testing::Each(2.0f));
  }
}

TEST_F(GraphTest, ARefusedSubmissionSpoilsTheCapture) {
  auto stream = device().stream();
  begin(stream);
  EXPECT_EQ(xhal_op_launch(stream.get(), fill_op(16).get(), nullptr, 0, nullptr, 0, 0),
            XHAL_ERR_INVALID_ARGUMENT);
  xhal_graph* graph = nullptr;
  EXPECT_EQ(xhal_stream_end_capture(stream.get(), &graph), XHAL_ERR_CAPTURE);
  EXPECT_THAT(last_error_info().text, HasSubstr("number of addresses"));
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
}

TEST_F(GraphTest, OtherStreamsWorkOnDuringACapture) {
  auto captured = device().stream(), other = device().stream();
  const Op fill = fill_op(16);
  const uint64_t a = alloc(64), b = alloc(64);
  begin(captured);
  launch(captured.get(), fill, {a}, {scalar(1.0)});
  launch(other.get(), fill, {b}, {scalar(2.0)});
  EXPECT_THAT(read(other.get(), b, 16), testing::Each(2.0f));
  const Graph graph = end(captured);
  EXPECT_EQ(size(graph), 1u);
}

TEST_F(GraphTest, CopiesFillsAndHostCallsAreRecordedToo) {
  auto stream = device().stream();
  const uint64_t a = alloc(64), b = alloc(64);
  std::atomic<int> calls{0};
  std::vector<float> host(16, 1.5f);
  begin(stream);
  ASSERT_OK(xhal_stream_copy(stream.get(), a, reinterpret_cast<uint64_t>(host.data()), 64));
  ASSERT_OK(xhal_stream_copy(stream.get(), b, a, 64));
  ASSERT_OK(xhal_stream_fill(stream.get(), a, 64, 0x3f800000, 4));
  ASSERT_OK(xhal_stream_host_call(
      stream.get(),
      [](void* user, xhal_status s) {
        *static_cast<std::atomic<int>*>(user) += s == XHAL_OK ? 1 : 100;
      },
      &calls, 0));
  const Graph graph = end(stream);
  EXPECT_EQ(size(graph), 4u);
  for (int i = 0; i < 2; ++i) ASSERT_OK(xhal_graph_launch(stream.get(), graph.get()));
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(1.0f));
  EXPECT_THAT(read(stream.get(), b, 16), testing::Each(1.5f));
  EXPECT_EQ(calls, 2);
}

TEST_F(GraphTest, AFailingNodeNamesItselfAndTheRestOfTheReplayIsDropped) {
  auto stream = device().stream();
  const Op fill = fill_op(16), select = select_op(16);
  const uint64_t in = alloc(64), index = alloc(8), out = alloc(4), a = alloc(64);
  write<int64_t>(stream.get(), index, {3});
  std::atomic<int> status{1};
  begin(stream);
  launch(stream.get(), select, {in, index, out});
  launch(stream.get(), fill, {a}, {scalar(1.0)});
  ASSERT_OK(xhal_stream_host_call(
      stream.get(),
      [](void* user, xhal_status s) { static_cast<std::atomic<int>*>(user)->store(s); }, &status,
      0));
  const Graph graph = end(stream);
  ASSERT_OK(xhal_graph_launch(stream.get(), graph.get()));
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  EXPECT_EQ(status, XHAL_OK);
  write<int64_t>(stream.get(), index, {99});
  ASSERT_OK(xhal_stream_fill(stream.get(), a, 64, 0, 4));
  ASSERT_OK(xhal_graph_launch(stream.get(), graph.get()));
  EXPECT_LT(xhal_stream_synchronize(stream.get(), kSoon), 0);
  EXPECT_THAT(last_error_info().text, HasSubstr("index_select"));
  ASSERT_OK(xhal_stream_recover(stream.get()));
  EXPECT_LT(status, 0);
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(0.0f));
  write<int64_t>(stream.get(), index, {5});
  ASSERT_OK(xhal_graph_launch(stream.get(), graph.get()));
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(1.0f));
}

TEST_F(GraphTest, ReplaysOnSeveralStreamsDoNotOverlap) {
  constexpr int64_t kCount = 50'000;
  const Op axpby = axpby_op(kCount);
  const uint64_t a = alloc(kCount * 4), b = alloc(kCount * 4);
  auto first = device().stream();
  ASSERT_OK(xhal_stream_fill(first.get(), a, kCount * 4, 0, 4));
  begin(first);
  // Two steps over other memory: an overlapping replay would lose an addition.
  launch(first.get(), axpby, {a, b}, {scalar(1.0), scalar(1.0)});
  launch(first.get(), axpby, {b, a}, {scalar(1.0), scalar(0.0)});
  const Graph graph = end(first);
  ASSERT_OK(xhal_stream_synchronize(first.get(), kSoon));
  constexpr int kThreads = 3, kEach = 50;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      auto stream = device().stream();
      for (int i = 0; i < kEach; ++i) check(xhal_graph_launch(stream.get(), graph.get()));
      check(xhal_stream_synchronize(stream.get(), kSoon));
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_THAT(read(first.get(), a, kCount), testing::Each(static_cast<float>(kThreads * kEach)));
}

TEST_F(GraphTest, AGraphIsDestroyedOnlyWhenItsReplaysHaveRun) {
  auto stream = device().stream();
  const uint64_t a = alloc(64);
  begin(stream);
  launch(stream.get(), fill_op(16), {a}, {scalar(6.0)});
  Graph graph = end(stream);
  Barrier barrier;
  ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
  ASSERT_OK(xhal_graph_launch(stream.get(), graph.get()));
  std::thread opener([&] {
    barrier.wait_entered();
    barrier.open();
  });
  graph.reset();
  opener.join();
  EXPECT_THAT(read(stream.get(), a, 16), testing::Each(6.0f));
}

TEST_F(GraphTest, WaitsAndLaunchesOfGraphsHaveNoPlaceInACapture) {
  auto stream = device().stream();
  const auto t = timeline();
  begin(stream);
  const Graph empty = end(stream);
  EXPECT_EQ(size(empty), 0u);
  EXPECT_OK(xhal_graph_launch(stream.get(), empty.get()));
  begin(stream);
  EXPECT_EQ(xhal_stream_wait(stream.get(), t.get(), 1), XHAL_ERR_CAPTURE);
  EXPECT_EQ(xhal_stream_signal(stream.get(), t.get(), 1), XHAL_ERR_CAPTURE);
  EXPECT_EQ(xhal_graph_launch(stream.get(), empty.get()), XHAL_ERR_CAPTURE);
  xhal_graph* graph = nullptr;
  EXPECT_EQ(xhal_stream_end_capture(stream.get(), &graph), XHAL_ERR_CAPTURE);
}

class ModuleTest : public GraphTest {
 protected:
  static std::vector<char> binary() {
    std::ifstream file(CPU_TEST_KERNELS, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  xhal_status load(const std::vector<char>& bytes, std::string_view name, xhal_module** module,
                   std::string_view format = "elf-so") {
    xhal_module_info info{};
    info.struct_size = sizeof info;
    info.format = str(format);
    info.name = str(name);
    info.bytes = bytes.data();
    info.size_bytes = bytes.size();
    return xhal_module_load(context(), &info, module);
  }
  Module loaded(std::string_view name = "kernels") {
    xhal_module* m = nullptr;
    check(load(binary(), name, &m));
    return Module(m);
  }
  static xhal_kernel* kernel(const Module& module, std::string_view name) {
    xhal_kernel* k = nullptr;
    check(xhal_module_kernel(module.get(), str(name), &k));
    return k;
  }
  static xhal_grid grid(uint32_t x, uint32_t y = 1, uint32_t z = 1) {
    xhal_grid g{};
    g.struct_size = sizeof g;
    const uint32_t groups[3] = {x, y, z};
    for (int i = 0; i < 3; ++i) {
      g.groups[i] = groups[i];
      g.group_size[i] = 1;
    }
    return g;
  }
  static xhal_kernel_arg address(uint64_t a) { return {XHAL_ARG_ADDRESS, 8, {a}}; }
};

TEST_F(ModuleTest, AKernelIsCalledOnceForEachGroup) {
  const Module module = loaded();
  auto stream = device().stream();
  const uint64_t a = alloc(24 * 4);
  ASSERT_OK(xhal_stream_fill(stream.get(), a, 24 * 4, 0, 4));
  const xhal_grid g = grid(2, 3, 4);
  const xhal_kernel_arg args[] = {address(a), {XHAL_ARG_VALUE, 4, {100}}};
  ASSERT_OK(xhal_kernel_launch(stream.get(), kernel(module, "count_groups"), &g, args, 2));
  const auto seen = read<uint32_t>(stream.get(), a, 24);
  for (uint32_t i = 0; i < 24; ++i) EXPECT_EQ(seen[i], 100 + i);
}

TEST_F(ModuleTest, LargeValuesAndLocalMemoryReachTheKernel) {
  const Module module = loaded();
  auto stream = device().stream();
  const uint64_t a = alloc(8 * 4);
  {
    float table[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    xhal_kernel_arg value{};
    value.kind = XHAL_ARG_VALUE;
    value.size_bytes = sizeof table;
    value.value.pointer = table;
    const xhal_kernel_arg args[] = {
        address(a), value, {XHAL_ARG_LOCAL, 100, {0}}, {XHAL_ARG_LOCAL, 100, {0}}};
    const xhal_grid g = grid(8);
    ASSERT_OK(xhal_kernel_launch(stream.get(), kernel(module, "through_local"), &g, args, 4));
    for (float& f : table) f = -1;  // borrowed for the call only
  }
  const auto seen = read(stream.get(), a, 8);
  for (int i = 0; i < 8; ++i)
    EXPECT_EQ(seen[static_cast<size_t>(i)], static_cast<float>(2 * (i + 1)));
}

TEST_F(ModuleTest, AModuleDestroyedAfterALaunchStaysUntilItHasRun) {
  auto stream = device().stream();
  const uint64_t a = alloc(4);
  Barrier barrier;
  ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
  {
    const Module module = loaded();
    const xhal_grid g = grid(1);
    const xhal_kernel_arg args[] = {address(a), {XHAL_ARG_VALUE, 4, {7}}};
    ASSERT_OK(xhal_kernel_launch(stream.get(), kernel(module, "count_groups"), &g, args, 2));
  }
  barrier.open();
  EXPECT_EQ(read<uint32_t>(stream.get(), a, 1)[0], 7u);
}

TEST_F(ModuleTest, TwoModulesOfTheSameBytesAreTwoModules) {
  const Module one = loaded("one"), two = loaded("two");
  auto stream = device().stream();
  const uint64_t a = alloc(8);
  const xhal_grid g = grid(1);
  const xhal_kernel_arg first[] = {address(a)}, second[] = {address(a + 4)};
  ASSERT_OK(xhal_kernel_launch(stream.get(), kernel(one, "next_number"), &g, first, 1));
  ASSERT_OK(xhal_kernel_launch(stream.get(), kernel(two, "next_number"), &g, second, 1));
  EXPECT_EQ(read<uint32_t>(stream.get(), a, 2), (std::vector<uint32_t>{1, 1}));
}

TEST_F(ModuleTest, KernelsAreRecordedInGraphs) {
  auto stream = device().stream();
  const uint64_t a = alloc(4);
  Graph graph;
  {
    const Module module = loaded();
    const xhal_grid g = grid(1);
    const xhal_kernel_arg args[] = {address(a)};
    begin(stream);
    ASSERT_OK(xhal_kernel_launch(stream.get(), kernel(module, "next_number"), &g, args, 1));
    graph = end(stream);
  }
  for (int i = 0; i < 3; ++i) ASSERT_OK(xhal_graph_launch(stream.get(), graph.get()));
  EXPECT_EQ(read<uint32_t>(stream.get(), a, 1)[0], 3u);
}

TEST_F(ModuleTest, BadModulesAreRefusedWithTheReason) {
  xhal_module* m = nullptr;
  const auto bytes = binary();
  EXPECT_EQ(load(bytes, "m", &m, "spirv"), XHAL_ERR_UNSUPPORTED);
  EXPECT_THAT(last_error_info().text, HasSubstr("elf-so"));
  EXPECT_EQ(load({'h', 'i'}, "m", &m), XHAL_ERR_CORRUPT);
  EXPECT_EQ(load(std::vector<char>(5000, 'x'), "m", &m), XHAL_ERR_CORRUPT);
  EXPECT_EQ(load({bytes.begin(), bytes.begin() + static_cast<long>(bytes.size() / 2)}, "m", &m),
            XHAL_ERR_CORRUPT);
  auto foreign = bytes;
  foreign[18] = static_cast<char>(183);  // aarch64
  EXPECT_EQ(load(foreign, "m", &m), XHAL_ERR_CORRUPT);
  EXPECT_THAT(last_error_info().text, HasSubstr("x86_64"));
  const Module module = loaded("m");
  EXPECT_EQ(load(bytes, "m", &m), XHAL_ERR_BUSY);
  xhal_kernel* k = nullptr;
  EXPECT_EQ(xhal_module_kernel(module.get(), str("nothing"), &k), XHAL_ERR_NOT_FOUND);
  EXPECT_THAT(last_error_info().text, HasSubstr("count_groups"));
}

TEST_F(ModuleTest, TheNativeBinaryCanBeReadBack) {
  const Module module = loaded();
  uint64_t size = 0;
  ASSERT_OK(xhal_module_query(module.get(), XHAL_MODULE_BINARY, nullptr, 0, &size));
  std::vector<char> bytes(size);
  ASSERT_OK(xhal_module_query(module.get(), XHAL_MODULE_BINARY, bytes.data(), size, &size));
  EXPECT_EQ(bytes, binary());
  xhal_kernel_properties properties{};
  properties.struct_size = sizeof properties;
  ASSERT_OK(xhal_kernel_query(kernel(module, "count_groups"), &properties));
  EXPECT_EQ(properties.argument_count, UINT32_MAX);
}

}  // namespace
}  // namespace xhal::cpu::test
