#include "sync/cells.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mutex>
#include <vector>

namespace xhal {
namespace {

constexpr uint64_t kSlabBytes = 1 << 20;
constexpr uint64_t kCell = 64;

struct Slab {
  char* base;
  int fd;
  uint64_t size, used;
};
struct Foreign {
  char* base;
  uint64_t size;
  dev_t device;
  ino_t inode;
};

struct Cells {
  std::mutex mutex;
  std::vector<Slab> slabs;
  std::vector<Foreign> foreign;
};

Cells& cells() {
  static auto* c = new Cells;
  return *c;
}

}  // namespace

void* take_cells(uint64_t count) noexcept {
  auto& c = cells();
  const std::lock_guard lock(c.mutex);
  const uint64_t bytes = count * kCell;
  if (c.slabs.empty() || c.slabs.back().size - c.slabs.back().used < bytes) {
    const uint64_t size = bytes > kSlabBytes ? bytes : kSlabBytes;
    const int fd = memfd_create("xhal-cells", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return nullptr;
    void* base = MAP_FAILED;
    if (ftruncate(fd, static_cast<off_t>(size)) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0) {
      base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (base == MAP_FAILED) {
      close(fd);
      return nullptr;
    }
    try {
      c.slabs.push_back({static_cast<char*>(base), fd, size, 0});
    } catch (...) {
      munmap(base, size);
      close(fd);
      return nullptr;
    }
  }
  auto& slab = c.slabs.back();
  void* p = slab.base + slab.used;
  slab.used += bytes;
  return p;
}

bool find_cells(const void* cell, int32_t* fd, uint64_t* offset, uint64_t* size_bytes) noexcept {
  auto& c = cells();
  const std::lock_guard lock(c.mutex);
  const auto* p = static_cast<const char*>(cell);
  for (const auto& slab : c.slabs) {
    if (p < slab.base || p >= slab.base + slab.size) continue;
    *fd = slab.fd;
    *offset = static_cast<uint64_t>(p - slab.base);
    *size_bytes = slab.size;
    return true;
  }
  return false;
}

void cells_after_fork() noexcept {
  new (&cells().mutex) std::mutex;
  for (auto& slab : cells().slabs) slab.used = slab.size;
}

void* map_foreign_cell(int32_t fd, uint64_t offset) noexcept {
  struct stat info {};
  if (fstat(fd, &info) != 0 || offset % kCell != 0 ||
      offset + kCell > static_cast<uint64_t>(info.st_size)) {
    return nullptr;
  }
  // Without the seal the exporter could shrink the file and every read here would be a SIGBUS.
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return nullptr;
  auto& c = cells();
  const std::lock_guard lock(c.mutex);
  for (const auto& f : c.foreign) {
    if (f.device == info.st_dev && f.inode == info.st_ino) return f.base + offset;
  }
  void* base =
      mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return nullptr;
  try {
    c.foreign.push_back(
        {static_cast<char*>(base), static_cast<uint64_t>(info.st_size), info.st_dev, info.st_ino});
  } catch (...) {
    munmap(base, static_cast<size_t>(info.st_size));
    return nullptr;
  }
  return static_cast<char*>(base) + offset;
}

}  // namespace xhal
