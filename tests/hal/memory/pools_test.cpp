// SPDX-License-Identifier: Apache-2.0
// Pools beside captures, other contexts and the memory calls below them.
#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

class PoolTest : public FaultyTest {
 protected:
  static uint64_t block(const Pool& pool, const Stream& stream, uint64_t size) {
    uint64_t address = 0;
    check(xhal_pool_alloc(pool.get(), stream.get(), size, str("block"), &address));
    return address;
  }
  static Graph end_capture(const Stream& stream) {
    xhal_graph* graph = nullptr;
    check(xhal_stream_end_capture(stream.get(), &graph));
    return Graph(graph);
  }
};

TEST_F(PoolTest, TwoCapturesOnOnePoolKeepTheirBlocksApart) {
  const auto& d = device("cpu");
  const auto a = d.stream(), b = d.stream();
  const auto pool = d.pool();
  constexpr uint64_t kBytes = 1 << 16;
  ASSERT_OK(xhal_stream_begin_capture(a.get(), pool.get()));
  ASSERT_OK(xhal_stream_begin_capture(b.get(), pool.get()));
  const auto in_a = block(pool, a, kBytes);
  ASSERT_OK(xhal_stream_fill(a.get(), in_a, kBytes, 0xAA, 1));
  ASSERT_OK(xhal_pool_free(pool.get(), in_a, nullptr, 0));
  const auto graph_a = end_capture(a);
  const auto in_b = block(pool, b, kBytes);
  ASSERT_OK(xhal_stream_fill(b.get(), in_b, kBytes, 0xBB, 1));
  ASSERT_OK(xhal_pool_free(pool.get(), in_b, nullptr, 0));
  const auto graph_b = end_capture(b);

  // What is handed out while the graphs live is theirs no more than it is each other's.
  std::vector<uint64_t> eager;
  for (int i = 0; i < 8; ++i) {
    for (const auto* stream : {&a, &b}) {
      eager.push_back(block(pool, *stream, kBytes));
      ASSERT_OK(xhal_stream_fill(stream->get(), eager.back(), kBytes, 0x22, 1));
      ASSERT_OK(xhal_stream_synchronize(stream->get(), kSoon));
    }
  }
  ASSERT_OK(xhal_graph_launch(a.get(), graph_a.get()));
  ASSERT_OK(xhal_graph_launch(b.get(), graph_b.get()));
  ASSERT_OK(xhal_stream_synchronize(a.get(), kSoon));
  ASSERT_OK(xhal_stream_synchronize(b.get(), kSoon));
  EXPECT_NE(in_a, in_b);
  for (const auto address : eager) {
    EXPECT_EQ(read(a.get(), address, kBytes), std::vector<uint8_t>(kBytes, 0x22));
    ASSERT_OK(xhal_pool_free(pool.get(), address, nullptr, 0));
  }
}

TEST_F(PoolTest, ABlockFreedInACaptureIsGivenOutAgainOnceItsGraphIsDestroyed) {
  const auto& d = device("cpu");
  const auto stream = d.stream();
  const auto pool = d.pool(2 << 20);
  ASSERT_OK(xhal_stream_begin_capture(stream.get(), pool.get()));
  const auto captured = block(pool, stream, 1 << 20);
  ASSERT_OK(xhal_pool_free(pool.get(), captured, nullptr, 0));
  auto graph = end_capture(stream);
  uint64_t address = 0;
  EXPECT_EQ(xhal_pool_alloc(pool.get(), stream.get(), 1 << 20, str(""), &address),
            XHAL_ERR_OUT_OF_MEMORY);
  graph.reset();
  EXPECT_OK(xhal_pool_alloc(pool.get(), stream.get(), 1 << 20, str(""), &address));
  EXPECT_OK(xhal_pool_free(pool.get(), address, nullptr, 0));
}

// A captured stream's free blocks cannot be ordered against: taking one would record into it.
TEST_F(PoolTest, PressureNeverTouchesACapturedStream) {
  const auto& d = device("cpu");
  const auto captured = d.stream(), other = d.stream();
  const auto pool = d.pool(2 << 20);
  const auto memory = alloc(d, 4096);
  ASSERT_OK(xhal_pool_free(pool.get(), block(pool, captured, 1 << 20), nullptr, 0));
  ASSERT_OK(xhal_stream_begin_capture(captured.get(), nullptr));
  ASSERT_OK(xhal_stream_fill(captured.get(), memory, 4096, 0x77, 1));
  uint64_t address = 0;
  const auto status =
      xhal_pool_alloc(pool.get(), other.get(), 1 << 20, str("under pressure"), &address);
  EXPECT_TRUE(status == XHAL_OK || status == XHAL_ERR_OUT_OF_MEMORY) << error_text();
  const auto graph = end_capture(captured);
  ASSERT_OK(xhal_graph_launch(captured.get(), graph.get()));
  EXPECT_EQ(read(captured.get(), memory, 4096), std::vector<uint8_t>(4096, 0x77));
}

TEST_F(PoolTest, TrimmingNeverTouchesACapturedStream) {
  const auto& d = device("cpu");
  const auto captured = d.stream();
  const auto pool = d.pool();
  const auto memory = alloc(d, 4096);
  ASSERT_OK(xhal_pool_free(pool.get(), block(pool, captured, 1 << 20), nullptr, 0));
  ASSERT_OK(xhal_stream_begin_capture(captured.get(), nullptr));
  ASSERT_OK(xhal_stream_fill(captured.get(), memory, 4096, 0x78, 1));
  EXPECT_OK(xhal_pool_trim(pool.get(), 0));
  const auto graph = end_capture(captured);
  uint64_t nodes = 0;
  ASSERT_OK(xhal_graph_size(graph.get(), &nodes));
  EXPECT_EQ(nodes, 1u) << "the trim has recorded something";
  ASSERT_OK(xhal_graph_launch(captured.get(), graph.get()));
  EXPECT_EQ(read(captured.get(), memory, 4096), std::vector<uint8_t>(4096, 0x78));
}

TEST_F(PoolTest, PressureNeverReachesADestroyedStreamOfAnotherContext) {
  const auto d = open_device("faulty:0");
  auto* const further = context_in(d);
  auto foreign = stream_in(further);
  const auto own = d.stream();
  const auto pool = d.pool(2 << 20);
  uint64_t address = 0;
  // A block on a stream of another context may be refused; what was given must not be touched.
  if (xhal_pool_alloc(pool.get(), foreign.get(), 1 << 20, str("foreign"), &address) == XHAL_OK) {
    ASSERT_OK(xhal_pool_free(pool.get(), address, nullptr, 0));
  }
  auto* const destroyed = foreign.get();
  foreign.reset();
  std::atomic<bool> reached{false};
  board().before("stream_signal", [&](const Call& call) {
    if (call.stream == destroyed) reached = true;
    return XHAL_OK;
  });
  EXPECT_OK(xhal_pool_alloc(pool.get(), own.get(), 1 << 20, str("pressure"), &address))
      << "its memory is nobody's any more";
  EXPECT_FALSE(reached) << "the plugin was given a destroyed stream";
}

TEST_F(PoolTest, ASlabOfAPoolCannotBeFreedBelowIt) {
  const auto d = open_device("faulty:0");
  const auto pool = d.pool();
  const auto stream = d.stream();
  const auto address = block(pool, stream, 1 << 20);
  xhal_pointer_info info{};
  ASSERT_OK(xhal_pointer_query(address, &info));
  EXPECT_EQ(xhal_memory_free(d.context(), info.base), XHAL_ERR_BUSY);
  const auto another = block(pool, stream, 4096);
  ASSERT_OK(xhal_pointer_query(another, &info));
  EXPECT_EQ(info.kind, static_cast<uint32_t>(XHAL_MEMORY_DEVICE));
  EXPECT_EQ(info.pool, pool.get());
}

TEST_F(PoolTest, APoolWithASmallLimitHoldsBlocksBelowIt) {
  const auto d = open_device("faulty:0");
  xhal_pool_info info{};
  info.struct_size = sizeof info;
  info.limit_bytes = 1 << 20;
  xhal_pool* made = nullptr;
  ASSERT_OK(xhal_pool_create(d.context(), &info, &made));
  const Pool pool(made);
  const auto stream = d.stream();
  const auto a = block(pool, stream, 512 << 10);
  uint64_t b = 0;
  EXPECT_EQ(xhal_pool_alloc(pool.get(), stream.get(), 768 << 10, str("b"), &b),
            XHAL_ERR_OUT_OF_MEMORY);
  EXPECT_THAT(error_text(), HasSubstr("limit"));
  EXPECT_OK(xhal_pool_free(pool.get(), a, nullptr, 0));
}

TEST_F(PoolTest, APoolThatEndsInsideItsObserverLeavesNoneToTheNext) {
  const auto d = open_device("faulty:0");
  xhal_pool_info info{};
  info.struct_size = sizeof info;
  struct Seen {
    xhal_pool* pool = nullptr;
    xhal_status destroyed = XHAL_NOT_READY;
    int calls = 0;
  } seen;
  ASSERT_OK(xhal_pool_create(d.context(), &info, &seen.pool));
  ASSERT_OK(xhal_pool_observe(
      seen.pool,
      [](void* user, const xhal_pool_record* record) {
        auto& s = *static_cast<Seen*>(user);
        ++s.calls;
        if (record->kind == XHAL_POOL_FREE) s.destroyed = xhal_pool_destroy(s.pool);
      },
      &seen));
  uint64_t address = 0;
  ASSERT_OK(xhal_pool_alloc(seen.pool, nullptr, 512, str(""), &address));
  ASSERT_OK(xhal_pool_free(seen.pool, address, nullptr, 0));
  ASSERT_OK(seen.destroyed);
  const int calls = seen.calls;
  const auto next = d.pool();
  ASSERT_OK(xhal_pool_alloc(next.get(), nullptr, 512, str(""), &address));
  EXPECT_OK(xhal_pool_free(next.get(), address, nullptr, 0));
  EXPECT_EQ(seen.calls, calls);
}

}  // namespace
}  // namespace xhal::test
