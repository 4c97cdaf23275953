// SPDX-License-Identifier: Apache-2.0
// command.hpp: what a subcommand of `xhal` is: it collects a model once, and gives it as data
// and as text.
#pragma once

#include <string>
#include <vector>

#include "common/library.hpp"
#include "common/table.hpp"

namespace xhal::tools {

struct Options {
  bool json = false;
  bool colours = false;
  bool all = false;       // list: also what XHAL_VISIBLE_DEVICES hides
  bool tree = false;      // topo
  std::string name;       // plugins new
  std::string directory;  // plugins new
};

struct Report {
  int status = kFine;
  Json data;                          // --json
  std::string text;                   // without
  std::vector<std::string> warnings;  // standard error, or the envelope
};

// Throw Failure when there is nothing to report.
Report list_devices(const Options& options);
Report show_topology(const Options& options);
Report list_plugins(const Options& options);
Report doctor_plugins(const Options& options);
Report new_plugin(const Options& options);

}  // namespace xhal::tools
