// SPDX-License-Identifier: Apache-2.0
// Contexts, and what ends with them.
#include <algorithm>
#include <memory>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

TEST(Context, DefaultContextCannotBeDestroyed) {
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_context_destroy(context())));
}

TEST(Context, AFurtherContextWorksByItself) {
  xhal_context* further = nullptr;
  const auto status = xhal_context_create(device(), nullptr, &further);
  if (status == XHAL_ERR_UNSUPPORTED) GTEST_SKIP() << "the device has one context only";
  ASSERT_TRUE(ok(status));
  EXPECT_NE(further, context());
  xhal_stream* stream = nullptr;
  ASSERT_TRUE(ok(xhal_stream_create(further, nullptr, &stream)));
  EXPECT_TRUE(ok(xhal_stream_synchronize(stream, deadline_ns())));
  EXPECT_TRUE(ok(xhal_stream_destroy(stream)));
  EXPECT_TRUE(ok(xhal_context_destroy(further)));
}

TEST(Context, DestroyingOneFreesWhatItOwns) {
  xhal_context* further = nullptr;
  const auto status = xhal_context_create(device(), nullptr, &further);
  if (status == XHAL_ERR_UNSUPPORTED) GTEST_SKIP() << "the device has one context only";
  ASSERT_TRUE(ok(status));
  auto info = versioned<xhal_memory_info>();
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = 4096;
  uint64_t address = 0;
  ASSERT_TRUE(ok(xhal_memory_alloc(further, &info, &address)));
  ASSERT_TRUE(ok(xhal_context_destroy(further)));
  xhal_pointer_info pointer{};
  ASSERT_TRUE(ok(xhal_pointer_query(address, &pointer)));
  EXPECT_EQ(pointer.kind, 0u);
}

TEST(Context, QuotaLimitsItsMemory) {
  auto wanted = versioned<xhal_context_info>();
  wanted.quota_bytes = 1 << 20;
  xhal_context* small = nullptr;
  const auto status = xhal_context_create(device(), &wanted, &small);
  if (status == XHAL_ERR_UNSUPPORTED) GTEST_SKIP() << "the device has one context only";
  ASSERT_TRUE(ok(status));
  auto info = versioned<xhal_memory_info>();
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = 2 << 20;
  uint64_t address = 0;
  EXPECT_TRUE(fails_with(XHAL_ERR_LIMIT, xhal_memory_alloc(small, &info, &address)));
  info.size_bytes = 4096;
  EXPECT_TRUE(ok(xhal_memory_alloc(small, &info, &address)));
  EXPECT_TRUE(ok(xhal_context_destroy(small)));
}

TEST(Context, DestroyingOneGivesBackItsMemory) {
  uint64_t total = 0;
  ASSERT_TRUE(ok(xhal_device_limit(device(), XHAL_LIMIT_MEMORY_TOTAL_BYTES, &total)));
  for (int round = 0; round < 40; ++round) {
    auto* const further = make_context();
    if (further == nullptr) GTEST_SKIP() << "the device has one context only";
    uint64_t address = 0;
    ASSERT_TRUE(ok(allocate_in(further, total / 16, &address)))
        << round << " contexts with a sixteenth of the memory have been destroyed before";
    ASSERT_TRUE(ok(xhal_context_destroy(further)));
  }
}

TEST(Context, DestroyingOneGivesBackItsStreams) {
  if (!in_own_process()) return;
  const auto come_and_go = [] {
    auto* const further = make_context();
    if (further == nullptr) return false;
    for (int i = 0; i < 4; ++i) {
      xhal_stream* stream = nullptr;
      EXPECT_TRUE(ok(xhal_stream_create(further, nullptr, &stream)));
      EXPECT_TRUE(ok(xhal_stream_synchronize(stream, deadline_ns())));
    }
    return xhal_context_destroy(further) == XHAL_OK;
  };
  if (!come_and_go()) GTEST_SKIP() << "the device has one context only";
  const auto before = traces();
  for (int round = 0; round < 20; ++round) ASSERT_TRUE(come_and_go()) << last_error_text();
  const auto after = traces();
  EXPECT_EQ(after.threads, before.threads) << "threads after 80 streams, and before";
  // A slab that the library shares among many objects may be added, not one for each of them.
  EXPECT_LE(after.descriptors, before.descriptors + 2)
      << "descriptors after 80 streams, and before";
}

TEST(Context, DestroyingOneLeavesTheMemoryOfTheOthersAlone) {
  constexpr uint64_t kSize = 1 << 16;
  const auto bytes = unrepeated(kSize);
  Buffer kept(kSize);
  kept.write(bytes.data(), kSize);
  auto* const further = make_context();
  if (further == nullptr) GTEST_SKIP() << "the device has one context only";
  uint64_t address = 0;
  ASSERT_TRUE(ok(allocate_in(further, kSize, &address)));
  ASSERT_TRUE(ok(xhal_context_destroy(further)));
  // Memory that was given back by mistake comes to the next who wants as much.
  std::vector<std::unique_ptr<Buffer>> others;
  const std::vector<uint8_t> mark(kSize, 0xee);
  for (int i = 0; i < 8; ++i) {
    others.push_back(std::make_unique<Buffer>(kSize));
    ASSERT_NE(others.back()->address(), 0u) << "allocated after another context was destroyed";
    others.back()->write(mark.data(), kSize);
  }
  EXPECT_TRUE(same(kept.read(), bytes))
      << "memory of the default context, after another one was destroyed";
  EXPECT_TRUE(kept.free()) << "memory of the default context, after another one was destroyed";
}

// Whether memory that is allocated now holds what was written before.
bool finds(uint8_t mark, uint64_t size) {
  std::vector<std::unique_ptr<Buffer>> buffers;
  bool found = false;
  for (int i = 0; i < 8; ++i) {
    buffers.push_back(std::make_unique<Buffer>(size));
    const auto bytes = buffers.back()->read();
    const std::vector<uint8_t> secret(64, mark);
    found = found ||
            std::search(bytes.begin(), bytes.end(), secret.begin(), secret.end()) != bytes.end();
  }
  return found;
}

TEST(Scrub, NothingOfItsMemoryIsFoundByTheNextOwner) {
  if (!can(XHAL_CAP_SCRUB)) GTEST_SKIP() << "the device does not claim to scrub";
  constexpr uint64_t kSize = 1 << 20;
  for (const bool freed : {true, false}) {
    const uint8_t mark = freed ? 0xa7 : 0x5e;
    auto* const secret = make_context(XHAL_CONTEXT_SCRUB);
    if (secret == nullptr) GTEST_SKIP() << "the device has one context only";
    uint64_t address = 0;
    xhal_stream* stream = nullptr;
    ASSERT_TRUE(ok(allocate_in(secret, kSize, &address)));
    ASSERT_TRUE(ok(xhal_stream_create(secret, nullptr, &stream)));
    ASSERT_TRUE(ok(xhal_stream_fill(stream, address, kSize, mark, 1)));
    ASSERT_TRUE(ok(xhal_stream_synchronize(stream, deadline_ns())));
    if (freed) {
      EXPECT_TRUE(ok(xhal_memory_free(secret, address)));
      EXPECT_FALSE(finds(mark, kSize)) << "freed memory of a context with XHAL_CONTEXT_SCRUB came "
                                          "back to another one with its content";
    }
    EXPECT_TRUE(ok(xhal_context_destroy(secret)));
    EXPECT_FALSE(finds(mark, kSize))
        << "memory of a destroyed context with XHAL_CONTEXT_SCRUB came "
           "back to another one with its content";
  }
}

}  // namespace
}  // namespace xhal::cts
