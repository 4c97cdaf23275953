// SPDX-License-Identifier: Apache-2.0
#include "memory/pinned_slabs.hpp"

#include <iterator>

namespace xhal {

uint64_t FreeRuns::take(uint64_t size) noexcept {
  const auto it = by_size_.lower_bound({size, 0});
  if (it == by_size_.end()) return 0;
  const auto [run, address] = *it;
  auto size_node = by_size_.extract(it);
  auto address_node = by_address_.extract(address);
  if (run > size) insert(address + size, run - size, std::move(address_node), std::move(size_node));
  return address;
}

std::pair<uint64_t, uint64_t> FreeRuns::give(uint64_t address, uint64_t size, Room& room) noexcept {
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
  insert(address, size, room.address_.extract(room.address_.begin()),
         room.size_.extract(room.size_.begin()));
  return {address, size};
}

void FreeRuns::erase(uint64_t address, uint64_t size) noexcept {
  by_address_.erase(address);
  by_size_.erase({size, address});
}

void FreeRuns::insert(uint64_t address, uint64_t size,
                      std::map<uint64_t, uint64_t>::node_type address_node,
                      std::set<std::pair<uint64_t, uint64_t>>::node_type size_node) noexcept {
  address_node.key() = address;
  address_node.mapped() = size;
  size_node.value() = {size, address};
  by_address_.insert(std::move(address_node));
  by_size_.insert(std::move(size_node));
}

}  // namespace xhal
