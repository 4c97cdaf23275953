// SPDX-License-Identifier: Apache-2.0
// guard_space.hpp: two equal stretches of address space for XHAL_CPU_GUARD=1: in the front one
// nothing may ever be touched, its addresses are what programs are given; what is at an address is
// seen at the same offset in the back one.
//
// So translating is a comparison and an addition, whatever is allocated meanwhile.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

namespace xhal::cpu {

class GuardSpace {
 public:
  // `size_bytes` is a multiple of a huge page. Without address space left, every take() fails.
  explicit GuardSpace(uint64_t size_bytes);
  ~GuardSpace();
  GuardSpace(const GuardSpace&) = delete;
  GuardSpace& operator=(const GuardSpace&) = delete;

  // A free piece of the back stretch, aligned to a huge page; nothing is mapped there yet.
  // nullptr without room.
  char* take(uint64_t size_bytes);
  // Unmaps what was mapped there.
  void give_back(char* place, uint64_t size_bytes);

  bool has(uint64_t address) const { return address - front_ < size_; }
  void* place_of(uint64_t address) const { return reinterpret_cast<void*>(address + distance_); }
  uint64_t address_of(const char* place) const {
    return reinterpret_cast<uint64_t>(place) - distance_;
  }

 private:
  char* raw_ = nullptr;
  uint64_t raw_bytes_ = 0;
  uint64_t front_ = 0, size_ = 0, distance_ = 0;
  std::mutex mutex_;
  std::map<uint64_t, uint64_t> free_;  // offset and size
};

}  // namespace xhal::cpu
