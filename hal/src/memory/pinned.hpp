// SPDX-License-Identifier: Apache-2.0
// pinned.hpp: pinned host memory: slabs of shared memory, cut into blocks, and registered with each
// context that first uses one of them.
#pragma once

#include "core/context_state.hpp"
#include "memory/address_map.hpp"

namespace xhal {

// What xhal_host_alloc and xhal_host_free do. A block is a range of the address map.
xhal_status alloc_pinned(uint64_t size_bytes, void** address, const char* operation);
xhal_status free_pinned(void* address, const char* operation);

// Whether a range of the address map is a block of pinned memory.
inline bool is_pinned(const AddressRange& range) {
  return range.kind == XHAL_MEMORY_HOST && range.device == nullptr && range.detail != 0;
}

// Where the context's device sees `address`, which lies in the pinned block `block`; registers the
// block's slab on first use, without a lock held. `*seen` is 0 when the device does not take it:
// then it is bounced. Another failure of the registration (no memory) is returned, and it is tried
// again next time.
xhal_status pinned_address(ContextState& context, const AddressRange& block, uint64_t address,
                           uint64_t* seen);

// Where any address of a slab lies in shared memory. False when it is in none.
bool find_pinned(const void* address, int32_t* fd, uint64_t* offset, uint64_t* size_bytes) noexcept;

// The context ends: its registrations end with it. Waits for those that another thread is
// making or undoing.
void forget_registrations(ContextState& context);

}  // namespace xhal
