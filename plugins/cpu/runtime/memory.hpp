// SPDX-License-Identifier: Apache-2.0
// memory.hpp: a device's memory: slabs of host memory that have an address of their own.
//
// Without the guard an address is the host pointer. With XHAL_CPU_GUARD=1 device memory has two
// places: the address, where nothing may be touched, and the place where kernels see it; operators
// translate when they are launched.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "guard_space.hpp"
#include "topology.hpp"
#include "xhal/plugin.hpp"

namespace xhal::cpu {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kHugePageBytes = 2 << 20;  // also the granularity of virtual memory

bool guard_asked_for();  // XHAL_CPU_GUARD=1

class Memory {
 public:
  Memory(const Site& site, bool guarded);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // The slots of memory.h; all throw plugin::Error. `device` and `context` are those that
  // libxhal's map names.
  uint64_t alloc(xhal_device* device, xhal_context* context, const xhal_memory_info& info);
  void free(uint64_t address);
  // Overwrites an allocation, all its pages.
  void scrub(uint64_t address, uint64_t size_bytes);
  xhal_external export_slab(uint64_t address, uint32_t handle_type) const;
  uint64_t import_slab(xhal_device* device, xhal_context* context, const xhal_external& external);
  // libxhal keeps the list of what is registered.
  uint64_t host_register(xhal_context* context, void* host, uint64_t size_bytes);
  void host_unregister(void* host);
  uint64_t reserve(xhal_device* device, xhal_context* context, uint64_t size_bytes);
  void release(uint64_t address);
  void map(uint64_t address, uint64_t size_bytes);
  void unmap(uint64_t address, uint64_t size_bytes);
  void protect(uint64_t address, uint64_t size_bytes, uint32_t protection);
  // Everything of one context, or, with nullptr, of all.
  void free_all(xhal_context* context);

  bool guarded() const { return guard_.has_value(); }
  // Where the host finds what is at `address`; addresses that are not the device's are
  // host pointers already.
  void* translate(uint64_t address) const {
    if (guard_ && guard_->has(address)) return guard_->place_of(address);
    return reinterpret_cast<void*>(address);
  }

  uint64_t total_bytes() const { return site_.memory_bytes; }
  uint64_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }

 private:
  enum class Sort { plain, imported, reserved, registered };
  struct Slab {
    Sort sort = Sort::plain;
    uint64_t size_bytes = 0;    // as asked for
    uint64_t mapped_bytes = 0;  // whole pages
    char* place = nullptr;      // where the host sees it
    bool hidden = false;        // in the guard's space: the address is another one
    int fd = -1;
    xhal_context* context = nullptr;
    std::map<uint64_t, uint64_t> pieces;  // of reserved space: mapped [begin, end)
  };

  bool take_space(Slab& slab, uint64_t alignment);
  uint64_t adopt(xhal_device* device, Slab slab, uint32_t kind, uint32_t flags);
  Slab& reserved_range(uint64_t address, uint64_t size_bytes, uint64_t* base);
  bool fully_mapped(const Slab& slab, uint64_t begin, uint64_t end) const;
  void take_budget(uint64_t size_bytes);
  void drop(Slab& slab);

  const Site& site_;
  std::optional<GuardSpace> guard_;
  mutable std::mutex mutex_;
  std::map<uint64_t, Slab> slabs_;
  std::atomic<uint64_t> used_bytes_{0};
};

}  // namespace xhal::cpu
