// SPDX-License-Identifier: Apache-2.0
// Memory of the cpu plugin: copies and fills, export and import, virtual memory,
// registration, the guard.
#include <sys/mman.h>
#include <unistd.h>

#include <numeric>

#include "runtime_harness.hpp"

namespace xhal::cpu::test {
namespace {

class MemoryTest : public RuntimeTest {
 protected:
  static bool guarded() {
    const char* text = std::getenv("XHAL_CPU_GUARD");
    return text != nullptr && std::string(text) == "1";
  }
};

TEST_F(MemoryTest, CopiesOfEverySizeAndAlignmentMoveExactlyTheirBytes) {
  auto stream = device().stream();
  for (const size_t size : {1ul, 63ul, 64ul, 1000ul, 65537ul, (1ul << 20) + 17, (33ul << 20) + 5}) {
    for (const size_t shift : {0ul, 1ul, 33ul}) {
      const uint64_t from = alloc(size + 128), to = alloc(size + 128);
      std::vector<uint8_t> data(size + 128);
      for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 131 + (i >> 8));
      write(stream.get(), from, data);
      ASSERT_OK(xhal_stream_fill(stream.get(), to, size + 128, 0xEE, 1));
      ASSERT_OK(xhal_stream_copy(stream.get(), to + shift, from + 7, size));
      const auto got = read<uint8_t>(stream.get(), to, size + 128);
      EXPECT_TRUE(std::all_of(got.begin(), got.begin() + static_cast<long>(shift),
                              [](uint8_t b) { return b == 0xEE; }));
      EXPECT_TRUE(std::equal(data.begin() + 7, data.begin() + 7 + static_cast<long>(size),
                             got.begin() + static_cast<long>(shift)));
      EXPECT_TRUE(std::all_of(got.begin() + static_cast<long>(shift + size), got.end(),
                              [](uint8_t b) { return b == 0xEE; }));
      ASSERT_OK(xhal_memory_free(context(), from));
      ASSERT_OK(xhal_memory_free(context(), to));
    }
  }
}

TEST_F(MemoryTest, FillsRepeatThePatternFromTheirFirstByte) {
  auto stream = device().stream();
  const uint64_t pattern = 0x1122334455667788;
  for (const uint32_t width : {1u, 2u, 4u, 8u}) {
    for (const size_t count : {1ul, 3ul, 17ul, 1001ul, (17ul << 20) / 8 + 3}) {
      for (const uint64_t shift : {uint64_t{0}, uint64_t{width}, uint64_t{3 * width}}) {
        const size_t size = count * width;
        const uint64_t a = alloc(size + 64);
        ASSERT_OK(xhal_stream_fill(stream.get(), a, (size + 64) & ~uint64_t{7}, 0, 8));
        ASSERT_OK(xhal_stream_fill(stream.get(), a + shift, size, pattern, width));
        const auto got = read<uint8_t>(stream.get(), a + shift, size);
        size_t wrong = 0;
        for (size_t i = 0; i < size; ++i)
          wrong += got[i] != static_cast<uint8_t>(pattern >> (i % width * 8));
        EXPECT_EQ(wrong, 0u) << "width " << width << ", count " << count << ", shift " << shift;
        ASSERT_OK(xhal_memory_free(context(), a));
      }
    }
  }
}

TEST_F(MemoryTest, AllocationsAreAlignedAndKnown) {
  for (const uint64_t alignment :
       {uint64_t{0}, uint64_t{512}, uint64_t{65536}, uint64_t{2 << 20}}) {
    xhal_memory_info info{};
    info.struct_size = sizeof info;
    info.kind = XHAL_MEMORY_DEVICE;
    info.size_bytes = 100'000;
    info.alignment_bytes = alignment;
    uint64_t a = 0;
    ASSERT_OK(xhal_memory_alloc(context(), &info, &a));
    EXPECT_EQ(a % std::max<uint64_t>(alignment, 512), 0u);
    xhal_pointer_info known{};
    ASSERT_OK(xhal_pointer_query(a + 99'999, &known));
    EXPECT_EQ(known.base, a);
    EXPECT_EQ(known.size_bytes, 100'000u);
    EXPECT_EQ((known.flags & XHAL_MEMORY_HOST_VISIBLE) != 0, !guarded());
    ASSERT_OK(xhal_memory_free(context(), a));
    ASSERT_OK(xhal_pointer_query(a, &known));
    EXPECT_EQ(known.kind, 0u);
  }
}

TEST_F(MemoryTest, MoreThanTheDeviceHasIsRefusedWithFigures) {
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = device().info().memory_bytes + 4096;
  uint64_t a = 0;
  EXPECT_EQ(xhal_memory_alloc(context(), &info, &a), XHAL_ERR_OUT_OF_MEMORY);
  EXPECT_THAT(last_error_info().text, HasSubstr("in use"));
}

TEST_F(MemoryTest, SharedMemoryIsAlwaysTheHostsToo) {
  const uint64_t a = alloc(4096, XHAL_MEMORY_HOST_VISIBLE, XHAL_MEMORY_SHARED);
  auto* host = reinterpret_cast<float*>(a);
  host[3] = 5.0f;
  auto stream = device().stream();
  EXPECT_EQ(read(stream.get(), a, 4)[3], 5.0f);
  const Op axpby = axpby_op(4);
  launch(stream.get(), axpby, {a, a}, {scalar(2.0), scalar(0.0)});
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  EXPECT_EQ(host[3], 10.0f);
}

TEST_F(MemoryTest, AnExportedSlabIsTheSameMemoryWhereItIsImported) {
  auto stream = device().stream();
  const uint64_t a = alloc(100'000, XHAL_MEMORY_EXPORTABLE);
  xhal_external external{};
  ASSERT_OK(xhal_memory_export(context(), a + 512, XHAL_EXTERNAL_FD, &external));
  EXPECT_EQ(external.offset_bytes, 512u);
  uint64_t b = 0;
  ASSERT_OK(xhal_memory_import(context(), &external, &b));
  EXPECT_NE(a, b);
  write<float>(stream.get(), a + 512, {1.0f, 2.0f});
  ASSERT_OK(xhal_memory_free(context(), a));  // the importer's view stays
  EXPECT_EQ(read(stream.get(), b + 512, 2), (std::vector<float>{1.0f, 2.0f}));
  ASSERT_OK(xhal_memory_free(context(), b));

  external.size_bytes = 1 << 30;
  EXPECT_EQ(xhal_memory_import(context(), &external, &b), XHAL_ERR_INVALID_ARGUMENT);
  ::close(external.fd);
  const uint64_t plain = alloc(4096);
  EXPECT_EQ(xhal_memory_export(context(), plain, XHAL_EXTERNAL_FD, &external),
            XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_memory_export(context(), plain, XHAL_EXTERNAL_IPC, &external),
            XHAL_ERR_UNSUPPORTED);
}

TEST_F(MemoryTest, AnUnsealedDescriptorIsNoSlab) {
  const int fd = memfd_create("unsealed", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(fd, 4096), 0);
  xhal_external external{};
  external.handle_type = XHAL_EXTERNAL_FD;
  external.fd = fd;
  external.size_bytes = 4096;
  uint64_t a = 0;
  EXPECT_EQ(xhal_memory_import(context(), &external, &a), XHAL_ERR_INVALID_ARGUMENT);
  ::close(fd);
}

TEST_F(MemoryTest, VirtualSpaceIsMappedAndUnmappedInPieces) {
  uint64_t granularity = 0;
  ASSERT_OK(xhal_device_limit(device().get(), XHAL_LIMIT_VIRTUAL_GRANULARITY_BYTES, &granularity));
  uint64_t space = 0;
  ASSERT_OK(xhal_virtual_reserve(context(), 4 * granularity, &space));
  EXPECT_EQ(xhal_virtual_reserve(context(), granularity + 1, &space), XHAL_ERR_INVALID_ARGUMENT);
  ASSERT_OK(xhal_virtual_map(context(), space, 2 * granularity));
  EXPECT_EQ(xhal_virtual_map(context(), space + granularity, granularity),
            XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_virtual_map(context(), space + 4 * granularity, granularity),
            XHAL_ERR_INVALID_ARGUMENT);
  ASSERT_OK(xhal_virtual_map(context(), space + 2 * granularity, granularity));
  auto stream = device().stream();
  const uint64_t middle = space + granularity - 8;
  write<float>(stream.get(), middle, {1, 2, 3, 4});
  EXPECT_EQ(read(stream.get(), middle, 4), (std::vector<float>{1, 2, 3, 4}));
  ASSERT_OK(xhal_virtual_protect(context(), space, 3 * granularity, XHAL_PROTECT_READ));
  EXPECT_EQ(read(stream.get(), middle, 4), (std::vector<float>{1, 2, 3, 4}));
  ASSERT_OK(xhal_virtual_protect(context(), space, 3 * granularity, XHAL_PROTECT_READ_WRITE));
  EXPECT_EQ(xhal_virtual_release(context(), space), XHAL_ERR_INVALID_ARGUMENT);
  ASSERT_OK(xhal_virtual_unmap(context(), space + granularity, granularity));
  EXPECT_EQ(xhal_virtual_unmap(context(), space + granularity, granularity),
            XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_virtual_protect(context(), space, 3 * granularity, XHAL_PROTECT_READ),
            XHAL_ERR_INVALID_ARGUMENT);
  ASSERT_OK(xhal_virtual_unmap(context(), space, granularity));
  ASSERT_OK(xhal_virtual_unmap(context(), space + 2 * granularity, granularity));
  EXPECT_OK(xhal_virtual_release(context(), space));
}

TEST_F(MemoryTest, RegisteredHostMemoryIsKnownUntilItIsUnregistered) {
  std::vector<float> host(1000, 1.0f);
  uint64_t seen = 0;
  ASSERT_OK(xhal_host_register(context(), host.data(), 4000, &seen));
  EXPECT_EQ(xhal_host_register(context(), host.data(), 4000, &seen), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_host_register(context(), nullptr, 4000, &seen), XHAL_ERR_INVALID_ARGUMENT);
  auto stream = device().stream();
  const Op axpby = axpby_op(1000);
  launch(stream.get(), axpby, {seen, seen}, {scalar(2.0), scalar(0.0)});
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  EXPECT_THAT(host, testing::Each(2.0f));
  xhal_pointer_info known{};
  ASSERT_OK(xhal_pointer_query(seen + 3999, &known));
  EXPECT_EQ(known.kind, static_cast<uint32_t>(XHAL_MEMORY_HOST));
  ASSERT_OK(xhal_host_unregister(context(), host.data()));
  EXPECT_EQ(xhal_host_unregister(context(), host.data()), XHAL_ERR_INVALID_ARGUMENT);
}

TEST_F(MemoryTest, AContextTakesItsMemoryWithIt) {
  xhal_context* more = nullptr;
  ASSERT_OK(xhal_context_create(device().get(), nullptr, &more));
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = 4096;
  uint64_t a = 0;
  ASSERT_OK(xhal_memory_alloc(more, &info, &a));
  ASSERT_OK(xhal_context_destroy(more));
  xhal_pointer_info known{};
  ASSERT_OK(xhal_pointer_query(a, &known));
  EXPECT_EQ(known.kind, 0u);
}

TEST_F(MemoryTest, MemoryThatTakesThePlaceOfFreedMemoryIsItsOwn) {
  auto stream = device().stream();
  constexpr size_t kSlabs = 12, kLargest = 3 << 20;
  std::vector<uint64_t> slabs(kSlabs, 0);
  const auto size_of = [](size_t i, size_t round) { return kLargest / (1 + (i + round) % 4); };
  for (size_t round = 0; round < 4; ++round) {
    for (size_t i = 0; i < kSlabs; ++i) {
      if ((i * 5 + round) % 3 == 0 && slabs[i] != 0) continue;  // stays
      if (slabs[i] == 0) continue;
      ASSERT_OK(xhal_memory_free(context(), slabs[i]));
      slabs[i] = 0;
    }
    for (size_t i = 0; i < kSlabs; ++i) {
      if (slabs[i] == 0) slabs[i] = alloc(size_of(i, round));
      ASSERT_OK(xhal_stream_fill(stream.get(), slabs[i], kLargest / 4, i, 1));
    }
    for (size_t i = 0; i < kSlabs; ++i)
      EXPECT_THAT(read<uint8_t>(stream.get(), slabs[i], kLargest / 4),
                  testing::Each(static_cast<uint8_t>(i)));
  }
}

TEST_F(MemoryTest, TheGuardStopsAStrayHostAccessAndNothingElse) {
  if (!guarded()) GTEST_SKIP() << "run with XHAL_CPU_GUARD=1";
  const uint64_t a = alloc(8 << 20);
  auto stream = device().stream();
  const Op fill = fill_op(1000);
  launch(stream.get(), fill, {a + 4096}, {scalar(2.5)});
  EXPECT_THAT(read(stream.get(), a + 4096, 1000), testing::Each(2.5f));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_DEATH(*reinterpret_cast<volatile float*>(a + 4096) = 1.0f, "");
#endif
  EXPECT_EQ(device().info().capabilities[0] >> XHAL_CAP_HOST_VISIBLE & 1, 0u);
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  info.flags = XHAL_MEMORY_HOST_VISIBLE;
  info.size_bytes = 64;
  uint64_t b = 0;
  EXPECT_EQ(xhal_memory_alloc(context(), &info, &b), XHAL_ERR_UNSUPPORTED);
}

TEST_F(RuntimeTest, ATrimRightAfterTheStreamIsDoneGivesEverythingBack) {
  auto stream = device().stream();
  constexpr int64_t kCount = 1 << 20;
  const Op fill = fill_op(kCount);
  xhal_pool* pool = nullptr;
  ASSERT_OK(xhal_pool_create(context(), nullptr, &pool));
  for (int i = 0; i < 50; ++i) {
    Barrier barrier;
    uint64_t block = 0;
    ASSERT_OK(xhal_pool_alloc(pool, stream.get(), kCount * 4, {}, &block));
    ASSERT_OK(xhal_stream_host_call(stream.get(), Barrier::pass, &barrier, 0));
    launch(stream.get(), fill, {block}, {scalar(1.0)});
    ASSERT_OK(xhal_pool_free(pool, block, nullptr, 0));
    barrier.open();
    ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
    ASSERT_OK(xhal_pool_trim(pool, 0));
    xhal_pool_stats stats{};
    stats.struct_size = sizeof stats;
    ASSERT_OK(xhal_pool_query(pool, &stats));
    ASSERT_EQ(stats.reserved_bytes, 0u) << "round " << i;
  }
  ASSERT_OK(xhal_pool_destroy(pool));
}

}  // namespace
}  // namespace xhal::cpu::test
