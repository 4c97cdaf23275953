// SPDX-License-Identifier: Apache-2.0
// device_memory.hpp: the memory of the devices of the plugin "faulty".
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

#include "board.hpp"

namespace xhal::faulty {

// The memory of one device: addresses without access, and behind them, at a fixed distance, what
// they hold. It is kept for ever, so that an address is never another device's.
class Memory {
 public:
  static constexpr uint64_t kBytes = uint64_t{1} << 31;
  static constexpr size_t kKeptFull = 8;
  static constexpr uint64_t kSlab = uint64_t{2} << 20;

  Memory() {
    void* const range =
        mmap(nullptr, 2 * kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) throw std::bad_alloc();
    base_ = reinterpret_cast<uint64_t>(range);
    if (mprotect(static_cast<char*>(range) + kBytes, kBytes, PROT_READ | PROT_WRITE) != 0)
      throw std::bad_alloc();
  }
  bool has(uint64_t address, uint64_t size) const {
    return address - base_ < kBytes && size <= kBytes - (address - base_);
  }
  char* behind(uint64_t address) const { return reinterpret_cast<char*>(address + kBytes); }

  // Ranges are whole slabs, as many drivers have them: more than was asked for.
  static uint64_t rounded(uint64_t size) { return (size + kSlab - 1) / kSlab * kSlab; }
  uint64_t take(uint64_t size) {
    const std::lock_guard lock(mutex_);
    const auto it = std::find_if(free_.rbegin(), free_.rend(),
                                 [&](const Piece& piece) { return piece.size == size; });
    if (it != free_.rend()) {
      const uint64_t address = it->address;
      free_.erase(std::next(it).base());
      return address;
    }
    if (size > kBytes - used_) return 0;
    free_.reserve(++pieces_);  // giving back needs no memory
    used_ += size;
    return base_ + used_ - size;
  }
  void give(uint64_t address, uint64_t size) {
    const std::lock_guard lock(mutex_);
    free_.push_back({address, size});
    // What was freed last keeps its content, as memory does; the rest is given back to the host.
    if (free_.size() <= kKeptFull) return;
    const auto& old = free_[free_.size() - 1 - kKeptFull];
    madvise(behind(old.address), old.size, MADV_DONTNEED);
  }

 private:
  struct Piece {
    uint64_t address, size;
  };
  uint64_t base_ = 0;
  std::mutex mutex_;  // of what follows
  uint64_t used_ = 0, pieces_ = 0;
  std::vector<Piece> free_;  // the last freed is given out first
};

inline Memory& memory_of(uint32_t ordinal) {
  static auto* const memories = new std::array<Memory, kDevices>;
  return (*memories)[ordinal];
}

}  // namespace xhal::faulty
