// SPDX-License-Identifier: Apache-2.0
#include "common/elf_file.hpp"

#include <elf.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <span>

namespace xhal::tools {
namespace {

class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path) {
    // Without O_NONBLOCK a pipe would be waited for.
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info {};
    if (fd < 0 || fstat(fd, &info) != 0) {
      error_ = std::strerror(errno);
    } else if (!S_ISREG(info.st_mode)) {
      error_ = "it is not a regular file";
    } else if (info.st_size > 0) {
      void* data = mmap(nullptr, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
      if (data != MAP_FAILED)
        bytes_ = {static_cast<const char*>(data), static_cast<size_t>(info.st_size)};
    }
    if (fd >= 0) close(fd);
  }
  ~MappedFile() {
    if (!bytes_.empty()) munmap(const_cast<char*>(bytes_.data()), bytes_.size());
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const char> bytes() const { return bytes_; }
  const std::string& error() const { return error_; }

 private:
  std::span<const char> bytes_;
  std::string error_;
};

std::string architecture_name(uint16_t machine) {
  switch (machine) {
    case EM_X86_64:
      return "x86_64";
    case EM_386:
      return "i386";
    case EM_AARCH64:
      return "aarch64";
    case EM_ARM:
      return "arm";
    case EM_RISCV:
      return "riscv";
    case EM_PPC64:
      return "ppc64";
    case EM_LOONGARCH:
      return "loongarch64";
    default:
      return fmt::format("machine {}", machine);
  }
}

// Sections of a 64-bit file of this byte order. Every access is checked against the file's size.
class Sections {
 public:
  explicit Sections(std::span<const char> bytes) : bytes_(bytes) {
    const auto* header = at<Elf64_Ehdr>(0);
    if (header == nullptr || header->e_shentsize != sizeof(Elf64_Shdr)) return;
    for (uint32_t i = 0; i < header->e_shnum; ++i) {
      const auto* section = at<Elf64_Shdr>(header->e_shoff + i * sizeof(Elf64_Shdr));
      if (section == nullptr) break;
      list_.push_back(section);
    }
  }
  const std::vector<const Elf64_Shdr*>& list() const { return list_; }

  template <class T>
  std::vector<const T*> entries(const Elf64_Shdr& section) const {
    std::vector<const T*> found;
    for (uint64_t offset = 0; offset + sizeof(T) <= section.sh_size; offset += sizeof(T)) {
      const auto* entry = at<T>(section.sh_offset + offset);
      if (entry == nullptr) break;
      found.push_back(entry);
    }
    return found;
  }

  // A string of the section that `of` links to.
  std::string string(const Elf64_Shdr& of, uint64_t offset) const {
    if (of.sh_link >= list_.size()) return {};
    const auto& table = *list_[of.sh_link];
    if (offset >= table.sh_size || table.sh_offset > bytes_.size()) return {};
    const auto tail = bytes_.subspan(table.sh_offset);
    if (offset >= tail.size()) return {};
    return {tail.data() + offset, strnlen(tail.data() + offset, tail.size() - offset)};
  }

  template <class T>
  const T* at(uint64_t offset) const {
    if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T) || offset % alignof(T) != 0)
      return nullptr;
    return reinterpret_cast<const T*>(bytes_.data() + offset);
  }
  std::span<const char> bytes() const { return bytes_; }

 private:
  std::span<const char> bytes_;
  std::vector<const Elf64_Shdr*> list_;
};

std::string build_id_in(const Sections& sections, const Elf64_Shdr& section) {
  const auto* note = sections.at<Elf64_Nhdr>(section.sh_offset);
  if (note == nullptr || note->n_type != NT_GNU_BUILD_ID || note->n_namesz != 4) return {};
  const uint64_t begin = section.sh_offset + sizeof *note + 4;
  if (note->n_descsz > 64 || begin + note->n_descsz > sections.bytes().size()) return {};
  std::string text;
  for (uint64_t i = 0; i < note->n_descsz; ++i) {
    text += fmt::format("{:02x}", static_cast<uint8_t>(sections.bytes()[begin + i]));
  }
  return text;
}

// Of this very process.
std::string own_architecture() {
  const MappedFile self("/proc/self/exe");
  Elf64_Ehdr header{};
  if (self.bytes().size() >= sizeof header)
    std::memcpy(&header, self.bytes().data(), sizeof header);
  return architecture_name(header.e_machine);
}

std::string header_problem(std::span<const char> bytes, std::string* architecture) {
  if (bytes.size() < sizeof(Elf64_Ehdr) || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0) {
    return "is not an ELF library";
  }
  const auto& header = *reinterpret_cast<const Elf64_Ehdr*>(bytes.data());
  *architecture = architecture_name(header.e_machine);
  if (header.e_ident[EI_CLASS] != ELFCLASS64)
    return fmt::format("is a 32-bit library ({})", *architecture);
  const auto self = own_architecture();
  if (*architecture != self)
    return fmt::format("is built for {}, this machine runs {}", *architecture, self);
  if (header.e_type != ET_DYN) return "is an ELF file, but no shared library";
  if (header.e_shnum == 0 || header.e_shoff > bytes.size() ||
      bytes.size() - header.e_shoff < uint64_t{header.e_shnum} * header.e_shentsize) {
    return "is truncated: its section table lies beyond the end of the file";
  }
  return {};
}

}  // namespace

ElfFile read_elf_file(const std::filesystem::path& path) {
  ElfFile elf;
  const MappedFile file(path);
  if (!file.error().empty()) {
    elf.problem = "cannot be read: " + file.error();
    return elf;
  }
  elf.problem = header_problem(file.bytes(), &elf.architecture);
  if (!elf.problem.empty()) return elf;
  const Sections sections(file.bytes());
  for (const auto* section : sections.list()) {
    if (section->sh_type == SHT_NOTE && elf.build_id.empty())
      elf.build_id = build_id_in(sections, *section);
    if (section->sh_type == SHT_DYNAMIC) {
      for (const auto* entry : sections.entries<Elf64_Dyn>(*section)) {
        if (entry->d_tag == DT_NEEDED)
          elf.needed.push_back(sections.string(*section, entry->d_un.d_val));
      }
    }
    if (section->sh_type != SHT_DYNSYM) continue;
    for (const auto* symbol : sections.entries<Elf64_Sym>(*section)) {
      const auto bind = ELF64_ST_BIND(symbol->st_info), type = ELF64_ST_TYPE(symbol->st_info);
      const bool offered = symbol->st_shndx != SHN_UNDEF && symbol->st_shndx != SHN_ABS &&
                           bind != STB_LOCAL &&
                           (type == STT_FUNC || type == STT_OBJECT || type == STT_GNU_IFUNC);
      if (offered) elf.exports.push_back(sections.string(*section, symbol->st_name));
    }
  }
  return elf;
}

}  // namespace xhal::tools
