// registry.hpp: the process-wide list of plugins and devices. Made on first use, never destroyed.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/device_record.hpp"
#include "core/plugin_record.hpp"

namespace xhal {

struct Registry {
  std::recursive_mutex mutex;  // plugins may ask back while they are being opened
  uint32_t init_count = 0;
  std::vector<std::unique_ptr<PluginRecord>> plugins;
  std::vector<std::unique_ptr<PluginRecord>>
      retired;                         // of earlier inits: their names may still be in use
  std::vector<DeviceRecord*> devices;  // open and closed, of all generations

  void load_all();
};
Registry& registry();

// A device as it is seen: its plugin and ordinal, in the order of XHAL_VISIBLE_DEVICES.
struct Visible {
  PluginRecord* plugin;
  uint32_t ordinal;
};
// Errors: NOT_FOUND when the variable names something that is not there.
xhal_status visible_devices(std::vector<Visible>* visible);

}  // namespace xhal
