// SPDX-License-Identifier: Apache-2.0
#include "xhal/survey.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "common/child.hpp"
#include "common/suggest.hpp"
#include "xhal/visibility.hpp"
#include "xhal_base/environment.hpp"

namespace xhal::tools {
namespace {

const char* state_name(uint32_t state) {
  switch (state) {
    case XHAL_PLUGIN_LOADED:
      return "loaded";
    case XHAL_PLUGIN_DEFERRED:
      return "deferred";
    case XHAL_PLUGIN_SKIPPED:
      return "skipped";
    case XHAL_PLUGIN_DISABLED:
      return "disabled";
    default:
      return "?";
  }
}

Json packed(const xhal_plugin_info& p) {
  return {{"name", text_of(p.name)},
          {"vendor", text_of(p.vendor)},
          {"manifest", text_of(p.manifest_path)},
          {"library", text_of(p.library_path)},
          {"build", text_of(p.build_id)},
          {"state", state_name(p.state)},
          {"text", text_of(p.text)},
          {"status", p.status},
          {"abi_min", p.abi_min},
          {"abi_max", p.abi_max},
          {"abi_used", p.abi_used},
          {"priority", p.priority},
          {"devices", p.device_count}};
}

PluginState unpacked_plugin(const Json& json) {
  PluginState p;
  p.name = json.at("name");
  p.vendor = json.at("vendor");
  p.manifest = json.at("manifest");
  p.library = json.at("library");
  p.build = json.at("build");
  p.state = json.at("state");
  p.text = json.at("text");
  p.status = json.at("status");
  p.abi_min = json.at("abi_min");
  p.abi_max = json.at("abi_max");
  p.abi_used = json.at("abi_used");
  p.priority = json.at("priority");
  p.device_count = json.at("devices");
  return p;
}

Json plugin_rows(const Library& library) {
  Json rows = Json::array();
  for (const auto& p : library.plugins()) rows.push_back(packed(p));
  return rows;
}

// One child's way through libxhal, and how far it came.
class Round {
 public:
  Round(const Question& question, const std::set<std::string>& left_out, Survey& survey)
      : question_(question), left_out_(left_out), survey_(survey) {}

  ChildEnd run(const std::set<std::string>& settled) {
    return run_in_child(
        question_.patience, [&](const Emit& emit) { ask(emit, settled); },
        [&](const Json& message) { take(message); });
  }
  bool knows_plugins() const { return knows_plugins_; }
  bool knows_devices() const { return knows_devices_; }
  const std::string& opening() const { return opening_; }  // a device's id

 private:
  // In the child.
  void ask(const Emit& emit, const std::set<std::string>& settled) const {
    if (!question_.only.empty()) {
      setenv("XHAL_PLUGIN_SELECT", question_.only.c_str(), 1);
      unsetenv("XHAL_VISIBLE_DEVICES");
    }
    if (!left_out_.empty()) {
      auto disabled = base::environment_text("XHAL_PLUGIN_DISABLE");
      for (const auto& name : left_out_) disabled += (disabled.empty() ? "" : ",") + name;
      setenv("XHAL_PLUGIN_DISABLE", disabled.c_str(), 1);
    }
    const Library library;
    emit({{"plugins", plugin_rows(library)}});
    for (const auto& warning : library.warnings()) emit({{"warning", warning}});
    if (question_.depth == Depth::plugins) return;
    Json list = Json::array();
    const auto devices = library.devices(question_.all);
    for (const auto& info : devices)
      list.push_back(tools::packed(Device{info, info.index == UINT32_MAX, {}, {}}));
    emit({{"devices", list}});
    if (question_.depth == Depth::listed) return;
    for (const auto& info : devices) {
      // One that is hidden cannot be opened.
      if (info.index == UINT32_MAX || settled.count(info.id) != 0) continue;
      emit({{"opening", info.id}});
      emit({{"observed", tools::packed(observe(info))}});
    }
    for (const auto& warning : library.warnings()) emit({{"warning", warning}});
  }

  // In the parent.
  void take(const Json& message) {
    if (message.contains("plugins")) {
      knows_plugins_ = true;
      survey_.plugins.clear();
      for (const auto& row : message["plugins"]) survey_.plugins.push_back(unpacked_plugin(row));
    } else if (message.contains("devices")) {
      knows_devices_ = true;
      if (!survey_.devices.empty()) return;  // an earlier child's list has its findings
      for (const auto& row : message["devices"]) survey_.devices.push_back(unpacked(row));
    } else if (message.contains("opening")) {
      opening_ = message["opening"];
    } else if (message.contains("observed")) {
      auto device = unpacked(message["observed"]);
      for (auto& known : survey_.devices) {
        if (opening_ == known.info.id) known = device;
      }
      opening_.clear();
    } else if (message.contains("warning")) {
      const std::string warning = message["warning"];
      auto& all = survey_.warnings;
      if (std::find(all.begin(), all.end(), warning) == all.end()) all.push_back(warning);
    }
  }

  const Question& question_;
  const std::set<std::string>& left_out_;
  Survey& survey_;
  bool knows_plugins_ = false, knows_devices_ = false;
  std::string opening_;
};

// Loads each plugin in a child of its own, and names those whose child did not live through it.
std::vector<PluginState> find_broken(const Question& question) {
  std::vector<PluginState> broken;
  for (auto& plugin : find_plugins(question.patience)) {
    const bool asked = question.only.empty() || question.only == plugin.name;
    if (plugin.state != "deferred" || !asked) continue;
    Survey alone;
    const Question one{question.patience, false, Depth::plugins, plugin.name};
    const std::set<std::string> nobody;
    const auto end = Round(one, nobody, alone).run({});
    if (end.ok()) continue;
    plugin.state = end.how == ChildEnd::How::silent ? "hangs" : "crashed";
    plugin.status = XHAL_ERR_PLUGIN;
    plugin.text = fmt::format("{}, when it was loaded", end.text());
    broken.push_back(std::move(plugin));
  }
  return broken;
}

std::string advice(const std::vector<PluginState>& broken) {
  std::vector<std::string> names;
  for (const auto& p : broken) names.push_back(p.name);
  return fmt::format(
      "leave it out with XHAL_PLUGIN_DISABLE={}; each step checked:  xhal plugins "
      "doctor",
      joined(names));
}

// The rows of the broken plugins in the place of those that say they were left out.
void put_back(const std::vector<PluginState>& broken, Survey& survey) {
  for (auto& plugin : survey.plugins) {
    for (const auto& b : broken) {
      if (b.manifest == plugin.manifest) plugin = b;
    }
  }
  for (const auto& b : broken) {
    survey.warnings.push_back(fmt::format("plugin {} {}; {}", b.name, b.text, advice({b})));
  }
}

}  // namespace

std::vector<PluginState> Survey::broken() const {
  std::vector<PluginState> list;
  std::copy_if(plugins.begin(), plugins.end(), std::back_inserter(list),
               [](const auto& p) { return p.is_broken(); });
  return list;
}

Survey survey(const Question& question) {
  Survey survey;
  std::vector<PluginState> broken;
  std::set<std::string> left_out, settled;
  while (true) {
    Round round(question, left_out, survey);
    ChildEnd end;
    try {
      end = round.run(settled);
    } catch (const Failure& failure) {
      if (broken.empty()) throw;
      throw Failure(failure.status,
                    fmt::format("{}\n  Plugin {} {}; {}", failure.what(), broken.front().name,
                                broken.front().text, advice(broken)));
    }
    if (end.ok()) break;
    if (end.how == ChildEnd::How::not_started) throw Failure(kUsage, "libxhal " + end.text());
    if (!round.opening().empty()) {
      settled.insert(round.opening());
      for (auto& device : survey.devices) {
        if (round.opening() != device.info.id) continue;
        device.error = fmt::format("{}, when it was opened", end.text());
      }
      // Those before it have been seen.
      for (const auto& device : survey.devices) {
        if (round.opening() == device.info.id) break;
        settled.insert(device.info.id);
      }
      continue;
    }
    if (round.knows_devices() || (question.depth == Depth::plugins && round.knows_plugins())) {
      survey.unclean = true;
      survey.warnings.push_back(fmt::format("libxhal {}, when it was shut down", end.text()));
      break;
    }
    const bool again = !broken.empty();
    if (!again) broken = find_broken(question);
    if (again || broken.empty()) {
      throw Failure(kUsage,
                    fmt::format("libxhal {} when the plugins were loaded, though each alone can be "
                                "loaded; leave some out with XHAL_PLUGIN_DISABLE, and look closer: "
                                " xhal plugins doctor",
                                end.text()));
    }
    for (const auto& plugin : broken) left_out.insert(plugin.name);
  }
  put_back(broken, survey);
  return survey;
}

std::vector<PluginState> find_plugins(std::chrono::milliseconds patience) {
  std::vector<PluginState> plugins;
  const auto end = run_in_child(
      patience,
      [](const Emit& emit) {
        setenv("XHAL_PLUGIN_DISABLE", "*", 1);
        const Library library;
        emit({{"plugins", plugin_rows(library)}});
      },
      [&](const Json& message) {
        for (const auto& row : message["plugins"]) plugins.push_back(unpacked_plugin(row));
      });
  if (!end.ok()) throw Failure(kUsage, "libxhal " + end.text() + ", before a plugin was loaded");
  for (auto& p : plugins) {
    if (p.state != "disabled" || !left_out_by(p.name).empty()) continue;
    p.state = "deferred";
    p.text.clear();
  }
  return plugins;
}

}  // namespace xhal::tools
