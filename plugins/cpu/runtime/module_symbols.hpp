// SPDX-License-Identifier: Apache-2.0
// module_symbols.hpp: what a module's library exports: its kernels.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace xhal::cpu {

// Names of the functions defined in .dynsym of a 64-bit ELF image; nullopt when its tables leave
// the image, which is then not whole. (boost::dll::library_info takes the last string table of the
// file for that of the symbols, which holds for some linkers only.)
std::optional<std::vector<std::string>> exported_functions(const std::vector<char>& image);

}  // namespace xhal::cpu
