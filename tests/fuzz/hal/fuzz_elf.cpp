// SPDX-License-Identifier: Apache-2.0
// Libraries with wrong, lying or missing tables: the reader of exported symbols answers with names
// that are in the file, or with nothing.
#include <elf.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "loader/elf_symbols.hpp"
#include "mutate.hpp"

namespace xhal::fuzz {
namespace {

constexpr char kText[] = "\0first\0second\0xhal_plugin_negotiate\0hidden";
constexpr size_t kTextAt = sizeof(Elf64_Ehdr);
constexpr size_t kSymbolsAt = kTextAt + (sizeof kText + 7) / 8 * 8;
constexpr size_t kSymbolCount = 5;
constexpr size_t kSectionsAt = kSymbolsAt + kSymbolCount * sizeof(Elf64_Sym);
constexpr size_t kBytes = kSectionsAt + 3 * sizeof(Elf64_Shdr);

template <class T>
void put(std::string& file, size_t at, const T& value) {
  std::memcpy(file.data() + at, &value, sizeof value);
}

// The smallest library with exported symbols.
std::string library() {
  std::string file(kBytes, '\0');
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_type = ET_DYN;
  header.e_shoff = kSectionsAt;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = 3;
  put(file, 0, header);
  std::memcpy(file.data() + kTextAt, kText, sizeof kText);
  const uint32_t names[kSymbolCount] = {0, 1, 7, 14, 36};
  for (size_t i = 0; i < kSymbolCount; ++i) {
    Elf64_Sym symbol{};
    symbol.st_name = names[i];
    symbol.st_info = ELF64_ST_INFO(i == 4 ? STB_LOCAL : STB_GLOBAL, STT_FUNC);
    symbol.st_shndx = i == 0 ? SHN_UNDEF : 1;
    put(file, kSymbolsAt + i * sizeof symbol, symbol);
  }
  Elf64_Shdr sections[3] = {};
  sections[1].sh_type = SHT_DYNSYM;
  sections[1].sh_link = 2;
  sections[1].sh_offset = kSymbolsAt;
  sections[1].sh_size = kSymbolCount * sizeof(Elf64_Sym);
  sections[2].sh_type = SHT_STRTAB;
  sections[2].sh_offset = kTextAt;
  sections[2].sh_size = sizeof kText;
  put(file, kSectionsAt, sections);
  return file;
}

class ElfFuzz : public testing::Test {
 protected:
  void SetUp() override { ASSERT_GE(fd_, 0); }
  void TearDown() override { close(fd_); }
  std::optional<std::vector<std::string>> read(const std::string& bytes) {
    EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(bytes.size())), 0);
    EXPECT_EQ(pwrite(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return exported_symbols("/proc/self/fd/" + std::to_string(fd_));
  }
  const int fd_ = memfd_create("library", MFD_CLOEXEC);
};

TEST_F(ElfFuzz, AGoodLibraryHasItsExportedNames) {
  const auto names = read(library());
  ASSERT_TRUE(names);
  EXPECT_EQ(*names, (std::vector<std::string>{"first", "second", "xhal_plugin_negotiate"}));
}

TEST_F(ElfFuzz, EveryTruncationIsSeen) {
  const auto whole = library();
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_FALSE(read(whole.substr(0, i))) << i << " bytes";
}

TEST_F(ElfFuzz, WrongFieldsGiveNamesOfTheFileOrNothing) {
  struct Field {
    size_t at, bytes;
  };
  std::vector<Field> fields = {{offsetof(Elf64_Ehdr, e_shoff), 8},
                               {offsetof(Elf64_Ehdr, e_shnum), 2},
                               {offsetof(Elf64_Ehdr, e_shentsize), 2}};
  for (size_t s = 0; s < 3; ++s) {
    const size_t at = kSectionsAt + s * sizeof(Elf64_Shdr);
    fields.push_back({at + offsetof(Elf64_Shdr, sh_type), 4});
    fields.push_back({at + offsetof(Elf64_Shdr, sh_offset), 8});
    fields.push_back({at + offsetof(Elf64_Shdr, sh_size), 8});
    fields.push_back({at + offsetof(Elf64_Shdr, sh_link), 4});
  }
  for (size_t i = 0; i < kSymbolCount; ++i)
    fields.push_back({kSymbolsAt + i * sizeof(Elf64_Sym), 4});
  for (uint64_t seed = 0; seed < 20'000 && !HasFailure(); ++seed) {
    Random random(seed);
    auto file = library();
    for (uint64_t n = 1 + random.below(3); n > 0; --n) {
      const auto& field = random.pick(fields);
      const uint64_t value = random.edge(kBytes);
      std::memcpy(file.data() + field.at, &value, field.bytes);
    }
    if (random.one_in(3))
      file = mutate(random, file,
                    {std::string(64, '\0'),
                     "\x7f"
                     "ELF"});
    const auto names = read(file);
    if (!names) continue;
    size_t bytes = 0;
    for (const auto& name : *names) {
      EXPECT_NE(file.find(name), std::string::npos) << "seed " << seed;
      bytes += name.size();
    }
    EXPECT_LE(bytes, 16 * file.size()) << "seed " << seed;
  }
}

// The format allows one such table; many that overlap would make a small file cost gigabytes.
TEST_F(ElfFuzz, ALibraryWithTwoSymbolTablesIsDamaged) {
  auto file = library();
  Elf64_Shdr first;
  std::memcpy(&first, file.data() + kSectionsAt + sizeof first, sizeof first);
  put(file, kSectionsAt, first);
  EXPECT_FALSE(read(file));
}

TEST_F(ElfFuzz, ASectionThatWrapsAroundIsDamage) {
  auto file = library();
  Elf64_Shdr section{};
  section.sh_type = SHT_PROGBITS;
  section.sh_offset = UINT64_MAX - 7;
  section.sh_size = 16;
  put(file, kSectionsAt, section);
  EXPECT_FALSE(read(file));
}

}  // namespace
}  // namespace xhal::fuzz
