// SPDX-License-Identifier: Apache-2.0
// Who could change what is loaded: every folder on the way to a manifest and a library counts, and
// the file that was judged is the file that is used.
#include <atomic>
#include <thread>

#include "loader_test.hpp"

namespace xhal::test {
namespace {

class TrustTest : public LoaderTest {
 protected:
  // A plugin folder below `folder`, with a good plugin in it, on the search path.
  void add_below(const fs::path& folder) {
    const auto plugins = folder / "plugins";
    fs::create_directories(plugins);
    std::ofstream(plugins / "below.json") << manifest("below", TEMPLATE_PLUGIN);
    setenv("XHAL_PLUGIN_PATH", plugins.c_str(), 1);
  }
  void expect_refused(const std::string& name, const std::string& text) {
    const auto r = report(name);
    EXPECT_EQ(r.state, static_cast<uint32_t>(XHAL_PLUGIN_SKIPPED)) << r.text;
    EXPECT_EQ(r.status, XHAL_ERR_INSECURE) << r.text;
    EXPECT_THAT(r.text, HasSubstr(text));
  }
  // A group that is neither root's nor the user's own; only root may give a folder to it.
  bool give_to_a_group(const fs::path& path) {
    return chown(path.c_str(), static_cast<uid_t>(-1), 54321) == 0;
  }
};

TEST_F(TrustTest, AManifestThatIsACircleOfLinksStopsNobodyElse) {
  fs::create_symlink("loop.json", folder_ / "loop.json");
  expect_skipped("loop", XHAL_ERR_IO, "symbolic links");
}

TEST_F(TrustTest, AMatchRuleThatLeadsIntoACircleOfLinksDoesNotHold) {
  fs::create_symlink("loop", folder_ / "loop");
  write("bad.json", manifest("bad", TEMPLATE_PLUGIN,
                             R"(, "match": ["path:)" + (folder_ / "loop").string() + R"("])"));
  expect_skipped("bad", XHAL_ERR_UNSUPPORTED, "the hardware is not present");
}

TEST_F(TrustTest, AMatchRuleThatCannotBeFollowedDoesNotHold) {
  const auto rule = [](const std::string& path) {
    return R"(, "match": ["path:)" + path + R"("])";
  };
  write("bad.json", manifest("bad", TEMPLATE_PLUGIN, rule("/" + std::string(5000, 'h'))));
  expect_skipped("bad", XHAL_ERR_UNSUPPORTED, "the hardware is not present");
  write("bad.json", manifest("bad", TEMPLATE_PLUGIN, rule("/proc/1/root/nothing/is/here")));
  expect_skipped("bad", XHAL_ERR_UNSUPPORTED, "the hardware is not present");
}

TEST_F(TrustTest, PipesAndEndlessFilesAreNotReadAsManifestsOrLibraries) {
  ASSERT_EQ(mkfifo((folder_ / "pipe.json").c_str(), 0644), 0);
  expect_skipped("pipe", XHAL_ERR_CORRUPT, "is not a regular file");
  fs::create_symlink("/dev/zero", folder_ / "zero.json");
  expect_skipped("zero", XHAL_ERR_INSECURE, "/dev/zero");
  fs::create_directory(folder_ / "folder.json");
  expect_skipped("folder", XHAL_ERR_CORRUPT, "is not a regular file");
  ASSERT_EQ(mkfifo((folder_ / "pipe.so").c_str(), 0755), 0);
  write("bad.json", manifest("bad", "pipe.so"));
  expect_skipped("bad", XHAL_ERR_CORRUPT, "is not a regular file");
}

// Verdicts are a cache: where it cannot be had, plugins are probed each time.
TEST_F(TrustTest, AVerdictFileThatIsNoFileStopsNobody) {
  setenv("XHAL_PROBE", "1", 1);
  fs::create_directories(folder_ / "xhal" / "probe.json");
  add_good();
  EXPECT_EQ(report("template").state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED));
  fs::remove(folder_ / "xhal" / "probe.json");
  ASSERT_EQ(mkfifo((folder_ / "xhal" / "probe.json").c_str(), 0644), 0);
  EXPECT_EQ(report("template").state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED));
}

TEST_F(TrustTest, AnAncestorThatOthersMayWrite) {
  const auto open = folder_ / "open";
  add_below(open);
  EXPECT_EQ(report("below").state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED));
  chmod(open.c_str(), 0777);
  expect_refused("below", "chmod o-w " + open.string());
  // In such a folder only the owner of a file can exchange it.
  chmod(open.c_str(), 01777);
  EXPECT_EQ(report("below").state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED));
}

TEST_F(TrustTest, AFolderThatAGroupMayWrite) {
  const auto open = folder_ / "open";
  add_below(open);
  if (!give_to_a_group(open)) GTEST_SKIP() << "only root can give a folder to another group";
  chmod(open.c_str(), 0775);
  expect_refused("below", "writable by group 54321; run: chmod g-w " + open.string());
  ASSERT_EQ(chown(open.c_str(), static_cast<uid_t>(-1), 0), 0);
  EXPECT_EQ(report("below").state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED)) << "root's own group";
}

TEST_F(TrustTest, AFolderOfAnotherUser) {
  const auto theirs = folder_ / "theirs";
  add_below(theirs);
  if (chown(theirs.c_str(), 54321, static_cast<gid_t>(-1)) != 0)
    GTEST_SKIP() << "only root can give a folder away";
  expect_refused("below", "belongs to user 54321");
}

TEST_F(TrustTest, ALibraryBehindAFolderThatOthersMayWrite) {
  const auto open = folder_ / "open";
  fs::create_directories(open / "lib");
  fs::copy_file(TEMPLATE_PLUGIN, open / "lib" / "x.so");
  // By name and through a link: what counts is where it really is.
  write("direct.json", manifest("direct", (open / "lib" / "x.so").string()));
  fs::create_symlink(open / "lib", folder_ / "link");
  write("linked.json", manifest("linked", "link/x.so"));
  EXPECT_EQ(report("linked").state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED));
  chmod(open.c_str(), 0777);
  expect_refused("direct", "chmod o-w " + open.string());
  expect_refused("linked", "chmod o-w " + open.string());
}

TEST_F(TrustTest, ALibraryThatIsExchangedAfterItWasProbedIsNotUsed) {
  unsetenv("XHAL_TEST_SPITEFUL");
  for (int round = 0; round < 20; ++round) {
    // A new place each time: what is mapped once stays.
    const auto place = "lib" + std::to_string(round);
    fs::create_directory(folder_ / place);
    const auto library = folder_ / place / "x.so";
    const auto good = folder_ / place / "good", bad = folder_ / place / "bad";
    fs::copy_file(TEMPLATE_PLUGIN, good);
    fs::copy_file(SPITEFUL_PLUGIN, bad);
    fs::create_hard_link(good, library);
    write("x.json", manifest("x", library.string(), R"(, "isolation": "probe")"));
    std::atomic<bool> stop{false};
    std::thread exchange([&] {
      const auto next = folder_ / place / "next";
      for (bool use_bad = true; !stop; use_bad = !use_bad) {
        fs::create_hard_link(use_bad ? bad : good, next);
        fs::rename(next, library);
        std::this_thread::yield();
      }
    });
    const auto r = report("x");
    stop = true;
    exchange.join();
    EXPECT_TRUE(r.state == XHAL_PLUGIN_LOADED || r.state == XHAL_PLUGIN_SKIPPED) << r.text;
    EXPECT_EQ(std::getenv("XHAL_TEST_SPITEFUL"), nullptr) << "round " << round << ": " << r.text;
  }
}

}  // namespace
}  // namespace xhal::test
