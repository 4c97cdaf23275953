// SPDX-License-Identifier: Apache-2.0
#include "waivers.hpp"

#include <fmt/core.h>
#include <fnmatch.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "common/library.hpp"

namespace xhal::cts {

void Waivers::add_file(const std::filesystem::path& file) {
  const auto refuse = [&](const std::string& why) {
    throw tools::Failure(tools::kUsage, fmt::format("waivers {}: {}", file.string(), why));
  };
  std::error_code error;
  const auto found = std::filesystem::status(file, error);
  if (std::filesystem::exists(found) && !std::filesystem::is_regular_file(found))
    refuse("is no regular file; give the JSON file itself");
  std::ifstream in(file);
  if (!in) refuse("cannot be read");
  const auto json = nlohmann::json::parse(in, nullptr, false);
  if (!json.is_object() || !json.contains("waivers") || !json["waivers"].is_array()) {
    refuse(
        R"(want {"waivers": [{"test": "...", "kind": "unsupported" or "xfail", "reason": "..."}]})");
  }
  for (const auto& entry : json["waivers"]) {
    const auto text = [&](const char* key) {
      return entry.is_object() && entry.contains(key) && entry[key].is_string()
                 ? entry[key].get<std::string>()
                 : std::string();
    };
    Waiver waiver;
    waiver.test = text("test");
    waiver.reason = text("reason");
    if (waiver.test.empty()) refuse("an entry has no \"test\"");
    if (waiver.reason.empty())
      refuse(fmt::format("{} has no \"reason\": a waiver without one is a secret", waiver.test));
    const auto kind = text("kind");
    if (kind != "unsupported" && kind != "xfail")
      refuse(fmt::format("{}: kind \"{}\" is neither unsupported nor xfail", waiver.test, kind));
    waiver.kind = kind == "xfail" ? Waiver::Kind::xfail : Waiver::Kind::unsupported;
    list_.push_back(std::move(waiver));
  }
}

const Waiver* Waivers::find(const std::string& test) {
  const Waiver* first = nullptr;
  for (auto& waiver : list_) {
    if (fnmatch(waiver.test.c_str(), test.c_str(), 0) != 0) continue;
    waiver.used = true;
    if (first == nullptr) first = &waiver;
  }
  return first;
}

std::vector<std::string> Waivers::unused() const {
  std::vector<std::string> tests;
  for (const auto& waiver : list_) {
    if (!waiver.used) tests.push_back(waiver.test);
  }
  return tests;
}

}  // namespace xhal::cts
