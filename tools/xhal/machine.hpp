// SPDX-License-Identifier: Apache-2.0
// machine.hpp: where devices sit in this machine, by hwloc.
#pragma once

#include <hwloc.h>

#include <string>
#include <vector>

#include "xhal/xhal.h"

namespace xhal::tools {

struct NumaNode {
  int number = 0;
  uint64_t memory_bytes = 0;
  std::string cpus;  // "0-3,8"
};

// How two devices reach each other, from nearest to farthest.
enum class Relation { self, same, pix, phb, node, sys, unknown };
const char* relation_name(Relation relation);     // "X", "SAME", ...
const char* relation_meaning(Relation relation);  // one line

class Machine {
 public:
  Machine();
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  std::vector<NumaNode> numa_nodes() const;
  uint64_t memory_bytes() const;
  unsigned cores() const;
  // NUMA node of a device by its PCI address, else by what its plugin says; -1 = unknown.
  int numa_node_of(const xhal_device_info& device) const;
  // CPUs near it; empty = unknown.
  std::string cpus_of(const xhal_device_info& device) const;
  Relation relation(const xhal_device_info& a, const xhal_device_info& b) const;

 private:
  hwloc_obj_t pci_object(const xhal_device_info& device) const;
  hwloc_topology_t topology_ = nullptr;
};

}  // namespace xhal::tools
