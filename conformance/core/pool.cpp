// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

class Pool : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(ok(xhal_pool_create(context(), nullptr, &pool_))); }
  void TearDown() override {
    if (pool_ == nullptr) return;
    EXPECT_TRUE(ok(xhal_pool_destroy(pool_)));
  }
  uint64_t alloc(uint64_t size, xhal_stream* stream = nullptr) {
    uint64_t address = 0;
    EXPECT_TRUE(ok(xhal_pool_alloc(pool_, stream, size, {"test", 4}, &address)));
    return address;
  }
  void free_block(uint64_t address) { EXPECT_TRUE(ok(xhal_pool_free(pool_, address, nullptr, 0))); }
  xhal_pool_stats stats() {
    auto s = versioned<xhal_pool_stats>();
    EXPECT_TRUE(ok(xhal_pool_query(pool_, &s)));
    return s;
  }
  xhal_pool* pool_ = nullptr;
};

TEST_F(Pool, BlocksAreAlignedTo512) {
  for (const uint64_t size : {1u, 100u, 513u, 100'000u}) {
    const uint64_t block = alloc(size);
    EXPECT_EQ(block % 512, 0u);
    free_block(block);
  }
}

TEST_F(Pool, BlocksDoNotOverlap) {
  const uint64_t a = alloc(3000), b = alloc(3000);
  EXPECT_TRUE(a + 3000 <= b || b + 3000 <= a);
  free_block(a);
  free_block(b);
}

TEST_F(Pool, SizeZeroIsAddressZeroAndMayBeFreed) {
  const uint64_t nothing = alloc(0);
  EXPECT_EQ(nothing, 0u);
  free_block(nothing);
}

TEST_F(Pool, AFreedBlockIsHandedOutAgainWithoutTheDriver) {
  const uint64_t first = alloc(1 << 20);
  free_block(first);
  const uint64_t slabs = stats().slab_allocation_count;
  const uint64_t second = alloc(1 << 20);
  EXPECT_EQ(stats().slab_allocation_count, slabs);
  free_block(second);
}

TEST_F(Pool, ABlockIsNotReusedBeforeItsEventIsReached) {
  const Stream user;
  const Timeline gate;
  const uint64_t first = alloc(1 << 20);
  ASSERT_TRUE(ok(xhal_stream_wait(user, gate, 1)));
  xhal_event used{};
  ASSERT_TRUE(ok(xhal_event_record(user, 0, &used)));
  ASSERT_TRUE(ok(xhal_pool_free(pool_, first, &used, 1)));
  const uint64_t second = alloc(1 << 20);
  EXPECT_NE(first, second);
  ASSERT_TRUE(ok(xhal_timeline_signal(gate, 1)));
  ASSERT_TRUE(user.finishes());
  free_block(second);
}

TEST_F(Pool, ABlockOfAStreamIsReusedInTheOrderOfThatStream) {
  const Stream stream;
  const Timeline gate;
  const uint64_t first = alloc(1 << 20, stream);
  ASSERT_TRUE(ok(xhal_stream_wait(stream, gate, 1)));
  free_block(first);
  const uint64_t second = alloc(1 << 20, stream);
  EXPECT_EQ(first, second) << "work of the same stream is ordered; nothing has to be waited for";
  ASSERT_TRUE(ok(xhal_timeline_signal(gate, 1)));
  ASSERT_TRUE(stream.finishes());
  free_block(second);
}

TEST_F(Pool, ABlockThatChangesStreamsIsOrderedByThePool) {
  const Stream first, second;
  const Timeline gate;
  const uint64_t block = alloc(1 << 20, first);
  ASSERT_TRUE(ok(xhal_stream_wait(first, gate, 1)));
  ASSERT_TRUE(ok(xhal_stream_fill(first, block, 1 << 20, 1, 1)));
  free_block(block);
  const uint64_t again = alloc(1 << 20, second);
  ASSERT_TRUE(ok(xhal_stream_fill(second, again, 1 << 20, 2, 1)));
  ASSERT_TRUE(ok(xhal_timeline_signal(gate, 1)));
  ASSERT_TRUE(first.finishes());
  ASSERT_TRUE(second.finishes());
  std::vector<uint8_t> bytes(1 << 20);
  ASSERT_TRUE(
      ok(xhal_stream_copy(second, reinterpret_cast<uintptr_t>(bytes.data()), again, bytes.size())));
  ASSERT_TRUE(second.finishes());
  EXPECT_TRUE(same(bytes, std::vector<uint8_t>(1 << 20, 2)));
  free_block(again);
}

TEST_F(Pool, CountsWhatIsUsed) {
  const auto before = stats();
  const uint64_t block = alloc(10'000);
  const auto during = stats();
  EXPECT_GE(during.used_bytes, before.used_bytes + 10'000);
  EXPECT_EQ(during.requested_bytes, before.requested_bytes + 10'000);
  EXPECT_EQ(during.allocation_count, before.allocation_count + 1);
  free_block(block);
  EXPECT_EQ(stats().used_bytes, before.used_bytes);
  EXPECT_EQ(stats().free_count, before.free_count + 1);
}

TEST_F(Pool, PeaksAreKeptUntilReset) {
  free_block(alloc(1 << 20));
  EXPECT_GE(stats().used_peak_bytes, 1u << 20);
  ASSERT_TRUE(ok(xhal_pool_reset_peaks(pool_)));
  EXPECT_EQ(stats().used_peak_bytes, stats().used_bytes);
}

TEST_F(Pool, TrimmingGivesFreeSlabsBack) {
  free_block(alloc(8 << 20));
  EXPECT_GT(stats().reserved_bytes, 0u);
  ASSERT_TRUE(ok(xhal_pool_trim(pool_, 0)));
  EXPECT_EQ(stats().reserved_bytes, 0u);
}

TEST_F(Pool, FreeingWhatIsNotOutIsRefused) {
  const uint64_t block = alloc(4096);
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_pool_free(pool_, block + 512, nullptr, 0)));
  free_block(block);
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_pool_free(pool_, block, nullptr, 0)));
}

TEST_F(Pool, DestroyingItWithBlocksOutIsBusy) {
  const uint64_t block = alloc(4096);
  EXPECT_TRUE(fails_with(XHAL_ERR_BUSY, xhal_pool_destroy(pool_)));
  free_block(block);
}

TEST_F(Pool, OutOfMemoryNamesTheHolders) {
  const uint64_t block = alloc(1 << 20);
  uint64_t address = 7;
  EXPECT_TRUE(fails_with(XHAL_ERR_OUT_OF_MEMORY, xhal_pool_alloc(pool_, nullptr, uint64_t{1} << 50,
                                                                 {"huge", 4}, &address)));
  EXPECT_NE(last_error_text().find("test"), std::string::npos) << last_error_text();
  EXPECT_EQ(address, 7u);
  EXPECT_GE(stats().out_of_memory_count, 1u);
  free_block(block);
}

TEST_F(Pool, PointerQueryNamesThePool) {
  const uint64_t block = alloc(4096);
  xhal_pointer_info info{};
  ASSERT_TRUE(ok(xhal_pointer_query(block, &info)));
  EXPECT_EQ(info.pool, pool_);
  free_block(block);
}

TEST(PoolLimit, IsKept) {
  auto info = versioned<xhal_pool_info>();
  info.limit_bytes = 4 << 20;
  xhal_pool* pool = nullptr;
  ASSERT_TRUE(ok(xhal_pool_create(context(), &info, &pool)));
  uint64_t address = 0;
  const auto status = xhal_pool_alloc(pool, nullptr, 8 << 20, {}, &address);
  EXPECT_TRUE(status == XHAL_ERR_OUT_OF_MEMORY || status == XHAL_ERR_LIMIT)
      << xhal_status_name(status);
  EXPECT_TRUE(ok(xhal_pool_destroy(pool)));
}

}  // namespace
}  // namespace xhal::cts
