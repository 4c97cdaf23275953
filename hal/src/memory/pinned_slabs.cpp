#include "memory/pinned_slabs.hpp"

#include <iterator>

namespace xhal {

uint64_t FreeRuns::take(uint64_t size) {
  const auto it = by_size_.lower_bound({size, 0});
  if (it == by_size_.end()) return 0;
  const auto [run, address] = *it;
  by_size_.erase(it);
  by_address_.erase(address);
  if (run > size) {
    by_address_.emplace(address + size, run - size);
    by_size_.emplace(run - size, address + size);
  }
  return address;
}

std::pair<uint64_t, uint64_t> FreeRuns::give(uint64_t address, uint64_t size) {
  auto after = by_address_.lower_bound(address);
  if (after != by_address_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == address) {
      address = before->first;
      size += before->second;
      by_size_.erase({before->second, before->first});
      by_address_.erase(before);
    }
  }
  if (after != by_address_.end() && address + size == after->first) {
    size += after->second;
    by_size_.erase({after->second, after->first});
    by_address_.erase(after);
  }
  by_address_.emplace(address, size);
  by_size_.emplace(size, address);
  return {address, size};
}

void FreeRuns::erase(uint64_t address, uint64_t size) {
  by_address_.erase(address);
  by_size_.erase({size, address});
}

}  // namespace xhal
