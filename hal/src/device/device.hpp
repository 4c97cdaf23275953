// device.hpp: opening and closing, as the rest of libxhal needs it.
#pragma once

#include "core/device_record.hpp"

namespace xhal {

// libxhal's part of a context: its quota and what was created in it.
struct ContextState {
  DeviceRecord* device;
  xhal_context* handle;
  uint64_t quota_bytes = 0;
  bool scrub = false;
  std::atomic<uint64_t> used_bytes{0};
  std::mutex mutex;  // of what follows
  std::set<xhal_stream*> streams;
  std::set<xhal_pool*> pools;
};

ContextState* state_of(xhal_context* context);

// Stops everything of a device and closes it for good; its table then answers with the process's
// state.
void close_device(DeviceRecord& record);
// Marks a device lost: its calls and unreached timelines fail with `error` from now on.
void lose_device(DeviceRecord& record, ErrorRecord error);
// Destroys pools and streams of a context, in that order.
void empty_context(ContextState& side);

}  // namespace xhal
