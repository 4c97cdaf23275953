// deferral.hpp: the queue in front of a stream that may not be given work yet.
//
// A plugin without XHAL_CAP_WAIT_BEFORE_SIGNAL never sees a wait whose signal is still to be
// submitted, and one without XHAL_CAP_FOREIGN_TIMELINE none for a timeline that is not of its
// device: the stream's later submissions wait here. The stream's head then points to the device's
// intercept table, so that other streams, and this one before and after, pay nothing. A failed
// stream is intercepted likewise, and refuses. The chaos layer is this queue with a random release.
#pragma once

#include "sync/stream_state.hpp"

namespace xhal {

// Fills record.intercept from record.table.
void make_intercept(DeviceRecord& record);

// Puts a gate in front of what the stream gets next.
xhal_status hold_until(StreamState& side, Timeline& timeline, uint64_t value, bool reached);
// Submits what is held, as far as the gates are open.
void drain(StreamState& side) noexcept;
// Submits one held item if no gate stands before it; false when there was none. For the chaos
// layer.
bool drain_one(StreamState& side) noexcept;

// The stream has failed: held work is dropped, submissions refuse until it is recovered.
void stream_failed(StreamState& side, const ErrorRecord& record) noexcept;
void stream_recovered(StreamState& side) noexcept;
// While a stream is captured its submissions are recorded, so nothing may be held back; afterwards
// as after a recovery.
void stream_captured(StreamState& side) noexcept;

}  // namespace xhal
