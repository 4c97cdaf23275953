// SPDX-License-Identifier: Apache-2.0
// arrange.hpp: makes libxhal see the plugin under test and nothing else.
#pragma once

#include <filesystem>
#include <string>

#include "harness/cts.hpp"

namespace xhal::cts {

// The plugin as given on the command line: a name, a manifest or a library.
class Arrangement {
 public:
  // Sets XHAL_PLUGIN_PATH, XHAL_PLUGIN_SELECT and XHAL_VISIBLE_DEVICES; throws tools::Failure.
  // For a library without a manifest one is written into a temporary folder, which lives as long
  // as this object.
  explicit Arrangement(const std::string& plugin);
  ~Arrangement();
  Arrangement(const Arrangement&) = delete;
  Arrangement& operator=(const Arrangement&) = delete;

  // After xhal_init: the target, or tools::Failure with the reason why there is none.
  Target find(uint32_t ordinal) const;

 private:
  std::string name_;
  std::filesystem::path temporary_;
};

}  // namespace xhal::cts
