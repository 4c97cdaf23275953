// SPDX-License-Identifier: Apache-2.0
// topology.hpp: which cores make which device, by hwloc.
//
// Read once, at the first enumeration, and kept for ever: no thread, no descriptor. Only cores that
// this process may run on count, and no more of them and of memory than its container leaves it.
// One device a NUMA node, or as many as XHAL_CPU_DEVICES says.
#pragma once

#include <hwloc.h>
#include <pthread.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cgroup.hpp"

namespace xhal::cpu {

// The place of one device.
struct Site {
  int32_t numa_node = -1;  // the operating system's number
  uint32_t cores = 0;      // that it computes on at once: perhaps fewer than `cores_cpus`
  uint64_t memory_bytes = 0;
  hwloc_bitmap_t cpus = nullptr;
  hwloc_bitmap_t nodes = nullptr;
  std::vector<uint32_t> processors;        // numbers of `cpus`, as /proc/stat counts them
  std::vector<hwloc_bitmap_t> cores_cpus;  // the part of `cpus` in each core

  // Which of its cores the calling thread runs on; -1: none of them.
  int this_core() const;
};

class Topology {
 public:
  static const Topology& get();

  const std::vector<Site>& sites() const { return sites_; }
  const std::string& processor_name() const { return processor_name_; }
  void bind_this_thread(const Site& site) const;
  void bind_thread(pthread_t thread, hwloc_const_bitmap_t cpus) const;
  // Prefers the device's own memory for pages that are not there yet.
  void bind_memory(const Site& site, void* address, uint64_t size_bytes) const;

 private:
  Topology();
  void one_a_node(hwloc_const_bitmap_t allowed);
  void split(hwloc_const_bitmap_t allowed, uint32_t count);
  void finish(Site& site);
  void share(const CgroupLimits& limits);

  hwloc_topology_t topology_ = nullptr;
  std::vector<Site> sites_;
  std::string processor_name_;
  bool several_nodes_ = false;
};

}  // namespace xhal::cpu
