// SPDX-License-Identifier: Apache-2.0
// A device that is opened and closed over and over: what it took is given back, and what belonged
// to an earlier opening is never mistaken for the present one's.
#include <fstream>

#include "hal_test.hpp"

namespace xhal::test {
namespace {

// Shared memory of libxhal that this process has mapped.
uint64_t shared_bytes() {
  std::ifstream maps("/proc/self/maps");
  uint64_t bytes = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("xhal-cells") == std::string::npos) continue;
    uint64_t begin = 0, end = 0;
    EXPECT_EQ(std::sscanf(line.c_str(), "%lx-%lx", &begin, &end), 2) << line;
    bytes += end - begin;
  }
  return bytes;
}

class ReopenTest : public HalTest {
 protected:
  static xhal_event record(xhal_stream* stream) {
    xhal_event event{};
    check(xhal_event_record(stream, XHAL_EVENT_TIMED, &event));
    return event;
  }
};

TEST_F(ReopenTest, HundredsOfOpeningsShareTheirMemory) {
  const auto once = [&] {
    auto d = reopen("cpu");
    auto stream = d.stream();
    const auto start = record(stream.get()), end = record(stream.get());
    check(xhal_stream_synchronize(stream.get(), kSoon));
    int64_t elapsed = -1;
    EXPECT_OK(xhal_event_elapsed(&start, &end, &elapsed));
    EXPECT_GE(elapsed, 0);
  };
  once();
  const auto before = shared_bytes();
  ASSERT_GT(before, 0u);
  for (int i = 0; i < 400; ++i) once();
  EXPECT_EQ(shared_bytes(), before);
}

TEST_F(ReopenTest, AnEventOfAnEarlierOpeningIsExpiredAndNeverReadsANewTime) {
  xhal_event start{}, end{};
  {
    auto d = reopen("cpu");
    auto stream = d.stream();
    start = record(stream.get());
    end = record(stream.get());
    check(xhal_stream_synchronize(stream.get(), kSoon));
    int64_t elapsed = 0;
    ASSERT_OK(xhal_event_elapsed(&start, &end, &elapsed));
  }
  const auto expired = [&] {
    int64_t elapsed = 0;
    EXPECT_OK(xhal_event_query(&end)) << "what was reached stays reached";
    return xhal_event_elapsed(&start, &end, &elapsed) == XHAL_ERR_EXPIRED;
  };
  EXPECT_TRUE(expired());
  auto d = reopen("cpu");
  auto stream = d.stream();
  for (uint32_t i = 0; i < 5000; ++i) {
    const auto fresh = record(stream.get());
    ASSERT_NE(fresh.timestamp_slot, start.timestamp_slot);
    ASSERT_NE(fresh.timestamp_slot, end.timestamp_slot);
  }
  check(xhal_stream_synchronize(stream.get(), kSoon));
  EXPECT_TRUE(expired());
}

}  // namespace
}  // namespace xhal::test
