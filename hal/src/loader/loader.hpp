// SPDX-License-Identifier: Apache-2.0
// loader.hpp: one plugin, from its manifest to its devices. Everything here runs without a lock:
// it reads files, starts programs and calls the plugin.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/plugin_record.hpp"
#include "loader/manifest.hpp"
#include "loader/trust.hpp"

namespace xhal {

// Directories searched for *.json, in order: `extra` and XHAL_PLUGIN_PATH, /etc, /usr/share, beside
// this library. Never the working directory: what is not absolute goes to `left_out`.
std::vector<std::filesystem::path> search_path(std::string_view extra,
                                               std::vector<std::filesystem::path>* left_out);
// The manifests in a directory, sorted by name. One that is there and cannot be read has
// none, and `why`.
std::vector<std::filesystem::path> manifests_in(const std::filesystem::path& directory,
                                                std::string* why);
// Left out by XHAL_PLUGIN_SELECT or XHAL_PLUGIN_DISABLE.
bool is_excluded(const std::string& name);

// What loading a plugin gave.
struct Loaded {
  Problem problem;
  uint32_t abi_min = 0, abi_max = 0, abi_used = 0;
  std::string build;
  xhal_plugin_table table{};
  std::vector<xhal_device_info> devices;  // as the plugin listed them
};

// Judges the library, probes it if that is asked for, maps it, negotiates, and lists the devices.
// Throws nothing that a plugin or a file causes.
Loaded load_plugin(const Manifest& manifest, const std::string& name,
                   const xhal_host_services* host);

// Asks the plugin for its devices.
Problem list_devices(const xhal_plugin_table& table, std::vector<xhal_device_info>* devices);

// What can be told of a library without loading it: ELF of this machine, whole, and with
// the entry point.
Problem inspect_library(const TrustedFile& library);

std::string version_text(uint32_t version);

// What a plugin says may be anything: a status that is no error of this ABI becomes PLUGIN, and
// texts get their end.
xhal_status as_error(xhal_status status);
void end_texts(xhal_device_info& info);

}  // namespace xhal
