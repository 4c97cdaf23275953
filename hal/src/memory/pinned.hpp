// pinned.hpp: pinned host memory, allocated here and registered with each device that first
// uses it.
#pragma once

#include "core/device_record.hpp"

namespace xhal {

// The address a device uses for a host range inside pinned memory; registers it on first use. 0
// when the device refuses registration or the range is not pinned memory: then the copy is bounced
// (or taken as pageable).
uint64_t pinned_address(DeviceRecord& record, uint64_t host_address);
// Where a pinned address lies in shared memory. False when it is none.
bool find_pinned(const void* address, int32_t* fd, uint64_t* offset, uint64_t* size_bytes) noexcept;
// The device is being closed: its registrations end with it.
void forget_registrations(DeviceRecord& record);

}  // namespace xhal
