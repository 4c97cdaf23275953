// SPDX-License-Identifier: Apache-2.0
// command.hpp: what a subcommand of `xhal` is. Each stands in a file of its own, which defines its
// Command and nothing else that others see; commands.cpp has the list of them.
#pragma once

#include <chrono>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/library.hpp"
#include "common/table.hpp"

namespace xhal::tools {

struct Option {
  // "--tree" is a flag, "--dir DIR" takes a value, "NAME" is a word that must be there, "[FAULT]"
  // one that may.
  const char* name;
  const char* help;
  const char* excludes = "";  // the flag it cannot be used together with
};

// What one run of a command is asked.
struct Request {
  bool json = false;
  bool colours = false;
  std::chrono::milliseconds patience{10'000};  // how long a plugin may take for an answer
  std::map<std::string, std::string, std::less<>> values;  // by "--tree", "--dir", "NAME"

  bool has(std::string_view option) const { return values.find(option) != values.end(); }
  std::string text(std::string_view option) const {
    const auto found = values.find(option);
    return found == values.end() ? std::string() : found->second;
  }
};

struct Report {
  int status = kFine;
  Json data;                          // --json
  std::string text;                   // without
  std::vector<std::string> warnings;  // standard error, or the envelope
};

struct Command {
  std::string_view group;  // "" or "plugins"
  std::string_view name;
  std::string_view summary;
  std::span<const Option> options;
  // One report of how things are now; keeps nothing from one run to the next. Throws Failure when
  // there is nothing to report.
  Report (*run)(const Request&);
  bool repeats = false;        // takes --watch
  std::string_view help = {};  // what --help says below the options

  // "list", "plugins.doctor": the name of its envelope's schema.
  std::string schema() const {
    return group.empty() ? std::string(name) : std::string(group) + "." + std::string(name);
  }
};

// Every command, in the order --help shows them. The first is what `xhal` alone does.
std::span<const Command* const> commands();

}  // namespace xhal::tools
