// SPDX-License-Identifier: Apache-2.0
// A plugin that answers anything at negotiation, enumeration and opening: it is loaded when its
// answers are whole, else skipped with a reason; its device opens or gives a typed error; and the
// plugin beside it goes on.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "hostile.hpp"
#include "xhal/xhal.hpp"

namespace xhal::fuzz {
namespace {

namespace fs = std::filesystem;

class NegotiationFuzz : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "xhal-fuzz-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    setenv("XHAL_PLUGIN_PATH", folder_.c_str(), 1);
    write("hostile", HOSTILE_PLUGIN);
    write("template", TEMPLATE_PLUGIN);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& library) {
    const auto file = folder_ / (name + ".json");
    std::ofstream(file) << R"({"file_format_version": 1, "name": ")" << name
                        << R"(", "library_path": ")" << library
                        << R"(", "abi": {"min": "0.1", "max": "0.1"}})";
    chmod(file.c_str(), 0644);
  }
  static xhal_plugin_info report(const std::string& name) {
    xhal_plugin_info list[8];
    uint32_t count = 0;
    check(xhal_plugin_report(list, 8, &count));
    for (const auto& p : list) {
      if (std::string(p.name.data, p.name.size) == name) return p;
    }
    ADD_FAILURE() << "no plugin " << name;
    return {};
  }
  template <size_t N>
  static bool ends(const char (&text)[N]) {
    return std::find(text, text + N, '\0') != text + N;
  }

  // Every call of a device without a slot is UNSUPPORTED.
  static void use(const Hostile& plan, uint32_t index) {
    xhal_device_open_info info{};
    info.struct_size = sizeof info;
    info.index = index;
    xhal_device* device = nullptr;
    xhal_context* context = nullptr;
    const auto status = xhal_device_open(&info, &device, &context);
    EXPECT_EQ(status == XHAL_OK, plan.open == Hostile::Open::good);
    if (status != XHAL_OK) {
      EXPECT_LT(status, 0) << "an open that failed is an error";
      EXPECT_NE(last_error_info().text, "");
      return;
    }
    xhal_device_info record{};
    EXPECT_EQ(xhal_device_query(device, &record), XHAL_OK);
    EXPECT_TRUE(ends(record.name) && ends(record.vendor) && ends(record.pci) && ends(record.id));
    uint64_t value = 0;
    EXPECT_EQ(xhal_device_limit(device, 1, &value), XHAL_ERR_UNSUPPORTED);
    xhal_stream* stream = nullptr;
    EXPECT_EQ(xhal_stream_create(context, nullptr, &stream), XHAL_ERR_UNSUPPORTED);
    EXPECT_EQ(xhal_device_close(device), XHAL_OK);
  }

  fs::path folder_;
};

TEST_F(NegotiationFuzz, WhatEverItAnswersTheOthersGoOn) {
  int loaded = 0;
  for (uint64_t seed = 0; seed < 1'500 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    setenv(kSeedVariable, std::to_string(seed).c_str(), 1);
    const Hostile plan(seed);
    const Session session;
    const auto p = report("hostile");
    EXPECT_EQ(p.state == XHAL_PLUGIN_LOADED, plan.loads()) << std::string(p.text.data, p.text.size);
    EXPECT_LT(p.build_id.size, 64u);
    if (p.state != XHAL_PLUGIN_LOADED) {
      EXPECT_EQ(p.state, static_cast<uint32_t>(XHAL_PLUGIN_SKIPPED));
      EXPECT_LT(p.status, 0);
      EXPECT_NE(p.text.size, 0u);
    }
    EXPECT_EQ(report("template").state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED));
    std::vector<xhal_device_info> devices(5'000);
    uint32_t count = 0;
    check(xhal_enumerate(0, devices.data(), 5'000, &count));
    uint32_t hostile = 0;
    for (uint32_t i = 0; i < count; ++i) {
      const auto& d = devices[i];
      if (std::string_view(d.plugin) != "hostile") continue;
      EXPECT_TRUE(ends(d.name) && ends(d.vendor) && ends(d.pci));
      EXPECT_EQ(d.ordinal, hostile);
      if (hostile++ == 0) use(plan, i);
    }
    EXPECT_EQ(hostile, plan.loads() ? plan.devices() : 0u);
    loaded += plan.loads();
  }
  EXPECT_GT(loaded, 100) << "most seeds must get as far as to a device";
}

}  // namespace
}  // namespace xhal::fuzz
