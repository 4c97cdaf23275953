// SPDX-License-Identifier: Apache-2.0
// plugin_record.hpp: what all of libxhal knows of a plugin. The loader keeps more
// beside it (loader/plugins.hpp).
#pragma once

#include <string>

#include "xhal/plugin.h"

namespace xhal {

// Lives for ever: devices, objects and error records point to it. What is written when the plugin
// has been loaded does not change afterwards, so whoever has one of its devices reads it without a
// lock; before that, and for devices and state, ask the loader.
struct PluginRecord {
  std::string name, vendor, manifest_path, library_path;
  int32_t priority = 0;
  uint32_t number = 0;  // in object heads; 0 is libxhal

  // Written when it has been loaded.
  uint32_t abi_min = 0, abi_max = 0;  // until then as its manifest says
  uint32_t abi_used = 0;
  std::string build;
  xhal_plugin_table table{};

  // Whether what appeared in 0.`minor` may be shown to it.
  bool speaks(uint32_t minor) const { return (abi_used & 0xffff) >= minor; }
};

}  // namespace xhal
