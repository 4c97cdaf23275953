// SPDX-License-Identifier: Apache-2.0
// address_check.hpp: what layer `validate` wants to know of the addresses that work is given,
// beyond the bounds that are checked always: that a pool has handed the block out, and that host
// memory is there.
#pragma once

#include "core/context_state.hpp"
#include "memory/address_map.hpp"

namespace xhal {

// On while the layer is. Copies and fills check at submission, before they are cut into steps.
void check_addresses(bool on) noexcept;
bool addresses_are_checked() noexcept;

// XHAL_OK when `size_bytes` at `address` lie in one block that the pool of `range` has handed out;
// ranges of no pool always do. `what` is what it is in the text: "the source", "operand 2".
xhal_status check_block(const AddressRange& range, uint64_t address, uint64_t size_bytes,
                        const char* op, const char* what);
// XHAL_OK when the process can read from there. Of a long range the first and last byte are read,
// and whether there is memory in between; whether it may be written is not looked at.
xhal_status check_host_memory(uint64_t address, uint64_t size_bytes, const char* op,
                              const char* what);

}  // namespace xhal
