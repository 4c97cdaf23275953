// SPDX-License-Identifier: Apache-2.0
// The chaos layer shows a missing wait on nearly any seed, and never disturbs a correct program.
#include <cstdlib>

#include "hal_test.hpp"

namespace xhal::test {
namespace {

constexpr int kSeeds = 10;
constexpr size_t kBytes = 4096;

// One stream produces, another consumes; `wait` is the line a framework may have forgotten.
bool consumer_saw_the_product(const std::string& plugin, int seed, bool wait) {
  setenv("XHAL_LAYERS", "chaos", 1);
  setenv("XHAL_CHAOS_SEED", std::to_string(seed).c_str(), 1);
  Session session;
  uint32_t index = 0;
  for (const auto& d : devices()) {
    if (d.plugin == plugin) index = d.index;
  }
  Device device(index);
  auto producer = device.stream(), consumer = device.stream();
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = kBytes;
  uint64_t product = 0, copy = 0;
  check(xhal_memory_alloc(device.context(), &info, &product));
  check(xhal_memory_alloc(device.context(), &info, &copy));
  check(xhal_stream_fill(producer.get(), product, kBytes, 0, 1));
  check(xhal_stream_synchronize(producer.get(), kSoon));

  for (int i = 1; i <= 8; ++i)
    check(xhal_stream_fill(producer.get(), product, kBytes, static_cast<uint64_t>(i), 1));
  xhal_event done{};
  check(xhal_event_record(producer.get(), 0, &done));
  if (wait) check(xhal_stream_wait_event(consumer.get(), &done));
  check(xhal_stream_copy(consumer.get(), copy, product, kBytes));

  std::vector<uint8_t> host(kBytes);
  check(xhal_stream_copy(consumer.get(), reinterpret_cast<uint64_t>(host.data()), copy, kBytes));
  check(xhal_stream_synchronize(consumer.get(), kSoon));
  check(xhal_stream_synchronize(producer.get(), kSoon));
  return host == std::vector<uint8_t>(kBytes, 8);
}

class ChaosTest : public testing::TestWithParam<const char*> {};

TEST_P(ChaosTest, AMissingWaitShowsInAtLeastNineOfTenSeeds) {
  int wrong = 0;
  for (int seed = 1; seed <= kSeeds; ++seed)
    wrong += consumer_saw_the_product(GetParam(), seed, false) ? 0 : 1;
  EXPECT_GE(wrong, 9);
}

TEST_P(ChaosTest, ACorrectProgramIsRightOnEverySeed) {
  for (int seed = 1; seed <= kSeeds; ++seed)
    EXPECT_TRUE(consumer_saw_the_product(GetParam(), seed, true)) << seed;
}

INSTANTIATE_TEST_SUITE_P(Plugins, ChaosTest, testing::Values("template", "cpu"));

}  // namespace
}  // namespace xhal::test
