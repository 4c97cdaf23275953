// SPDX-License-Identifier: Apache-2.0
// manifest.hpp: one plugin manifest, read and checked. Never loads code; a bad manifest is
// reported and skipped.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "loader/problem.hpp"

namespace xhal {

struct Manifest {
  std::string name, vendor;
  std::filesystem::path library;
  std::string arch;
  uint32_t abi_min = 0, abi_max = 0;
  std::vector<std::string> match = {"always"};
  int32_t priority = 0;
  bool probe = false;                 // "isolation": "probe"
  std::vector<std::string> warnings;  // what is odd, and does not keep the plugin out
};

// Reads the manifest, from one descriptor that has passed the rules of trust.hpp. `manifest.name`
// is set as soon as it is known, also when the rest is bad.
Problem read_manifest(const std::filesystem::path& path, Manifest& manifest);
// Whether some entry of `match` holds on this machine: "always", "path:/sys/...", "pci:VVVV:DDDD"
// (hex, '*' allowed).
bool matches_machine(const Manifest& manifest);

}  // namespace xhal
