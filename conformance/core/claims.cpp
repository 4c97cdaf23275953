// SPDX-License-Identifier: Apache-2.0
// What a device claims beyond the minimum must work: virtual memory, export, activity records.
#include <unistd.h>

#include <vector>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

TEST(Claims, NothingUnknownIsClaimed) {
  xhal_device_info info{};
  ASSERT_TRUE(ok(xhal_device_query(device(), &info)));
  EXPECT_EQ(info.capabilities[0] >> (XHAL_CAP_ABORT + 1), 0u);
  for (int word = 1; word < 4; ++word) EXPECT_EQ(info.capabilities[word], 0u);
}

TEST(Claims, EnumerationPromisesNoMoreThanTheOpenDeviceHas) {
  xhal_device_info info{};
  ASSERT_TRUE(ok(xhal_device_query(device(), &info)));
  EXPECT_EQ(target().info.capabilities[0] & ~info.capabilities[0], 0u);
}

class VirtualMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (!can(XHAL_CAP_VIRTUAL_MEMORY)) GTEST_SKIP() << "the device does not claim virtual memory";
    ASSERT_TRUE(ok(xhal_device_limit(device(), XHAL_LIMIT_VIRTUAL_GRANULARITY_BYTES, &page_)));
    ASSERT_TRUE(ok(xhal_virtual_reserve(context(), 8 * page_, &base_)));
  }
  void TearDown() override {
    if (base_ == 0) return;
    EXPECT_TRUE(ok(xhal_virtual_release(context(), base_)));
  }
  uint64_t page_ = 0, base_ = 0;
};

TEST_F(VirtualMemory, HoldsDataWhereItIsMapped) {
  ASSERT_TRUE(ok(xhal_virtual_map(context(), base_ + page_, 2 * page_)));
  const auto bytes = counting(2 * page_);
  std::vector<uint8_t> back(bytes.size());
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_copy(stream, base_ + page_, reinterpret_cast<uintptr_t>(bytes.data()),
                                  bytes.size())));
  ASSERT_TRUE(ok(xhal_stream_copy(stream, reinterpret_cast<uintptr_t>(back.data()), base_ + page_,
                                  back.size())));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(back, bytes));
  EXPECT_TRUE(ok(xhal_virtual_unmap(context(), base_ + page_, 2 * page_)));
}

TEST_F(VirtualMemory, GrowsInPlace) {
  ASSERT_TRUE(ok(xhal_virtual_map(context(), base_, page_)));
  ASSERT_TRUE(ok(xhal_virtual_map(context(), base_ + page_, page_)));
  const Stream stream;
  EXPECT_TRUE(ok(xhal_stream_fill(stream, base_, 2 * page_, 3, 1)));
  EXPECT_TRUE(stream.finishes());
  EXPECT_TRUE(ok(xhal_virtual_unmap(context(), base_, page_)));
  EXPECT_TRUE(ok(xhal_virtual_unmap(context(), base_ + page_, page_)));
}

TEST_F(VirtualMemory, WhatIsNoMultipleOfTheGranularityIsRefused) {
  uint64_t other = 0;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_virtual_reserve(context(), page_ / 2, &other)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_virtual_map(context(), base_ + 1, page_)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_virtual_map(context(), base_, page_ / 2)));
}

TEST_F(VirtualMemory, MappingOutsideOfTheReservationIsRefused) {
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT,
                         xhal_virtual_map(context(), base_ + 7 * page_, 2 * page_)));
}

TEST_F(VirtualMemory, ReleasingWhatIsStillMappedIsRefused) {
  ASSERT_TRUE(ok(xhal_virtual_map(context(), base_, page_)));
  EXPECT_NE(xhal_virtual_release(context(), base_), XHAL_OK);
  EXPECT_TRUE(ok(xhal_virtual_unmap(context(), base_, page_)));
}

class Export : public testing::Test {
 protected:
  void SetUp() override {
    if (!can(XHAL_CAP_EXPORT_FD)) GTEST_SKIP() << "the device does not claim export";
    auto info = versioned<xhal_memory_info>();
    info.kind = XHAL_MEMORY_DEVICE;
    info.flags = XHAL_MEMORY_EXPORTABLE;
    info.size_bytes = 1 << 16;
    ASSERT_TRUE(ok(xhal_memory_alloc(context(), &info, &address_)));
  }
  void TearDown() override {
    if (address_ == 0) return;
    EXPECT_TRUE(ok(xhal_memory_free(context(), address_)));
  }
  uint64_t address_ = 0;
};

TEST_F(Export, AnImportedSlabIsTheSameMemory) {
  xhal_external external{};
  ASSERT_TRUE(ok(xhal_memory_export(context(), address_, XHAL_EXTERNAL_FD, &external)));
  uint64_t view = 0;
  ASSERT_TRUE(ok(xhal_memory_import(context(), &external, &view)));
  close(external.fd);
  EXPECT_NE(view, address_);
  const auto bytes = counting(1000);
  std::vector<uint8_t> back(bytes.size());
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_copy(stream, address_ + 64, reinterpret_cast<uintptr_t>(bytes.data()),
                                  bytes.size())));
  ASSERT_TRUE(ok(xhal_stream_copy(stream, reinterpret_cast<uintptr_t>(back.data()),
                                  view + external.offset_bytes + 64, back.size())));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(back, bytes));
  EXPECT_TRUE(ok(xhal_memory_free(context(), view)));
}

TEST_F(Export, MemoryThatWasNotAskedToBeExportableIsRefused) {
  const Buffer plain(4096);
  xhal_external external{};
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT,
                 xhal_memory_export(context(), plain.address(), XHAL_EXTERNAL_FD, &external)));
}

TEST_F(Export, AnUnknownHandleTypeIsUnsupported) {
  xhal_external external{};
  EXPECT_TRUE(
      fails_with(XHAL_ERR_UNSUPPORTED, xhal_memory_export(context(), address_, 77, &external)));
}

class Activity : public testing::Test {
 protected:
  void SetUp() override {
    if (!can(XHAL_CAP_ACTIVITY)) GTEST_SKIP() << "the device does not claim activity records";
    ASSERT_TRUE(ok(xhal_activity_enable(device(), receive, &records_)));
  }
  void TearDown() override {
    if (can(XHAL_CAP_ACTIVITY)) xhal_activity_enable(device(), nullptr, nullptr);
  }
  static void receive(void* user, const xhal_activity* records, uint32_t count) {
    auto* list = static_cast<std::vector<xhal_activity>*>(user);
    list->insert(list->end(), records, records + count);
  }
  std::vector<xhal_activity> records_;
};

TEST_F(Activity, EachOperationIsDeliveredWithTheCorrelationOfItsThread) {
  const Buffer buffer(4096);
  {
    const Stream stream;
    ASSERT_TRUE(ok(xhal_correlation_push(4711)));
    ASSERT_TRUE(ok(xhal_stream_fill(stream, buffer.address(), 4096, 1, 1)));
    uint64_t id = 0;
    ASSERT_TRUE(ok(xhal_correlation_pop(&id)));
    ASSERT_TRUE(stream.finishes());
  }
  ASSERT_TRUE(ok(xhal_activity_flush(device())));
  ASSERT_TRUE(
      ok(xhal_activity_enable(device(), nullptr, nullptr)));  // nobody writes the list any more
  size_t found = 0;
  for (const auto& record : records_) {
    if (record.correlation != 4711) continue;
    ++found;
    EXPECT_EQ(record.kind, static_cast<uint32_t>(XHAL_ACTIVITY_FILL));
    EXPECT_EQ(record.bytes, 4096u);
    EXPECT_LE(record.start_ns, record.end_ns);
    EXPECT_NE(record.stream, 0u);
  }
  EXPECT_EQ(found, 1u);
}

TEST_F(Activity, HasOneReceiver) {
  std::vector<xhal_activity> second;
  EXPECT_TRUE(fails_with(XHAL_ERR_BUSY, xhal_activity_enable(device(), receive, &second)));
}

}  // namespace
}  // namespace xhal::cts
