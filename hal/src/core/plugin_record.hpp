// plugin_record.hpp: a manifest and what became of its plugin.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "loader/manifest.hpp"
#include "xhal/plugin.h"

namespace xhal {

struct DeviceRecord;

struct PluginRecord {
  Manifest manifest;
  std::string name;
  std::string manifest_path;
  uint32_t number = 0;  // in object heads; 0 is libxhal
  uint32_t state = XHAL_PLUGIN_DEFERRED;
  xhal_status status = XHAL_OK;
  std::string text;  // why it was skipped
  std::string build;
  uint32_t abi_min = 0, abi_max = 0, abi_used = 0;
  xhal_plugin_table table{};
  std::vector<xhal_device_info> devices;
  std::map<uint32_t, uint32_t> generations;  // by ordinal

  // Whether what appeared in 0.`minor` may be shown to it.
  bool speaks(uint32_t minor) const { return (abi_used & 0xffff) >= minor; }
};

}  // namespace xhal
