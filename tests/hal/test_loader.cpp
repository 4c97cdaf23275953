// Bad manifests and bad libraries: each is skipped with its own status and a text that says what to
// do; good ones beside them go on working.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "hal_test.hpp"

namespace xhal::test {
namespace {

namespace fs = std::filesystem;

class LoaderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "xhal-loader-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    setenv("XHAL_PLUGIN_PATH", folder_.c_str(), 1);
    setenv("XHAL_LOG", "off", 1);
    setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  }
  void TearDown() override {
    for (const char* name :
         {"XHAL_PLUGIN_DISABLE", "XHAL_PLUGIN_SELECT", "XHAL_VISIBLE_DEVICES", "XHAL_PROBE"})
      unsetenv(name);
    fs::remove_all(folder_);
  }

  fs::path write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    chmod((folder_ / name).c_str(), 0644);
    return folder_ / name;
  }
  static std::string manifest(const std::string& name, const std::string& library,
                              const std::string& more = "") {
    return R"({"file_format_version": 1, "name": ")" + name + R"(", "library_path": ")" + library +
           R"(", "abi": {"min": "0.1", "max": "0.1"})" + more + "}";
  }
  static std::string bytes_of(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // A good plugin beside the bad one.
  void add_good() { write("good.json", manifest("template", TEMPLATE_PLUGIN)); }

  struct Report {
    uint32_t state;
    xhal_status status;
    std::string text;
  };
  Report report(const std::string& name) {
    Session session;
    uint32_t count = 0;
    check(xhal_plugin_report(nullptr, 0, &count));
    std::vector<xhal_plugin_info> list(count);
    check(xhal_plugin_report(list.data(), count, &count));
    for (const auto& p : list) {
      if (std::string(p.name.data, p.name.size) == name) {
        return {p.state, p.status,
                std::string(p.text.data == nullptr ? "" : p.text.data, p.text.size)};
      }
    }
    return {99, XHAL_ERR_NOT_FOUND, "no such plugin was found"};
  }
  void expect_skipped(const std::string& name, xhal_status status, const std::string& text) {
    add_good();
    const auto r = report(name);
    EXPECT_EQ(r.state, static_cast<uint32_t>(XHAL_PLUGIN_SKIPPED)) << r.text;
    EXPECT_EQ(r.status, status) << xhal_status_name(r.status) << ": " << r.text;
    EXPECT_THAT(r.text, HasSubstr(text));
    EXPECT_EQ(report("template").state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED))
        << "a bad neighbour must not matter";
  }

  fs::path folder_;
};

TEST_F(LoaderTest, TruncatedManifest) {
  write("bad.json", manifest("bad", "x.so").substr(0, 40));
  expect_skipped("bad", XHAL_ERR_CORRUPT, "not valid JSON");
}

TEST_F(LoaderTest, ManifestWithoutALibrary) {
  write("bad.json",
        R"({"file_format_version": 1, "name": "bad", "abi": {"min": "0.1", "max": "0.1"}})");
  expect_skipped("bad", XHAL_ERR_CORRUPT, "library_path");
}

TEST_F(LoaderTest, ManifestWithAWrongType) {
  write("bad.json", manifest("bad", "x.so", R"(, "priority": "high")"));
  expect_skipped("bad", XHAL_ERR_CORRUPT, "wrong type");
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
