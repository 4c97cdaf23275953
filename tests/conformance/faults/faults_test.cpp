// SPDX-License-Identifier: Apache-2.0
// The suite is proven: each planted fault fails the test that is there to notice it, and without a
// fault that test passes.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/process.hpp"

namespace {

struct Planted {
  const char* name;
  const char* tests;
};

constexpr Planted kFaults[] = {
#define FAULT(name, tests) {#name, tests},
#include "faults.inc"
#undef FAULT
};

class PlantedFault : public testing::TestWithParam<Planted> {
 protected:
  // The suite's report on the tests of this fault, with the fault named or without one.
  nlohmann::json judge(const std::string& fault) {
    const auto file = testing::TempDir() + "fault-" + GetParam().name + ".json";
    const auto run =
        xhal::tools::run_process({XHAL_CTS, "--plugin", XHAL_FAULTY_MANIFEST, "--profile",
                                  "training", "--filter", GetParam().tests, "--json", file},
                                 std::chrono::seconds(240), {{"XHAL_TEST_FAULT", fault}});
    EXPECT_EQ(run.end, xhal::tools::ProcessResult::End::exited) << run.text();
    std::ifstream in(file);
    auto report = nlohmann::json::parse(in, nullptr, false);
    EXPECT_TRUE(report.is_object()) << run.out << run.err;
    std::remove(file.c_str());
    return report;
  }
};

TEST_P(PlantedFault, IsNoticed) {
  const auto sound = judge("");
  ASSERT_TRUE(sound.is_object());
  EXPECT_EQ(sound["verdict"], "pass") << sound.dump(2);
  const auto faulty = judge(GetParam().name);
  ASSERT_TRUE(faulty.is_object());
  EXPECT_EQ(faulty["verdict"], "fail");
  ASSERT_EQ(faulty["failed"], 1);
  const std::string reason = faulty["tests"][0]["reason"];
  // Noticed by its results, not because something refused or fell over.
  EXPECT_EQ(reason.find("refused"), std::string::npos) << reason;
  EXPECT_EQ(reason.find("crashed"), std::string::npos) << reason;
  EXPECT_EQ(reason.find("prepare:"), std::string::npos) << reason;
}

INSTANTIATE_TEST_SUITE_P(Faults, PlantedFault, testing::ValuesIn(kFaults),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
