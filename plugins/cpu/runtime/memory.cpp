// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <mutex>

#include "xhal_base/environment.hpp"

namespace xhal::cpu {
namespace {

using plugin::Error;

constexpr uint32_t kHostProperties =
    XHAL_MEMORY_HOST_VISIBLE | XHAL_MEMORY_COHERENT | XHAL_MEMORY_CACHED;

uint64_t round_up(uint64_t value, uint64_t step) { return (value + step - 1) / step * step; }
uint64_t number_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// Address space aligned to `alignment`; nothing is behind it yet.
char* reserve_space(uint64_t size, uint64_t alignment) {
  const uint64_t extra = alignment > kPageBytes ? alignment : 0;
  void* raw =
      mmap(nullptr, size + extra, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* begin = static_cast<char*>(raw);
  auto* aligned = begin + (round_up(number_of(begin), alignment) - number_of(begin));
  if (aligned > begin) munmap(begin, static_cast<size_t>(aligned - begin));
  const uint64_t behind = extra - static_cast<uint64_t>(aligned - begin);
  if (behind > 0) munmap(aligned + size, behind);
  return aligned;
}

// Puts memory behind reserved space: a memfd's, or anonymous with huge pages, which make first
// touch four times cheaper.
bool fill_space(char* place, uint64_t size, int fd) {
  const int flags =
      fd >= 0 ? MAP_SHARED | MAP_FIXED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
  if (mmap(place, size, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED) return false;
  if (fd < 0 && size >= kHugePageBytes) madvise(place, size, MADV_HUGEPAGE);
  return true;
}

Error out_of_memory(uint64_t size, const char* why) {
  return {XHAL_ERR_OUT_OF_MEMORY, fmt::format("no {} bytes of host memory: {}", size, why)};
}

}  // namespace

bool guard_asked_for() {
  const auto asked = base::environment_switch("XHAL_CPU_GUARD");
  if (!asked.problem.empty())
    plugin::host().log(XHAL_LOG_WARN, plugin::str(asked.problem + "; taking 0"));
  return asked.value.value_or(false);
}

// Address space costs nothing: room for much more than there is memory, so that it
// never gets tight.
Memory::Memory(const Site& site, bool guarded) : site_(site) {
  if (guarded) {
    const uint64_t size = std::max(16 * site.memory_bytes, uint64_t{64} << 30);
    guard_.emplace(round_up(size, kHugePageBytes));
  }
}

Memory::~Memory() { free_all(nullptr); }

bool Memory::take_space(Slab& slab, uint64_t alignment) {
  slab.place =
      slab.hidden ? guard_->take(slab.mapped_bytes) : reserve_space(slab.mapped_bytes, alignment);
  return slab.place != nullptr;
}

void Memory::take_budget(uint64_t size_bytes) {
  const uint64_t used = used_bytes_.fetch_add(size_bytes);
  if (used + size_bytes <= total_bytes()) return;
  used_bytes_.fetch_sub(size_bytes);
  throw Error(XHAL_ERR_OUT_OF_MEMORY, fmt::format("{} bytes are asked for, {} of {} are in use.\n  "
                                                  "Free or trim something, or use smaller batches.",
                                                  size_bytes, used, total_bytes()));
}

// Enters a slab whose `place` is filled; on failure gives everything back. Returns its address.
uint64_t Memory::adopt(xhal_device* device, Slab slab, uint32_t kind, uint32_t flags) {
  const uint64_t address = slab.hidden ? guard_->address_of(slab.place) : number_of(slab.place);
  if (plugin::host().range_add(device, slab.context, address, slab.size_bytes, kind, flags) !=
      XHAL_OK) {
    drop(slab);
    throw Error(XHAL_ERR_ADDRESS_CONFLICT,
                fmt::format("the address range {:#x} + {} belongs to another device already",
                            address, slab.size_bytes));
  }
  const std::lock_guard lock(mutex_);
  slabs_.emplace(address, std::move(slab));
  return address;
}

// Gives back what a slab has.
void Memory::drop(Slab& slab) {
  if (slab.sort == Sort::registered) return;
  if (slab.hidden) {
    guard_->give_back(slab.place, slab.mapped_bytes);
  } else {
    munmap(slab.place, slab.mapped_bytes);
  }
  if (slab.fd >= 0) close(slab.fd);
  if (slab.sort == Sort::plain) used_bytes_.fetch_sub(slab.mapped_bytes);
  for (const auto& [begin, end] : slab.pieces) used_bytes_.fetch_sub(end - begin);
}

uint64_t Memory::alloc(xhal_device* device, xhal_context* context, const xhal_memory_info& info) {
  const bool hidden = guarded() && info.kind == XHAL_MEMORY_DEVICE;
  const uint32_t given = hidden ? 0 : kHostProperties;
  const uint32_t known = kHostProperties | XHAL_MEMORY_EXPORTABLE;
  if ((info.flags & ~known) != 0 || (info.flags & kHostProperties & ~given) != 0) {
    throw Error(XHAL_ERR_UNSUPPORTED,
                hidden ? "device memory is hidden from the host while XHAL_CPU_GUARD=1; ask for "
                         "XHAL_MEMORY_SHARED, or copy"
                       : "unknown memory properties are asked for");
  }
  // A hidden slab has the alignment of huge pages; a larger one is asked for rarely enough.
  if (hidden && info.alignment_bytes > kHugePageBytes)
    throw Error(XHAL_ERR_UNSUPPORTED, "alignment beyond 2 MiB while XHAL_CPU_GUARD=1");
  Slab slab;
  slab.hidden = hidden;
  slab.size_bytes = info.size_bytes;
  slab.mapped_bytes = round_up(info.size_bytes, kPageBytes);
  slab.context = context;
  const bool exportable = (info.flags & XHAL_MEMORY_EXPORTABLE) != 0;
  const uint64_t natural = slab.mapped_bytes >= kHugePageBytes ? kHugePageBytes : kPageBytes;
  take_budget(slab.mapped_bytes);

  bool ready = take_space(slab, std::max(natural, info.alignment_bytes));
  if (ready && exportable) {
    // Sealed, so that no importer has to fear that the memory shrinks under it.
    slab.fd = memfd_create("xhal-cpu", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ready = slab.fd >= 0 && ftruncate(slab.fd, static_cast<off_t>(slab.mapped_bytes)) == 0 &&
            fcntl(slab.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0;
  }
  ready = ready && fill_space(slab.place, slab.mapped_bytes, slab.fd);
  if (!ready) {
    const int why = errno;
    if (slab.place != nullptr) {
      drop(slab);
    } else {
      used_bytes_.fetch_sub(slab.mapped_bytes);
    }
    throw out_of_memory(info.size_bytes, std::strerror(why));
  }
  Topology::get().bind_memory(site_, slab.place, slab.mapped_bytes);
  return adopt(device, std::move(slab), info.kind,
               given | (exportable ? uint32_t{XHAL_MEMORY_EXPORTABLE} : 0));
}

void Memory::free(uint64_t address) {
  Slab slab;
  {
    const std::lock_guard lock(mutex_);
    const auto it = slabs_.find(address);
    if (it == slabs_.end() || it->second.sort == Sort::registered ||
        it->second.sort == Sort::reserved) {
      throw Error(XHAL_ERR_INVALID_ARGUMENT,
                  fmt::format("{:#x} is not the start of an allocation", address));
    }
    slab = std::move(it->second);
    slabs_.erase(it);
  }
  plugin::host().range_remove(address);
  drop(slab);
}

void Memory::scrub(uint64_t address, uint64_t size_bytes) {
  char* place = nullptr;
  uint64_t size = 0;
  {
    const std::lock_guard lock(mutex_);
    const auto it = slabs_.find(address);
    if (it == slabs_.end() || it->second.sort != Sort::plain ||
        size_bytes > it->second.size_bytes) {
      throw Error(XHAL_ERR_INVALID_ARGUMENT,
                  fmt::format("{:#x} + {} is no allocation", address, size_bytes));
    }
    place = it->second.place;
    size = it->second.mapped_bytes;
  }
  explicit_bzero(place, size);  // a memset may be left out: nobody here reads it again
}

xhal_external Memory::export_slab(uint64_t address, uint32_t handle_type) const {
  if (handle_type != XHAL_EXTERNAL_FD) {
    throw Error(XHAL_ERR_UNSUPPORTED, "host memory is exported as XHAL_EXTERNAL_FD only");
  }
  const std::lock_guard lock(mutex_);
  auto it = slabs_.upper_bound(address);
  if (it == slabs_.begin() || address - std::prev(it)->first >= std::prev(it)->second.size_bytes) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT, fmt::format("{:#x} lies in no allocation", address));
  }
  --it;
  if (it->second.fd < 0) {
    throw Error(
        XHAL_ERR_INVALID_ARGUMENT,
        fmt::format("{:#x} was allocated without XHAL_MEMORY_EXPORTABLE and cannot be exported",
                    address));
  }
  xhal_external external{};
  external.handle_type = XHAL_EXTERNAL_FD;
  external.fd = fcntl(it->second.fd, F_DUPFD_CLOEXEC, 3);
  if (external.fd < 0) throw Error(XHAL_ERR_OUT_OF_MEMORY, "no descriptor left: raise `ulimit -n`");
  external.size_bytes = it->second.size_bytes;
  external.offset_bytes = address - it->first;
  return external;
}

uint64_t Memory::import_slab(xhal_device* device, xhal_context* context,
                             const xhal_external& external) {
  if (external.handle_type != XHAL_EXTERNAL_FD) {
    throw Error(XHAL_ERR_UNSUPPORTED, "slabs are imported as XHAL_EXTERNAL_FD only");
  }
  struct stat info {};
  const int seals = fcntl(external.fd, F_GET_SEALS);
  if (fstat(external.fd, &info) != 0 || external.size_bytes == 0 ||
      external.size_bytes > static_cast<uint64_t>(info.st_size) || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT,
                "the descriptor is not an exported slab of this size (a sealed memfd, as "
                "xhal_memory_export gives it)");
  }
  Slab slab;
  slab.sort = Sort::imported;
  slab.size_bytes = external.size_bytes;
  slab.mapped_bytes = round_up(external.size_bytes, kPageBytes);
  slab.context = context;
  slab.hidden = guarded();
  slab.fd = fcntl(external.fd, F_DUPFD_CLOEXEC, 3);
  if (slab.fd < 0) throw out_of_memory(external.size_bytes, std::strerror(errno));
  const bool has_space = take_space(slab, kPageBytes);
  if (!has_space || !fill_space(slab.place, slab.mapped_bytes, slab.fd)) {
    const int why = errno;
    if (has_space) {
      drop(slab);
    } else {
      close(slab.fd);
    }
    throw out_of_memory(external.size_bytes, std::strerror(why));
  }
  return adopt(device, std::move(slab), XHAL_MEMORY_DEVICE,
               (guarded() ? 0u : kHostProperties) | XHAL_MEMORY_EXPORTABLE);
}

uint64_t Memory::host_register(xhal_context* context, void* host, uint64_t size_bytes) {
  const uint64_t address = number_of(host);
  if (host == nullptr || size_bytes == 0 || address + size_bytes < address) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT, "the host pointer is NULL, or the size is 0");
  }
  Slab slab;
  slab.sort = Sort::registered;
  slab.size_bytes = size_bytes;
  slab.mapped_bytes = size_bytes;
  slab.place = static_cast<char*>(host);
  slab.context = context;
  const std::lock_guard lock(mutex_);
  if (slabs_.contains(address)) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT,
                fmt::format("{} is registered already, or is device memory", host));
  }
  slabs_.emplace(address, std::move(slab));
  return address;
}

void Memory::host_unregister(void* host) {
  const std::lock_guard lock(mutex_);
  const auto it = slabs_.find(number_of(host));
  if (it == slabs_.end() || it->second.sort != Sort::registered) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT, fmt::format("{} is not registered", host));
  }
  slabs_.erase(it);
}

uint64_t Memory::reserve(xhal_device* device, xhal_context* context, uint64_t size_bytes) {
  if (size_bytes == 0 || size_bytes % kHugePageBytes != 0) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT,
                fmt::format("{} bytes are not a multiple of the granularity, {}", size_bytes,
                            kHugePageBytes));
  }
  Slab slab;
  slab.sort = Sort::reserved;
  slab.size_bytes = slab.mapped_bytes = size_bytes;
  slab.context = context;
  slab.hidden = guarded();
  if (!take_space(slab, kHugePageBytes)) throw out_of_memory(size_bytes, "no address space left");
  return adopt(device, std::move(slab), XHAL_MEMORY_DEVICE, guarded() ? 0u : kHostProperties);
}

void Memory::release(uint64_t address) {
  Slab slab;
  {
    const std::lock_guard lock(mutex_);
    const auto it = slabs_.find(address);
    if (it == slabs_.end() || it->second.sort != Sort::reserved) {
      throw Error(XHAL_ERR_INVALID_ARGUMENT,
                  fmt::format("{:#x} is not the start of reserved space", address));
    }
    if (!it->second.pieces.empty()) {
      throw Error(
          XHAL_ERR_INVALID_ARGUMENT,
          fmt::format("the space at {:#x} still has memory in it; unmap that first", address));
    }
    slab = std::move(it->second);
    slabs_.erase(it);
  }
  plugin::host().range_remove(address);
  drop(slab);
}

// The reserved space a piece lies in; call with the lock held.
Memory::Slab& Memory::reserved_range(uint64_t address, uint64_t size_bytes, uint64_t* base) {
  if (size_bytes == 0 || size_bytes % kHugePageBytes != 0 || address % kHugePageBytes != 0) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT,
                fmt::format("{:#x} + {} is not made of multiples of the granularity, {}", address,
                            size_bytes, kHugePageBytes));
  }
  auto it = slabs_.upper_bound(address);
  if (it != slabs_.begin()) {
    --it;
    const uint64_t offset = address - it->first;
    const bool inside =
        offset < it->second.size_bytes && size_bytes <= it->second.size_bytes - offset;
    if (it->second.sort == Sort::reserved && inside) {
      *base = it->first;
      return it->second;
    }
  }
  throw Error(XHAL_ERR_INVALID_ARGUMENT,
              fmt::format("{:#x} + {} does not lie in one reserved space", address, size_bytes));
}

void Memory::map(uint64_t address, uint64_t size_bytes) {
  const std::lock_guard lock(mutex_);
  uint64_t base = 0;
  Slab& slab = reserved_range(address, size_bytes, &base);
  const uint64_t begin = address - base, end = begin + size_bytes;
  const auto after = slab.pieces.upper_bound(begin);
  if ((after != slab.pieces.end() && after->first < end) ||
      (after != slab.pieces.begin() && std::prev(after)->second > begin)) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT,
                fmt::format("{:#x} + {} has memory in it already", address, size_bytes));
  }
  take_budget(size_bytes);
  slab.pieces.emplace(begin, end);
  if (!fill_space(slab.place + begin, size_bytes, -1)) {
    slab.pieces.erase(begin);
    used_bytes_.fetch_sub(size_bytes);
    throw out_of_memory(size_bytes, std::strerror(errno));
  }
  Topology::get().bind_memory(site_, slab.place + begin, size_bytes);
}

bool Memory::fully_mapped(const Slab& slab, uint64_t begin, uint64_t end) const {
  auto it = slab.pieces.upper_bound(begin);
  if (it == slab.pieces.begin()) return false;
  for (--it; it != slab.pieces.end() && it->first <= begin; ++it) {
    if (it->second >= end) return true;
    begin = std::max(begin, it->second);
  }
  return false;
}

void Memory::unmap(uint64_t address, uint64_t size_bytes) {
  const std::lock_guard lock(mutex_);
  uint64_t base = 0;
  Slab& slab = reserved_range(address, size_bytes, &base);
  const uint64_t begin = address - base, end = begin + size_bytes;
  if (!fully_mapped(slab, begin, end)) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT,
                fmt::format("{:#x} + {} is not wholly mapped", address, size_bytes));
  }
  if (mmap(slab.place + begin, size_bytes, PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
    throw out_of_memory(size_bytes, std::strerror(errno));
  }
  // Cut the range out of the pieces it touches.
  auto it = std::prev(slab.pieces.upper_bound(begin));
  while (it != slab.pieces.end() && it->first < end) {
    const auto [piece_begin, piece_end] = *it;
    it = slab.pieces.erase(it);
    if (piece_begin < begin) slab.pieces.emplace(piece_begin, begin);
    if (piece_end > end) it = slab.pieces.emplace(end, piece_end).first;
  }
  used_bytes_.fetch_sub(size_bytes);
}

void Memory::protect(uint64_t address, uint64_t size_bytes, uint32_t protection) {
  int bits = 0;
  switch (protection) {
    case XHAL_PROTECT_NONE:
      bits = PROT_NONE;
      break;
    case XHAL_PROTECT_READ:
      bits = PROT_READ;
      break;
    case XHAL_PROTECT_READ_WRITE:
      bits = PROT_READ | PROT_WRITE;
      break;
    default:
      throw Error(XHAL_ERR_INVALID_ARGUMENT,
                  fmt::format("{} is no XHAL_PROTECT_ value", protection));
  }
  const std::lock_guard lock(mutex_);
  uint64_t base = 0;
  Slab& slab = reserved_range(address, size_bytes, &base);
  const uint64_t begin = address - base;
  if (!fully_mapped(slab, begin, begin + size_bytes)) {
    throw Error(XHAL_ERR_INVALID_ARGUMENT,
                fmt::format("{:#x} + {} is not wholly mapped", address, size_bytes));
  }
  if (mprotect(slab.place + begin, size_bytes, bits) != 0)
    throw out_of_memory(size_bytes, std::strerror(errno));
}

void Memory::free_all(xhal_context* context) {
  std::vector<std::pair<uint64_t, Slab>> gone;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = slabs_.begin(); it != slabs_.end();) {
      if (context != nullptr && it->second.context != context) {
        ++it;
        continue;
      }
      gone.emplace_back(it->first, std::move(it->second));
      it = slabs_.erase(it);
    }
  }
  for (auto& [address, slab] : gone) {
    if (slab.sort != Sort::registered) plugin::host().range_remove(address);
    drop(slab);
  }
}

}  // namespace xhal::cpu
