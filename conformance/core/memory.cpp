// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <thread>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

xhal_memory_info request(uint64_t size, uint64_t alignment = 0) {
  auto info = versioned<xhal_memory_info>();
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = size;
  info.alignment_bytes = alignment;
  return info;
}

xhal_status allocate(const xhal_memory_info& info, uint64_t* address) {
  return xhal_memory_alloc(context(), &info, address);
}

TEST(Memory, HoldsWhatIsWrittenToIt) {
  const Buffer buffer(100'000);
  const auto bytes = counting(buffer.size());
  buffer.write(bytes.data(), bytes.size());
  EXPECT_TRUE(same(buffer.read(), bytes));
}

TEST(Memory, AllocationsDoNotOverlap) {
  const Buffer a(5000), b(5000);
  EXPECT_TRUE(a.address() + a.size() <= b.address() || b.address() + b.size() <= a.address());
  const auto first = counting(a.size()), second = counting(b.size(), 100);
  a.write(first.data(), first.size());
  b.write(second.data(), second.size());
  EXPECT_TRUE(same(a.read(), first));
  EXPECT_TRUE(same(b.read(), second));
}

TEST(Memory, EveryPowerOfTwoAlignmentIsKept) {
  for (uint64_t alignment = 1; alignment <= 65536; alignment *= 2) {
    const Buffer buffer(1000, alignment);
    EXPECT_EQ(buffer.address() % alignment, 0u) << alignment;
  }
}

TEST(Memory, DefaultAlignmentIsTheDevices) {
  uint64_t alignment = 1;
  ASSERT_TRUE(ok(xhal_device_limit(device(), XHAL_LIMIT_ALLOCATION_ALIGNMENT_BYTES, &alignment)));
  const Buffer a(1), b(1);
  EXPECT_EQ(a.address() % alignment, 0u);
  EXPECT_EQ(b.address() % alignment, 0u);
}

TEST(Memory, SizeZeroIsRefused) {
  uint64_t address = 7;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, allocate(request(0), &address)));
  EXPECT_EQ(address, 7u);
}

TEST(Memory, AnAlignmentThatIsNoPowerOfTwoIsRefused) {
  uint64_t address = 0;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, allocate(request(64, 48), &address)));
}

TEST(Memory, AnUnknownKindIsRefused) {
  auto info = request(64);
  info.kind = 77;
  uint64_t address = 0;
  const auto status = allocate(info, &address);
  EXPECT_TRUE(status == XHAL_ERR_UNSUPPORTED || status == XHAL_ERR_INVALID_ARGUMENT)
      << xhal_status_name(status);
}

TEST(Memory, AbsurdSizesAreOutOfMemoryAndChangeNothing) {
  for (const uint64_t size :
       {UINT64_MAX, UINT64_MAX - 4095, uint64_t{1} << 62, uint64_t{1} << 50}) {
    uint64_t address = 7;
    EXPECT_TRUE(fails_with(XHAL_ERR_OUT_OF_MEMORY, allocate(request(size), &address))) << size;
    EXPECT_EQ(address, 7u);
  }
  const Buffer still_works(4096);
}

TEST(Memory, MoreThanTheDeviceHasIsOutOfMemoryAtOnceAndInParts) {
  uint64_t total = 0, address = 7;
  ASSERT_TRUE(ok(xhal_device_limit(device(), XHAL_LIMIT_MEMORY_TOTAL_BYTES, &total)));
  EXPECT_TRUE(fails_with(XHAL_ERR_OUT_OF_MEMORY, allocate(request(2 * total), &address)));
  EXPECT_EQ(address, 7u);
  std::vector<uint64_t> parts;
  xhal_status status = XHAL_OK;
  while (parts.size() < 8) {
    status = allocate(request(total / 4), &address);
    if (status != XHAL_OK) break;
    parts.push_back(address);
  }
  EXPECT_LE(parts.size(), 4u) << "quarters of the device's memory were given";
  EXPECT_TRUE(fails_with(XHAL_ERR_OUT_OF_MEMORY, status));
  for (const auto part : parts) EXPECT_TRUE(ok(xhal_memory_free(context(), part)));
  const Buffer still_works(4096);
}

TEST(Memory, AllocatingFromManyThreadsGivesEachItsOwn) {
  std::mutex mutex;
  std::map<uint64_t, uint64_t> live;  // begin and end of what somebody has
  std::string wrong;
  const auto take = [&](uint64_t begin, uint64_t size) {
    const std::lock_guard lock(mutex);
    const auto next = live.lower_bound(begin);
    const bool overlaps = (next != live.end() && next->first < begin + size) ||
                          (next != live.begin() && std::prev(next)->second > begin);
    if (overlaps) wrong = "two threads were given the same memory";
    live[begin] = begin + size;
  };
  const auto give = [&](uint64_t begin) {
    const std::lock_guard lock(mutex);
    live.erase(begin);
  };
  const auto fails = [&] {
    const std::lock_guard lock(mutex);
    if (wrong.empty()) wrong = last_error_text();
  };
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::vector<uint64_t> mine;
      for (uint64_t i = 0; i < 200; ++i) {
        const uint64_t size = 512 + (i * 7 + t) % 5 * 4096;
        uint64_t address = 0;
        if (allocate(request(size), &address) != XHAL_OK) {
          fails();
          break;
        }
        take(address, size);
        mine.push_back(address);
        if (i % 4 == 0) continue;
        give(mine.front());
        if (xhal_memory_free(context(), mine.front()) != XHAL_OK) fails();
        mine.erase(mine.begin());
      }
      for (const auto address : mine) {
        give(address);
        if (xhal_memory_free(context(), address) != XHAL_OK) fails();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, "");
}

TEST(Memory, ManySmallAllocationsComeAndGo) {
  std::vector<uint64_t> addresses(200);
  const auto info = request(300);
  for (auto& address : addresses) ASSERT_TRUE(ok(allocate(info, &address)));
  std::sort(addresses.begin(), addresses.end());
  EXPECT_TRUE(std::adjacent_find(addresses.begin(), addresses.end()) == addresses.end());
  for (const auto address : addresses) EXPECT_TRUE(ok(xhal_memory_free(context(), address)));
}

TEST(Memory, FreeingWhatIsNoAllocationIsRefused) {
  const Buffer buffer(4096);
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_memory_free(context(), buffer.address() + 64)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_memory_free(context(), 0x1234)));
  const auto bytes = counting(4096);
  buffer.write(bytes.data(), bytes.size());
  EXPECT_TRUE(same(buffer.read(), bytes));
}

TEST(Memory, FreeingTwiceIsRefused) {
  uint64_t address = 0;
  ASSERT_TRUE(ok(allocate(request(4096), &address)));
  ASSERT_TRUE(ok(xhal_memory_free(context(), address)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_memory_free(context(), address)));
}

TEST(Memory, AddressArithmeticIsLegal) {
  const Buffer buffer(1024);
  const auto bytes = counting(1024);
  buffer.write(bytes.data(), bytes.size());
  const uint8_t marks[4] = {200, 201, 202, 203};
  buffer.write(marks, 4, 333);
  auto expected = bytes;
  std::copy_n(marks, 4, expected.begin() + 333);
  EXPECT_TRUE(same(buffer.read(), expected));
}

TEST(Memory, PointerQueryFindsTheAllocationFromAnyAddressInIt) {
  const Buffer buffer(5000);
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{4999}}) {
    xhal_pointer_info info{};
    ASSERT_TRUE(ok(xhal_pointer_query(buffer.address() + offset, &info)));
    EXPECT_EQ(info.kind, static_cast<uint32_t>(XHAL_MEMORY_DEVICE));
    EXPECT_LE(info.base, buffer.address());
    EXPECT_GE(info.base + info.size_bytes, buffer.address() + buffer.size());
    EXPECT_EQ(info.device, device());
    EXPECT_EQ(info.context, context());
  }
}

TEST(Memory, PointerQueryOfOrdinaryMemoryIsUnknown) {
  int on_the_stack = 0;
  xhal_pointer_info info{};
  ASSERT_TRUE(ok(xhal_pointer_query(reinterpret_cast<uintptr_t>(&on_the_stack), &info)));
  EXPECT_EQ(info.kind, 0u);
}

TEST(Memory, PointerQueryForgetsWhatIsFreed) {
  uint64_t address = 0;
  ASSERT_TRUE(ok(allocate(request(4096), &address)));
  ASSERT_TRUE(ok(xhal_memory_free(context(), address)));
  xhal_pointer_info info{};
  ASSERT_TRUE(ok(xhal_pointer_query(address, &info)));
  EXPECT_EQ(info.kind, 0u);
}

TEST(Memory, HostVisibilityIsAsTheCapabilitySays) {
  const Buffer buffer(4096);
  xhal_pointer_info info{};
  ASSERT_TRUE(ok(xhal_pointer_query(buffer.address(), &info)));
  EXPECT_EQ((info.flags & XHAL_MEMORY_HOST_VISIBLE) != 0, can(XHAL_CAP_HOST_VISIBLE));
}

TEST(HostMemory, PinnedMemoryIsOrdinaryMemoryForTheHost) {
  void* memory = nullptr;
  ASSERT_TRUE(ok(xhal_host_alloc(10'000, &memory)));
  std::memset(memory, 0x5a, 10'000);
  xhal_pointer_info info{};
  ASSERT_TRUE(ok(xhal_pointer_query(reinterpret_cast<uintptr_t>(memory), &info)));
  EXPECT_EQ(info.kind, static_cast<uint32_t>(XHAL_MEMORY_HOST));
  EXPECT_TRUE(ok(xhal_host_free(memory)));
}

TEST(HostMemory, CopiesGoFromAndToPinnedMemory) {
  void* memory = nullptr;
  ASSERT_TRUE(ok(xhal_host_alloc(4096, &memory)));
  const auto bytes = counting(4096);
  std::memcpy(memory, bytes.data(), bytes.size());
  const Buffer buffer(4096);
  buffer.write(memory, 4096);
  EXPECT_TRUE(same(buffer.read(), bytes));
  std::memset(memory, 0, 4096);
  const Stream stream;
  ASSERT_TRUE(
      ok(xhal_stream_copy(stream, reinterpret_cast<uintptr_t>(memory), buffer.address(), 4096)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_EQ(std::memcmp(memory, bytes.data(), 4096), 0);
  EXPECT_TRUE(ok(xhal_host_free(memory)));
}

TEST(HostMemory, SizeZeroIsRefused) {
  void* memory = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_host_alloc(0, &memory)));
}

TEST(HostMemory, FreeingWhatIsNotPinnedIsRefused) {
  int on_the_stack = 0;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_host_free(&on_the_stack)));
}

TEST(HostMemory, RegisteringNothingIsRefused) {
  uint64_t address = 0;
  char memory[64];
  const auto refused = [](xhal_status status) {
    return status == XHAL_ERR_INVALID_ARGUMENT || status == XHAL_ERR_UNSUPPORTED;
  };
  EXPECT_TRUE(refused(xhal_host_register(context(), nullptr, 64, &address)));
  EXPECT_TRUE(refused(xhal_host_register(context(), memory, 0, &address)));
}

TEST(HostMemory, RegisteredMemoryIsCopiedFromAndTo) {
  if (!can(XHAL_CAP_HOST_REGISTER)) GTEST_SKIP() << "the device does not claim host_register";
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  uint64_t address = 0, twice = 0;
  ASSERT_TRUE(ok(xhal_host_register(context(), memory, page, &address)));
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_host_register(context(), memory, page, &twice)));
  const auto bytes = counting(page);
  std::memcpy(memory, bytes.data(), page);
  const Buffer buffer(page);
  buffer.write(memory, page);
  EXPECT_TRUE(same(buffer.read(), bytes));
  EXPECT_TRUE(ok(xhal_host_unregister(context(), memory)));
  munmap(memory, page);
}

}  // namespace
}  // namespace xhal::cts
