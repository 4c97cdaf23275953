// device.hpp: opening and closing, as the rest of libxhal needs it.
#pragma once

#include "core/context_state.hpp"
#include "core/device_record.hpp"

namespace xhal {

// Stops everything of a device and closes it for good; its table then answers with the process's
// state.
void close_device(DeviceRecord& record);
// Marks a device lost: its calls and unreached timelines fail with `error` from now on.
void lose_device(DeviceRecord& record, ErrorRecord error);
// Destroys pools and streams of a context, in that order.
void empty_context(ContextState& side);

}  // namespace xhal
