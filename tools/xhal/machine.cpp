// SPDX-License-Identifier: Apache-2.0
#include "xhal/machine.hpp"

#include <cstring>
#include <memory>

#include "common/library.hpp"

namespace xhal::tools {
namespace {

std::string list_text(hwloc_const_bitmap_t set) {
  char* text = nullptr;
  if (set == nullptr || hwloc_bitmap_list_asprintf(&text, set) < 0) return {};
  const std::unique_ptr<char, decltype(&free)> owner(text, free);
  return text;
}

}  // namespace

const char* relation_name(Relation relation) {
  switch (relation) {
    case Relation::self:
      return "X";
    case Relation::same:
      return "SAME";
    case Relation::pix:
      return "PIX";
    case Relation::phb:
      return "PHB";
    case Relation::node:
      return "NODE";
    case Relation::sys:
      return "SYS";
    case Relation::unknown:
      return "-";
  }
  return "-";
}

const char* relation_meaning(Relation relation) {
  switch (relation) {
    case Relation::self:
      return "the device itself";
    case Relation::same:
      return "same NUMA node, through its memory";
    case Relation::pix:
      return "through one PCIe switch";
    case Relation::phb:
      return "through a PCIe host bridge";
    case Relation::node:
      return "same NUMA node, between host bridges";
    case Relation::sys:
      return "between NUMA nodes";
    case Relation::unknown:
      return "one of them does not tell where it is";
  }
  return "";
}

Machine::Machine() {
  if (hwloc_topology_init(&topology_) != 0) throw Failure(kUsage, "hwloc cannot start");
  hwloc_topology_set_io_types_filter(topology_, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(topology_) != 0) {
    hwloc_topology_destroy(topology_);
    throw Failure(kUsage, "hwloc cannot read this machine's topology; `lstopo` may tell why");
  }
}

Machine::~Machine() { hwloc_topology_destroy(topology_); }

std::vector<NumaNode> Machine::numa_nodes() const {
  std::vector<NumaNode> nodes;
  for (hwloc_obj_t o = nullptr;
       (o = hwloc_get_next_obj_by_type(topology_, HWLOC_OBJ_NUMANODE, o)) != nullptr;) {
    nodes.push_back(
        {static_cast<int>(o->os_index), o->attr->numanode.local_memory, list_text(o->cpuset)});
  }
  return nodes;
}

uint64_t Machine::memory_bytes() const { return hwloc_get_root_obj(topology_)->total_memory; }

unsigned Machine::cores() const {
  const int count = hwloc_get_nbobjs_by_type(topology_, HWLOC_OBJ_CORE);
  return count > 0 ? static_cast<unsigned>(count) : 0;
}

hwloc_obj_t Machine::pci_object(const xhal_device_info& device) const {
  return device.pci[0] == 0 ? nullptr : hwloc_get_pcidev_by_busidstring(topology_, device.pci);
}

int Machine::numa_node_of(const xhal_device_info& device) const {
  if (const auto pci = pci_object(device); pci != nullptr) {
    const auto above = hwloc_get_non_io_ancestor_obj(topology_, pci);
    if (hwloc_bitmap_weight(above->nodeset) == 1) return hwloc_bitmap_first(above->nodeset);
  }
  return device.numa_node;
}

std::string Machine::cpus_of(const xhal_device_info& device) const {
  if (const auto pci = pci_object(device); pci != nullptr) {
    return list_text(hwloc_get_non_io_ancestor_obj(topology_, pci)->cpuset);
  }
  if (device.numa_node < 0) return {};
  const auto node =
      hwloc_get_numanode_obj_by_os_index(topology_, static_cast<unsigned>(device.numa_node));
  return node == nullptr ? "" : list_text(node->cpuset);
}

Relation Machine::relation(const xhal_device_info& a, const xhal_device_info& b) const {
  if (std::strcmp(a.id, b.id) == 0) return Relation::self;
  const auto pci_a = pci_object(a), pci_b = pci_object(b);
  if (pci_a != nullptr && pci_b != nullptr) {
    const auto common = hwloc_get_common_ancestor_obj(topology_, pci_a, pci_b);
    if (common->type == HWLOC_OBJ_BRIDGE) {
      return common->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_HOST ? Relation::phb
                                                                         : Relation::pix;
    }
    if (common->type == HWLOC_OBJ_PCI_DEVICE) return Relation::pix;  // functions of one card
  }
  const int node_a = numa_node_of(a), node_b = numa_node_of(b);
  if (node_a < 0 || node_b < 0) return Relation::unknown;
  if (node_a != node_b) return Relation::sys;
  return pci_a != nullptr && pci_b != nullptr ? Relation::node : Relation::same;
}

}  // namespace xhal::tools
