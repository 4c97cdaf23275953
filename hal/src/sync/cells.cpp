// SPDX-License-Identifier: Apache-2.0
#include "sync/cells.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "core/locks.hpp"

namespace xhal {
namespace {

constexpr uint64_t kSlabBytes = 1 << 20;
constexpr uint64_t kCell = sizeof(xhal_timeline_cell);
static_assert(kCell == 64);

struct Slab {
  char* base;
  int fd;  // -1: a private copy after a fork
  uint64_t size, used;
};

struct Cells {
  Mutex mutex{Rank::cells};
  std::vector<Slab> slabs;
  std::vector<xhal_timeline_cell*> free;
};

Cells& cells() {
  static auto* c = new Cells;
  return *c;
}
const AtLoad cells_at_load(cells);

bool add_slab(Cells& c, uint64_t bytes) {
  const uint64_t size = bytes > kSlabBytes ? bytes : kSlabBytes;
  const int fd = memfd_create("xhal-cells", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return false;
  void* base = MAP_FAILED;
  if (ftruncate(fd, static_cast<off_t>(size)) == 0 &&
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0) {
    base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (base != MAP_FAILED) {
    try {
      c.slabs.push_back({static_cast<char*>(base), fd, size, 0});
      return true;
    } catch (...) {
      munmap(base, size);
    }
  }
  close(fd);
  return false;
}

void* take(Cells& c, uint64_t bytes) {
  if (c.slabs.empty() || c.slabs.back().size - c.slabs.back().used < bytes) {
    if (!add_slab(c, bytes)) return nullptr;
  }
  auto& slab = c.slabs.back();
  void* p = slab.base + slab.used;
  slab.used += bytes;
  return p;
}

}  // namespace

xhal_timeline_cell* take_cell() noexcept {
  auto& c = cells();
  const std::lock_guard lock(c.mutex);
  if (!c.free.empty()) {
    auto* cell = c.free.back();
    c.free.pop_back();
    return cell;
  }
  auto* cell = static_cast<xhal_timeline_cell*>(take(c, kCell));
  if (cell != nullptr) cell->owner_pid = static_cast<uint32_t>(getpid());
  return cell;
}

void give_cell(xhal_timeline_cell* cell) noexcept {
  auto& c = cells();
  const std::lock_guard lock(c.mutex);
  try {
    c.free.push_back(cell);
  } catch (...) {  // then this cell is simply not used again
  }
}

void* take_cells(uint64_t count) noexcept {
  auto& c = cells();
  const std::lock_guard lock(c.mutex);
  return take(c, count * kCell);
}

bool find_cells(const void* cell, int32_t* fd, uint64_t* offset, uint64_t* size_bytes) noexcept {
  auto& c = cells();
  const std::lock_guard lock(c.mutex);
  const auto* p = static_cast<const char*>(cell);
  for (const auto& slab : c.slabs) {
    if (p < slab.base || p >= slab.base + slab.size) continue;
    if (slab.fd < 0) return false;
    *fd = slab.fd;
    *offset = static_cast<uint64_t>(p - slab.base);
    *size_bytes = slab.size;
    return true;
  }
  return false;
}

xhal_timeline_cell* no_cell() noexcept {
  alignas(64) static xhal_timeline_cell cell{};
  return &cell;
}

void cells_after_fork() noexcept {
  auto& c = cells();
  for (auto& slab : c.slabs) {
    if (slab.fd < 0) continue;
    void* copy =
        mmap(nullptr, slab.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED) {
      // Without memory for a copy the child may not even read it: a fault is better than a write
      // into its parent.
      mmap(slab.base, slab.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    } else {
      std::memcpy(copy, slab.base, slab.used);
      mremap(copy, slab.size, slab.size, MREMAP_MAYMOVE | MREMAP_FIXED, slab.base);
    }
    close(slab.fd);
    slab.fd = -1;
    slab.used = slab.size;
  }
  c.free.clear();
}

}  // namespace xhal
