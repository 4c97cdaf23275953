// SPDX-License-Identifier: Apache-2.0
// What the measuring library promises about sides: children that take turns, costs that are not
// known before, and the unit.
#include "measure/measure.hpp"

#include <gmock/gmock.h>

#include <cstdlib>
#include <cstring>

#include "measure/child.hpp"
#include "measure/cores.hpp"
#include "measure/mutex.hpp"

namespace xhal::bench {
namespace {

TEST(Calls, ACheapBodyIsCalledAsOftenAsAsked) {
  uint32_t calls = 0;
  ns_per_call_within(1'000'000'000, 1000, [&] { ++calls; });
  EXPECT_EQ(calls, 16 + 1000u);
}

TEST(Calls, ABodyThatCostsMoreThanItsBudgetIsCalledSixteenTimes) {
  uint32_t calls = 0;
  const double ns = ns_per_call_within(0, 1'000'000, [&] { ++calls; });
  EXPECT_EQ(calls, 16u);
  EXPECT_GT(ns, 0);
}

TEST(Mutex, APairTakesTime) { EXPECT_GT(MutexPair().sample(1000), 0); }

TEST(Cores, AHopIsMeasuredOrSaysThatThereIsNobodyToPlayWith) {
  if (allowed_cpus().size() < 2) {
    EXPECT_THROW(cache_line_hop_sample_ns(), std::runtime_error);
    return;
  }
  EXPECT_GT(cache_line_hop_sample_ns(), 0);
}

TEST(Child, AnswersEveryTurnFromItsOwnEnvironment) {
  const auto side = Child::side(own_path(), {"--serve"}, {"BENCH_TEST_VALUE=41"});
  EXPECT_EQ(side(), 42);
  EXPECT_EQ(side(), 43);
}

TEST(Child, ThatFailsIsAnErrorOfTheSampleAndNotOfTheRun) {
  const auto side = Child::side(own_path(), {"--serve"}, {"BENCH_TEST_VALUE="});
  EXPECT_THROW(side(), std::runtime_error);
}

TEST(Child, OfAProgramThatIsNotThereIsAnError) {
  EXPECT_THROW(Child::side("/nowhere/at-all", {}, {}), std::runtime_error);
}

}  // namespace
}  // namespace xhal::bench

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--serve") == 0) {
    double value = std::strtod(std::getenv("BENCH_TEST_VALUE"), nullptr);
    return xhal::bench::serve([&] {
      if (value == 0) throw std::runtime_error("there is no value");
      return ++value;
    });
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
