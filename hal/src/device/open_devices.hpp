// SPDX-License-Identifier: Apache-2.0
// open_devices.hpp: which devices are open, being opened or closed. No lock is held while a plugin
// opens or closes one: who needs that device meanwhile waits for it.
#pragma once

#include <memory>
#include <set>

#include "core/context_state.hpp"
#include "core/device_record.hpp"

namespace xhal {

// Opens a device of the list, or counts one more user of it. `index` is where the program sees it.
xhal_status open_device(PluginRecord& plugin, uint32_t ordinal, const xhal_device_open_info& info,
                        DeviceRecord** opened);
// Gives one open back; the last one stops everything of the device.
xhal_status give_back_device(DeviceRecord& record);
// The last shutdown: nothing is opened from now on; waits for what is being opened or closed, and
// closes everything. The first error of scrubbing, whose device then stays with its plugin.
xhal_status close_all_devices();
// In the child of a fork, all locks held: whether something was open, which the child cannot use.
bool stop_devices_after_fork() noexcept;

// Marks a device lost: its calls and unreached timelines fail with `error` from now on.
void lose_device(DeviceRecord& record, ErrorRecord error) noexcept;

// Delivers a message to the device's event descriptors, and a descriptor; -1 without one.
void post_device_event(DeviceRecord& record, uint32_t kind, uint32_t severity,
                       std::string_view text) noexcept;
int open_device_events(DeviceRecord& record);

// libxhal's part of a context. Made before the plugin makes its own: nothing can fail after that.
class ContextToBe {
 public:
  ContextToBe(DeviceRecord& record, const xhal_context_info& info, bool is_default);
  ~ContextToBe();
  ContextToBe(const ContextToBe&) = delete;
  ContextToBe& operator=(const ContextToBe&) = delete;
  void becomes(xhal_context* context) noexcept;

 private:
  std::unique_ptr<ContextState> state_;
  std::set<xhal_context*>::node_type listed_;
};
// The end of what is in a context, and of libxhal's part.
xhal_status empty_context(ContextState& context);
void forget_context(ContextState& context) noexcept;

}  // namespace xhal
