// SPDX-License-Identifier: Apache-2.0
#include "arrange.hpp"

#include <fmt/core.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/library.hpp"
#include "common/process.hpp"

namespace xhal::cts {
namespace {

namespace fs = std::filesystem;
using tools::Failure;

std::string name_in_manifest(const fs::path& manifest) {
  std::ifstream file(manifest);
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string()) {
    throw Failure(
        tools::kUsage,
        fmt::format("{} is no plugin manifest; look at:  xhal plugins doctor", manifest.string()));
  }
  return json["name"];
}

// "libxhal_acme.so" is acme.
std::string name_from_library(const fs::path& library) {
  std::string name = library.stem().string();
  for (const std::string_view prefix : {"lib", "xhal_", "xhal-"}) {
    if (name.starts_with(prefix)) name.erase(0, prefix.size());
  }
  std::string clean;
  for (const char c : name) {
    const bool allowed = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    clean += allowed ? c : '_';
  }
  return clean.empty() ? "plugin" : clean.substr(0, 24);
}

fs::path write_manifest(const fs::path& library, const std::string& name) {
  std::string folder = (fs::temp_directory_path() / "xhal-cts-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr)
    throw Failure(tools::kUsage, "cannot make a temporary folder; is TMPDIR writable?");
  nlohmann::ordered_json manifest = {
      {"file_format_version", 1},
      {"name", name},
      {"vendor", "under test"},
      {"library_path", library.string()},
      {"abi",
       {{"min", "0.1"}, {"max", fmt::format("{}.{}", XHAL_VERSION_MAJOR, XHAL_VERSION_MINOR)}}}};
  std::ofstream(fs::path(folder) / (name + ".json")) << manifest.dump(2) << "\n";
  return folder;
}

std::string text_of(xhal_string s) { return tools::text_of(s); }

}  // namespace

Arrangement::Arrangement(const std::string& plugin) {
  const fs::path path = plugin;
  const bool is_file =
      path.extension() == ".json" || path.extension() == ".so" || plugin.find('/') != plugin.npos;
  name_ = plugin;
  if (is_file) {
    const auto absolute = fs::absolute(path);
    if (!fs::is_regular_file(absolute))
      throw Failure(tools::kUsage, fmt::format("{}: no such file", absolute.string()));
    const bool manifest = path.extension() == ".json";
    name_ = manifest ? name_in_manifest(absolute) : name_from_library(absolute);
    if (!manifest) temporary_ = write_manifest(absolute, name_);
    setenv("XHAL_PLUGIN_PATH", manifest ? absolute.parent_path().c_str() : temporary_.c_str(), 1);
  }
  setenv("XHAL_PLUGIN_SELECT", name_.c_str(), 1);
  setenv("XHAL_VISIBLE_DEVICES", name_.c_str(), 1);
}

Arrangement::~Arrangement() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

Target Arrangement::find(uint32_t ordinal) const {
  uint32_t count = 0;
  xhal_plugin_report(nullptr, 0, &count);
  std::vector<xhal_plugin_info> plugins(count);
  xhal_plugin_report(plugins.data(), count, &count);
  const xhal_plugin_info* found = nullptr;
  for (const auto& p : plugins) {
    if (text_of(p.name) == name_ && (found == nullptr || found->state != XHAL_PLUGIN_LOADED))
      found = &p;
  }
  if (found == nullptr) {
    throw Failure(tools::kUsage,
                  fmt::format("there is no plugin {}; those there are:  xhal plugins list", name_));
  }
  // Its manifest keeps it from this machine: it was never asked.
  if (found->state == XHAL_PLUGIN_SKIPPED && found->status == XHAL_ERR_UNSUPPORTED &&
      found->build_id.size == 0) {
    throw Failure(tools::kNoDevice,
                  fmt::format("plugin {} cannot be judged here: {}", name_, text_of(found->text)));
  }
  if (found->state != XHAL_PLUGIN_LOADED) {
    throw Failure(tools::kFinding,
                  fmt::format("plugin {} does not load: {}", name_, text_of(found->text)));
  }
  xhal_enumerate(0, nullptr, 0, &count);
  std::vector<xhal_device_info> devices(count);
  if (count > 0) xhal_enumerate(0, devices.data(), count, &count);
  for (const auto& d : devices) {
    if (d.plugin != name_ || d.ordinal != ordinal) continue;
    Target target;
    target.plugin = name_;
    target.index = d.index;
    target.info = d;
    target.library = text_of(found->library_path);
    target.manifest = text_of(found->manifest_path);
    target.probe = tools::sibling_program("xhal-probe");
    return target;
  }
  throw Failure(
      tools::kNoDevice,
      fmt::format(
          "plugin {} has no device {} here (it has {}); it must be judged on a machine that "
          "has its hardware",
          name_, ordinal, devices.size()));
}

}  // namespace xhal::cts
