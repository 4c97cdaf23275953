// SPDX-License-Identifier: Apache-2.0
// layers.hpp: XHAL_LAYERS=validate,trace,chaos: tables wrapped around tables when a device is
// opened; off costs nothing.
#pragma once

#include "core/device_record.hpp"

namespace xhal {

// Reads XHAL_LAYERS once, at xhal_init. Unknown names are reported and ignored.
void read_layers();
// Wraps record.table in the layers that are on.
void apply_layers(DeviceRecord& record);
// Writes what the layers have gathered (trace).
void finish_layers() noexcept;

}  // namespace xhal
