// SPDX-License-Identifier: Apache-2.0
// XHAL_CONTEXT_SCRUB: what a context allocated is overwritten, by the plugin, before anybody else
// can have it; what cannot be overwritten is not given back.
#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

constexpr uint64_t kBytes = 4096;
constexpr uint8_t kSecret = 0xAA;

class ScrubTest : public FaultyTest {
 protected:
  // An allocation that holds the secret.
  static uint64_t secret_in(xhal_context* context) {
    const auto address = alloc_in(context, kBytes);
    const auto stream = stream_in(context);
    check(xhal_stream_fill(stream.get(), address, kBytes, kSecret, 1));
    check(xhal_stream_synchronize(stream.get(), kSoon));
    return address;
  }
  // The device gives out the last freed address first.
  static void expect_wiped(const Device& d, uint64_t address) {
    const auto next = alloc(d, kBytes);
    ASSERT_EQ(next, address) << "the test needs the same memory again";
    const auto stream = d.stream();
    EXPECT_EQ(read(stream.get(), next, kBytes), std::vector<uint8_t>(kBytes, 0));
  }
};

TEST_F(ScrubTest, TheMemoryOfAPlainContextIsNotWiped) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d);
  const auto address = secret_in(context);
  board().record();
  ASSERT_OK(xhal_memory_free(context, address));
  EXPECT_TRUE(board().calls("context_scrub").empty());
  const auto stream = d.stream();
  EXPECT_EQ(read(stream.get(), alloc(d, kBytes), kBytes), std::vector<uint8_t>(kBytes, kSecret))
      << "so the tests below would see what is left";
}

TEST_F(ScrubTest, WithoutTheCapabilityAScrubbedContextIsRefused) {
  board().capabilities = Board::kUsualCapabilities & ~cap(XHAL_CAP_SCRUB);
  const auto d = open_device("faulty:0");
  const Device* const both[] = {&d, &device("remote")};
  for (const auto* each : both) {
    xhal_context_info info{};
    info.struct_size = sizeof info;
    info.flags = XHAL_CONTEXT_SCRUB;
    xhal_context* context = nullptr;
    EXPECT_EQ(xhal_context_create(each->get(), &info, &context), XHAL_ERR_UNSUPPORTED);
  }
}

TEST_F(ScrubTest, FreedMemoryIsWipedBeforeItIsGivenBack) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d, XHAL_CONTEXT_SCRUB);
  const auto address = secret_in(context);
  board().record();
  ASSERT_OK(xhal_memory_free(context, address));
  const auto scrubs = board().calls("context_scrub");
  ASSERT_EQ(scrubs.size(), 1u);
  EXPECT_EQ(scrubs[0].dst, address);
  EXPECT_GE(scrubs[0].size, kBytes);
  expect_wiped(d, address);
}

TEST_F(ScrubTest, WhatWasNotFreedIsWipedWhenItsContextIsDestroyed) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d, XHAL_CONTEXT_SCRUB);
  const auto address = secret_in(context);
  board().record();
  within_deadline("xhal_context_destroy of a scrubbed context",
                  [&] { ASSERT_OK(xhal_context_destroy(context)); });
  EXPECT_EQ(board().calls("context_scrub").size(), 1u);
  expect_wiped(d, address);
}

TEST_F(ScrubTest, APoolInAScrubbedContextIsTrimmedAndDestroyed) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d, XHAL_CONTEXT_SCRUB);
  within_deadline("a pool in a scrubbed context", [&] {
    xhal_pool* pool = nullptr;
    ASSERT_OK(xhal_pool_create(context, nullptr, &pool));
    const auto stream = stream_in(context);
    uint64_t block = 0;
    ASSERT_OK(xhal_pool_alloc(pool, stream.get(), kBytes, str("secret"), &block));
    ASSERT_OK(xhal_stream_fill(stream.get(), block, kBytes, kSecret, 1));
    ASSERT_OK(xhal_pool_free(pool, block, nullptr, 0));
    board().record();
    ASSERT_OK(xhal_pool_trim(pool, 0));
    EXPECT_EQ(board().calls("context_scrub").size(), 1u);
    ASSERT_OK(xhal_pool_alloc(pool, stream.get(), kBytes, str("secret"), &block));
    ASSERT_OK(xhal_pool_free(pool, block, nullptr, 0));
    ASSERT_OK(xhal_pool_destroy(pool));
    EXPECT_EQ(board().calls("context_scrub").size(), 2u);
  });
  EXPECT_OK(xhal_context_destroy(context));
}

// ---- it fails closed

TEST_F(ScrubTest, MemoryThatCannotBeWipedIsNotFreed) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d, XHAL_CONTEXT_SCRUB);
  const auto address = secret_in(context);
  board().record();
  board().before("context_scrub", [](const Call&) { return XHAL_ERR_DEVICE; });
  EXPECT_EQ(xhal_memory_free(context, address), XHAL_ERR_DEVICE);
  EXPECT_TRUE(board().calls("memory_free").empty());
  xhal_pointer_info info{};
  ASSERT_OK(xhal_pointer_query(address, &info));
  EXPECT_EQ(info.context, context) << "it is still the context's";
  EXPECT_NE(alloc(d, kBytes), address);
  board().forget("context_scrub");
  EXPECT_OK(xhal_memory_free(context, address)) << "the call may be repeated";
}

TEST_F(ScrubTest, AContextWhoseMemoryCannotBeWipedStaysAndMayBeDestroyedLater) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d, XHAL_CONTEXT_SCRUB);
  const auto address = secret_in(context);
  board().record();
  board().before("context_scrub", [](const Call&) { return XHAL_ERR_DEVICE; });
  EXPECT_EQ(xhal_context_destroy(context), XHAL_ERR_DEVICE);
  EXPECT_TRUE(board().calls("context_destroy").empty());
  EXPECT_TRUE(board().calls("memory_free").empty());
  xhal_pointer_info info{};
  ASSERT_OK(xhal_pointer_query(address, &info));
  EXPECT_EQ(info.context, context);
  board().forget("context_scrub");
  ASSERT_OK(xhal_context_destroy(context));
  expect_wiped(d, address);
}

TEST_F(ScrubTest, APoolKeepsASlabThatCannotBeWiped) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d, XHAL_CONTEXT_SCRUB);
  xhal_pool* pool = nullptr;
  ASSERT_OK(xhal_pool_create(context, nullptr, &pool));
  uint64_t block = 0;
  ASSERT_OK(xhal_pool_alloc(pool, nullptr, kBytes, str("secret"), &block));
  ASSERT_OK(xhal_pool_free(pool, block, nullptr, 0));
  board().record();
  board().before("context_scrub", [](const Call&) { return XHAL_ERR_DEVICE; });
  (void)xhal_pool_trim(pool, 0);
  EXPECT_TRUE(board().calls("memory_free").empty());
  xhal_pool_stats stats{};
  stats.struct_size = sizeof stats;
  ASSERT_OK(xhal_pool_query(pool, &stats));
  EXPECT_EQ(stats.slab_count, 1u);
  board().forget("context_scrub");
  EXPECT_OK(xhal_pool_trim(pool, 0));
  EXPECT_EQ(board().calls("memory_free").size(), 1u);
  EXPECT_OK(xhal_pool_destroy(pool));
}

// ---- imports, losses, and programs that know nothing of it --------------------------------------

TEST_F(ScrubTest, ImportedMemoryIsItsExportersAndIsLeftAlone) {
  const auto& d = device("cpu");
  xhal_context* context = nullptr;
  xhal_context_info info{};
  info.struct_size = sizeof info;
  info.flags = XHAL_CONTEXT_SCRUB;
  if (xhal_context_create(d.get(), &info, &context) == XHAL_ERR_UNSUPPORTED)
    GTEST_SKIP() << "this plugin cannot scrub";
  const auto exported = alloc_in(d.context(), kBytes, XHAL_MEMORY_EXPORTABLE);
  const auto stream = d.stream();
  ASSERT_OK(xhal_stream_fill(stream.get(), exported, kBytes, kSecret, 1));
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  xhal_external external{};
  ASSERT_OK(xhal_memory_export(d.context(), exported, XHAL_EXTERNAL_FD, &external));
  uint64_t imported = 0;
  ASSERT_OK(xhal_memory_import(context, &external, &imported));
  ::close(external.fd);
  ASSERT_OK(xhal_memory_free(context, imported));
  ASSERT_OK(xhal_context_destroy(context));
  EXPECT_EQ(read(stream.get(), exported, kBytes), std::vector<uint8_t>(kBytes, kSecret));
}

TEST_F(ScrubTest, AScrubbedContextOfALostDeviceIsDestroyed) {
  const auto d = open_device("faulty:0", XHAL_OPEN_CONTROL);
  auto* const context = context_in(d, XHAL_CONTEXT_SCRUB);
  (void)secret_in(context);
  lose(d);
  within_deadline("xhal_context_destroy of a scrubbed context of a lost device", [&] {
    const auto status = xhal_context_destroy(context);
    EXPECT_TRUE(status == XHAL_OK || status == XHAL_ERR_DEVICE_LOST) << xhal_status_name(status);
  });
}

TEST_F(ScrubTest, AnOpenMayAskForAScrubbedDefaultContext) {
  uint64_t address = 0;
  {
    xhal_device_open_info info{};
    info.struct_size = sizeof info;
    info.context_flags = XHAL_CONTEXT_SCRUB;
    for (const auto& d : devices()) {
      if (std::string(d.id) == "faulty:0") info.index = d.index;
    }
    xhal_device* device = nullptr;
    xhal_context* context = nullptr;
    ASSERT_OK(xhal_device_open(&info, &device, &context));
    address = secret_in(context);
    board().record();
    ASSERT_OK(xhal_device_close(device));
    EXPECT_EQ(board().calls("context_scrub").size(), 1u);
  }
  expect_wiped(open_device("faulty:0"), address);
}

TEST_F(ScrubTest, ALauncherPutsAnUnchangedProgramIntoAScrubbedContext) {
  session_.reset();
  expect_child([] {
    setenv("XHAL_CONTEXT", "scrub", 1);
    const Session session;
    board().record();
    {
      const auto d = open_device("faulty:0");
      (void)secret_in(d.context());
    }
    EXPECT_EQ(board().calls("context_scrub").size(), 1u);
    // A device that cannot scrub is refused rather than opened without it.
    EXPECT_THROW(open_device("remote:0"), Error);
  });
}

TEST_F(ScrubTest, ADeviceWhoseMemoryCannotBeWipedStaysOpenAndMayBeClosedLater) {
  auto d = open_device("faulty:0");
  auto* const handle = d.get();
  (void)secret_in(context_in(d, XHAL_CONTEXT_SCRUB));
  board().before("context_scrub", [](const Call&) { return XHAL_ERR_IO; });
  board().record();
  EXPECT_EQ(xhal_device_close(handle), XHAL_ERR_IO);
  EXPECT_TRUE(board().calls("device_close").empty()) << "the plugin would give the memory back";
  EXPECT_OK(xhal_memory_free(d.context(), alloc(d, kBytes))) << "it is still usable";
  board().forget("context_scrub");  // and the fixture closes it
}

}  // namespace
}  // namespace xhal::test
