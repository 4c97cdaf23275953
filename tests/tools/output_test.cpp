// SPDX-License-Identifier: Apache-2.0
// An answer that cannot be written is no answer: every command says so by its exit status.
#include "tool_test.hpp"

namespace xhal::tools {
namespace {

using testing::HasSubstr;

class Output : public ToolTest {
 protected:
  void SetUp() override {
    ToolTest::SetUp();
    add_plugin("fake");
  }
};

constexpr const char* kCommands[] = {"$X",
                                     "$X list",
                                     "$X list --json",
                                     "$X list --watch 0.1",
                                     "$X topo",
                                     "$X topo --tree --json",
                                     "$X plugins list",
                                     "$X plugins doctor",
                                     "$X plugins new acme --dir $FOLDER/$RANDOM",
                                     "$X nosuch --json",
                                     "$X --help",
                                     "$X --version",
                                     "$X --version --json",
                                     "$C --help",
                                     "$C --list",
                                     "$C --plugin fake --filter Timeline.OnlyGrows"};

TEST_F(Output, AFullOrClosedOneIsAnExitStatus) {
  for (const std::string command : kCommands) {
    for (const std::string to : {" > /dev/full", " >&-"}) {
      const auto run = shell(command + to);
      EXPECT_EQ(run.end, ProcessResult::End::exited) << command << to;
      EXPECT_EQ(run.code, 2) << command << to << run.err;
      EXPECT_THAT(run.err, HasSubstr("could not be written to standard output")) << command << to;
    }
  }
}

TEST_F(Output, AFileSizeLimitIsAnExitStatusAndNoSignal) {
  for (const std::string command :
       {"$X list", "$X list --json", "$X plugins doctor", "$C --list"}) {
    const auto run = shell("ulimit -f 0; " + command + " > $FOLDER/out");
    EXPECT_EQ(run.code, 2) << command << run.err;
    EXPECT_THAT(run.err, HasSubstr("could not be written")) << command;
  }
}

TEST_F(Output, AClosedOrFullStandardErrorChangesNothing) {
  for (const std::string away : {" 2>&-", " 2> /dev/full", " <&- 2>&-"}) {
    const auto run = shell("$X list --json" + away);
    EXPECT_EQ(run.code, 0) << away;
    EXPECT_TRUE(json_of(run.out).is_object()) << away;
  }
}

TEST_F(Output, NoFileIsTakenForAClosedStandardOutput) {
  const auto run = shell("$X list --json <&- 2>&- > $FOLDER/out; cat $FOLDER/out");
  EXPECT_TRUE(json_of(run.out).is_object());
}

}  // namespace
}  // namespace xhal::tools
