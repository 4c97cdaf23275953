// SPDX-License-Identifier: Apache-2.0
// Copies of ordinary host memory on devices that do not reach it: right in every size, in stream
// order, and without growing.
#include <algorithm>
#include <random>

#include "../faulty/faulty_test.hpp"
#include "../process_figures.hpp"

namespace xhal::test {
namespace {

class StagingTest : public FaultyTest {
 protected:
  static std::vector<uint8_t> noise(size_t size, uint32_t seed) {
    std::vector<uint8_t> bytes(size);
    std::mt19937 random(seed);
    for (auto& b : bytes) b = static_cast<uint8_t>(random());
    return bytes;
  }
};

constexpr size_t kSizes[] = {1,
                             4,
                             4095,
                             4096,
                             4097,
                             65536,
                             65537,
                             1 << 20,
                             (1 << 20) + 1,
                             3 << 20,
                             (8 << 20) - 1,
                             8 << 20,
                             (9 << 20) + 17};

TEST_F(StagingTest, CopiesOfEverySizeArriveOnACardInAnotherProcess) {
  const auto& d = device("remote");
  const auto stream = d.stream();
  const auto memory = alloc(d, 10 << 20);
  for (const size_t size : kSizes) {
    const auto data = noise(size, static_cast<uint32_t>(size));
    ASSERT_OK(xhal_stream_copy(stream.get(), memory, address_of(data.data()), size));
    EXPECT_EQ(read(stream.get(), memory, size), data) << size;
  }
}

TEST_F(StagingTest, CopiesOfEverySizeArriveOnADeviceWithoutPageableCopies) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 10 << 20);
  for (const size_t size : kSizes) {
    const auto data = noise(size, static_cast<uint32_t>(size));
    ASSERT_OK(xhal_stream_copy(stream.get(), memory, address_of(data.data()), size));
    EXPECT_EQ(read(stream.get(), memory, size), data) << size;
  }
}

TEST_F(StagingTest, CopiesOfEverySizeCrossFromOnePluginToAnother) {
  const auto& card = device("remote");
  const auto& other = device("template");
  const auto card_stream = card.stream(), other_stream = other.stream();
  const auto on_card = alloc(card, 10 << 20), on_other = alloc(other, 10 << 20);
  for (const size_t size : kSizes) {
    const auto data = noise(size, static_cast<uint32_t>(size));
    // To the card by a stream of the other device, and back by a stream of the card.
    ASSERT_OK(xhal_stream_copy(other_stream.get(), on_other, address_of(data.data()), size));
    ASSERT_OK(xhal_stream_copy(other_stream.get(), on_card, on_other, size));
    ASSERT_OK(xhal_stream_fill(other_stream.get(), on_other, size, 0, 1));
    ASSERT_OK(xhal_stream_synchronize(other_stream.get(), kSoon));
    ASSERT_OK(xhal_stream_copy(card_stream.get(), on_other, on_card, size));
    ASSERT_OK(xhal_stream_synchronize(card_stream.get(), kSoon));
    EXPECT_EQ(read(other_stream.get(), on_other, size), data) << size;
  }
}

// Work that was submitted before may still write the host memory that is copied.
TEST_F(StagingTest, HostMemoryIsReadWhenTheStreamHasGotThereNotBefore) {
  const auto& d = device("remote");
  const auto stream = d.stream();
  for (const size_t size : {size_t{64}, size_t{9} << 20}) {
    const auto memory = alloc(d, size);
    std::vector<uint8_t> host(size, 1);
    Gate gate(stream.get());
    ASSERT_OK(xhal_stream_copy(stream.get(), memory, address_of(host.data()), size));
    std::fill(host.begin(), host.end(), 2);
    gate.open();
    EXPECT_EQ(read(stream.get(), memory, size), std::vector<uint8_t>(size, 2));
  }
}

// A stream that stands still must not hold up another one's copies.
TEST_F(StagingTest, StreamsDoNotWaitForEachOthersCopies) {
  const auto& d = device("remote");
  const auto held = d.stream(), free = d.stream();
  constexpr size_t kBytes = 9 << 20;
  const auto first = alloc(d, kBytes), second = alloc(d, kBytes);
  const std::vector<uint8_t> host(kBytes, 5);
  Gate gate(held.get());
  for (int i = 0; i < 4; ++i)
    ASSERT_OK(xhal_stream_copy(held.get(), first, address_of(host.data()), kBytes));
  ASSERT_OK(xhal_stream_copy(free.get(), second, address_of(host.data()), kBytes));
  ASSERT_OK(xhal_stream_synchronize(free.get(), kSoon)) << "while the other stream is held";
  gate.open();
  ASSERT_OK(xhal_stream_synchronize(held.get(), kSoon));
  EXPECT_EQ(read(held.get(), first, kBytes), host);
}

TEST_F(StagingTest, ManyCopiesInFlightEachHaveTheirOwnMemory) {
  const auto& d = device("remote");
  const auto stream = d.stream();
  constexpr int kCopies = 1000;
  const auto memory = alloc(d, kCopies * 64);
  std::vector<std::vector<uint8_t>> data;
  Gate gate(stream.get());
  for (int i = 0; i < kCopies; ++i) {
    data.push_back(noise(64, static_cast<uint32_t>(i)));
    ASSERT_OK(xhal_stream_copy(stream.get(), memory + static_cast<uint64_t>(i) * 64,
                               address_of(data.back().data()), 64));
  }
  gate.open();
  const auto all = read(stream.get(), memory, kCopies * 64);
  for (int i = 0; i < kCopies; ++i)
    ASSERT_EQ(
        std::memcmp(&all[static_cast<size_t>(i) * 64], data[static_cast<size_t>(i)].data(), 64), 0)
        << i;
}

TEST_F(StagingTest, CopiesDoNotGrowTheProcess) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 1 << 20);
  std::vector<uint8_t> host(1 << 20);
  const auto copy_some = [&](int rounds) {
    for (int i = 0; i < rounds; ++i) {
      ASSERT_OK(xhal_stream_copy(stream.get(), memory, address_of(host.data()),
                                 i % 100 == 0 ? host.size() : 4));
    }
    ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  };
  copy_some(2000);
  const auto descriptors = descriptor_count(), resident = resident_bytes();
  copy_some(20'000);
  EXPECT_EQ(descriptor_count(), descriptors);
  if (kMemoryIsTheLibrarysOwn) {
    EXPECT_LT(resident_bytes(), resident + (4 << 20));
  }
}

// The memory of a copy that failed is not another copy's while the device may still be at it, and
// comes back afterwards.
TEST_F(StagingTest, FailedCopiesDoNotKeepTheirMemory) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 1 << 20);
  std::vector<uint8_t> host(1 << 20, 3);
  const auto descriptors = descriptor_count();
  for (int round = 0; round < 100; ++round) {
    xhal_timeline* never = nullptr;
    ASSERT_OK(xhal_timeline_create(0, &never));
    ASSERT_OK(xhal_stream_wait(stream.get(), never, 1));
    for (int i = 0; i < 3; ++i) {
      ASSERT_OK(xhal_stream_copy(stream.get(), memory, address_of(host.data()), host.size()));
    }
    ASSERT_OK(xhal_timeline_destroy(never));  // whoever waits for it fails
    EXPECT_NE(xhal_stream_synchronize(stream.get(), kSoon), XHAL_OK);
    ASSERT_OK(xhal_stream_recover(stream.get()));
  }
  ASSERT_OK(xhal_stream_copy(stream.get(), memory, address_of(host.data()), host.size()));
  EXPECT_EQ(read(stream.get(), memory, host.size()), host);
  EXPECT_LT(descriptor_count(), descriptors + 16);
}

}  // namespace
}  // namespace xhal::test
