// SPDX-License-Identifier: Apache-2.0
#include "tool_test.hpp"

#include <fstream>

namespace xhal::tools {
namespace {

namespace fs = std::filesystem;
constexpr std::chrono::seconds kDeadline{120};

ProcessResult run(const char* program, const std::vector<std::string>& words,
                  std::vector<std::pair<std::string, std::string>> variables) {
  std::vector<std::string> command = {program};
  command.insert(command.end(), words.begin(), words.end());
  return run_process(command, kDeadline, variables);
}

}  // namespace

void ToolTest::SetUp() {
  std::string name = (fs::temp_directory_path() / "xhal-tools-XXXXXX").string();
  ASSERT_NE(mkdtemp(name.data()), nullptr);
  folder_ = name;
}

void ToolTest::TearDown() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

fs::path ToolTest::copy_fake(const std::string& name) {
  const auto to = folder_ / name;
  fs::copy_file(XHAL_FAKE_PLUGIN, to);
  return to;
}

fs::path ToolTest::add_file(const std::string& name, const std::string& text) {
  const auto path = folder_ / name;
  std::ofstream(path) << text;
  fs::permissions(path, fs::perms::group_write | fs::perms::others_write, fs::perm_options::remove);
  return path;
}

fs::path ToolTest::add_plugin(const std::string& name, const fs::path& library,
                              nlohmann::json changes) {
  nlohmann::json manifest = {
      {"file_format_version", 1},
      {"name", name},
      {"vendor", "xHAL tests"},
      {"library_path", (library.empty() ? copy_fake("lib" + name + ".so") : library).string()},
      {"abi", {{"min", "0.1"}, {"max", "0.3"}}},
      {"priority", 5}};
  if (!changes.is_null()) manifest.update(changes);
  return add_file(name + ".json", manifest.dump(2));
}

ProcessResult ToolTest::xhal(const Words& words, Variables variables) {
  variables.emplace_back("XHAL_PLUGIN_PATH", folder_.string());
  variables.emplace_back("XHAL_PLUGIN_SELECT", selected_);
  return run(XHAL_COMMAND, words, std::move(variables));
}

ProcessResult ToolTest::cts(const Words& words, Variables variables) {
  variables.emplace_back("XHAL_PLUGIN_PATH", folder_.string());
  return run(XHAL_CTS, words, std::move(variables));
}

ProcessResult ToolTest::probe(const Words& words, Variables variables) {
  return run(XHAL_PROBE, words, std::move(variables));
}

ProcessResult ToolTest::shell(const std::string& line, Variables variables) {
  variables.emplace_back("XHAL_PLUGIN_PATH", folder_.string());
  variables.emplace_back("XHAL_PLUGIN_SELECT", selected_);
  variables.emplace_back("X", XHAL_COMMAND);
  variables.emplace_back("C", XHAL_CTS);
  variables.emplace_back("FOLDER", folder_.string());
  return run("/bin/bash", {"-c", line}, std::move(variables));
}

nlohmann::json json_of(const std::string& text) {
  auto json = nlohmann::json::parse(text, nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << "not JSON: " << text;
  return json;
}

}  // namespace xhal::tools
