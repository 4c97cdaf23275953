// SPDX-License-Identifier: Apache-2.0
// loader_test.hpp: a plugin folder of a test's own, and what libxhal says of the plugins in it.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "hal_test.hpp"

namespace xhal::test {

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
    for (const char* name : {"XHAL_PLUGIN_DISABLE", "XHAL_PLUGIN_SELECT", "XHAL_VISIBLE_DEVICES",
                             "XHAL_PROBE", "XHAL_TEST_LISTING"})
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

}  // namespace xhal::test
