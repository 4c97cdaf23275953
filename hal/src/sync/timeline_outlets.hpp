// SPDX-License-Identifier: Apache-2.0
// timeline_outlets.hpp: descriptors that become readable when a timeline has got somewhere.
#pragma once

#include "sync/timeline.hpp"

namespace xhal {

// The caller's end, or -1 without a descriptor. What callers have closed before the value came is
// found when further ones are made, so that nothing grows. Errors: std::bad_alloc.
int timeline_outlet(Timeline& timeline, uint64_t value);

}  // namespace xhal
