#include "loader/elf_symbols.hpp"

#include <elf.h>

#include <cstring>
#include <fstream>
#include <utility>

namespace xhal {
namespace {

// All names together may be this many times the file: a table of many symbols that share one long
// name could else make a small file cost gigabytes.
constexpr uint64_t kNamesPerFile = 16;

// Reads a table out of the file; false when it leaves the file. Only what is asked for is read: a
// library with debug information has tens of megabytes of other things.
template <class T>
bool read_table(std::ifstream& file, uint64_t file_bytes, uint64_t offset, uint64_t count,
                std::vector<T>& table) {
  if (offset > file_bytes || count > (file_bytes - offset) / sizeof(T)) return false;
  table.resize(count);
  file.seekg(static_cast<std::streamoff>(offset));
  return file
      .read(reinterpret_cast<char*>(table.data()), static_cast<std::streamsize>(count * sizeof(T)))
      .good();
}

}  // namespace

std::optional<std::vector<std::string>> exported_symbols(const std::filesystem::path& library) {
  std::ifstream file(library, std::ios::binary);
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(library, error);
  std::vector<Elf64_Ehdr> header;
  std::vector<Elf64_Shdr> sections;
  if (error || !read_table(file, size, 0, 1, header) ||
      std::memcmp(header[0].e_ident, ELFMAG, SELFMAG) != 0 ||
      header[0].e_shentsize != sizeof(Elf64_Shdr) ||
      !read_table(file, size, header[0].e_shoff, header[0].e_shnum, sections)) {
    return std::nullopt;
  }
  std::vector<std::string> names;
  uint64_t name_bytes = 0;
  bool found = false;
  for (const auto& section : sections) {
    if (section.sh_type != SHT_NOBITS &&
        (section.sh_offset > size || section.sh_size > size - section.sh_offset))
      return std::nullopt;
    if (section.sh_type != SHT_DYNSYM) continue;
    if (std::exchange(found, true)) return std::nullopt;  // the format allows one
    std::vector<Elf64_Sym> symbols;
    std::vector<char> text;
    if (section.sh_link >= sections.size() ||
        !read_table(file, size, section.sh_offset, section.sh_size / sizeof(Elf64_Sym), symbols) ||
        !read_table(file, size, sections[section.sh_link].sh_offset,
                    sections[section.sh_link].sh_size, text) ||
        text.empty() || text.back() != '\0') {
      return std::nullopt;
    }
    for (const auto& symbol : symbols) {
      const auto binding = ELF64_ST_BIND(symbol.st_info);
      if (symbol.st_shndx == SHN_UNDEF || binding == STB_LOCAL || symbol.st_name >= text.size())
        continue;
      names.emplace_back(text.data() + symbol.st_name);
      name_bytes += names.back().size();
      if (name_bytes > kNamesPerFile * size) return std::nullopt;
    }
  }
  return names;
}

}  // namespace xhal
