// SPDX-License-Identifier: Apache-2.0
#include "memory/host_registration.hpp"

#include <map>

#include "core/argument_check.hpp"
#include "core/device_record.hpp"
#include "core/locks.hpp"
#include "core/state.hpp"
#include "memory/context_memory.hpp"

namespace xhal {
namespace {

constexpr uint32_t kProperties =
    XHAL_MEMORY_HOST_VISIBLE | XHAL_MEMORY_COHERENT | XHAL_MEMORY_CACHED;

// All registrations, for xhal_pointer_query. Different contexts may register the same memory.
struct Everywhere {
  Mutex mutex{Rank::pinned};  // of what follows
  std::multimap<uint64_t, std::pair<const ContextMemory*, AddressRange>> ranges;
  uint64_t largest = 0;  // no range is larger
  std::atomic<size_t> count{0};

  void add(const ContextMemory& memory, const AddressRange& range) {
    const std::lock_guard lock(mutex);
    ranges.emplace(range.base, std::pair(&memory, range));
    largest = std::max(largest, range.size_bytes);
    count.store(ranges.size(), std::memory_order_release);
  }
  void remove(const ContextMemory& memory, uint64_t base) {
    const std::lock_guard lock(mutex);
    auto [it, end] = ranges.equal_range(base);
    while (it != end && it->second.first != &memory) ++it;
    if (it != end) ranges.erase(it);
    if (ranges.empty()) largest = 0;
    count.store(ranges.size(), std::memory_order_release);
  }
};
Everywhere& everywhere() {
  static auto* e = new Everywhere;
  return *e;
}
const AtLoad everywhere_at_load(everywhere);

}  // namespace

std::optional<AddressRange> registered_memory(const ContextMemory& memory, uint64_t address) {
  if (memory.registered_count.load(std::memory_order_acquire) == 0) return std::nullopt;
  const auto range = memory.registered.find(address);
  if (!range || range->kind == 0) return std::nullopt;
  return range;
}

std::optional<AddressRange> registered_anywhere(uint64_t address) {
  auto& e = everywhere();
  if (e.count.load(std::memory_order_acquire) == 0) return std::nullopt;
  const std::lock_guard lock(e.mutex);
  for (auto it = e.ranges.upper_bound(address); it != e.ranges.begin();) {
    --it;
    const auto& range = it->second.second;
    if (address - range.base < range.size_bytes) return range;
    if (address - range.base >= e.largest) break;
  }
  return std::nullopt;
}

void forget_host_registrations(ContextMemory& memory) {
  auto& context = *memory.context;
  for (const auto& range : memory.registered.all()) {
    if (range.kind != 0) {
      context.device->raw.host_unregister(context.handle, reinterpret_cast<void*>(range.base));
    }
    memory.registered.remove(range.base);
    everywhere().remove(memory, range.base);
  }
}

}  // namespace xhal

using xhal::fail;
using xhal::is_live;

extern "C" {

xhal_status xhal_host_register(xhal_context* context, void* host, uint64_t size_bytes,
                               uint64_t* device_address) {
  constexpr const char* op = "xhal_host_register";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  if (const auto s = xhal::required(op, {{"host", host}, {"device_address", device_address}});
      s != XHAL_OK)
    return s;
  return xhal::exported(op, [&]() -> xhal_status {
    const auto refuse = [&](xhal_status status) { return xhal::annotate(status, context, op); };
    if (!xhal::is_running()) return xhal::fail_state(op);
    const auto base = reinterpret_cast<uint64_t>(host);
    if (size_bytes == 0 || base + size_bytes < base) {
      return refuse(fail(XHAL_ERR_INVALID_ARGUMENT, op,
                         "{}: {} + {} is empty or beyond the address space", op, host, size_bytes));
    }
    if (const auto known = xhal::address_map().overlap(base, size_bytes)) {
      return refuse(fail(XHAL_ERR_INVALID_ARGUMENT, op,
                         "{}: {} + {} overlaps {} memory at {:#x} + {}, which needs no registering",
                         op, host, size_bytes,
                         known->kind == XHAL_MEMORY_HOST ? "pinned" : "device", known->base,
                         known->size_bytes));
    }
    auto& memory = *xhal::state_of(context)->memory;
    // Reserves the range, so that no other thread registers it meanwhile; no copy uses it yet.
    xhal::AddressRange range{base, size_bytes, 0, xhal::kProperties};
    xhal::AddressRange other;
    if (!memory.registered.add(range, &other)) {
      return refuse(fail(XHAL_ERR_INVALID_ARGUMENT, op,
                         "{}: {} + {} overlaps {:#x} + {}, which this context has registered", op,
                         host, size_bytes, other.base, other.size_bytes));
    }
    uint64_t seen = 0;
    const xhal_status status = xhal::load_slot(xhal::dispatch_of(context)->host_register)(
        context, host, size_bytes, &seen);
    if (status != XHAL_OK) {
      memory.registered.remove(base);
      return refuse(status);
    }
    range.kind = XHAL_MEMORY_HOST;
    range.detail = seen;
    range.allocation_id = memory.registered.find(base)->allocation_id;
    try {
      xhal::everywhere().add(memory, range);
    } catch (...) {
      (void)xhal::load_slot(xhal::dispatch_of(context)->host_unregister)(context, host);
      memory.registered.remove(base);
      throw;
    }
    memory.registered.set_detail(base, XHAL_MEMORY_HOST, seen);
    memory.registered_count.fetch_add(1, std::memory_order_release);
    *device_address = seen;
    return XHAL_OK;
  });
}

xhal_status xhal_host_unregister(xhal_context* context, void* host) {
  constexpr const char* op = "xhal_host_unregister";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  if (const auto s = xhal::required(op, {{"host", host}}); s != XHAL_OK) return s;
  return xhal::exported(op, [&]() -> xhal_status {
    if (!xhal::is_running()) return XHAL_OK;  // it ended with everything else
    auto& memory = *xhal::state_of(context)->memory;
    const auto base = reinterpret_cast<uint64_t>(host);
    const auto range = memory.registered.find(base);
    if (!range || range->base != base || range->kind == 0) {
      return xhal::annotate(fail(XHAL_ERR_INVALID_ARGUMENT, op,
                                 "{}: {} is not the start of memory that this context has "
                                 "registered",
                                 op, host),
                            context, op);
    }
    memory.registered.set_detail(base, 0, range->detail);  // from now on no copy uses it
    const xhal_status status =
        xhal::load_slot(xhal::dispatch_of(context)->host_unregister)(context, host);
    if (status < 0) {
      memory.registered.set_detail(base, XHAL_MEMORY_HOST, range->detail);
      return xhal::annotate(status, context, op);
    }
    memory.registered_count.fetch_sub(1, std::memory_order_release);
    memory.registered.remove(base);
    xhal::everywhere().remove(memory, base);
    return status;
  });
}

}  // extern "C"
