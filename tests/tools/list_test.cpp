// SPDX-License-Identifier: Apache-2.0
#include "tool_test.hpp"

namespace xhal::tools {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class List : public ToolTest {};

TEST_F(List, ShowsWhatEachDeviceTellsAndADashForTheRest) {
  add_plugin("fake");
  const auto run = xhal({"list"}, {{"XHAL_TEST_FAKE", "mixed"}});
  EXPECT_EQ(run.out,
            "ID      PLUGIN  NAME                      MEMORY  UTIL   TEMP         POWER  HEALTH\n"
            "fake:0  fake    Fake accelerator  1.2 / 32.0 GiB  71 %  61 C*  212 / 310 W*  ok\n"
            "fake:1  fake    Fake accelerator  0.0 / 32.0 GiB   0 %      -             -  "
            "degraded, 3 corrected errors\n"
            "fake:2  fake    Fake accelerator    - / 32.0 GiB     -      -             -  error: "
            "the driver of this device does not answer; reload it\n"
            "fake:3  fake    Fake accelerator  1.2 / 32.0 GiB  71 %  61 C*  212 / 310 W*  ok\n"
            "* modelled, not measured\n");
  EXPECT_EQ(run.code, 1) << "a degraded and a broken device are findings";
}

TEST_F(List, IsWhatTheCommandAloneShows) {
  add_plugin("fake");
  EXPECT_EQ(xhal({}).out, xhal({"list"}).out);
}

TEST_F(List, IsFineWhenEveryDeviceIs) {
  add_plugin("fake");
  EXPECT_EQ(xhal({"list"}).code, 0);
}

TEST_F(List, WithoutDevicesSaysWhatToTypeNext) {
  add_plugin("fake");
  const auto run = xhal({"list"}, {{"XHAL_TEST_FAKE", "none"}});
  EXPECT_EQ(run.code, 3);
  EXPECT_THAT(run.out, HasSubstr("xhal plugins doctor"));
}

TEST_F(List, WhereAVariableHidesEveryDeviceEveryCommandNamesIt) {
  add_plugin("fake");
  const struct {
    const char* manner;
    const char* visible;
    const char* said;
  } cases[] = {{"mixed", "", "all 4 devices are hidden by XHAL_VISIBLE_DEVICES (empty)"},
               {"mixed", ",", "all 4 devices are hidden by XHAL_VISIBLE_DEVICES (,)"},
               {"healthy", "", "the one device, fake:0, is hidden by XHAL_VISIBLE_DEVICES"}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.said);
    const Variables hidden = {{"XHAL_TEST_FAKE", c.manner}, {"XHAL_VISIBLE_DEVICES", c.visible}};
    for (const auto& words : {Words{}, Words{"list"}, Words{"topo"}}) {
      const auto run = xhal(words, hidden);
      EXPECT_EQ(run.code, 3);
      EXPECT_THAT(run.out, testing::AllOf(HasSubstr(c.said), HasSubstr("xhal list --all")));
    }
    for (const auto& words : {Words{"list", "--json"}, Words{"topo", "--json"}}) {
      const auto json = json_of(xhal(words, hidden).out);
      EXPECT_THAT(json["warnings"].dump(), HasSubstr(c.said));
    }
    EXPECT_THAT(xhal({"reset", "fake:0", "--yes"}, hidden).err, HasSubstr(c.said));
  }
}

TEST_F(List, WhereAVariableLeavesNoPluginItIsNamed) {
  add_plugin("fake");
  add_plugin("fake_too");
  const Variables none = {{"XHAL_PLUGIN_DISABLE", "fake*"}};
  const std::string both = "XHAL_PLUGIN_DISABLE=fake*";
  const auto run = xhal({"list"}, none);
  EXPECT_EQ(run.code, 3);
  EXPECT_THAT(run.out, HasSubstr("fake, fake_too"));
  EXPECT_THAT(run.out, HasSubstr(both));
  EXPECT_THAT(json_of(xhal({"list", "--json"}, none).out)["warnings"].dump(), HasSubstr(both));
  selected_ = "nosuch*";
  EXPECT_THAT(xhal({"topo"}).out, HasSubstr("left out by XHAL_PLUGIN_SELECT=nosuch*"));
}

TEST_F(List, AllShowsWhatIsHidden) {
  add_plugin("fake");
  const Variables hidden = {{"XHAL_TEST_FAKE", "mixed"}, {"XHAL_VISIBLE_DEVICES", "fake:1"}};
  const auto visible = xhal({"list"}, hidden), all = xhal({"list", "--all"}, hidden);
  EXPECT_THAT(visible.out, Not(HasSubstr("fake:0")));
  EXPECT_THAT(all.out, HasSubstr("hidden by XHAL_VISIBLE_DEVICES"));
  EXPECT_THAT(all.out, HasSubstr("fake:3"));
}

TEST_F(List, ADeviceThatIsNotThereIsNamedWithThoseThatAre) {
  add_plugin("fake");
  const auto run = xhal({"list"}, {{"XHAL_VISIBLE_DEVICES", "fake:9"}});
  EXPECT_EQ(run.code, 3);
  EXPECT_THAT(run.err, HasSubstr("fake:0"));
}

TEST_F(List, JsonHasTheEnvelopeAndSaysWhyAReadingIsMissing) {
  add_plugin("fake");
  const auto run =
      xhal({"list", "--json"}, {{"XHAL_TEST_FAKE", "mixed"}, {"SOURCE_DATE_EPOCH", "0"}});
  const auto json = json_of(run.out);
  EXPECT_EQ(json["schema"], "xhal.list/1");
  EXPECT_EQ(json["time"], "1970-01-01T00:00:00Z");
  EXPECT_TRUE(json["host"].is_string());
  EXPECT_TRUE(json["warnings"].is_array());
  const auto& devices = json["data"]["devices"];
  ASSERT_EQ(devices.size(), 4u);
  EXPECT_EQ(devices[0]["memory_used_bytes"], 1.25 * 1024 * 1024 * 1024);
  EXPECT_EQ(devices[0]["modelled"],
            nlohmann::json({"temperature_celsius", "power_watts", "power_cap_watts"}));
  EXPECT_EQ(devices[1]["health"], "degraded");
  EXPECT_TRUE(devices[1]["power_watts"].is_null());
  EXPECT_EQ(devices[1]["unavailable"]["power_watts"], "unsupported");
  EXPECT_THAT(devices[2]["unavailable"]["power_watts"], StartsWith("error: the driver"));
}

TEST_F(List, JsonIsJsonAlsoWithoutAnyDevice) {
  const auto run = xhal({"list", "--json"});
  EXPECT_EQ(run.code, 3);
  EXPECT_EQ(json_of(run.out)["data"]["devices"].size(), 0u);
}

TEST_F(List, HasNoColoursInAPipe) {
  add_plugin("fake");
  EXPECT_THAT(xhal({"list"}).out, Not(HasSubstr("\033")));
}

class CpuDevices : public ToolTest {
 protected:
  void SetUp() override {
    ToolTest::SetUp();
    selected_ = "cpu";
  }
};

TEST_F(CpuDevices, ANumberAboveTheMostIsReportedAndNotCut) {
  const auto usual = json_of(xhal({"list", "--json"}).out)["data"]["devices"].size();
  for (const auto* number : {"1025", "4294967295", "99999999999", "0"}) {
    const auto json = json_of(xhal({"list", "--json"}, {{"XHAL_CPU_DEVICES", number}}).out);
    EXPECT_THAT(json["warnings"].dump(), HasSubstr("there are the numbers from 1 to 1024"))
        << number;
    EXPECT_EQ(json["data"]["devices"].size(), usual) << number;
  }
}

class Topo : public ToolTest {
 protected:
  const Variables two_nodes_ = {
      {"XHAL_TEST_FAKE", "mixed"},
      {"HWLOC_SYNTHETIC", "pack:2 [numa(memory=17179869184)] core:2 pu:1"}};
};

TEST_F(Topo, MatrixShowsHowNearDevicesAreWithALegend) {
  add_plugin("fake");
  const auto run = xhal({"topo"}, two_nodes_);
  EXPECT_EQ(run.code, 1) << "one of the devices does not open, which is a finding";
  EXPECT_THAT(run.err, HasSubstr("fake:2: the driver of this device does not answer"));
  EXPECT_EQ(run.out,
            "        fake:0  fake:1  fake:2  fake:3  NUMA  CPU AFFINITY\n"
            "fake:0  X       SAME    SYS     -       0     0-1\n"
            "fake:1  SAME    X       SYS     -       0     0-1\n"
            "fake:2  SYS     SYS     X       -       1     2-3\n"
            "fake:3  -       -       -       X       -     -\n"
            "\n"
            "X     the device itself\n"
            "SAME  same NUMA node, through its memory\n"
            "SYS   between NUMA nodes\n"
            "-     one of them does not tell where it is\n"
            "The same as a tree:  xhal topo --tree\n");
}

TEST_F(Topo, TreeHangsDevicesBelowTheirNode) {
  add_plugin("fake");
  const auto run = xhal({"topo", "--tree"}, two_nodes_);
  const auto first_line = run.out.find('\n');
  EXPECT_THAT(run.out.substr(0, first_line), HasSubstr(": 4 cores, 32.0 GiB"));
  EXPECT_EQ(run.out.substr(first_line + 1),
            "|- NUMA node 0: 16.0 GiB, CPUs 0-1\n"
            "|  |- fake:0  Fake accelerator\n"
            "|  `- fake:1  Fake accelerator\n"
            "|- NUMA node 1: 16.0 GiB, CPUs 2-3\n"
            "|  `- fake:2  Fake accelerator\n"
            "`- place unknown\n"
            "   `- fake:3  Fake accelerator\n");
}

TEST_F(Topo, JsonHasEveryPair) {
  add_plugin("fake");
  const auto json = json_of(xhal({"topo", "--json"}, two_nodes_).out);
  EXPECT_EQ(json["schema"], "xhal.topo/1");
  EXPECT_EQ(json["data"]["links"].size(), 12u);
  EXPECT_EQ(json["data"]["numa_nodes"].size(), 2u);
  EXPECT_TRUE(json["data"]["devices"][3]["numa_node"].is_null());
}

TEST_F(Topo, MatrixAndTreeAtOnceIsWrongUsage) {
  EXPECT_EQ(xhal({"topo", "--matrix", "--tree"}).code, 2);
}

class Words : public ToolTest {};

TEST_F(Words, AnUnknownOneGetsTheNearestCommand) {
  const auto run = xhal({"lsit"});
  EXPECT_EQ(run.code, 2);
  EXPECT_THAT(run.err, HasSubstr("did you mean: xhal list"));
  EXPECT_EQ(run.out, "");
  EXPECT_THAT(xhal({"plugins", "docter"}).err, HasSubstr("did you mean: xhal plugins doctor"));
}

TEST_F(Words, OneThatIsNearNothingGetsTheList) {
  for (const auto* word : {"quantum", "nope", "tool", "x"})
    EXPECT_THAT(xhal({word}).err, HasSubstr("there are: list, topo")) << word;
}

TEST_F(Words, AnUnknownOptionIsWrongUsage) {
  const auto run = xhal({"--colour"});
  EXPECT_EQ(run.code, 2);
  EXPECT_THAT(run.err, HasSubstr("see: xhal --help"));
}

TEST_F(Words, WrongUsageOfACommandPointsToItsOwnHelp) {
  EXPECT_THAT(xhal({"list", "--colour"}).err, HasSubstr("see: xhal list --help"));
  EXPECT_THAT(xhal({"reset"}).err, HasSubstr("see: xhal reset --help"));
  EXPECT_THAT(xhal({"plugins", "new"}).err, HasSubstr("see: xhal plugins new --help"));
  EXPECT_THAT(xhal({"plugins"}).err, HasSubstr("see: xhal plugins --help"));
}

TEST_F(Words, WhatIsNoNumberOfSecondsIsRefusedWithTheRange) {
  for (const auto* value : {"nan", "-nan", "inf", "0", "-1", "1e9", "soon", ""}) {
    for (const auto* option : {"--timeout", "--watch"}) {
      const auto run = xhal({"list", option, value});
      EXPECT_EQ(run.code, 2) << option << " " << value;
      EXPECT_THAT(run.err, HasSubstr(option)) << value;
    }
  }
  EXPECT_THAT(xhal({"list", "--timeout", "nan"}).err,
              HasSubstr("there is no value \"nan\"; there are 0.1 to 3600 seconds"));
}

TEST_F(Words, HelpTellsTheWholeRuleOfAName) {
  EXPECT_THAT(xhal({"plugins", "new", "--help"}).out, HasSubstr("a letter first"));
}

TEST_F(Words, JsonIsJsonAlsoForWrongUsage) {
  EXPECT_THAT(json_of(xhal({"lsit", "--json"}).out)["error"], HasSubstr("did you mean"));
  EXPECT_TRUE(json_of(xhal({"list", "--colour", "--json"}).out)["data"].is_null());
}

TEST_F(Words, VersionTellsThePackageAndTheAbiApart) {
  EXPECT_THAT(xhal({"--version"}).out, StartsWith("xhal " XHAL_PACKAGE_VERSION ", ABI 0."));
  const auto json = json_of(xhal({"--version", "--json"}).out);
  EXPECT_EQ(json["data"]["version"], XHAL_PACKAGE_VERSION);
  EXPECT_EQ(json["data"]["abi"], json["abi"]);
  EXPECT_EQ(json["xhal"], XHAL_PACKAGE_VERSION);
}

TEST_F(Words, HelpIsJsonWhenThatIsAskedFor) {
  const auto json = json_of(xhal({"--help", "--json"}).out);
  EXPECT_EQ(json["schema"], "xhal.help/1");
  EXPECT_EQ(json["data"]["commands"][0]["command"], "list");
  EXPECT_THAT(json_of(xhal({"plugins", "new", "--json", "--help"}).out)["data"]["text"],
              HasSubstr("--dir"));
}

TEST_F(Words, WatchRepeatsTheReportOnOneLineEach) {
  add_plugin("fake");
  const auto run = shell("$X list --json --watch 0.1 | head -n 2");
  std::istringstream lines(run.out);
  int reports = 0;
  for (std::string line; std::getline(lines, line); ++reports)
    EXPECT_EQ(json_of(line)["schema"], "xhal.list/1");
  EXPECT_EQ(reports, 2);
}

TEST_F(Words, HelpTeachesAndIsNoFailure) {
  const auto run = xhal({"--help"});
  EXPECT_EQ(run.code, 0);
  EXPECT_THAT(run.out, HasSubstr("Exit status"));
  EXPECT_THAT(run.out, HasSubstr("xhal plugins doctor"));
}

}  // namespace
}  // namespace xhal::tools
