// SPDX-License-Identifier: Apache-2.0
// elf_symbols.hpp: what a library says of itself, read without loading it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace xhal {

// Names defined in .dynsym, what the dynamic linker sees; nullopt when the file is not a whole
// 64-bit ELF library. (boost::dll::library_info reads .symtab, which a stripped library does not
// have, with the string table that comes last in the file, which need not be its own.)
std::optional<std::vector<std::string>> exported_symbols(const std::filesystem::path& library);

// The build id that the linker gave a library, in hexadecimal; empty when there is none.
std::string build_id(const std::filesystem::path& library);

}  // namespace xhal
