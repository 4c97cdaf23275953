// SPDX-License-Identifier: Apache-2.0
// Bad manifests and bad libraries: each is skipped with its own status and a text that says what to
// do; good ones beside them go on working.
#include "loader_test.hpp"

namespace xhal::test {
namespace {

TEST_F(LoaderTest, TruncatedManifest) {
  write("bad.json", manifest("bad", "x.so").substr(0, 40));
  expect_skipped("bad", XHAL_ERR_CORRUPT, "not valid JSON");
}

// Each mistake is named, in our words.
TEST_F(LoaderTest, ManifestsWithAFieldMissingOrWrong) {
  const struct {
    std::string text, said;
  } cases[] = {
      {R"({"file_format_version": 1, "name": "bad", "abi": {"min": "0.1", "max": "0.1"}})",
       "lacks the field \"library_path\""},
      {R"({"file_format_version": 1, "name": "bad", "library_path": "x.so"})",
       "lacks the field \"abi\""},
      {R"({"file_format_version": 1, "name": "bad", "library_path": "x.so", "abi": {"min": "0.1"}})",
       "lacks the field \"abi.max\""},
      {R"({"name": "bad", "library_path": "x.so", "abi": {"min": "0.1", "max": "0.1"}})",
       "lacks the field \"file_format_version\""},
      {manifest("bad", "x.so", R"(, "priority": "high")"),
       "\"priority\" with the wrong type: it must be a whole number, and is a text"},
      {manifest("bad", "x.so", R"(, "priority": 1.5)"), "it must be a whole number"},
      {manifest("bad", "x.so", R"(, "priority": 99999999999)"), "does not fit into 32 bits"},
      {manifest("bad", "x.so", R"(, "match": "always")"),
       "\"match\" with the wrong type: it must be a list of texts, and is a text"},
      {manifest("bad", "x.so", R"(, "match": ["always", 1])"), "each entry must be a text"},
      {manifest("bad", "x.so", R"(, "vendor": ["Acme"])"), "\"vendor\" with the wrong type"},
      {manifest("bad", "x.so", R"(, "isolation": "jail")"), "there are \"inproc\" and \"probe\""},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    write("bad.json", c.text);
    expect_skipped("bad", XHAL_ERR_CORRUPT, c.said);
    EXPECT_THAT(report("bad").text, testing::Not(HasSubstr("exception")));
  }
}

TEST_F(LoaderTest, UnknownKeysAreNamedAndDoNotKeepThePluginOut) {
  write("odd.json", manifest("odd", TEMPLATE_PLUGIN,
                             R"(, "prioritty": 7, "colour": "red", "match": ["always", "usb:1"])"));
  const auto r = report("odd");
  EXPECT_EQ(r.state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED)) << r.text;
  EXPECT_THAT(r.text, HasSubstr("\"prioritty\" is ignored; did you mean \"priority\"?"));
  EXPECT_THAT(r.text, HasSubstr("\"colour\" is ignored"));
  EXPECT_THAT(r.text, HasSubstr("\"usb:1\" never holds"));
}

TEST_F(LoaderTest, ManifestOfAnotherFormat) {
  write(
      "bad.json",
      R"({"file_format_version": 7, "name": "bad", "library_path": "x.so", "abi": {"min": "0.1", "max": "0.1"}})");
  expect_skipped("bad", XHAL_ERR_CORRUPT, "file_format_version 7");
}

TEST_F(LoaderTest, ManifestThatIsHuge) {
  write("bad.json", std::string(100'000, ' '));
  expect_skipped("bad", XHAL_ERR_CORRUPT, "64 KiB");
}

TEST_F(LoaderTest, ManifestWithAnImpossibleName) {
  write("bad.json", manifest("Bad Name!", "x.so"));
  expect_skipped("Bad Name!", XHAL_ERR_CORRUPT, "a-z");
}

TEST_F(LoaderTest, ManifestThatOthersMayWrite) {
  chmod(write("bad.json", manifest("bad", TEMPLATE_PLUGIN)).c_str(), 0666);
  expect_skipped("bad", XHAL_ERR_INSECURE, "chmod o-w");
}

TEST_F(LoaderTest, DirectoryThatOthersMayWrite) {
  write("bad.json", manifest("bad", TEMPLATE_PLUGIN));
  chmod(folder_.c_str(), 0777);
  const auto r = report("bad");
  EXPECT_EQ(r.status, XHAL_ERR_INSECURE) << r.text;
  EXPECT_THAT(r.text, HasSubstr("chmod o-w"));
}

TEST_F(LoaderTest, LibraryThatOthersMayWrite) {
  chmod(write("bad.so", bytes_of(TEMPLATE_PLUGIN)).c_str(), 0777);
  write("bad.json", manifest("bad", "bad.so"));
  expect_skipped("bad", XHAL_ERR_INSECURE, "chmod o-w");
}

TEST_F(LoaderTest, LibraryThatIsNotThere) {
  write("bad.json", manifest("bad", "nowhere.so"));
  expect_skipped("bad", XHAL_ERR_NOT_FOUND, "install the plugin's library");
}

TEST_F(LoaderTest, LibraryThatIsText) {
  write("bad.so",
        "#!/bin/sh\necho this is no library, whatever its name says, and it is longer than a "
        "header\n");
  write("bad.json", manifest("bad", "bad.so"));
  expect_skipped("bad", XHAL_ERR_CORRUPT, "not an ELF library");
}

TEST_F(LoaderTest, LibraryThatIsTruncatedAnywhere) {
  const std::string whole = bytes_of(TEMPLATE_PLUGIN);
  write("bad.json", manifest("bad", "bad.so"));
  add_good();
  for (const size_t length :
       {size_t{0}, size_t{10}, size_t{64}, size_t{1000}, whole.size() / 2, whole.size() - 1}) {
    write("bad.so", whole.substr(0, length));
    const auto r = report("bad");
    EXPECT_EQ(r.state, static_cast<uint32_t>(XHAL_PLUGIN_SKIPPED)) << length;
    EXPECT_EQ(r.status, XHAL_ERR_CORRUPT) << length << ": " << r.text;
  }
}

TEST_F(LoaderTest, LibraryOfAnotherMachine) {
  std::string bytes = bytes_of(TEMPLATE_PLUGIN);
  bytes[18] = static_cast<char>(0xb7);  // e_machine: aarch64
  bytes[19] = 0;
  write("bad.so", bytes);
  write("bad.json", manifest("bad", "bad.so"));
  expect_skipped("bad", XHAL_ERR_CORRUPT, "aarch64");
}

TEST_F(LoaderTest, LibraryWithoutTheEntryPoint) {
  write("bad.json", manifest("bad", NO_ENTRY_PLUGIN));
  expect_skipped("bad", XHAL_ERR_PLUGIN, "xhal_plugin_negotiate");
}

TEST_F(LoaderTest, LibraryWithAnUndefinedSymbol) {
  write("bad.json", manifest("bad", UNDEFINED_PLUGIN));
  expect_skipped("bad", XHAL_ERR_CORRUPT, "function_that_nobody_has");
}

TEST_F(LoaderTest, ManifestOfAnotherAbi) {
  write("bad.json", R"({"file_format_version": 1, "name": "bad", "library_path": ")" TEMPLATE_PLUGIN
                    R"(", "abi": {"min": "7.0", "max": "7.3"}})");
  expect_skipped("bad", XHAL_ERR_VERSION, "7.0-7.3");
}

TEST_F(LoaderTest, LibraryThatSpeaksAnotherAbiThanItsManifestSays) {
  write("bad.json", manifest("bad", OTHER_ABI_PLUGIN));
  expect_skipped("bad", XHAL_ERR_VERSION, "speaks ABI 7.0-7.3");
}

TEST_F(LoaderTest, LibraryWithAnIncompleteTable) {
  write("bad.json", manifest("bad", EMPTY_TABLE_PLUGIN));
  expect_skipped("bad", XHAL_ERR_PLUGIN, "incomplete table");
}

TEST_F(LoaderTest, LibraryThatCrashesInItsConstructorTakesOnlyTheProbeWithIt) {
  write("bad.json", manifest("bad", CRASHING_PLUGIN, R"(, "isolation": "probe")"));
  expect_skipped("bad", XHAL_ERR_PLUGIN, "crashed");
  EXPECT_TRUE(fs::exists(folder_ / "xhal" / "probe.json")) << "the verdict is remembered";
  EXPECT_EQ(report("bad").status, XHAL_ERR_PLUGIN);
}

TEST_F(LoaderTest, TheProbeCanBeAskedForByTheEnvironment) {
  setenv("XHAL_PROBE", "1", 1);
  write("bad.json", manifest("bad", CRASHING_PLUGIN));
  expect_skipped("bad", XHAL_ERR_PLUGIN, "crashed");
}

TEST_F(LoaderTest, TwoManifestsOfOneName) {
  write("a.json", manifest("twice", TEMPLATE_PLUGIN));
  write("b.json", manifest("twice", TEMPLATE_PLUGIN));
  Session session;
  std::vector<xhal_plugin_info> list(8);
  uint32_t count = 0;
  check(xhal_plugin_report(list.data(), 8, &count));
  ASSERT_GE(count, 2u);
  EXPECT_EQ(list[0].state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED));
  EXPECT_EQ(list[1].status, XHAL_ERR_BUSY);
}

TEST_F(LoaderTest, DisableAndSelectAreGlobs) {
  add_good();
  setenv("XHAL_PLUGIN_DISABLE", "temp*", 1);
  EXPECT_EQ(report("template").state, static_cast<uint32_t>(XHAL_PLUGIN_DISABLED));
  unsetenv("XHAL_PLUGIN_DISABLE");
  setenv("XHAL_PLUGIN_SELECT", "cpu,n*", 1);
  EXPECT_EQ(report("template").state, static_cast<uint32_t>(XHAL_PLUGIN_DISABLED));
}

TEST_F(LoaderTest, VisibleDevicesSelectAndOrder) {
  add_good();
  setenv("XHAL_VISIBLE_DEVICES", "template:0", 1);
  {
    Session session;
    EXPECT_EQ(devices().size(), 1u);
  }
  setenv("XHAL_VISIBLE_DEVICES", "template:3", 1);
  Session session;
  uint32_t count = 0;
  EXPECT_EQ(xhal_enumerate(0, nullptr, 0, &count), XHAL_ERR_NOT_FOUND);
  EXPECT_THAT(error_text(), HasSubstr("template:3"));
  EXPECT_THAT(error_text(), HasSubstr("There are: template:0"));
  EXPECT_OK(xhal_enumerate(XHAL_ENUMERATE_ALL, nullptr, 0, &count));
  EXPECT_GE(count, 1u);
}

TEST_F(LoaderTest, AnEmptyVisibleDevicesHidesThemAll) {
  add_good();
  setenv("XHAL_VISIBLE_DEVICES", "", 1);
  const Session session;
  EXPECT_EQ(devices().size(), 0u);
  uint32_t count = 0;
  EXPECT_OK(xhal_enumerate(XHAL_ENUMERATE_ALL, nullptr, 0, &count));
  ASSERT_GE(count, 1u);
  std::vector<xhal_device_info> all(count);
  EXPECT_OK(xhal_enumerate(XHAL_ENUMERATE_ALL, all.data(), count, &count));
  EXPECT_EQ(all[0].index, UINT32_MAX);
}

TEST_F(LoaderTest, EnumerationLeavesNoThreadAndNoDescriptor) {
  add_good();
  const auto open_files = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto threads = [] {
    return std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator());
  };
  report("template");  // whatever is lazy in the C library has happened now
  const auto files = open_files(), tasks = threads();
  report("template");
  EXPECT_EQ(open_files(), files);
  EXPECT_EQ(threads(), tasks);
}

}  // namespace
}  // namespace xhal::test
