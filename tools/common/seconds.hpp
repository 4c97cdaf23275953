// SPDX-License-Identifier: Apache-2.0
// seconds.hpp: a number of seconds on a command line.
#pragma once

#include <string>

namespace xhal::tools {

// What is wrong with `text`, which has to be a number between the two; empty when nothing is. (Not
// CLI::Range: it takes NaN for a number within every range.)
std::string wrong_seconds(const std::string& text, double least, double most);

}  // namespace xhal::tools
