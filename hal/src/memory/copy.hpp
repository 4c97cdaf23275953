// copy.hpp: a copy between any two addresses: native, through pinned memory, or across plugins.
#pragma once

#include "sync/stream_state.hpp"
#include "xhal/event.h"

namespace xhal {

xhal_status copy(StreamState& side, uint64_t dst, uint64_t src, uint64_t size_bytes);

}  // namespace xhal
