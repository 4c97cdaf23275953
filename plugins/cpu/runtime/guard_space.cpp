// SPDX-License-Identifier: Apache-2.0
#include "guard_space.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <iterator>

#include "memory.hpp"

namespace xhal::cpu {
namespace {

constexpr int kNothing = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

uint64_t whole_huge_pages(uint64_t bytes) {
  return (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
}

}  // namespace

GuardSpace::GuardSpace(uint64_t size_bytes) {
  const uint64_t bytes = 2 * size_bytes + kHugePageBytes;
  void* raw = mmap(nullptr, bytes, PROT_NONE, kNothing, -1, 0);
  if (raw == MAP_FAILED) return;
  raw_ = static_cast<char*>(raw);
  raw_bytes_ = bytes;
  front_ = whole_huge_pages(reinterpret_cast<uint64_t>(raw));
  size_ = distance_ = size_bytes;
  free_.emplace(0, size_bytes);
}

GuardSpace::~GuardSpace() {
  if (raw_ != nullptr) munmap(raw_, raw_bytes_);
}

char* GuardSpace::take(uint64_t size_bytes) {
  const uint64_t size = whole_huge_pages(size_bytes);
  const std::lock_guard lock(mutex_);
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    const auto [offset, room] = *it;
    if (room < size) continue;
    free_.erase(it);
    if (room > size) free_.emplace(offset + size, room - size);
    return static_cast<char*>(place_of(front_ + offset));
  }
  errno = ENOMEM;
  return nullptr;
}

void GuardSpace::give_back(char* place, uint64_t size_bytes) {
  uint64_t size = whole_huge_pages(size_bytes);
  // Only a limit on the number of mappings can refuse this; then the piece is lost, not wrong.
  if (mmap(place, size, PROT_NONE, kNothing | MAP_FIXED, -1, 0) == MAP_FAILED) return;
  uint64_t offset = address_of(place) - front_;
  const std::lock_guard lock(mutex_);
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && next->first == offset + size) {
    size += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      before->second += size;
      return;
    }
  }
  free_.emplace(offset, size);
}

}  // namespace xhal::cpu
