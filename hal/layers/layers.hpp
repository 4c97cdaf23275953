// layers.hpp: XHAL_LAYERS=validate,trace,chaos: tables wrapped around tables when a device is
// opened; off costs nothing.
#pragma once

#include "sync/stream_state.hpp"

namespace xhal {

// Reads XHAL_LAYERS once, at xhal_init. Unknown names are reported and ignored.
void read_layers();
// Wraps record.table in the layers that are on.
void apply_layers(DeviceRecord& record);
// Writes what the layers have gathered (trace).
void finish_layers() noexcept;

// chaos.cpp: every submission is held for a seeded random time. Not a table of its own: it is the
// deferral queue.
bool chaos_enabled() noexcept;
void chaos_adopt(StreamState& side);             // a new stream: hold from the start
void chaos_release(StreamState& side) noexcept;  // the stream ends
void chaos_wake(StreamState& side) noexcept;     // something was held
void chaos_host_waits(bool begins) noexcept;    // a thread waits for a timeline, or stops

}  // namespace xhal
