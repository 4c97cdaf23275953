// SPDX-License-Identifier: Apache-2.0
// The helpers of xhal.hpp: what they submit, what they give back, and what an exception leaves.
#include <array>
#include <numeric>

#include "hal_test.hpp"

namespace xhal::test {
namespace {

class HppTest : public HalTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    HalTest::SetUp();
    stream_ = device(GetParam()).stream();
    pool_ = device(GetParam()).pool();
  }
  void TearDown() override {
    pool_.reset();
    stream_.reset();
    HalTest::TearDown();
  }
  uint64_t used_bytes() {
    xhal_pool_stats stats{};
    stats.struct_size = sizeof stats;
    check(xhal_pool_query(pool_.get(), &stats));
    return stats.used_bytes;
  }
  bool has_graphs() {
    return (device(GetParam()).info().capabilities[0] & (1u << XHAL_CAP_GRAPH)) != 0;
  }

  Stream stream_;
  Pool pool_;
};

TEST_P(HppTest, WhatIsWrittenIsRead) {
  const Block block(pool_.get(), stream_.get(), 64 * sizeof(int32_t), "numbers");
  std::vector<int32_t> numbers(64);
  std::iota(numbers.begin(), numbers.end(), -5);
  upload(stream_.get(), block.address(), numbers);
  EXPECT_EQ(download<int32_t>(stream_.get(), block.address(), 64), numbers);
  const std::array<int32_t, 2> two = {7, 8};
  upload(stream_.get(), block.address() + 4, two);
  EXPECT_EQ(download<int32_t>(stream_.get(), block.address(), 4),
            (std::vector<int32_t>{-5, 7, 8, -2}));
}

TEST_P(HppTest, ABlockIsGivenBackOnceWhereverItWasMoved) {
  {
    Block first(pool_.get(), stream_.get(), 1000), second;
    EXPECT_GT(used_bytes(), 0u);
    second = std::move(first);
    Block third(std::move(second));
    EXPECT_NE(third.address(), 0u);
    EXPECT_EQ(third.size_bytes(), 1000u);
    EXPECT_EQ(first.address(), 0u);
  }
  EXPECT_EQ(used_bytes(), 0u);
}

TEST_P(HppTest, ABlockThatAnotherStreamUsesIsNotHandedOutBeforeItsEvent) {
  const auto other = device(GetParam()).stream();
  Gate gate(other.get());
  uint64_t address = 0;
  {
    Block block(pool_.get(), stream_.get(), 4096);
    address = block.address();
    check(xhal_stream_fill(other.get(), address, 4096, 1, 1));
    block.keep_until(Event(other.get()));
  }
  const Block next(pool_.get(), stream_.get(), 4096);
  EXPECT_NE(next.address(), address);
  gate.open();
  synchronize(other.get());
}

TEST_P(HppTest, AnEventTellsWhetherItsWorkHasRunAndHoldsOthersBack) {
  EXPECT_TRUE(Event().reached());
  const auto other = device(GetParam()).stream();
  Gate gate(stream_.get());
  const Event event(stream_.get());
  event.precede(other.get());
  EXPECT_FALSE(event.reached());
  EXPECT_FALSE(event.wait(0));
  EXPECT_FALSE(synchronize(other.get(), 0));
  gate.open();
  EXPECT_TRUE(event.wait(kSoon));
  EXPECT_TRUE(synchronize(other.get(), kSoon));
}

TEST_P(HppTest, AnErrorIsAnExceptionWithTheRecord) {
  const Block block(pool_.get(), stream_.get(), 64);
  try {
    submit_copy(stream_.get(), block.address(), block.address() + 32, uint64_t{1} << 40);
    FAIL() << "a copy that leaves its allocation";
  } catch (const Error& error) {
    EXPECT_LT(error.info.status, 0);
    EXPECT_FALSE(error.info.text.empty());
  }
}

TEST_P(HppTest, WhatIsCapturedRunsWhenItIsLaunched) {
  if (!has_graphs()) GTEST_SKIP() << "it has no graphs";
  const Block block(pool_.get(), stream_.get(), 16);
  check(xhal_stream_fill(stream_.get(), block.address(), 16, 0, 1));
  Capture capture(stream_.get());
  check(xhal_stream_fill(stream_.get(), block.address(), 16, 9, 1));
  const auto graph = capture.end();
  EXPECT_EQ(download<uint8_t>(stream_.get(), block.address(), 1)[0], 0);
  launch(stream_.get(), graph);
  EXPECT_EQ(download<uint8_t>(stream_.get(), block.address(), 1)[0], 9);
}

TEST_P(HppTest, AnExceptionInACaptureLeavesTheStreamUsable) {
  if (!has_graphs()) GTEST_SKIP() << "it has no graphs";
  try {
    const Capture capture(stream_.get());
    throw std::runtime_error("in the middle");
  } catch (const std::runtime_error&) {
  }
  uint32_t capturing = 1;
  check(xhal_stream_capturing(stream_.get(), &capturing));
  EXPECT_EQ(capturing, 0u);
  EXPECT_TRUE(synchronize(stream_.get(), kSoon));
}

// Row for row what a program that logs errors by device relies on.
TEST_P(HppTest, ErrorsOfPoolsAndMemoryNameTheDevice) {
  auto& device = this->device(GetParam());
  const auto expect_device = [&](xhal_status status) {
    EXPECT_LT(status, 0);
    EXPECT_EQ(last_error_info().device, std::string(GetParam()) + ":0") << last_error_info().text;
  };
  uint64_t address = 0;
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  expect_device(xhal_memory_alloc(device.context(), &info, &address));  // size 0
  info.size_bytes = uint64_t{1} << 50;
  expect_device(xhal_memory_alloc(device.context(), &info, &address));
  info.size_bytes = 64;
  info.alignment_bytes = 3;
  expect_device(xhal_memory_alloc(device.context(), &info, &address));
  expect_device(xhal_memory_free(device.context(), 12345));
  expect_device(
      xhal_pool_alloc(pool_.get(), stream_.get(), uint64_t{1} << 50, str("big"), &address));
  expect_device(xhal_pool_free(pool_.get(), 12345, nullptr, 0));
  xhal_pool_stats stats{};
  stats.struct_size = 3;
  expect_device(xhal_pool_query(pool_.get(), &stats));
  const Block block(pool_.get(), stream_.get(), 64);
  auto* held = pool_.get();
  expect_device(xhal_pool_destroy(held));
  xhal_pool_info bad{};
  bad.struct_size = sizeof bad;
  bad.kind = 77;
  xhal_pool* made = nullptr;
  expect_device(xhal_pool_create(device.context(), &bad, &made));
  bad.struct_size = 5;
  expect_device(xhal_pool_create(device.context(), &bad, &made));
}

INSTANTIATE_TEST_SUITE_P(Hal, HppTest, testing::Values("template", "cpu"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace xhal::test
