// SPDX-License-Identifier: Apache-2.0
// The core profile is proven: each planted fault of a plugin's runtime fails a test that says what
// the contract asks and where it is written, and without a fault the whole profile passes. Each
// fault leaves a line "fault | test | message" in runtime_faults/<fault>.md of the build folder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/process.hpp"

namespace {

using testing::HasSubstr;

struct Planted {
  const char* name;
  const char* tests;
  const char* told;
};

constexpr Planted kFaults[] = {
#define RUNTIME_FAULT(name, tests, told) {#name, tests, told},
#include "runtime_faults.inc"
#undef RUNTIME_FAULT
};

struct Judgement {
  xhal::tools::ProcessResult run;
  nlohmann::json report;
};

Judgement judge(const std::string& fault, const std::vector<std::string>& more) {
  const auto file = testing::TempDir() + "runtime-fault-" + fault + ".json";
  std::vector<std::string> command = {XHAL_CTS, "--plugin", XHAL_RUNTIME_MANIFEST, "--json", file};
  command.insert(command.end(), more.begin(), more.end());
  auto run =
      xhal::tools::run_process(command, std::chrono::seconds(280), {{"XHAL_TEST_FAULT", fault}});
  std::ifstream in(file);
  auto report = nlohmann::json::parse(in, nullptr, false);
  std::remove(file.c_str());
  return {std::move(run), std::move(report)};
}

// One line of a table.
std::string in_one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  std::replace(text.begin(), text.end(), '|', '/');
  return text.size() > 300 ? text.substr(0, 300) + "..." : text;
}

void write_row(const std::string& fault, const nlohmann::json& test) {
  std::filesystem::create_directories(XHAL_RUNTIME_TABLE);
  std::ofstream(std::filesystem::path(XHAL_RUNTIME_TABLE) / (fault + ".md"))
      << "| " << fault << " | " << test["name"].get<std::string>() << " | "
      << in_one_line(test["reason"]) << " -- " << in_one_line(test["contract"]) << " |\n";
}

TEST(RuntimeFaults, WithoutOneTheWholeCoreProfilePasses) {
  const auto sound = judge("", {"--profile", "core"});
  ASSERT_TRUE(sound.report.is_object()) << sound.run.out << sound.run.err;
  EXPECT_EQ(sound.report["verdict"], "pass") << sound.run.out << sound.run.err;
}

TEST(RuntimeFaults, WhatAPluginPrintsIsNoLineOfTheReport) {
  const auto judged = judge("prints_in_a_copy", {"--filter", "Stream.CopiesOnTheDevice"});
  EXPECT_THAT(judged.run.err, HasSubstr("acme: a copy\n"));
  EXPECT_THAT("\n" + judged.run.out, testing::Not(HasSubstr("\nacme")));
}

class RuntimeFault : public testing::TestWithParam<Planted> {};

TEST_P(RuntimeFault, FailsATestThatSaysWhatIsAskedAndWhere) {
  const auto& fault = GetParam();
  const auto faulty = judge(fault.name, {"--filter", fault.tests, "--timeout", "12"});
  EXPECT_EQ(faulty.run.end, xhal::tools::ProcessResult::End::exited) << faulty.run.text();
  EXPECT_EQ(faulty.run.code, 1) << faulty.run.out << faulty.run.err;
  ASSERT_TRUE(faulty.report.is_object()) << faulty.run.out << faulty.run.err;
  EXPECT_EQ(faulty.report["verdict"], "fail");
  const auto& tests = faulty.report["tests"];
  const auto failed = std::find_if(tests.begin(), tests.end(),
                                   [](const auto& test) { return test["status"] == "failed"; });
  ASSERT_NE(failed, tests.end()) << faulty.run.out;
  EXPECT_THAT((*failed)["reason"].get<std::string>(), HasSubstr(fault.told));
  EXPECT_THAT((*failed)["contract"].get<std::string>(), HasSubstr("xhal/"));
  EXPECT_THAT(faulty.run.out, HasSubstr("the contract, xhal/"));
  write_row(fault.name, *failed);
}

INSTANTIATE_TEST_SUITE_P(Planted, RuntimeFault, testing::ValuesIn(kFaults),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
