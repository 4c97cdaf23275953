// SPDX-License-Identifier: Apache-2.0
// pool.hpp: the caching allocator, as the rest of libxhal needs it.
#pragma once

#include "xhal/pool.h"

namespace xhal {

// From here on the pool cannot be destroyed: its blocks for captured streams belong to the capture.
xhal_status pool_capture_begins(xhal_pool* pool, uint64_t capture);
// The capture has failed or its graph is gone: its blocks go back to the order of their streams.
// Does nothing when the pool has ended before.
void pool_capture_over(xhal_pool* pool, uint64_t capture) noexcept;
// Whether `address` lies in a block that is out; then where it begins and what was asked for.
bool find_block(xhal_pool* pool, uint64_t address, uint64_t* base, uint64_t* size) noexcept;
// The context ends: gives every slab back, whatever is still out.
void abandon_pool(xhal_pool* pool) noexcept;

}  // namespace xhal
