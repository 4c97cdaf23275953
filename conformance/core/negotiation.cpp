// SPDX-License-Identifier: Apache-2.0
// Negotiation, asked from outside: xhal-probe loads the plugin in a child and offers it any
// range of versions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/elf_file.hpp"
#include "common/process.hpp"
#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

struct Answer {
  std::string verdict, build;
  uint32_t min = 0, max = 0;
  std::vector<std::string> missing;
};

uint32_t parse_version(const std::string& text) {
  const auto dot = text.find('.');
  return static_cast<uint32_t>(std::stoul(text) << 16 | std::stoul(text.substr(dot + 1)));
}

Answer negotiate(const std::string& range) {
  const auto run = tools::run_process(
      {target().probe.string(), "--abi", range, target().library.string()}, target().limit * 2 / 3);
  EXPECT_EQ(run.end, tools::ProcessResult::End::exited) << run.text() << run.err;
  const auto json = nlohmann::json::parse(run.out, nullptr, false);
  EXPECT_TRUE(json.is_object()) << run.out << run.err;
  if (!json.is_object()) return {};
  return {json["verdict"], json["build"], parse_version(json["abi"]["min"]),
          parse_version(json["abi"]["max"]), json["missing_slots"]};
}

TEST(Negotiation, AgreesWithThisLibrary) { EXPECT_EQ(negotiate("0.1-0.1").verdict, "ok"); }

TEST(Negotiation, RangeHasItsMinimumBelowItsMaximum) {
  const auto answer = negotiate("0.1-0.1");
  EXPECT_LE(answer.min, answer.max);
}

TEST(Negotiation, RefusesAnotherMajorAndTellsItsOwnRange) {
  const auto answer = negotiate("900.0-900.9");
  EXPECT_EQ(answer.verdict, "version");
  EXPECT_NE(answer.max, 0u);
}

TEST(Negotiation, AgreesExactlyWhenTheRangesOverlap) {
  const auto own = negotiate("0.1-0.1");
  for (uint32_t min = 0; min <= 3; ++min) {
    for (uint32_t max = min; max <= 3; ++max) {
      const bool overlap = std::max(min, own.min) <= std::min(max, own.max);
      const auto range = "0." + std::to_string(min) + "-0." + std::to_string(max);
      EXPECT_EQ(negotiate(range).verdict, overlap ? "ok" : "version") << range;
    }
  }
}

TEST(Negotiation, NamesItsBuild) { EXPECT_NE(negotiate("0.1-0.1").build, ""); }

TEST(Negotiation, FillsTheSlotsThatEveryDeviceHas) {
  const auto missing = negotiate("0.1-0.1").missing;
  for (const char* slot :
       {"device_close", "device_limit", "memory_alloc", "memory_free", "stream_create",
        "stream_destroy", "stream_copy", "stream_fill", "stream_host_call", "stream_wait",
        "stream_signal", "stream_recover", "op_prepare", "op_query", "op_destroy", "op_launch"}) {
    EXPECT_EQ(std::count(missing.begin(), missing.end(), slot), 0) << slot << " is not filled";
  }
}

TEST(Negotiation, LibraryExportsOnlyItsEntry) {
  const auto elf = tools::read_elf_file(target().library);
  ASSERT_EQ(elf.problem, "");
  EXPECT_THAT(elf.exports, testing::ElementsAre("xhal_plugin_negotiate"));
}

TEST(Negotiation, LibraryThatIsNotAPluginIsNamedAsSuch) {
  const auto run = tools::run_process({target().probe.string(), target().probe.string()},
                                      target().limit * 2 / 3);
  EXPECT_EQ(run.code, 1);
}

}  // namespace
}  // namespace xhal::cts
