// SPDX-License-Identifier: Apache-2.0
// new_plugin.cpp: `xhal plugins new`: the template plugin, renamed, as a project of its own.
#include <fmt/core.h>

#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/process.hpp"
#include "xhal/command.hpp"
#include "xhal/survey.hpp"

namespace xhal::tools {
namespace {

namespace fs = std::filesystem;

// <prefix>/share/xhal, beside the <prefix>/bin this program runs from.
fs::path share() { return own_executable().parent_path().parent_path() / "share" / "xhal"; }

bool valid_name(const std::string& name) {
  return !name.empty() && name.size() <= 24 && name[0] >= 'a' && name[0] <= 'z' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") == name.npos;
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size())
    text.replace(at, from.size(), to);
}

// "my-npu" is MyNpu where it names a class.
std::string class_name(const std::string& name) {
  std::string text;
  bool capital = true;
  for (const char c : name) {
    const bool letter = c != '-' && c != '_';
    if (letter) text += capital ? static_cast<char>(std::toupper(c)) : c;
    capital = !letter;
  }
  return text;
}

// The word template is a keyword of C++ where '<' follows; everywhere else it is the plugin's name.
void rename_word(std::string& text, const std::string& name) {
  const std::string word = "template";
  for (size_t at = 0; (at = text.find(word, at)) != text.npos;) {
    const auto next = text.find_first_not_of(" \n", at + word.size());
    if (next != text.npos && text[next] == '<') {
      at += word.size();
    } else {
      text.replace(at, word.size(), name);
      at += name.size();
    }
  }
}

std::string renamed(std::string text, const std::string& name) {
  // A UUID in letters: 16 of them, whatever the name.
  auto uuid = "xhal-" + name + std::string(16, '-');
  uuid.resize(16);
  replace_all(text, "xhal-template-00", uuid);
  replace_all(text, "Template", class_name(name));
  rename_word(text, name);
  return text;
}

// The template with the plugin's name, as its vendor's, too: somebody else's is not xHAL's.
std::string of_vendor(std::string text, const std::string& name) {
  text = renamed(std::move(text), name);
  replace_all(text, "\"xHAL\"", fmt::format("\"{}\"", class_name(name)));
  return text;
}

// The manifest of a plugin of that name, where programs find it; or that xHAL has one itself.
std::string taken_by(const std::string& name, std::chrono::milliseconds patience) {
  for (const auto& plugin : find_plugins(patience)) {
    if (plugin.name == name) return plugin.manifest;
  }
  for (const std::string_view own : {"cpu", "npu", "gpu", "template"}) {
    if (name == own) return "xHAL";
  }
  return {};
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file)
    throw Failure(kUsage, fmt::format("cannot read {}; install the xHAL development files again",
                                      path.string()));
  return text.str();
}

void write_file(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file.flush())
    throw Failure(kUsage, fmt::format("cannot write {}: {}", path.string(), std::strerror(errno)));
}

fs::path make_folder(const Request& request) {
  const auto folder =
      fs::absolute(request.has("--dir") ? request.text("--dir") : "xhal-" + request.text("NAME"));
  std::error_code error;
  if (fs::exists(folder, error) && !fs::is_empty(folder, error)) {
    throw Failure(kUsage,
                  fmt::format("{} is there already and not empty; name another one with --dir",
                              folder.string()));
  }
  fs::create_directories(folder, error);
  if (error)
    throw Failure(kUsage, fmt::format("cannot make {}: {}", folder.string(), error.message()));
  return folder;
}

std::string next_steps(const fs::path& folder) {
  const auto prefix = own_executable().parent_path().parent_path();
  const bool usual = prefix == "/usr" || prefix == "/usr/local";
  return fmt::format(
      "next:\n"
      "  cd {}\n"
      "  cmake -B build{} && cmake --build build\n"
      "  ctest --test-dir build --output-on-failure\n"
      "  XHAL_PLUGIN_PATH=$PWD/build/plugins xhal list\n",
      folder.string(), usual ? "" : fmt::format(" -DCMAKE_PREFIX_PATH={}", prefix.string()));
}

constexpr Option kOptions[] = {
    {"NAME", "of the plugin: 1 to 24 of a-z, 0-9, _ and -, a letter first"},
    {"--dir DIR", "folder to make (default: xhal-NAME, here)"}};

Report new_plugin(const Request& request) {
  const auto name = request.text("NAME");
  if (!valid_name(name)) {
    throw Failure(
        kUsage,
        fmt::format(
            "\"{}\" is no name for a plugin: 1 to 24 of a-z, 0-9, '_' and '-', a letter first",
            name));
  }
  if (const auto other = taken_by(name, request.patience); !other.empty()) {
    throw Failure(kUsage, fmt::format("the name {} is taken by {}; of two plugins of one name only "
                                      "the first is loaded, so choose another",
                                      name, other));
  }
  const auto sources = share() / "template", project = share() / "project";
  if (!fs::exists(sources / "template.cpp") || !fs::exists(project / "CMakeLists.txt")) {
    throw Failure(kUsage,
                  fmt::format("the template is not in {}; install the xHAL development files",
                              share().string()));
  }
  const auto folder = make_folder(request);
  std::vector<std::string> files;
  const auto put = [&](const std::string& file, const std::string& text) {
    write_file(folder / file, text);
    files.push_back(file);
  };
  put(name + ".cpp", of_vendor(read_file(sources / "template.cpp"), name));
  put("operators.hpp", read_file(sources / "operators.hpp"));
  put(name + ".json", of_vendor(read_file(sources / "template.json"), name));
  for (const char* file : {"CMakeLists.txt", "symbols.map", "README.md"}) {
    auto text = read_file(project / file);
    replace_all(text, "@NAME@", name);
    put(file, text);
  }
  Report report;
  report.data = {{"name", name}, {"directory", folder.string()}, {"files", files}};
  report.text = fmt::format("made {}: a plugin that builds and passes the core profile as it is\n",
                            folder.string());
  for (const auto& file : files) report.text += fmt::format("  {}\n", file);
  report.text += next_steps(folder);
  return report;
}

}  // namespace

extern const Command plugins_new_command = {
    "plugins", "new", "a new plugin's project, ready to build and to test", kOptions, new_plugin};

}  // namespace xhal::tools
