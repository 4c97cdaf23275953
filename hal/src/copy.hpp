// copy.hpp: a copy between any two addresses: native, through pinned memory, or across plugins.
#pragma once

#include "stream_side.hpp"
#include "xhal/event.h"

namespace xhal {

xhal_status copy(StreamSide& side, uint64_t dst, uint64_t src, uint64_t size_bytes);

// stream.cpp: events on libxhal's own parts.
xhal_status record_event(StreamSide& side, uint32_t flags, xhal_event* event);
xhal_status wait_event(StreamSide& side, const xhal_event& event);

}  // namespace xhal
