// SPDX-License-Identifier: Apache-2.0
// tool_test.hpp: a folder with plugins of the test's choice, and the tools run on it
// and nothing else.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "common/process.hpp"

namespace xhal::tools {

class ToolTest : public testing::Test {
 protected:
  using Words = std::vector<std::string>;
  using Variables = std::vector<std::pair<std::string, std::string>>;

  void SetUp() override;
  void TearDown() override;

  // Writes <folder>/<name>.json for a library; empty: a copy of the fake plugin, made here.
  std::filesystem::path add_plugin(const std::string& name,
                                   const std::filesystem::path& library = {},
                                   nlohmann::json changes = {});
  std::filesystem::path add_file(const std::string& name, const std::string& text);
  std::filesystem::path copy_fake(const std::string& name);

  // The tools see only this folder's plugins: what is beside libxhal is left
  // out by XHAL_PLUGIN_SELECT.
  ProcessResult xhal(const Words& words, Variables variables = {});
  ProcessResult cts(const Words& words, Variables variables = {});
  ProcessResult probe(const Words& words, Variables variables = {});
  // A line of shell in which $X is xhal and $C is xhal-cts.
  ProcessResult shell(const std::string& line, Variables variables = {});

  std::filesystem::path folder_;
  std::string selected_ = "fake*";
};

// Parses the whole text as JSON; a failure of the test when it is not.
nlohmann::json json_of(const std::string& text);

}  // namespace xhal::tools
