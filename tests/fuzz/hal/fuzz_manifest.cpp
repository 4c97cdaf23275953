// SPDX-License-Identifier: Apache-2.0
// Plugin manifests with a few bytes wrong: each is loaded or skipped with a reason, and a good one
// beside them is always loaded.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "mutate.hpp"
#include "xhal/xhal.hpp"

namespace xhal::fuzz {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kWords = {"null",
                                         "true",
                                         "[]",
                                         "{}",
                                         "{",
                                         "[",
                                         "\"",
                                         "\\",
                                         "\\u0000",
                                         "\\ud800",
                                         "\xff\xfe",
                                         "-1",
                                         "1e999",
                                         "1.5",
                                         "18446744073709551616",
                                         "2147483648",
                                         "0.1",
                                         "\"0.1\"",
                                         "\"65536.1\"",
                                         "\"0.0\"",
                                         ":",
                                         ",",
                                         "\"match\": [\"path:/nowhere\"],",
                                         "\"match\": [],",
                                         "\"isolation\": \"probe\",",
                                         "\"isolation\": 1,",
                                         "\"priority\": 99999999999,",
                                         "\"library_arch\": \"vax\",",
                                         "\"prioritty\": 1,",
                                         "\"match\": [\"usb:1\", 1],",
                                         "\"abi\": {\"min\": 1},",
                                         "\"abi\"",
                                         "\"name\"",
                                         "\"file_format_version\"",
                                         "../",
                                         "/",
                                         std::string(1, '\0'),
                                         std::string(2000, '['),
                                         std::string(500, 'a')};

std::string manifest(const std::string& name, const std::string& library) {
  return R"({"file_format_version": 1, "name": ")" + name +
         R"(", "vendor": "somebody", "library_path": ")" + library +
         R"(", "library_arch": "", "abi": {"min": "0.1", "max": "0.1"}, "match": ["always"],
             "provides": ["core"], "priority": -3, "isolation": "inproc"})";
}

class ManifestFuzz : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "xhal-fuzz-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    setenv("XHAL_PLUGIN_PATH", folder_.c_str(), 1);
    setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& file, const std::string& text) {
    std::ofstream(folder_ / file, std::ios::binary | std::ios::trunc) << text;
    chmod((folder_ / file).c_str(), 0644);
  }
  static std::string str(xhal_string text) { return {text.data, text.size}; }

  // Reads and loads all that is there, and holds every record to the rules.
  void judge(size_t files) {
    const Session session;
    uint32_t count = 0;
    check(xhal_plugin_report(nullptr, 0, &count));
    std::vector<xhal_plugin_info> list(count);
    check(xhal_plugin_report(list.data(), count, &count));
    std::vector<std::string> seen;
    for (const auto& p : list) {
      const auto path = str(p.manifest_path);
      if (!path.starts_with(folder_.string())) continue;
      SCOPED_TRACE(path);
      seen.push_back(path);
      if (p.state == XHAL_PLUGIN_SKIPPED) {
        EXPECT_LT(p.status, 0);
        EXPECT_NE(p.text.size, 0u);
        EXPECT_NE(std::string(xhal_status_name(p.status)), "XHAL_?");
      } else {
        EXPECT_EQ(p.state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED)) << str(p.text);
        const auto name = str(p.name);
        EXPECT_FALSE(name.empty());
        EXPECT_LE(name.size(), 24u);
        EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-"),
                  std::string::npos);
      }
      if (path.ends_with("zz-good.json")) {
        EXPECT_EQ(p.state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED)) << str(p.text);
      }
    }
    EXPECT_EQ(seen.size(), files + 1);
  }

  fs::path folder_;
};

TEST_F(ManifestFuzz, EveryManifestIsLoadedOrSkippedWithAReason) {
  write("zz-good.json", manifest("good", TEMPLATE_PLUGIN));
  constexpr size_t kFiles = 50;
  for (uint64_t round = 0; round < 60 && !HasFailure(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    Random random(round);
    for (size_t i = 0; i < kFiles; ++i) {
      const auto base =
          manifest("a" + std::to_string(i), random.one_in(2) ? "x.so" : TEMPLATE_PLUGIN);
      write("m" + std::to_string(i) + ".json", mutate(random, base, kWords));
    }
    judge(kFiles);
  }
}

TEST_F(ManifestFuzz, EveryTruncationIsSkipped) {
  write("zz-good.json", manifest("good", TEMPLATE_PLUGIN));
  const auto whole = manifest("short", TEMPLATE_PLUGIN);
  for (size_t i = 0; i < whole.size(); ++i)
    write("m" + std::to_string(i) + ".json", whole.substr(0, i));
  judge(whole.size());
}

}  // namespace
}  // namespace xhal::fuzz
