// SPDX-License-Identifier: Apache-2.0
// candidate.hpp: a plugin library under trial: mapped, negotiated, and asked to list its devices.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "xhal/plugin.h"

namespace xhal::probe {

struct Request {
  std::filesystem::path library;
  uint32_t abi_min = 0, abi_max = 0;  // the range the library's side offers, major << 16 | minor
  bool enumerate = true;
  int descriptor = -1;  // the library must be the file behind it
};

// What the trial ended with. Only `ok` is a plugin that libxhal can use.
enum class Verdict {
  ok,
  cannot_load,
  exchanged,
  no_entry,
  version,
  refused,
  incomplete,
  enumerate_failed
};
const char* verdict_name(Verdict verdict);

struct MappedFile {
  std::string path, build_id;
};

struct Outcome {
  Verdict verdict = Verdict::ok;
  xhal_status status = XHAL_OK;
  std::string text;  // why it is not ok
  uint32_t abi_min = 0, abi_max = 0, sanitizer = 0;
  std::string build;
  uint32_t device_count = 0;
  std::vector<std::string>
      missing_slots;             // holes of its table, which libxhal fills with "unsupported"
  std::vector<MappedFile> maps;  // every library the trial mapped
};

Outcome try_library(const Request& request);

}  // namespace xhal::probe
