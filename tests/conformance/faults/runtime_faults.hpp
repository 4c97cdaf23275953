// SPDX-License-Identifier: Apache-2.0
// runtime_faults.hpp: which fault is planted, and what the planting plugin keeps.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "xhal/plugin.h"

namespace xhal::faults {

enum class Fault {
  none,
#define RUNTIME_FAULT(name, tests, told) name,
#include "runtime_faults.inc"
#undef RUNTIME_FAULT
};
// Whether XHAL_TEST_FAULT names it.
bool planted(Fault fault);

struct Allocation {
  xhal_context* context;
  uint64_t size;
};

struct Prepared {
  uint32_t id = 0;
  std::vector<xhal_tensor_desc> operands;
};

struct Plugin {
  const xhal_host_services* host = nullptr;  // libxhal's
  xhal_host_services told{};                 // what the cpu plugin gets for it
  xhal_plugin_table behind_table{}, table{};
  const xhal_dispatch* behind = nullptr;
  xhal_dispatch slots{};
  xhal_device* device = nullptr;
  xhal_context* context = nullptr;  // the default one

  std::mutex mutex;  // of what follows
  std::map<uint64_t, Allocation> live;
  std::map<uint64_t, std::vector<uint64_t>> cached;  // of scrub_ignored, by size
  std::map<xhal_stream*, xhal_timeline*> first_timeline;
  std::map<xhal_timeline*, xhal_timeline*> instead;  // of recover_keeps_timeline
  std::set<xhal_timeline*> own;                      // the streams'
  std::map<xhal_op*, Prepared> prepared;
};
Plugin& plugin();

// Sets an error of this plugin's.
xhal_status refuse(xhal_status status, const char* text);

// What the cpu plugin is given for libxhal's services, and the slots of memory.
void plant_services(xhal_host_services& services);
void plant_memory(xhal_dispatch& slots);

}  // namespace xhal::faults
