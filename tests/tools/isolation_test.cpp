// SPDX-License-Identifier: Apache-2.0
// Plugins that crash, hang, end the process or print, wherever they are called: the tools name them
// and show the others.
#include "tool_test.hpp"

namespace xhal::tools {
namespace {

using testing::HasSubstr;
using testing::Not;

class Isolation : public ToolTest {
 protected:
  void SetUp() override {
    ToolTest::SetUp();
    add_plugin("fake");
    add_plugin("fake_bad");
  }
  // The commands that ask plugins, with fake_bad as it is told to be.
  ProcessResult ask(Words words, const std::string& manner) {
    words.insert(words.end(), {"--timeout", "2"});
    return xhal(words, {{"XHAL_TEST_FAKE", "fake_bad:" + manner}});
  }
};

// Loading a plugin is negotiation and enumeration.
class BadLoad : public Isolation, public testing::WithParamInterface<const char*> {};

TEST_P(BadLoad, ListShowsTheOthersAndNamesTheBadOne) {
  const auto run = ask({"list"}, GetParam());
  EXPECT_EQ(run.code, 1) << run.out << run.err;
  EXPECT_THAT(run.out, HasSubstr("fake:0"));
  EXPECT_THAT(run.out, HasSubstr("when it was loaded"));
  const auto json = json_of(ask({"list", "--json"}, GetParam()).out);
  EXPECT_EQ(json["data"]["devices"].size(), 1u);
  EXPECT_EQ(json["data"]["broken_plugins"][0]["plugin"], "fake_bad");
}

TEST_P(BadLoad, PluginsListHasARowForIt) {
  const auto run = ask({"plugins", "list", "--json"}, GetParam());
  EXPECT_EQ(run.code, 1);
  std::map<std::string, std::string> states;
  const auto json = json_of(run.out);
  for (const auto& p : json["data"]["plugins"]) states[p["name"]] = p["state"];
  EXPECT_EQ(states["fake"], "loaded");
  EXPECT_EQ(states["fake_bad"], std::string(GetParam()).ends_with("hang") ? "hangs" : "crashed");
}

TEST_P(BadLoad, DoctorSaysWhatHappenedAndThatTheOtherIsUsable) {
  const auto run = ask({"plugins", "doctor", "--json"}, GetParam());
  EXPECT_EQ(run.code, 1);
  const auto json = json_of(run.out);
  EXPECT_GE(json["data"]["plugins"].size(), 2u);
  for (const auto& p : json["data"]["plugins"]) {
    EXPECT_EQ(p["usable"], p["name"] == "fake") << p.dump(2);
  }
}

TEST_P(BadLoad, TopoPlacesTheOthers) {
  const auto run = ask({"topo", "--json"}, GetParam());
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(json_of(run.out)["data"]["devices"].size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(Tools, BadLoad,
                         testing::Values("crash", "abort", "exit", "hang", "enumerate-abort",
                                         "enumerate-exit", "enumerate-hang"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

class BadOpen : public Isolation, public testing::WithParamInterface<const char*> {};

TEST_P(BadOpen, TheDevicesRowSaysItAndTheOthersAreShown) {
  const auto run = ask({"list", "--json"}, GetParam());
  EXPECT_EQ(run.code, 1) << run.err;
  std::map<std::string, nlohmann::json> devices;
  const auto json = json_of(run.out);
  for (const auto& d : json["data"]["devices"]) devices[d["id"]] = d;
  EXPECT_EQ(devices["fake_bad:0"]["health"], "error");
  EXPECT_THAT(devices["fake_bad:0"]["error"], HasSubstr("when it was opened"));
  EXPECT_EQ(devices["fake_bad:1"]["health"], "degraded") << "it was looked at all the same";
  EXPECT_EQ(devices["fake:0"]["health"], "ok");
}

TEST_P(BadOpen, DoctorOpensDevices) {
  const auto run = ask({"plugins", "doctor"}, GetParam());
  EXPECT_EQ(run.code, 1);
  EXPECT_THAT(run.out, HasSubstr("fake_bad:0: "));
  EXPECT_THAT(run.out, HasSubstr("1 of 2 usable"));
}

INSTANTIATE_TEST_SUITE_P(Tools, BadOpen, testing::Values("open-abort", "open-exit", "open-hang"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST_F(Isolation, ACrashAtShutdownIsAFindingAndEverythingIsShown) {
  const auto run = ask({"list"}, "shutdown-abort");
  EXPECT_EQ(run.code, 1);
  EXPECT_THAT(run.out, HasSubstr("fake:0"));
  EXPECT_THAT(run.out, HasSubstr("fake_bad:0"));
  EXPECT_THAT(run.err, HasSubstr("when it was shut down"));
}

TEST_F(Isolation, APluginThatPrintsSpoilsNoAnswer) {
  for (const auto& words :
       {Words{"list", "--json"}, Words{"topo", "--json"}, Words{"plugins", "list", "--json"},
        Words{"plugins", "doctor", "--json"}}) {
    const auto run = ask(words, "prints");
    EXPECT_EQ(run.code, 0) << run.out << run.err;
    EXPECT_TRUE(json_of(run.out).is_object());
  }
  EXPECT_THAT(ask({"list"}, "prints").out, Not(HasSubstr("talks")));
}

TEST_F(Isolation, AVisibleDeviceOfABrokenPluginIsExplained) {
  const auto run = xhal(
      {"list"}, {{"XHAL_TEST_FAKE", "fake_bad:abort"}, {"XHAL_VISIBLE_DEVICES", "fake_bad:0"}});
  EXPECT_EQ(run.code, 3);
  EXPECT_THAT(run.err, HasSubstr("Plugin fake_bad crashed"));
}

class Control : public ToolTest {
 protected:
  void SetUp() override {
    ToolTest::SetUp();
    add_plugin("fake");
  }
  const Variables able_ = {{"XHAL_TEST_FAKE", "control"}};
};

TEST_F(Control, ResetDoesItAndSaysSo) {
  const auto run = xhal({"reset", "fake:0", "--yes"}, able_);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("fake:0 was reset"));
  EXPECT_EQ(json_of(xhal({"reset", "fake:0", "--yes", "--json"}, able_).out)["data"]["reset"],
            true);
}

TEST_F(Control, NothingIsDoneWhenNobodyCanBeAsked) {
  const auto run = xhal({"reset", "fake:0"}, able_);
  EXPECT_EQ(run.code, 2);
  EXPECT_THAT(run.err, HasSubstr("--yes"));
  EXPECT_EQ(xhal({"inject", "fake:0", "lost"}, able_).code, 2);
}

TEST_F(Control, APluginWithoutItIsNamed) {
  const auto reset = xhal({"reset", "fake:0", "--yes"});
  EXPECT_EQ(reset.code, 1);
  EXPECT_THAT(reset.err, HasSubstr("cannot be reset: plugin fake offers none"));
  EXPECT_THAT(xhal({"inject", "fake:0", "lost", "--yes"}).err,
              HasSubstr("plugin fake injects none"));
}

TEST_F(Control, AnUnknownDeviceGetsTheNearest) {
  const auto run = xhal({"reset", "fake:7", "--yes"}, able_);
  EXPECT_EQ(run.code, 3);
  EXPECT_THAT(run.err, HasSubstr("did you mean fake:0?"));
}

TEST_F(Control, OnlyFaultsThatTheDeviceHasAreInjected) {
  EXPECT_THAT(xhal({"inject", "fake:0", "lost", "--yes"}, able_).out,
              HasSubstr("\"lost\" was injected"));
  const auto asked = xhal({"inject", "fake:0"}, able_);
  EXPECT_EQ(asked.code, 0) << asked.err;
  EXPECT_THAT(asked.out, HasSubstr("injects `lost`"));
  EXPECT_THAT(asked.out, testing::Not(HasSubstr("not `")));
  const auto unknown = xhal({"inject", "fake:0", "fire", "--yes"}, able_);
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("injects `lost`"));
}

// The cpu plugin itself: its faults and resets never leave the process that asks for them.
TEST_F(Control, WhereNobodyElseWouldNoticeNothingIsSaidToBeDone) {
  selected_ = "cpu";
  for (const auto& words :
       {Words{"reset", "cpu:0", "--yes"}, Words{"inject", "cpu:0", "lost", "--yes"},
        Words{"inject", "cpu:0", "operation", "--yes"}}) {
    const auto run = xhal(words);
    EXPECT_EQ(run.code, 1) << run.out;
    EXPECT_EQ(run.out, "");
    EXPECT_THAT(run.err, HasSubstr("in the process that opened it"));
    EXPECT_THAT(run.err, HasSubstr("end its process")) << "what to do instead";
  }
  EXPECT_THAT(xhal({"reset", "cpu:0", "--yes"}).err, HasSubstr("cpu:0 was not reset: "));
  EXPECT_THAT(xhal({"inject", "cpu:0"}).out, HasSubstr("`lost` and `operation`"));
  EXPECT_EQ(xhal({"inject", "cpu:0", "fire", "--yes"}).code, 2);
}

}  // namespace
}  // namespace xhal::tools
