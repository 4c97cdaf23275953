// SPDX-License-Identifier: Apache-2.0
// output.hpp: standard output, checked: an answer that could not be written is no answer.
#pragma once

#include <string_view>

namespace xhal::tools {

// First thing in main. A closed descriptor 0, 1 or 2 gets a stand-in that cannot be written to, so
// that no file opened later is taken for it, and a write beyond the file size limit fails instead
// of ending the process with SIGXFSZ.
void prepare_output();

// Writes the whole text to standard output. False when that fails; standard error then says why.
bool write_output(std::string_view program, std::string_view text);

// A line for standard error, which may be closed or full: that changes no answer.
void write_note(std::string_view program, std::string_view text);

}  // namespace xhal::tools
