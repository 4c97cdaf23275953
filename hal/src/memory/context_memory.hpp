// context_memory.hpp: what a context allocated and registered, and how it ends.
#pragma once

#include "core/context_state.hpp"

namespace xhal {

void adopt_context_memory(ContextState& context);
// Overwrites (if the context asks for it and the device is there) and forgets what it still owns:
// allocations, ranges, registrations. On an error nothing is given back.
xhal_status end_context_memory(ContextState& context, bool lost);

}  // namespace xhal
