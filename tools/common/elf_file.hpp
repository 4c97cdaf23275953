// SPDX-License-Identifier: Apache-2.0
// elf_file.hpp: what a library file tells of itself without being loaded.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace xhal::tools {

struct ElfFile {
  std::string problem;  // why the file cannot be used as a library of this machine; empty = it can
  std::string architecture;
  std::string build_id;
  std::vector<std::string> exports;  // functions and objects that it offers
  std::vector<std::string> needed;   // libraries that it needs, as it names them
};

// Never throws, whatever the file holds.
ElfFile read_elf_file(const std::filesystem::path& path);

}  // namespace xhal::tools
