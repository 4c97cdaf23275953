// SPDX-License-Identifier: Apache-2.0
// xhal: the admin's command. This file knows the words of the command line and nothing else.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "common/suggest.hpp"
#include "xhal/command.hpp"

namespace xhal::tools {
namespace {

struct Command {
  const char* group;  // "" or "plugins"
  const char* name;
  const char* summary;
  const char* schema;
  Report (*run)(const Options&);
};

constexpr Command kCommands[] = {
    {"", "list", "the devices and how they are (what xhal alone shows)", "list", list_devices},
    {"", "topo", "where the devices are and how near to each other", "topo", show_topology},
    {"plugins", "list", "every plugin manifest found and what became of it", "plugins.list",
     list_plugins},
    {"plugins", "doctor", "why a plugin does not work: each step of loading it, checked",
     "plugins.doctor", doctor_plugins},
    {"plugins", "new", "a new plugin's project, ready to build and to test", "plugins.new",
     new_plugin},
};

constexpr const char* kFooter =
    "Every command takes --json and then prints one JSON object on standard output, also when it "
    "fails.\n"
    "Exit status: 0 fine, 1 a finding, 2 wrong usage or no answer, 3 no matching device.\n"
    "\n"
    "  xhal                          the devices\n"
    "  xhal topo --tree              where they sit in this machine\n"
    "  xhal plugins doctor           why a device is not there\n"
    "  xhal plugins new acme         start a plugin in ./xhal-acme\n"
    "  xhal-cts --plugin acme --profile core    judge it";

std::vector<std::string> names_of(std::string_view group) {
  std::vector<std::string> names;
  for (const auto& c : kCommands) {
    if (group == c.group) names.emplace_back(c.name);
  }
  if (group.empty()) names.emplace_back("plugins");
  return names;
}

// A word that is no command gets the nearest one; empty when all words are known.
std::string complaint_about_words(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 1; i < argc && words.size() < 2; ++i) {
    if (argv[i][0] != '-') words.emplace_back(argv[i]);
  }
  const auto check = [](const std::string& word, const std::string& group) -> std::string {
    const auto known = names_of(group);
    if (std::find(known.begin(), known.end(), word) != known.end()) return {};
    const auto meant = nearest(word, known);
    const auto prefix = group.empty() ? std::string() : group + " ";
    return fmt::format("'{}{}' is no command of xhal; {}", prefix, word,
                       meant.empty() ? fmt::format("there are: {}", joined(known))
                                     : fmt::format("did you mean: xhal {}{}", prefix, meant));
  };
  if (words.empty()) return {};
  if (auto text = check(words[0], ""); !text.empty()) return text;
  return words[0] == "plugins" && words.size() > 1 ? check(words[1], "plugins") : std::string();
}

int complain(const std::string& text, const std::string& schema, bool json, int status) {
  if (json) std::cout << json_text(envelope(schema, nullptr, {}, text));
  std::cerr << "xhal: " << text << "\n";
  return status;
}

int run(const Command& command, const Options& options) try {
  const auto report = command.run(options);
  if (options.json) {
    std::cout << json_text(envelope(command.schema, report.data, report.warnings)) << std::flush;
    return report.status;
  }
  std::cout << report.text << std::flush;
  for (const auto& warning : report.warnings) std::cerr << "xhal: warning: " << warning << "\n";
  return report.status;
} catch (const Failure& failure) {
  return complain(failure.what(), command.schema, options.json, failure.status);
} catch (const std::exception& e) {
  return complain(fmt::format("{} failed: {}", command.name, e.what()), command.schema,
                  options.json, kUsage);
}

int parse_and_run(int argc, char** argv) {
  Options options;
  options.colours = colours_wanted();
  CLI::App app("xhal: the accelerators of this machine, whoever made them", "xhal");
  app.footer(kFooter);
  app.set_version_flag("--version", fmt::format("xhal {}.{}.0 ({})", xhal_version() >> 16,
                                                xhal_version() & 0xffff, xhal_build_id()));
  app.add_flag("--json", options.json, "machine-readable output");
  app.require_subcommand(0, 1);
  auto* plugins = app.add_subcommand("plugins", "the plugins that drive the devices");
  plugins->require_subcommand(1);
  plugins->fallthrough();
  std::vector<std::pair<CLI::App*, const Command*>> added;
  for (const auto& command : kCommands) {
    auto* parent = std::string_view(command.group).empty() ? &app : plugins;
    auto* sub = parent->add_subcommand(command.name, command.summary);
    sub->fallthrough();
    added.emplace_back(sub, &command);
  }
  app.get_subcommand("list")->add_flag("--all", options.all,
                                       "also devices that XHAL_VISIBLE_DEVICES hides");
  bool matrix = false;
  auto* topo = app.get_subcommand("topo");
  auto* tree = topo->add_flag("--tree", options.tree, "as a tree");
  topo->add_flag("--matrix", matrix, "as a matrix of distances (the default)")->excludes(tree);
  auto* made = plugins->get_subcommand("new");
  made->add_option("NAME", options.name, "of the plugin: 1 to 24 of a-z, 0-9, _ and -")->required();
  made->add_option("--dir", options.directory, "folder to make (default: xhal-NAME, here)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const bool asked_for = e.get_exit_code() == 0;  // --help, --version
    if (asked_for) return app.exit(e);
    const bool json = std::find_if(argv, argv + argc, [](const char* a) {
                        return std::string_view(a) == "--json";
                      }) != argv + argc;
    return complain(fmt::format("{}; see: xhal --help", e.what()), "usage", json, kUsage);
  }
  for (const auto& [sub, command] : added) {
    if (sub->parsed()) return run(*command, options);
  }
  return run(kCommands[0], options);
}

}  // namespace
}  // namespace xhal::tools

int main(int argc, char** argv) {
  using namespace xhal::tools;
  if (const auto text = complaint_about_words(argc, argv); !text.empty()) {
    const bool json = std::find_if(argv, argv + argc, [](const char* a) {
                        return std::string_view(a) == "--json";
                      }) != argv + argc;
    return complain(text, "usage", json, kUsage);
  }
  return parse_and_run(argc, argv);
}
