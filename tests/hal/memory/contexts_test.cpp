// SPDX-License-Identifier: Apache-2.0
// Whose memory it is: quotas, isolation of contexts, and which addresses a submission may name.
#include <algorithm>

#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

class ContextTest : public FaultyTest {};

// The device rounds up to whole slabs of 2 MiB; the quota is in what was asked for.
TEST_F(ContextTest, AQuotaCountsWhatWasRequestedHoweverOftenItIsGivenBack) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d, 0, 8192);
  for (int round = 0; round < 100; ++round) {
    uint64_t first = 0, second = 0, third = 0;
    ASSERT_OK(try_alloc(context, 4096, &first)) << "round " << round;
    ASSERT_OK(try_alloc(context, 4096, &second)) << "round " << round;
    ASSERT_EQ(try_alloc(context, 1, &third), XHAL_ERR_LIMIT) << "round " << round;
    ASSERT_OK(xhal_memory_free(context, first));
    ASSERT_OK(xhal_memory_free(context, second));
  }
  EXPECT_OK(xhal_context_destroy(context));
}

TEST_F(ContextTest, AFailedAllocationTakesNothingFromTheQuota) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d, 0, 8192);
  uint64_t address = 0;
  board().before("memory_alloc", [](const Call&) { return XHAL_ERR_OUT_OF_MEMORY; });
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(try_alloc(context, 8192, &address), XHAL_ERR_OUT_OF_MEMORY);
  board().forget("memory_alloc");
  EXPECT_OK(try_alloc(context, 8192, &address));
}

TEST_F(ContextTest, AFreeThatThePluginRefusesGivesNoQuotaBack) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d, 0, 4096);
  const auto address = alloc_in(context, 4096);
  board().before("memory_free", [](const Call&) { return XHAL_ERR_DEVICE; });
  EXPECT_EQ(xhal_memory_free(context, address), XHAL_ERR_DEVICE);
  uint64_t another = 0;
  EXPECT_EQ(try_alloc(context, 4096, &another), XHAL_ERR_LIMIT);
  board().forget("memory_free");
  EXPECT_OK(xhal_memory_free(context, address));
  EXPECT_OK(try_alloc(context, 4096, &another));
}

TEST_F(ContextTest, MemoryOfAFurtherContextIsRefusedByStreamsOfOthers) {
  const auto d = open_device("faulty:0");
  auto *const mine = context_in(d), *const other = context_in(d);
  const auto secret = alloc_in(mine, 4096);
  const auto own_stream = stream_in(mine);
  EXPECT_OK(xhal_stream_fill(own_stream.get(), secret, 4096, 0x42, 1));
  board().record();
  for (auto* context : {d.context(), other}) {
    const auto stream = stream_in(context);
    const auto memory = alloc_in(context, 4096);
    EXPECT_EQ(xhal_stream_copy(stream.get(), memory, secret, 4096), XHAL_ERR_PERMISSION);
    EXPECT_EQ(xhal_stream_copy(stream.get(), secret, memory, 4096), XHAL_ERR_PERMISSION);
    EXPECT_EQ(xhal_stream_fill(stream.get(), secret, 4096, 0, 1), XHAL_ERR_PERMISSION);
    std::vector<uint8_t> host(4096);
    EXPECT_EQ(xhal_stream_copy(stream.get(), address_of(host.data()), secret, 4096),
              XHAL_ERR_PERMISSION);
  }
  EXPECT_TRUE(board().calls("stream_copy").empty());
  EXPECT_TRUE(board().calls("stream_fill").empty());
  EXPECT_EQ(read(own_stream.get(), secret, 4096), std::vector<uint8_t>(4096, 0x42));
}

TEST_F(ContextTest, AnotherDeviceMayNotReadTheMemoryOfAFurtherContextEither) {
  const auto d = open_device("faulty:0"), neighbour = open_device("faulty:1");
  const auto& template_device = device("template");
  auto* const context = context_in(d);
  const auto secret = alloc_in(context, 4096);
  for (const Device* from : {&neighbour, &template_device}) {
    const auto stream = from->stream();
    const auto memory = alloc(*from, 4096);
    EXPECT_EQ(xhal_stream_copy(stream.get(), memory, secret, 4096), XHAL_ERR_PERMISSION);
    EXPECT_EQ(xhal_stream_copy(stream.get(), secret, memory, 4096), XHAL_ERR_PERMISSION);
  }
}

TEST_F(ContextTest, DefaultContextsOfTwoDevicesShareTheirMemory) {
  const auto first = open_device("faulty:0"), second = open_device("faulty:1");
  const auto from_stream = first.stream(), to_stream = second.stream();
  constexpr uint64_t kBytes = 100'001;
  const auto from = alloc(first, kBytes), to = alloc(second, kBytes);
  ASSERT_OK(xhal_stream_fill(from_stream.get(), from, kBytes, 0x31, 1));
  xhal_event filled{};
  ASSERT_OK(xhal_event_record(from_stream.get(), 0, &filled));
  ASSERT_OK(xhal_stream_wait_event(to_stream.get(), &filled));
  ASSERT_OK(xhal_stream_copy(to_stream.get(), to, from, kBytes));
  EXPECT_EQ(read(to_stream.get(), to, kBytes), std::vector<uint8_t>(kBytes, 0x31));
}

// ---- which addresses a fill may name -----------------------------------------------------------

TEST_F(ContextTest, AFillIsRefusedOutsideItsOwnDevice) {
  const auto first = open_device("faulty:0"), second = open_device("faulty:1");
  const auto stream = first.stream();
  const auto foreign = alloc(second, 4096);
  board().record();
  EXPECT_LT(xhal_stream_fill(stream.get(), foreign, 4096, 0, 1), 0);
  EXPECT_THAT(error_text(), HasSubstr("faulty:0"));
  EXPECT_TRUE(board().calls("stream_fill").empty());
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon)) << "a refused fill fails nothing";
}

TEST_F(ContextTest, AFillOfPinnedMemoryIsRefusedOrDone) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  void* memory = nullptr;
  ASSERT_OK(xhal_host_alloc(4096, &memory));
  std::memset(memory, 1, 4096);
  const auto status = xhal_stream_fill(stream.get(), address_of(memory), 4096, 9, 1);
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  const auto* const bytes = static_cast<const uint8_t*>(memory);
  EXPECT_EQ(std::vector<uint8_t>(bytes, bytes + 4096),
            std::vector<uint8_t>(4096, status == XHAL_OK ? 9 : 1));
  EXPECT_NE(status, XHAL_ERR_PLUGIN) << "the plugin was given an address it does not know";
  ASSERT_OK(xhal_host_free(memory));
}

// ---- what was shared on purpose, and what an allocation is called -------------------------------

TEST_F(ContextTest, MemoryAllocatedForAnyContextIsOpenToAll) {
  const auto d = open_device("faulty:0");
  auto *const mine = context_in(d), *const other = context_in(d);
  board().record();
  const auto shared = alloc_in(mine, 4096, XHAL_MEMORY_ANY_CONTEXT);
  EXPECT_EQ(board().calls("memory_alloc").at(0).value, 0u) << "plugins do not see the flag";
  for (auto* context : {mine, other, d.context()}) {
    const auto stream = stream_in(context);
    const auto memory = alloc_in(context, 4096);
    ASSERT_OK(xhal_stream_fill(stream.get(), shared, 4096, 0x17, 1));
    ASSERT_OK(xhal_stream_copy(stream.get(), memory, shared, 4096));
    EXPECT_EQ(read(stream.get(), memory, 4096), std::vector<uint8_t>(4096, 0x17));
  }
}

TEST_F(ContextTest, AnAllocationAtAnOldAddressHasANewId) {
  const auto d = open_device("faulty:0");
  const auto id_of = [](uint64_t address) {
    xhal_pointer_info info{};
    check(xhal_pointer_query(address, &info));
    return info.allocation_id;
  };
  std::vector<uint64_t> ids;
  uint64_t first = 0;
  bool same_address = false;
  for (int i = 0; i < 100; ++i) {
    const auto address = alloc(d, 4096);
    if (first == 0) first = address;
    same_address = same_address || (i > 0 && address == first);
    ids.push_back(id_of(address));
    EXPECT_EQ(id_of(address + 4095), ids.back()) << "one allocation, one id";
    ASSERT_OK(xhal_memory_free(d.context(), address));
    EXPECT_EQ(id_of(address), 0u);
  }
  EXPECT_TRUE(same_address) << "the device gives its last address out again";
  void* pinned = nullptr;
  ASSERT_OK(xhal_host_alloc(4096, &pinned));
  ids.push_back(id_of(address_of(pinned)));
  ASSERT_OK(xhal_host_free(pinned));
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 0u), 0);
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end()) << "an id was used twice";
  int on_the_stack = 0;
  EXPECT_EQ(id_of(address_of(&on_the_stack)), 0u);
}

TEST_F(ContextTest, BlocksOfOneSlabShareItsId) {
  const auto d = open_device("faulty:0");
  const auto pool = d.pool();
  xhal_pointer_info first{}, second{};
  uint64_t a = 0, b = 0;
  ASSERT_OK(xhal_pool_alloc(pool.get(), nullptr, 4096, str("a"), &a));
  ASSERT_OK(xhal_pool_alloc(pool.get(), nullptr, 4096, str("b"), &b));
  ASSERT_OK(xhal_pointer_query(a, &first));
  ASSERT_OK(xhal_pointer_query(b, &second));
  ASSERT_EQ(first.base, second.base);
  EXPECT_NE(first.allocation_id, 0u);
  EXPECT_EQ(first.allocation_id, second.allocation_id);
  ASSERT_OK(xhal_pool_free(pool.get(), a, nullptr, 0));
  ASSERT_OK(xhal_pool_free(pool.get(), b, nullptr, 0));
}

}  // namespace
}  // namespace xhal::test
