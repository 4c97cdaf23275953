// SPDX-License-Identifier: Apache-2.0
// doctor.hpp: `xhal plugins doctor`: the loader's steps, taken one by one and from outside.
//
// No plugin code runs in this process: libraries are read as files, then loaded by xhal-probe in a
// child with a deadline, so that one that crashes or hangs is a line of the report.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace xhal::tools {

enum class Mark { ok, warning, failed, skipped };

struct Check {
  Mark mark = Mark::ok;
  std::string name;  // "manifest", "permissions", ...
  std::string text;  // what was found
  std::string next;  // what to do about it; empty when nothing needs doing
};

struct Directory {
  std::filesystem::path path;
  std::string source;  // who put it on the search path
  std::string text;    // "2 manifests", "not there", ...
  bool trusted = true;
  std::vector<std::filesystem::path> manifests;
};

struct Patient {
  std::filesystem::path manifest;
  std::string name;
  std::filesystem::path library;
  std::vector<Check> checks;  // in order; after a failed one the rest is skipped
  bool usable() const;
};

// As libxhal searches: XHAL_PLUGIN_PATH, the system's folders, beside the library. Relative entries
// are left out.
std::vector<Directory> search_directories();

// All checks of one manifest. `taken` holds the names of the manifests before it.
Patient examine(const std::filesystem::path& manifest, const std::vector<std::string>& taken);

}  // namespace xhal::tools
