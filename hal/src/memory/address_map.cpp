#include "memory/address_map.hpp"

#include <iterator>

namespace xhal {

bool AddressMap::add(const AddressRange& range, AddressRange* conflict) {
  const std::unique_lock lock(mutex_);
  auto after = ranges_.lower_bound(range.base);
  if (after != ranges_.end() && after->first < range.base + range.size_bytes) {
    if (conflict != nullptr) *conflict = after->second;
    return false;
  }
  if (after != ranges_.begin()) {
    const auto before = std::prev(after);
    if (before->second.base + before->second.size_bytes > range.base) {
      if (conflict != nullptr) *conflict = before->second;
      return false;
    }
  }
  ranges_.emplace_hint(after, range.base, range);
  return true;
}

std::optional<AddressRange> AddressMap::remove(uint64_t base) {
  const std::unique_lock lock(mutex_);
  const auto it = ranges_.find(base);
  if (it == ranges_.end()) return std::nullopt;
  const AddressRange range = it->second;
  ranges_.erase(it);
  return range;
}

void AddressMap::set_pool(uint64_t base, xhal_pool* pool) {
  const std::unique_lock lock(mutex_);
  if (const auto it = ranges_.find(base); it != ranges_.end()) it->second.pool = pool;
}

std::optional<AddressRange> AddressMap::find(uint64_t address) const {
  const std::shared_lock lock(mutex_);
  auto it = ranges_.upper_bound(address);
  if (it == ranges_.begin()) return std::nullopt;
  --it;
  if (address - it->second.base >= it->second.size_bytes) return std::nullopt;
  return it->second;
}

void AddressMap::remove_device(const xhal_device* device) {
  const std::unique_lock lock(mutex_);
  std::erase_if(ranges_, [&](const auto& entry) { return entry.second.device == device; });
}

void AddressMap::remove_context(const xhal_context* context) {
  const std::unique_lock lock(mutex_);
  std::erase_if(ranges_, [&](const auto& entry) { return entry.second.context == context; });
}

AddressMap& address_map() {
  static auto* map = new AddressMap;  // lives until process exit: queries stay legal after shutdown
  return *map;
}

}  // namespace xhal
