// SPDX-License-Identifier: Apache-2.0
// watchdog.hpp: no command hangs because a driver does.
#pragma once

#include <string>

namespace xhal::tools {

// While one lives, the process ends after `seconds` with exit status 2 and a text that names
// `what`; with --json the text comes as an envelope on standard output.
class Watchdog {
 public:
  Watchdog(const std::string& command, const std::string& what, bool json, unsigned seconds = 20);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
};

}  // namespace xhal::tools
