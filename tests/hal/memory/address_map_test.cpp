// SPDX-License-Identifier: Apache-2.0
// What an address is: right for every address, whatever comes and goes meanwhile, and an allocation
// at an old address is a new one.
#include <sys/resource.h>

#include <atomic>
#include <random>
#include <set>
#include <thread>

#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

class AddressMapTest : public FaultyTest {
 protected:
  static xhal_pointer_info query(uint64_t address) {
    xhal_pointer_info info{};
    check(xhal_pointer_query(address, &info));
    return info;
  }
  static uint64_t host_alloc(uint64_t size) {
    void* memory = nullptr;
    check(xhal_host_alloc(size, &memory));
    return address_of(memory);
  }
  static void host_free(uint64_t address) {
    check(xhal_host_free(reinterpret_cast<void*>(address)));
  }
};

TEST_F(AddressMapTest, EveryByteOfABlockIsItsOwnAndTheNextOneIsNot) {
  for (const uint64_t size : {1, 63, 64, 65, 4095, 4096, 5000, 1 << 20}) {
    const auto first = host_alloc(size), second = host_alloc(size);
    EXPECT_EQ(first % 64, 0u);
    for (const uint64_t address : {first, first + size / 2, first + size - 1}) {
      const auto info = query(address);
      EXPECT_EQ(info.kind, static_cast<uint32_t>(XHAL_MEMORY_HOST));
      EXPECT_EQ(info.base, first);
      EXPECT_GE(info.size_bytes, size);
      EXPECT_EQ(info.device, nullptr);
      EXPECT_EQ(info.context, nullptr);
    }
    EXPECT_EQ(query(second).base, second);
    EXPECT_NE(query(first).allocation_id, query(second).allocation_id);
    host_free(first);
    EXPECT_EQ(query(first).kind, 0u);
    EXPECT_EQ(query(second).base, second);
    host_free(second);
  }
}

TEST_F(AddressMapTest, AnAllocationIdIsNeverUsedAgainAtTheSameAddress) {
  const auto d = open_device("faulty:0");
  std::set<uint64_t> ids, addresses;
  for (int round = 0; round < 100; ++round) {
    const auto address = alloc(d, 4096);
    const auto info = query(address + 100);
    EXPECT_NE(info.allocation_id, 0u);
    EXPECT_EQ(info.device, d.get());
    EXPECT_EQ(info.context, d.context());
    EXPECT_TRUE(ids.insert(info.allocation_id).second);
    addresses.insert(address);
    ASSERT_OK(xhal_memory_free(d.context(), address));
    EXPECT_EQ(query(address).kind, 0u);
  }
  EXPECT_LT(addresses.size(), ids.size()) << "the addresses were used again";
}

// Tens of thousands of ranges, in an order nobody planned for.
TEST_F(AddressMapTest, ManyRangesAreFoundWhateverTheOrderTheyComeAndGoIn) {
  constexpr size_t kBlocks = 20'000;
  std::mt19937 random(7);
  std::vector<uint64_t> blocks;
  for (size_t i = 0; i < kBlocks; ++i) blocks.push_back(host_alloc(64 + random() % 1000));
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (size_t i = 0; i < kBlocks / 2; ++i) {
    host_free(blocks.back());
    EXPECT_EQ(query(blocks.back()).kind, 0u);
    blocks.pop_back();
  }
  for (const auto block : blocks) ASSERT_EQ(query(block + 63).base, block);
  for (size_t i = 0; i < kBlocks / 2; ++i) blocks.push_back(host_alloc(64 + random() % 1000));
  for (const auto block : blocks) ASSERT_EQ(query(block).base, block);
  for (const auto block : blocks) host_free(block);
  for (const auto block : blocks) ASSERT_EQ(query(block).kind, 0u);
}

TEST_F(AddressMapTest, ReadersSeeWhatStaysWhileOthersComeAndGo) {
  std::vector<uint64_t> stays;
  for (int i = 0; i < 500; ++i) stays.push_back(host_alloc(64 + i));
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0}, queries{0};
  std::vector<std::thread> threads;
  for (uint32_t seed = 0; seed < 2; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      while (!stop) {
        const auto block = stays[random() % stays.size()];
        xhal_pointer_info info{};
        if (xhal_pointer_query(block + random() % 64, &info) != XHAL_OK || info.base != block ||
            info.kind != XHAL_MEMORY_HOST)
          ++wrong;
        ++queries;
      }
    });
  }
  for (uint32_t seed = 10; seed < 12; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      std::vector<uint64_t> mine;
      for (int step = 0; step < 20'000; ++step) {
        if (mine.size() < 200 || random() % 2 == 0) {
          mine.push_back(host_alloc(1 + random() % 5000));
        } else {
          std::swap(mine[random() % mine.size()], mine.back());
          host_free(mine.back());
          mine.pop_back();
        }
      }
      for (const auto block : mine) host_free(block);
    });
  }
  threads[2].join();
  threads[3].join();
  stop = true;
  threads[0].join();
  threads[1].join();
  EXPECT_EQ(wrong, 0u) << "of " << queries;
  for (const auto block : stays) host_free(block);
}

// ---- pinned memory: small blocks share a descriptor ---------------------------------------------

TEST_F(AddressMapTest, ThousandsOfPinnedBlocksNeedFewDescriptors) {
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  const rlimit few{256, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<uint64_t> blocks;
  for (int i = 0; i < 5000; ++i) {
    void* memory = nullptr;
    const auto status = xhal_host_alloc(i % 2 == 0 ? 4096 : 100, &memory);
    EXPECT_OK(status);
    if (status != XHAL_OK) break;
    blocks.push_back(address_of(memory));
    std::memset(memory, i & 0xff, i % 2 == 0 ? 4096 : 100);
  }
  for (size_t i = 0; i < blocks.size(); ++i)
    ASSERT_EQ(*reinterpret_cast<uint8_t*>(blocks[i]), i & 0xff) << "blocks do not overlap";
  for (const auto block : blocks) host_free(block);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
}

TEST_F(AddressMapTest, APinnedBlockIsFreedOnceAndByItsStart) {
  const auto block = host_alloc(4096), small = host_alloc(64);
  EXPECT_EQ(xhal_host_free(reinterpret_cast<void*>(block + 64)), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_host_free(reinterpret_cast<void*>(small + 1)), XHAL_ERR_INVALID_ARGUMENT);
  host_free(block);
  EXPECT_EQ(xhal_host_free(reinterpret_cast<void*>(block)), XHAL_ERR_INVALID_ARGUMENT);
  host_free(small);
  std::vector<uint8_t> heap(64);
  EXPECT_EQ(xhal_host_free(heap.data()), XHAL_ERR_INVALID_ARGUMENT);
}

// Two threads that need one registration at the same time: one makes it, the other has it.
TEST_F(AddressMapTest, ASlabIsRegisteredOnceHoweverManyThreadsUseItFirst) {
  const auto d = open_device("faulty:0");
  const auto block = host_alloc(4096);
  std::vector<Stream> streams;
  std::vector<uint64_t> memory;
  for (int i = 0; i < 8; ++i) {
    streams.push_back(d.stream());
    memory.push_back(alloc(d, 4096));
  }
  std::atomic<int> waiting{0};
  board().before("host_register", [&](const Call&) {
    while (waiting < 8) std::this_thread::yield();
    return XHAL_OK;
  });
  board().record();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < streams.size(); ++i) {
    threads.emplace_back([&, i] {
      ++waiting;
      EXPECT_OK(xhal_stream_copy(streams[i].get(), memory[i], block, 4096));
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(board().calls("host_register").size(), 1u);
  board().forget("host_register");
  for (auto& stream : streams) ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  host_free(block);
}

}  // namespace
}  // namespace xhal::test
