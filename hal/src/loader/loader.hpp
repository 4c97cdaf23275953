// loader.hpp: from manifests on the search path to negotiated plugins.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "core/plugin_record.hpp"

namespace xhal {

// Directories searched for *.json, in order: `extra` and XHAL_PLUGIN_PATH, /etc, /usr/share, beside
// this library.
std::vector<std::filesystem::path> search_path(std::string_view extra);

// Reads every manifest. One bad manifest or directory becomes a skipped record and stops nothing.
std::vector<std::unique_ptr<PluginRecord>> find_plugins(std::string_view extra);

// Loads, negotiates and enumerates a deferred plugin; on failure it becomes skipped, with the
// reason in its record.
void load_plugin(PluginRecord& plugin);

// What can be told of a library without loading it: ELF of this machine, whole, and with the entry
// point.
Problem inspect_library(const std::filesystem::path& library);

std::string version_text(uint32_t version);

// What a plugin says may be anything: a status that is no error of this ABI becomes PLUGIN, and
// texts get their end.
xhal_status as_error(xhal_status status);
void end_texts(xhal_device_info& info);

}  // namespace xhal
