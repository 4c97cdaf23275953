// address_map.hpp: which address belongs to what: one map for all devices and pinned host memory.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <shared_mutex>

#include "xhal/memory.h"

namespace xhal {

struct AddressRange {
  uint64_t base, size_bytes;
  uint32_t kind, flags;
  xhal_device* device;
  xhal_context* context;
  xhal_pool* pool;
};

class AddressMap {
 public:
  // False when it would overlap a range that is there.
  bool add(const AddressRange& range, AddressRange* conflict = nullptr);
  std::optional<AddressRange> remove(uint64_t base);
  void set_pool(uint64_t base, xhal_pool* pool);
  std::optional<AddressRange> find(uint64_t address) const;
  void remove_device(const xhal_device* device);
  void remove_context(const xhal_context* context);

 private:
  mutable std::shared_mutex mutex_;
  std::map<uint64_t, AddressRange> ranges_;
};

AddressMap& address_map();

}  // namespace xhal
