// SPDX-License-Identifier: Apache-2.0
// printed.hpp: standard output is the report's. What a plugin prints there while a child runs the
// tests goes to a file without a name, where it can be found, and from there to standard error.
#pragma once

#include <string>

namespace xhal::cts {

// For the standard output of one child; -1 and errno when that fails.
int make_output_file();
// From now on this process's standard output goes there.
void move_output_to(int file);
// What has been printed since the last call; empty also when the output was not moved.
std::string take_printed();
// Everything that is in the file, to standard error.
void pass_on_printed(int file);

}  // namespace xhal::cts
