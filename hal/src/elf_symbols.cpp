#include "elf_symbols.hpp"

#include <elf.h>

#include <cstring>
#include <fstream>

namespace xhal {
namespace {

// Copies a table out of the file; false when it leaves the file or is not made of T.
template <class T>
bool read_table(const std::string& file, uint64_t offset, uint64_t count, std::vector<T>& table) {
  if (offset > file.size() || count > (file.size() - offset) / sizeof(T)) return false;
  table.resize(count);
  if (count > 0) std::memcpy(table.data(), file.data() + offset, count * sizeof(T));
  return true;
}

}  // namespace

std::optional<std::vector<std::string>> exported_symbols(const std::filesystem::path& library) {
  std::ifstream stream(library, std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(stream), {}};
  std::vector<Elf64_Ehdr> header;
  std::vector<Elf64_Shdr> sections;
  if (!read_table(file, 0, 1, header) || std::memcmp(header[0].e_ident, ELFMAG, SELFMAG) != 0 ||
      header[0].e_shentsize != sizeof(Elf64_Shdr) ||
      !read_table(file, header[0].e_shoff, header[0].e_shnum, sections)) {
    return std::nullopt;
  }
  std::vector<std::string> names;
  for (const auto& section : sections) {
    if (section.sh_type != SHT_NOBITS && section.sh_offset + section.sh_size > file.size())
      return std::nullopt;
    if (section.sh_type != SHT_DYNSYM) continue;
    std::vector<Elf64_Sym> symbols;
    std::vector<char> text;
    if (section.sh_link >= sections.size() ||
        !read_table(file, section.sh_offset, section.sh_size / sizeof(Elf64_Sym), symbols) ||
        !read_table(file, sections[section.sh_link].sh_offset, sections[section.sh_link].sh_size,
                    text) ||
        text.empty() || text.back() != '\0') {
      return std::nullopt;
    }
    for (const auto& symbol : symbols) {
      const auto binding = ELF64_ST_BIND(symbol.st_info);
      if (symbol.st_shndx == SHN_UNDEF || binding == STB_LOCAL || symbol.st_name >= text.size())
        continue;
      names.emplace_back(text.data() + symbol.st_name);
    }
  }
  return names;
}

}  // namespace xhal
