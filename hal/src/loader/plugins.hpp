// SPDX-License-Identifier: Apache-2.0
// plugins.hpp: the plugins of this process: found by xhal_init, loaded when first needed, asked
// again for their devices when a program wants to know what was plugged in.
//
// The list has one mutex, which is never held while a plugin, a log callback or a probe runs. Who
// loads a plugin marks it busy; who needs it meanwhile waits for that.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/locks.hpp"
#include "core/plugin_record.hpp"
#include "loader/manifest.hpp"

namespace xhal {

// A device as libxhal lists it. Its place in the plugin's list never changes, that is its ordinal;
// what it is now and where the plugin has it now may.
struct ListedDevice {
  xhal_device_info info{};
  uint32_t position = 0;    // in what the plugin listed last: what it takes to open it
  uint32_t generation = 0;  // as libxhal counts
  bool gone = false;        // the plugin did not list it at the last refresh
};

struct Plugin {
  PluginRecord record;
  Manifest manifest;
  uint32_t state = XHAL_PLUGIN_DEFERRED;
  xhal_status status = XHAL_OK;
  std::string text;   // why it was skipped, or what is odd about it
  bool busy = false;  // a thread is inside its code
  std::vector<ListedDevice> devices;
};

struct PluginList {
  Mutex mutex{Rank::plugins};       // of what follows, and of every plugin's parts but `record`
  std::condition_variable changed;  // a plugin is no longer busy
  std::vector<Plugin*> current;     // in search order
  std::vector<std::unique_ptr<Plugin>> all;  // also of earlier inits: their names may be in use
  const xhal_host_services* host = nullptr;
};
PluginList& plugin_list();

// A line for the log, to be written when no lock is held.
using Notice = std::pair<uint32_t, std::string>;

// Reads every manifest on the search path into a new list. One bad manifest or directory becomes a
// skipped plugin and stops nothing.
std::vector<Notice> find_plugins(std::string_view extra, const xhal_host_services* host);

// Loads what is not loaded yet and waits for what another thread is loading. A plugin that cannot
// be loaded is skipped; the call fails only when a plugin makes it from its own negotiation or
// enumeration (BUSY), and when xhal_shutdown comes meanwhile.
xhal_status load_plugins(const char* operation);
// Asks every loaded plugin again. Known devices, by uuid or else by position, keep their ordinal;
// one that is missing becomes XHAL_DEVICE_GONE, one that is back gets the next generation, new ones
// come last. A plugin that fails keeps the list it had.
xhal_status refresh_plugins(const char* operation);
// The last xhal_shutdown: ends every loaded plugin.
void shutdown_plugins();
// In a child: no other thread is there to end what it had begun.
void plugins_after_fork();

// A device as it is seen: its plugin and ordinal.
struct Visible {
  PluginRecord* plugin;
  uint32_t ordinal;
};
// The devices in the order of XHAL_VISIBLE_DEVICES. Errors: NOT_FOUND when it names something that
// is not there; `visible` then has what comes before.
xhal_status visible_devices(std::vector<Visible>* visible);
// Those, and after them all the others; `*shown` is how many are visible.
xhal_status all_devices(std::vector<Visible>* devices, uint32_t* shown);

// The device as it is listed now; `position` is the ordinal its plugin knows it by.
xhal_device_info listed_device(const PluginRecord& plugin, uint32_t ordinal,
                               uint32_t* position = nullptr);
// The plugin no longer lists it.
bool is_gone(const PluginRecord& plugin, uint32_t ordinal);
// A device was lost: its next open has another generation.
void next_generation(const PluginRecord& plugin, uint32_t ordinal);

std::vector<xhal_plugin_info> plugin_report();

}  // namespace xhal
