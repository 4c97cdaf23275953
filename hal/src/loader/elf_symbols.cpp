// SPDX-License-Identifier: Apache-2.0
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

// The header and the sections of a 64-bit ELF file.
struct Elf {
  std::ifstream file;
  uint64_t size = 0;
  std::vector<Elf64_Shdr> sections;
};

bool open_elf(const std::filesystem::path& library, Elf& elf) {
  std::error_code error;
  elf.file.open(library, std::ios::binary);
  elf.size = std::filesystem::file_size(library, error);
  std::vector<Elf64_Ehdr> header;
  return !error && read_table(elf.file, elf.size, 0, 1, header) &&
         std::memcmp(header[0].e_ident, ELFMAG, SELFMAG) == 0 &&
         header[0].e_ident[EI_CLASS] == ELFCLASS64 && header[0].e_shentsize == sizeof(Elf64_Shdr) &&
         read_table(elf.file, elf.size, header[0].e_shoff, header[0].e_shnum, elf.sections);
}

}  // namespace

std::optional<std::vector<std::string>> exported_symbols(const std::filesystem::path& library) {
  Elf elf;
  if (!open_elf(library, elf)) return std::nullopt;
  auto& [file, size, sections] = elf;
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

std::string build_id(const std::filesystem::path& library) {
  constexpr uint64_t kMostNoteBytes = 64 * 1024;
  Elf elf;
  if (!open_elf(library, elf)) return {};
  for (const auto& section : elf.sections) {
    std::vector<char> notes;
    if (section.sh_type != SHT_NOTE || section.sh_size > kMostNoteBytes ||
        !read_table(elf.file, elf.size, section.sh_offset, section.sh_size, notes))
      continue;
    for (size_t at = 0; at + sizeof(Elf64_Nhdr) <= notes.size();) {
      Elf64_Nhdr note;
      std::memcpy(&note, notes.data() + at, sizeof note);
      const uint64_t name = at + sizeof note;
      const uint64_t data = name + ((uint64_t{note.n_namesz} + 3) & ~uint64_t{3});
      if (data + note.n_descsz > notes.size()) break;
      if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
          std::memcmp(notes.data() + name, "GNU", 4) == 0) {
        std::string text;
        for (uint64_t i = 0; i < note.n_descsz; ++i) {
          constexpr char kDigits[] = "0123456789abcdef";
          const auto byte = static_cast<unsigned char>(notes[data + i]);
          text += {kDigits[byte >> 4], kDigits[byte & 15]};
        }
        return text;
      }
      at = data + ((uint64_t{note.n_descsz} + 3) & ~uint64_t{3});
    }
  }
  return {};
}

}  // namespace xhal
