// SPDX-License-Identifier: Apache-2.0
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "harness/cts.hpp"
#include "xhal/catalog.h"

namespace xhal::cts {
namespace {

std::vector<xhal_device_info> enumerate() {
  uint32_t count = 0;
  EXPECT_TRUE(ok(xhal_enumerate(0, nullptr, 0, &count)));
  std::vector<xhal_device_info> devices(count);
  EXPECT_TRUE(ok(xhal_enumerate(0, devices.data(), count, &count)));
  return devices;
}

xhal_status open(uint32_t index, uint32_t flags, xhal_device** result,
                 xhal_context** result_context) {
  auto info = versioned<xhal_device_open_info>();
  info.index = index;
  info.flags = flags;
  return xhal_device_open(&info, result, result_context);
}

uint64_t limit(uint32_t key) {
  uint64_t value = 0;
  EXPECT_TRUE(ok(xhal_device_limit(device(), key, &value)));
  return value;
}

uint64_t monotonic_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

TEST(Device, EnumerationIsTheSameTwice) {
  const auto first = enumerate(), second = enumerate();
  ASSERT_EQ(first.size(), second.size());
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_STREQ(first[i].id, second[i].id);
    EXPECT_STREQ(first[i].name, second[i].name);
  }
}

TEST(Device, EnumerationWithoutRoomOnlyCounts) {
  uint32_t count = 0;
  ASSERT_TRUE(ok(xhal_enumerate(0, nullptr, 0, &count)));
  EXPECT_GE(count, 1u);
  xhal_device_info one{};
  uint32_t again = 0;
  ASSERT_TRUE(ok(xhal_enumerate(0, &one, 1, &again)));
  EXPECT_EQ(again, count);
}

std::string uuid_text(const xhal_device_info& info) {
  std::string text;
  for (const uint8_t byte : info.uuid) {
    constexpr const char* kDigits = "0123456789abcdef";
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

// By it a program names the device, and finds it again when others have come or gone.
TEST(Device, HasTheSameUuidInEveryProcess) {
  constexpr const char* kOfTheParent = "XHAL_CTS_UUID";  // for the child that this test runs in
  const auto uuid = uuid_text(target().info);
  if (uuid == std::string(uuid.size(), '0'))
    GTEST_SKIP() << "the device has no uuid (all zero: it is known by its place in the list)";
  setenv(kOfTheParent, uuid.c_str(), 0);
  if (!in_own_process()) {
    unsetenv(kOfTheParent);
    return;
  }
  EXPECT_EQ(uuid, std::getenv(kOfTheParent)) << "the uuid in this process, and in another one";
  xhal_device_info opened{};
  ASSERT_TRUE(ok(xhal_device_query(device(), &opened)));
  EXPECT_EQ(uuid_text(opened), uuid) << "the uuid of the open device, and in the list";
}

TEST(Device, HasAnIdANameAndAVendor) {
  const auto& info = target().info;
  EXPECT_NE(std::string(info.id), "");
  EXPECT_NE(std::string(info.name), "");
  EXPECT_NE(std::string(info.vendor), "");
  EXPECT_EQ(std::string(info.plugin), target().plugin);
}

TEST(Device, IdsAreUnique) {
  const auto devices = enumerate();
  for (size_t a = 0; a < devices.size(); ++a) {
    for (size_t b = a + 1; b < devices.size(); ++b) EXPECT_STRNE(devices[a].id, devices[b].id);
  }
}

TEST(Device, RecordIsVerifiedOnceItIsOpen) {
  xhal_device_info info{};
  ASSERT_TRUE(ok(xhal_device_query(device(), &info)));
  EXPECT_EQ(info.flags & XHAL_DEVICE_UNVERIFIED, 0u);
  EXPECT_STREQ(info.id, target().info.id);
}

TEST(Device, OpeningTwiceGivesTheSameHandles) {
  xhal_device* again = nullptr;
  xhal_context* context_again = nullptr;
  ASSERT_TRUE(ok(open(target().index, 0, &again, &context_again)));
  EXPECT_EQ(again, device());
  EXPECT_EQ(context_again, context());
  EXPECT_TRUE(ok(xhal_device_close(again)));
}

TEST(Device, StaysOpenUntilClosedAsOftenAsOpened) {
  xhal_device* again = nullptr;
  xhal_context* context_again = nullptr;
  device();
  ASSERT_TRUE(ok(open(target().index, 0, &again, &context_again)));
  ASSERT_TRUE(ok(xhal_device_close(again)));
  const Stream still_works;
  EXPECT_TRUE(still_works.finishes());
}

TEST(Device, CanBeOpenedAgainAfterTheLastClose) {
  device();
  close_device();
  const Stream works_again;
  EXPECT_TRUE(works_again.finishes());
}

TEST(Device, AnIndexThatIsNotThereIsNotFound) {
  xhal_device* result = nullptr;
  xhal_context* result_context = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_NOT_FOUND, open(10'000, 0, &result, &result_context)));
}

TEST(Device, ObservingGivesNoContext) {
  xhal_device* observed = nullptr;
  auto* no_context = reinterpret_cast<xhal_context*>(1);
  ASSERT_TRUE(ok(open(target().index, XHAL_OPEN_OBSERVE, &observed, &no_context)));
  EXPECT_EQ(no_context, nullptr);
  EXPECT_TRUE(ok(xhal_device_close(observed)));
}

TEST(Device, ObservingTellsIdentityAndLimits) {
  xhal_device* observed = nullptr;
  ASSERT_TRUE(ok(open(target().index, XHAL_OPEN_OBSERVE, &observed, nullptr)));
  xhal_device_info info{};
  EXPECT_TRUE(ok(xhal_device_query(observed, &info)));
  EXPECT_STREQ(info.id, target().info.id);
  EXPECT_TRUE(ok(xhal_device_close(observed)));
}

TEST(Device, ObservingDisturbsNoRunningWork) {
  const Stream stream;
  const Timeline gate;
  ASSERT_TRUE(ok(xhal_stream_wait(stream, gate, 1)));
  xhal_device* observed = nullptr;
  ASSERT_TRUE(ok(open(target().index, XHAL_OPEN_OBSERVE, &observed, nullptr)));
  EXPECT_TRUE(ok(xhal_device_close(observed)));
  EXPECT_TRUE(ok(xhal_timeline_signal(gate, 1)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Device, MemorySizeAgreesWithTheRecord) {
  xhal_device_info info{};
  ASSERT_TRUE(ok(xhal_device_query(device(), &info)));
  const uint64_t total = limit(XHAL_LIMIT_MEMORY_TOTAL_BYTES);
  EXPECT_GT(total, 0u);
  EXPECT_EQ(info.memory_bytes, total);
}

TEST(Device, AllocationAlignmentIsAPowerOfTwo) {
  const uint64_t alignment = limit(XHAL_LIMIT_ALLOCATION_ALIGNMENT_BYTES);
  EXPECT_GT(alignment, 0u);
  EXPECT_EQ(alignment & (alignment - 1), 0u);
}

TEST(Device, HasAtLeastOneStreamPriority) { EXPECT_GE(limit(XHAL_LIMIT_STREAM_PRIORITIES), 1u); }

TEST(Device, AnUnknownLimitIsUnsupported) {
  uint64_t value = 7;
  EXPECT_TRUE(fails_with(XHAL_ERR_UNSUPPORTED, xhal_device_limit(device(), 0x7ffffff0, &value)));
  EXPECT_EQ(value, 7u);
}

TEST(Device, ClockReadsBothClocksTogetherAndForward) {
  uint64_t device_before = 0, host_before = 0, device_after = 0, host_after = 0;
  const uint64_t begin = monotonic_ns();
  const auto status = xhal_device_clock(device(), &device_before, &host_before);
  if (status == XHAL_ERR_UNSUPPORTED)
    GTEST_SKIP() << "the device has no clock: " << last_error_text();
  ASSERT_TRUE(ok(status));
  ASSERT_TRUE(ok(xhal_device_clock(device(), &device_after, &host_after)));
  EXPECT_GE(host_before, begin);
  EXPECT_LE(host_after, monotonic_ns());
  EXPECT_LE(device_before, device_after);
  EXPECT_LE(host_before, host_after);
}

TEST(Device, ClockRunsAtTheRateOfTheHosts) {
  uint64_t device_begin = 0, host_begin = 0, device_end = 0, host_end = 0;
  const auto status = xhal_device_clock(device(), &device_begin, &host_begin);
  if (status == XHAL_ERR_UNSUPPORTED)
    GTEST_SKIP() << "the device has no clock: " << last_error_text();
  ASSERT_TRUE(ok(status));
  do {
    ASSERT_TRUE(ok(xhal_device_clock(device(), &device_end, &host_end)));
  } while (host_end < host_begin + 50'000'000 && host_end >= host_begin &&
           monotonic_ns() < host_begin + deadline_ns());
  const auto of_device = device_end - device_begin, of_host = host_end - host_begin;
  EXPECT_GE(of_host, 50'000'000u) << "its host_ns is CLOCK_MONOTONIC's";
  EXPECT_GT(of_device, of_host / 2)
      << "ns of the device's clock in " << of_host << " of the host's";
  EXPECT_LT(of_device, of_host * 2)
      << "ns of the device's clock in " << of_host << " of the host's";
}

TEST(Device, TelemetryLeavesWhatItDoesNotKnowInvalid) {
  xhal_sample samples[2] = {{0x7ffffff0, 0, 0, 0, 5},
                            {XHAL_TELEMETRY_MEMORY_TOTAL_BYTES, 0, 0, 0, 5}};
  const auto status = xhal_device_telemetry(device(), samples, 2);
  if (status == XHAL_ERR_UNSUPPORTED)
    GTEST_SKIP() << "the device has no telemetry: " << last_error_text();
  ASSERT_TRUE(ok(status));
  EXPECT_EQ(samples[0].flags & XHAL_SAMPLE_VALID, 0u);
  if ((samples[1].flags & XHAL_SAMPLE_VALID) != 0) {
    EXPECT_EQ(samples[1].unit, static_cast<uint32_t>(XHAL_UNIT_BYTES));
    EXPECT_EQ(samples[1].value, static_cast<double>(limit(XHAL_LIMIT_MEMORY_TOTAL_BYTES)));
  }
}

TEST(Device, TelemetryOfNothingIsNothing) {
  const auto status = xhal_device_telemetry(device(), nullptr, 0);
  if (status == XHAL_ERR_UNSUPPORTED) GTEST_SKIP() << "the device has no telemetry";
  EXPECT_TRUE(ok(status));
}

TEST(Device, ControlNeedsTheFlag) {
  const xhal_control_table* table = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_PERMISSION, xhal_device_control_table(device(), &table)));
}

TEST(Device, EventsDescriptorIsValid) {
  int32_t fd = -1;
  ASSERT_TRUE(ok(xhal_device_events_fd(device(), &fd)));
  EXPECT_GE(fd, 0);
  close(fd);
}

TEST(Device, UnclaimedCollectivesAreUnsupported) {
  if (can(XHAL_CAP_COMM)) GTEST_SKIP() << "the device claims collectives";
  const xhal_comm_table* table = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_UNSUPPORTED, xhal_device_comm_table(device(), &table)));
}

TEST(Device, UnclaimedGraphsAreUnsupportedAndTheStreamGoesOn) {
  if (can(XHAL_CAP_GRAPH)) GTEST_SKIP() << "the device claims graphs";
  const Stream stream;
  EXPECT_TRUE(fails_with(XHAL_ERR_UNSUPPORTED, xhal_stream_begin_capture(stream, nullptr)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Device, UnclaimedModulesAreUnsupported) {
  if (can(XHAL_CAP_MODULE)) GTEST_SKIP() << "the device claims modules";
  auto info = versioned<xhal_module_info>();
  info.format = {"elf-so", 6};
  info.name = {"none", 4};
  info.bytes = "none";
  info.size_bytes = 4;
  xhal_module* module = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_UNSUPPORTED, xhal_module_load(context(), &info, &module)));
}

TEST(Device, UnclaimedVirtualMemoryIsUnsupported) {
  if (can(XHAL_CAP_VIRTUAL_MEMORY)) GTEST_SKIP() << "the device claims virtual memory";
  uint64_t address = 0;
  EXPECT_TRUE(fails_with(XHAL_ERR_UNSUPPORTED, xhal_virtual_reserve(context(), 1 << 20, &address)));
}

TEST(Device, UnclaimedExportIsRefused) {
  if (can(XHAL_CAP_EXPORT_FD)) GTEST_SKIP() << "the device claims export";
  const Buffer buffer(4096);
  xhal_external external{};
  const auto status = xhal_memory_export(context(), buffer.address(), XHAL_EXTERNAL_FD, &external);
  EXPECT_TRUE(status == XHAL_ERR_UNSUPPORTED || status == XHAL_ERR_INVALID_ARGUMENT)
      << xhal_status_name(status);
}

TEST(Device, UnclaimedActivityIsUnsupported) {
  if (can(XHAL_CAP_ACTIVITY)) GTEST_SKIP() << "the device claims activity records";
  EXPECT_TRUE(fails_with(XHAL_ERR_UNSUPPORTED,
                         xhal_activity_enable(
                             device(), [](void*, const xhal_activity*, uint32_t) {}, nullptr)));
}

}  // namespace
}  // namespace xhal::cts
