// SPDX-License-Identifier: Apache-2.0
// host_registration.hpp: host memory that the program has made known to a context's device
// (xhal_host_register). Each context has a table of its own; xhal_pointer_query looks through all.
#pragma once

#include <optional>

#include "memory/address_map.hpp"

namespace xhal {

struct ContextMemory;

// What the context's device knows at a host address; nullopt: nothing. Lock-free.
std::optional<AddressRange> registered_memory(const ContextMemory& memory, uint64_t address);
// What any context has registered at an address.
std::optional<AddressRange> registered_anywhere(uint64_t address);
// The context ends.
void forget_host_registrations(ContextMemory& memory);

}  // namespace xhal
