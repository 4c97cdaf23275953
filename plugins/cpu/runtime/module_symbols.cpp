// SPDX-License-Identifier: Apache-2.0
#include "module_symbols.hpp"

#include <elf.h>

#include <cstdint>
#include <cstring>

namespace xhal::cpu {
namespace {

// The n-th entry of a table that begins at `offset`; the image need not be aligned for T.
template <class T>
std::optional<T> entry(const std::vector<char>& image, uint64_t offset, uint64_t n) {
  if (offset > image.size() || n >= (image.size() - offset) / sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, image.data() + offset + n * sizeof(T), sizeof value);
  return value;
}

std::optional<std::string> text(const std::vector<char>& image, const Elf64_Shdr& table,
                                uint64_t at) {
  if (table.sh_offset > image.size() || table.sh_size > image.size() - table.sh_offset ||
      at >= table.sh_size)
    return std::nullopt;
  const char* begin = image.data() + table.sh_offset + at;
  const auto* end = static_cast<const char*>(std::memchr(begin, 0, table.sh_size - at));
  return end == nullptr ? std::nullopt : std::optional<std::string>(std::in_place, begin, end);
}

}  // namespace

std::optional<std::vector<std::string>> exported_functions(const std::vector<char>& image) {
  std::vector<std::string> names;
  const auto header = entry<Elf64_Ehdr>(image, 0, 0);
  if (!header) return std::nullopt;
  const auto section = [&](uint64_t n) { return entry<Elf64_Shdr>(image, header->e_shoff, n); };
  for (uint64_t i = 0; i < header->e_shnum; ++i) {
    const auto symbols = section(i);
    if (!symbols) return std::nullopt;
    if (symbols->sh_type != SHT_DYNSYM) continue;
    const auto names_of = section(symbols->sh_link);
    if (!names_of) return std::nullopt;
    for (uint64_t n = 0; n < symbols->sh_size / sizeof(Elf64_Sym); ++n) {
      const auto symbol = entry<Elf64_Sym>(image, symbols->sh_offset, n);
      if (!symbol) return std::nullopt;
      if (symbol->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(symbol->st_info) != STT_FUNC) continue;
      auto name = text(image, *names_of, symbol->st_name);
      if (!name) return std::nullopt;
      names.push_back(std::move(*name));
    }
  }
  return names;
}

}  // namespace xhal::cpu
