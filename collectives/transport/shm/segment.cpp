// SPDX-License-Identifier: Apache-2.0
#include "transport/shm/segment.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/failure.hpp"

namespace xcoll::shm {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

}  // namespace

Segment Segment::create(uint32_t ranks, Fd* fd) {
  const Layout layout(ranks);
  Fd memory(::memfd_create("xcoll", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory) throw system_failure("memfd_create", "making the shared memory of a communicator");
  if (::ftruncate(memory.get(), static_cast<off_t>(layout.total_bytes)) != 0) {
    throw system_failure("ftruncate", "sizing the shared memory of a communicator");
  }
  if (::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) throw system_failure("fcntl(F_ADD_SEALS)");
  Segment segment(map_whole(memory.get(), layout.total_bytes), ranks);
  Header& header = segment.header();
  header.magic = kMagic;
  header.version = kVersion;
  header.ranks = ranks;
  header.total_bytes = layout.total_bytes;
  for (uint32_t rank = 0; rank < ranks; ++rank) segment.board(rank).waiting_on = -1;
  *fd = std::move(memory);
  return segment;
}

Segment Segment::map(const Fd& fd, uint32_t ranks) {
  const Layout layout(ranks);
  struct stat status;
  if (::fstat(fd.get(), &status) != 0)
    throw system_failure("fstat", "looking at the shared memory");
  const bool sealed = (::fcntl(fd.get(), F_GET_SEALS) & kSeals) == kSeals;
  if (!sealed || static_cast<uint64_t>(status.st_size) != layout.total_bytes) {
    throw Failure(
        XCOLL_ERR_UNSUPPORTED,
        "the shared memory that rank 0 sent has {} bytes{}, expected {} sealed: the ranks run "
        "different builds of libxcoll; install the same one for all",
        status.st_size, sealed ? "" : " and is not sealed", layout.total_bytes);
  }
  Segment segment(map_whole(fd.get(), layout.total_bytes), ranks);
  const Header& header = segment.header();
  if (header.magic != kMagic || header.version != kVersion || header.ranks != ranks) {
    throw Failure(
        XCOLL_ERR_UNSUPPORTED,
        "the shared memory that rank 0 sent has layout version {}, this library has {}: install "
        "the same libxcoll for all ranks",
        header.version, kVersion);
  }
  return segment;
}

Segment::Segment(std::byte* base, uint32_t ranks)
    : layout_(ranks), base_(base, Unmap{layout_.total_bytes}) {}

std::byte* Segment::map_whole(int fd, uint64_t bytes) {
  void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED)
    throw system_failure("mmap", "mapping the shared memory of a communicator");
  return static_cast<std::byte*>(base);
}

void Segment::Unmap::operator()(std::byte* base) const { ::munmap(base, bytes); }

}  // namespace xcoll::shm
