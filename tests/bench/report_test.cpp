// SPDX-License-Identifier: Apache-2.0
// What a benchmark's report promises: medians, ratios, goals, and no silence about a missing peer.
#include "measure/report.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "measure/measure.hpp"

namespace xhal::bench {
namespace {

using testing::HasSubstr;

Row row_with_peer() {
  return {.metric = "copy",
          .unit = "GB/s",
          .peer = "memcpy",
          .goal = Goal::ratio_at_least(0.95),
          .samples = {8, 10, 12},
          .peer_samples = {9, 10, 40}};
}

TEST(Statistics, TheMedianOfAnEvenNumberLiesBetweenTheMiddleTwo) {
  EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(median({7}), 7);
}

TEST(Statistics, TheSpreadIsThePartOfTheMedianBetweenTheQuartiles) {
  EXPECT_EQ(spread({5, 5, 5, 5}), 0);
  EXPECT_DOUBLE_EQ(spread({1, 2, 3, 4, 5}), 2.0 / 3.0);
}

TEST(Interleaving, EverySideTakesEveryTurnAndTheOrderChanges) {
  std::string order;
  const auto side = [&](char name) {
    return [&order, name] {
      order += name;
      return 1.0;
    };
  };
  const auto samples =
      interleave({side('a'), side('b')}, {.rounds = 3, .least_rounds = 3, .time_ns = 0});
  EXPECT_EQ(samples[0].size(), 3u);
  EXPECT_EQ(samples[1].size(), 3u);
  EXPECT_EQ(order, "ababbaab");  // one turn each to warm up, then the rounds
}

TEST(Report, TheRatioIsValueByPeerAndMeetsItsGoal) {
  const Row row = row_with_peer();
  EXPECT_EQ(row.ratio(), 1.0);
  EXPECT_EQ(row.met(), true);
  Row slow = row;
  slow.samples = {9};
  EXPECT_EQ(slow.met(), false);
}

TEST(Report, ARowThatNamesAPeerAndHasNoValueOfItFailsTheRun) {
  Report report("test");
  report.add(row_with_peer());
  EXPECT_TRUE(report.complete());
  Row alone = row_with_peer();
  alone.peer_samples.clear();
  alone.failed = "memcpy is not installed";
  report.add(alone);
  EXPECT_FALSE(report.complete());
  EXPECT_THAT(report.table(), HasSubstr("copy: no value of memcpy: memcpy is not installed"));
}

TEST(Report, ARunWithoutRowsFails) { EXPECT_FALSE(Report("test").complete()); }

TEST(Report, AMissedGoalIsAFindingAndNotAFailure) {
  Report report("test");
  Row row = row_with_peer();
  row.samples = {1};
  report.add(row);
  EXPECT_TRUE(report.complete());
  EXPECT_THAT(report.table(), HasSubstr("MISSED"));
}

TEST(Report, AGoalOfTwoPartsShowsBothAndBothMustHold) {
  Row row = row_with_peer();
  row.goal = Goal::ratio_at_most(2.5);
  row.goal.add(Goal::ratio_at_most(0.8, "Level Zero's loader"));
  EXPECT_EQ(row.goal.text("ns"), "<= 2.5x peer, <= 0.80x (Level Zero's loader)");
  EXPECT_EQ(row.met(), false);
  row.samples = {7};
  EXPECT_EQ(row.met(), true);
  EXPECT_EQ(row.missed_by(), std::nullopt);
}

TEST(Report, WhatIsMissedSaysByHowMuchOfTheWorstPart) {
  Report report("test");
  Row row = row_with_peer();
  row.goal = Goal::value_at_least(10);
  row.goal.add(Goal::ratio_at_least(2));
  row.samples = {5};
  EXPECT_DOUBLE_EQ(*row.missed_by(), 0.75);  // of the ratio; the value misses by half
  report.add(row);
  EXPECT_THAT(report.table(), HasSubstr("MISSED by 75 %"));
  row.goal = Goal::value_at_most(0.1);
  report.add(row);
  EXPECT_THAT(report.table(), HasSubstr("MISSED 50-fold"));
}

TEST(Report, AMissedLimitOfZeroIsMissedByTheValue) {
  Report report("test");
  report.add({.metric = "slots", .unit = "slots", .goal = Goal::value_at_most(0), .samples = {3}});
  EXPECT_THAT(report.table(), HasSubstr("MISSED by 3.00 slots"));
}

TEST(Report, ARowThatThisMachineCannotGiveSaysWhyAndFailsNothing) {
  Report report("test");
  report.add(row_with_peer());
  Row absent = row_with_peer();
  absent.metric = "gemm bf16";
  absent.samples.clear();
  absent.peer_samples.clear();
  absent.not_here = "the processor has no bf16";
  report.add(absent);
  EXPECT_TRUE(report.complete());
  EXPECT_THAT(report.table(),
              HasSubstr("gemm bf16: this machine cannot tell: the processor has no bf16"));
  const auto list = nlohmann::json::parse(report.json());
  EXPECT_TRUE(list[1]["value"].is_null());
  EXPECT_EQ(list[1]["not_here"], "the processor has no bf16");
}

TEST(Report, TheJsonHasTheAgreedFieldsAndNullWhereThereIsNothing) {
  Report report("test");
  report.add(row_with_peer());
  report.add({.metric = "hop", .unit = "ns", .samples = {30}});
  const auto list = nlohmann::json::parse(report.json());
  ASSERT_EQ(list.size(), 2u);
  for (const char* field :
       {"metric", "value", "unit", "peer", "peer_value", "ratio", "goal", "n", "spread"})
    EXPECT_TRUE(list[0].contains(field)) << field;
  EXPECT_EQ(list[0]["value"], 10.0);
  EXPECT_EQ(list[0]["goal"], ">= 0.95x peer");
  EXPECT_EQ(list[0]["n"], 3);
  EXPECT_TRUE(list[1]["peer"].is_null());
  EXPECT_TRUE(list[1]["ratio"].is_null());
  EXPECT_TRUE(list[1]["goal"].is_null());
}

}  // namespace
}  // namespace xhal::bench
