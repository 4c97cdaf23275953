// SPDX-License-Identifier: Apache-2.0
// wait_any.hpp: waiting for the first of several timelines.
#pragma once

#include "sync/timeline.hpp"

namespace xhal {

// XHAL_OK or the failure of the one that was found first, whose index is written to `which` (may be
// NULL), or TIMEOUT. `values` are the program's. Leaves nothing behind. Errors: std::bad_alloc.
xhal_status wait_any(xhal_timeline* const* timelines, const uint64_t* values, uint32_t count,
                     uint64_t deadline, uint64_t timeout_ns, uint32_t* which);

}  // namespace xhal
