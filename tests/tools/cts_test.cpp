// SPDX-License-Identifier: Apache-2.0
// xhal-cts as a program: its words, its waivers, its report, and plugins that crash under it.
#include <fstream>
#include <set>
#include <sstream>

#include "tool_test.hpp"

namespace xhal::tools {
namespace {

using testing::HasSubstr;

class Cts : public ToolTest {
 protected:
  // Two tests that pass on any plugin, the fake one included.
  const Words two_ = {"--plugin", "fake", "--filter",
                      "Timeline.OnlyGrows,Timeline.StandsAtItsInitialValue"};

  Words with(Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  std::string waivers(const std::string& test, const std::string& kind, const std::string& reason) {
    const nlohmann::json file = {
        {"waivers", {{{"test", test}, {"kind", kind}, {"reason", reason}}}}};
    return add_file("waivers.txt", file.dump()).string();
  }
  nlohmann::json report(const Words& words, int code, const Variables& variables = {}) {
    const auto file = (folder_ / "report.txt").string();
    const auto run = cts(with(words, {"--json", file}), variables);
    EXPECT_EQ(run.code, code) << run.out << run.err;
    std::ifstream in(file);
    return json_of({std::istreambuf_iterator<char>(in), {}});
  }
};

TEST_F(Cts, ReportCountsAndNamesEveryTest) {
  add_plugin("fake");
  const auto json = report(two_, 0);
  EXPECT_EQ(json["plugin"], "fake");
  EXPECT_EQ(json["profile"], "core");
  EXPECT_EQ(json["build"], "fake 1.0");
  EXPECT_EQ(json["verdict"], "pass");
  EXPECT_EQ(json["passed"], 2);
  EXPECT_EQ(json["failed"], 0);
  EXPECT_EQ(json["waived"], 0);
  EXPECT_EQ(json["skipped"], 0);
  EXPECT_EQ(json["tests"].size(), 2u);
}

TEST_F(Cts, TakesALibraryWithoutAManifest) {
  EXPECT_EQ(cts({"--plugin", XHAL_FAKE_PLUGIN, "--filter", "Timeline.OnlyGrows"}).code, 0);
}

TEST_F(Cts, AFailureIsAFailure) {
  add_plugin("fake");
  const auto json = report({"--plugin", "fake", "--filter", "Memory.HoldsWhatIsWrittenToIt"}, 1);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_THAT(json["tests"][0]["reason"], HasSubstr("has no memory"));
}

TEST_F(Cts, AWaivedFailureIsNone) {
  add_plugin("fake");
  const auto file = waivers("Memory.HoldsWhatIsWrittenToIt", "xfail", "no memory yet");
  const auto json = report({"--plugin", "fake", "--filter",
                            "Memory.HoldsWhatIsWrittenToIt,Timeline.OnlyGrows", "--waivers", file},
                           0);
  EXPECT_EQ(json["waived"], 1);
  EXPECT_EQ(json["passed"], 1);
}

TEST_F(Cts, WaivedFailuresAloneAreNoPass) {
  add_plugin("fake");
  const auto file = waivers("Memory.*", "xfail", "no memory yet");
  const auto json = report(
      {"--plugin", "fake", "--filter", "Memory.HoldsWhatIsWrittenToIt", "--waivers", file}, 1);
  EXPECT_EQ(json["waived"], 1);
  EXPECT_EQ(json["failed"], 0);
}

TEST_F(Cts, AnUnexpectedPassFails) {
  add_plugin("fake");
  const auto json = report(
      with(two_, {"--waivers", waivers("Timeline.OnlyGrows", "xfail", "shrinks on Fridays")}), 1);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_THAT(json["tests"].dump(), HasSubstr("shrinks on Fridays"));
  EXPECT_THAT(json["tests"].dump(), HasSubstr("remove the waiver"));
}

TEST_F(Cts, AWaiverNeedsAReasonAndAKnownKind) {
  add_plugin("fake");
  EXPECT_THAT(cts(with(two_, {"--waivers", waivers("a", "xfail", "")})).err,
              HasSubstr("has no \"reason\""));
  EXPECT_THAT(cts(with(two_, {"--waivers", waivers("a", "maybe", "b")})).err,
              HasSubstr("neither unsupported nor xfail"));
  EXPECT_EQ(cts(with(two_, {"--waivers", "/no/such/file"})).code, 2);
}

TEST_F(Cts, WaiversThatAreNoFileAreWrongUsageAndHaveAReport) {
  add_plugin("fake");
  for (const std::string& path : {folder_.string(), std::string("/dev/null")}) {
    const auto json = report(with(two_, {"--waivers", path}), 2);
    EXPECT_EQ(json["verdict"], "not judged");
    EXPECT_THAT(json["problem"], HasSubstr(path + ": is no regular file"));
  }
}

TEST_F(Cts, APathThatIsTooLongIsWrongUsage) {
  const auto run = cts({"--plugin", "./" + std::string(5000, 'a') + ".so"});
  EXPECT_EQ(run.code, 2);
  EXPECT_THAT(run.err, HasSubstr("xhal-cts: "));
}

TEST_F(Cts, ATimeoutThatIsNoNumberOfSecondsIsWrongUsage) {
  add_plugin("fake");
  for (const char* wrong : {"nan", "-nan", "inf", "0", "-1", "1e9", "soon", "0.09"}) {
    const auto run = cts(with(two_, {"--timeout", wrong}));
    EXPECT_EQ(run.code, 2) << wrong;
    EXPECT_THAT(run.err, HasSubstr("--timeout")) << wrong;
  }
}

TEST_F(Cts, ARefusalWithoutAWaiverFailsTheTrainingProfile) {
  add_plugin("fake");
  const Words training = {"--plugin", "fake",     "--profile",
                          "training", "--filter", "gelu/f32/plain"};
  const auto refused = report(training, 1);
  EXPECT_EQ(refused["failed"], 1);
  EXPECT_THAT(refused["tests"][0]["reason"], HasSubstr("refused"));
  const auto waived =
      report(with(training, {"--waivers", waivers("gelu/*", "unsupported", "no operators")}), 1);
  EXPECT_EQ(waived["waived"], 1);
  EXPECT_EQ(waived["failed"], 0);
}

TEST_F(Cts, ACrashFailsItsTestAndTheSuiteGoesOn) {
  add_plugin("fake");
  const auto json = report(
      {"--plugin", "fake", "--filter", "Memory.HoldsWhatIsWrittenToIt,Memory.SizeZeroIsRefused"}, 1,
      {{"XHAL_TEST_FAKE", "fatal"}});
  EXPECT_EQ(json["failed"], 1);
  EXPECT_EQ(json["passed"], 1);
  EXPECT_THAT(json["tests"].dump(), HasSubstr("crashed: signal 6"));
}

// The listed tests that the report does not have; none is ever missing.
std::vector<std::string> missing_from(const nlohmann::json& report, const std::string& listed) {
  std::set<std::string> seen;
  for (const auto& test : report["tests"]) seen.insert(test["name"].get<std::string>());
  std::vector<std::string> missing;
  std::istringstream lines(listed);
  for (std::string name; std::getline(lines, name);) {
    if (seen.count(name) == 0) missing.push_back(name);
  }
  return missing;
}

TEST_F(Cts, APluginThatCrashesOrHangsAtItsStartFailsEveryListedTestByName) {
  add_plugin("fake");
  const auto listed = cts({"--list"}).out;
  for (const auto& [manner, told] :
       {std::pair("crash", "crashed: signal 6"), std::pair("hang", "did not end within 2 s")}) {
    const auto json =
        report({"--plugin", "fake", "--timeout", "2"}, 1, {{"XHAL_TEST_FAKE", manner}});
    EXPECT_EQ(json["verdict"], "fail");
    EXPECT_THAT(missing_from(json, listed), testing::IsEmpty());
    EXPECT_EQ(json["failed"], json["tests"].size());
    EXPECT_THAT(json["tests"][0]["reason"], HasSubstr(told));
    EXPECT_THAT(json["tests"][0]["contract"], HasSubstr("xhal/plugin.h"));
  }
}

TEST_F(Cts, AFailureNamesTheContractAndItsHeader) {
  add_plugin("fake");
  const auto run = cts({"--plugin", "fake", "--filter", "Memory.HoldsWhatIsWrittenToIt"});
  EXPECT_THAT(run.out,
              HasSubstr("the contract, xhal/memory.h (xhal_memory_alloc, xhal_memory_free): an "
                        "allocation is the caller's alone"));
}

// xhal/xhal.h is named where nobody has written down what a test asks for.
TEST_F(Cts, EveryFailureHasAContractOfItsOwn) {
  add_plugin("fake");
  const auto json = report({"--plugin", "fake"}, 1);
  EXPECT_GT(json["failed"], 100) << "the fake plugin can do next to nothing";
  for (const auto& test : json["tests"]) {
    if (test["status"] != "failed") continue;
    EXPECT_THAT(test["contract"], testing::Not(HasSubstr("the contract, xhal/xhal.h:")))
        << test["name"] << ": add it to conformance/harness/contracts.cpp";
  }
}

TEST_F(Cts, AnAbruptEndTellsHowToLookAtIt) {
  add_plugin("fake");
  const auto run = cts({"--plugin", "fake", "--filter", "Memory.HoldsWhatIsWrittenToIt"},
                       {{"XHAL_TEST_FAKE", "fatal"}});
  EXPECT_THAT(run.out, HasSubstr("gdb --args xhal-cts --plugin fake --profile core --filter "
                                 "'Memory.HoldsWhatIsWrittenToIt' --in-process"));
}

TEST_F(Cts, AbsentHardwareIsNoVerdictAndHasAReport) {
  add_plugin("fake", {}, {{"match", {"path:/there/is/no/such/card"}}});
  const auto json = report(two_, 3);
  EXPECT_EQ(json["verdict"], "no device");
  EXPECT_THAT(json["problem"], HasSubstr("the hardware is not present"));
}

TEST_F(Cts, APluginThatDoesNotLoadHasAReport) {
  add_plugin("fake");
  const auto json = report({"--plugin", "fake"}, 1, {{"XHAL_TEST_FAKE", "old"}});
  EXPECT_EQ(json["verdict"], "fail");
  EXPECT_THAT(json["problem"], HasSubstr("speaks ABI 7.0"));
}

TEST_F(Cts, APluginThatIsNotThereIsWrongUsage) {
  const auto run = cts({"--plugin", "nosuch"});
  EXPECT_EQ(run.code, 2);
  EXPECT_THAT(run.err, HasSubstr("xhal plugins list"));
}

TEST_F(Cts, APluginThatDoesNotLoadFails) {
  add_plugin("fake");
  const auto run = cts({"--plugin", "fake"}, {{"XHAL_TEST_FAKE", "old"}});
  EXPECT_EQ(run.code, 1);
  EXPECT_THAT(run.err, HasSubstr("speaks ABI 7.0"));
}

TEST_F(Cts, APluginWithoutADeviceHereCannotBeJudged) {
  add_plugin("fake");
  EXPECT_EQ(cts({"--plugin", "fake"}, {{"XHAL_TEST_FAKE", "none"}}).code, 3);
}

TEST_F(Cts, ListsTheNamesThatFiltersMatch) {
  const auto core = cts({"--list"}),
             training = cts({"--list", "--profile", "training", "--filter", "gelu_grad"});
  EXPECT_EQ(core.code, 0);
  EXPECT_GE(std::count(core.out.begin(), core.out.end(), '\n'), 80);
  EXPECT_THAT(core.out, testing::StartsWith("Basics.")) << "what all others stand on is run first";
  EXPECT_THAT(training.out, HasSubstr("gelu_grad/bf16/strided\n"));
}

TEST_F(Cts, AFilterThatMatchesNothingIsNoPass) {
  add_plugin("fake");
  const auto run = cts({"--plugin", "fake", "--filter", "NoSuchTest"});
  EXPECT_EQ(run.code, 1);
  EXPECT_THAT(run.out, HasSubstr("--list"));
}

TEST_F(Cts, AnUnknownProfileIsWrongUsage) {
  EXPECT_EQ(cts({"--plugin", "fake", "--profile", "hardest"}).code, 2);
}

}  // namespace
}  // namespace xhal::tools
