// SPDX-License-Identifier: Apache-2.0
// xhal: the admin's command. This file knows the command line and nothing of what is asked.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <deque>
#include <sstream>
#include <thread>

#include "common/output.hpp"
#include "common/seconds.hpp"
#include "common/suggest.hpp"
#include "xhal/command.hpp"

namespace xhal::tools {
namespace {

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

// ---- what is written
// -----------------------------------------------------------------------------

// An answer that cannot be written is none.
int write_answer(const std::string& text, int status) {
  return write_output("xhal", text) ? status : int{kUsage};
}

int complain(const std::string& text, const std::string& schema, bool json, int status) {
  write_note("xhal", text);
  if (!json) return status;
  return write_answer(json_text(envelope(schema, nullptr, {}, text)), status);
}

int run_once(const Command& command, const Request& request, bool one_line) try {
  const auto report = command.run(request);
  if (request.json) {
    const auto whole = envelope(command.schema(), report.data, report.warnings);
    return write_answer(one_line ? json_line(whole) : json_text(whole), report.status);
  }
  const int status = write_answer(report.text, report.status);
  for (const auto& warning : report.warnings) write_note("xhal", "warning: " + warning);
  return status;
} catch (const Failure& failure) {
  return complain(failure.what(), command.schema(), request.json, failure.status);
} catch (const std::exception& e) {
  return complain(fmt::format("{} failed: {}", command.name, e.what()), command.schema(),
                  request.json, kUsage);
}

// Ends when there is no answer any more, or nobody to take it.
int run_repeatedly(const Command& command, const Request& request, double seconds) {
  const bool terminal = isatty(STDOUT_FILENO) == 1 && !request.json;
  while (true) {
    if (terminal && !write_output("xhal", "\033[H\033[2J")) return kUsage;
    const int status = run_once(command, request, true);
    if (status == kUsage) return status;
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }
}

Json describe(const Command& command) {
  Json options = Json::array();
  for (const auto& option : command.options)
    options.push_back({{"name", option.name}, {"help", option.help}});
  return {{"command", command.schema()}, {"summary", command.summary}, {"options", options}};
}

std::string version_line() {
  return fmt::format("xhal {}, ABI {} (build {})", kPackageVersion, version_text(xhal_version()),
                     xhal_build_id());
}

// --help and --version: `text` is what the parser says.
int inform(const std::string& text, bool version, bool json) {
  if (!json) return write_answer(text, kFine);
  Json data;
  if (version) {
    data = {{"version", kPackageVersion},
            {"abi", version_text(xhal_version())},
            {"build", xhal_build_id()}};
  } else {
    data = {{"text", text}, {"commands", Json::array()}};
    for (const auto* command : commands()) data["commands"].push_back(describe(*command));
  }
  return write_answer(json_text(envelope(version ? "version" : "help", data, {})), kFine);
}

// ---- the command line
// ----------------------------------------------------------------------------

std::vector<std::string> names_of(std::string_view group) {
  std::vector<std::string> names;
  for (const auto* c : commands()) {
    if (group == c->group) names.emplace_back(c->name);
  }
  if (group.empty()) names.emplace_back("plugins");
  return names;
}

// A word that is no command gets the nearest one; empty when all words are known.
std::string complaint_about_words(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 1; i < argc && words.size() < 2; ++i) {
    const std::string_view word = argv[i];
    if (word == "--timeout") ++i;  // its value
    if (!word.empty() && word[0] != '-') words.emplace_back(word);
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

// One command's options, as the parser has them.
struct Parsed {
  const Command* command;
  CLI::App* app;
  std::deque<std::string> texts;
  std::vector<std::pair<std::string, CLI::Option*>> options;

  void add(const Option& option) {
    const std::string_view whole = option.name;
    const auto space = std::min(whole.find(' '), whole.size());
    const bool optional = whole.starts_with('[');
    const std::string name(optional ? whole.substr(1, whole.size() - 2) : whole.substr(0, space));
    if (whole.starts_with("--") && space == whole.size()) {
      options.emplace_back(name, app->add_flag(name, option.help));
    } else {
      auto* added = app->add_option(name, texts.emplace_back(), option.help);
      if (!whole.starts_with("--")) added->required(!optional);
      options.emplace_back(name, added);
    }
  }
  // Once all are there.
  void connect() {
    for (const auto& option : command->options) {
      if (*option.excludes == 0) continue;
      app->get_option(option.name)->excludes(app->get_option(option.excludes));
    }
  }
  void read(Request& request) const {
    for (const auto& [name, option] : options) {
      if (option->count() > 0) request.values[name] = option->as<std::string>();
    }
  }
};

bool asks_for_json(int argc, char** argv) {
  return std::any_of(argv, argv + argc,
                     [](const char* a) { return std::string_view(a) == "--json"; });
}

// "xhal plugins new": the command that was parsed last, as far as it was recognised.
std::string words_of(const CLI::App& app) {
  std::string words = app.get_name();
  const auto deeper = app.get_subcommands();
  return deeper.empty() ? words : words + " " + words_of(*deeper.front());
}

int parse_and_run(int argc, char** argv) {
  Request request;
  request.colours = colours_wanted();
  double timeout = 10, watch = 0;
  CLI::App app("xhal: the accelerators of this machine, whoever made them", "xhal");
  app.footer(kFooter);
  app.set_version_flag("--version", version_line());
  app.add_flag("--json", request.json, "machine-readable output");
  app.add_option("--timeout", timeout, "seconds a plugin may take to answer (default 10)")
      ->check([](const std::string& text) { return wrong_seconds(text, 0.1, 3600); },
              "0.1 to 3600");
  app.require_subcommand(0, 1);
  auto* plugins = app.add_subcommand("plugins", "the plugins that drive the devices");
  plugins->require_subcommand(1);
  plugins->fallthrough();
  std::deque<Parsed> parsers;
  for (const auto* command : commands()) {
    auto* parent = command->group.empty() ? &app : plugins;
    auto* sub = parent->add_subcommand(std::string(command->name), std::string(command->summary));
    sub->fallthrough();
    sub->footer(std::string(command->help));
    auto& parsed = parsers.emplace_back(Parsed{command, sub, {}, {}});
    for (const auto& option : command->options) parsed.add(option);
    parsed.connect();
    if (command->repeats) {
      sub->add_option("--watch", watch, "again every so many seconds; with --json a line each")
          ->check([](const std::string& text) { return wrong_seconds(text, 0.1, 86400); },
                  "0.1 to 86400");
    }
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const bool json = asks_for_json(argc, argv);
    if (e.get_exit_code() != 0)
      return complain(fmt::format("{}; see: {} --help", e.what(), words_of(app)), "usage", json,
                      kUsage);
    std::ostringstream text;
    app.exit(e, text, text);
    return inform(text.str(), e.get_name() == "CallForVersion", json);
  }
  request.patience = std::chrono::milliseconds(std::lround(timeout * 1000));
  const Command* asked = commands().front();
  for (const auto& parsed : parsers) {
    if (!parsed.app->parsed()) continue;
    asked = parsed.command;
    parsed.read(request);
  }
  return watch > 0 ? run_repeatedly(*asked, request, watch) : run_once(*asked, request, false);
}

}  // namespace
}  // namespace xhal::tools

int main(int argc, char** argv) {
  using namespace xhal::tools;
  prepare_output();
  if (const auto text = complaint_about_words(argc, argv); !text.empty())
    return complain(text, "usage", asks_for_json(argc, argv), kUsage);
  return parse_and_run(argc, argv);
}
