// SPDX-License-Identifier: Apache-2.0
#include "topology.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "xhal/plugin.hpp"
#include "xhal_base/environment.hpp"

namespace xhal::cpu {
namespace {

constexpr uint32_t kMostDevices = 1024;

// XHAL_CPU_DEVICES: 0 when it is not set or no such number.
uint32_t devices_asked_for() {
  const auto asked = base::environment_number<uint32_t>("XHAL_CPU_DEVICES", 1, kMostDevices);
  if (!asked.problem.empty())
    plugin::host().log(XHAL_LOG_WARN, plugin::str(asked.problem + "; taking it as unset"));
  return asked.value.value_or(0);
}

}  // namespace

const Topology& Topology::get() {
  static const auto* const topology = new Topology;
  return *topology;
}

Topology::Topology() {
  if (hwloc_topology_init(&topology_) != 0) throw std::runtime_error("hwloc cannot be initialised");
  // It would move this thread to every processor in turn, for details of caches that nobody reads.
  (void)hwloc_topology_set_components(topology_, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
  hwloc_topology_set_all_types_filter(topology_, HWLOC_TYPE_FILTER_KEEP_NONE);
  hwloc_topology_set_type_filter(topology_, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
  hwloc_topology_set_type_filter(topology_, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(topology_) != 0)
    throw std::runtime_error("hwloc cannot read the topology");

  hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
  if (hwloc_get_cpubind(topology_, allowed, HWLOC_CPUBIND_THREAD) != 0) {
    hwloc_bitmap_copy(allowed, hwloc_topology_get_allowed_cpuset(topology_));
  }
  hwloc_bitmap_and(allowed, allowed, hwloc_topology_get_allowed_cpuset(topology_));
  several_nodes_ = hwloc_get_nbobjs_by_type(topology_, HWLOC_OBJ_NUMANODE) > 1;

  for (hwloc_obj_t o :
       {hwloc_get_obj_by_type(topology_, HWLOC_OBJ_PACKAGE, 0), hwloc_get_root_obj(topology_)}) {
    const char* model = o == nullptr ? nullptr : hwloc_obj_get_info_by_name(o, "CPUModel");
    if (processor_name_.empty() && model != nullptr) processor_name_ = model;
  }
  if (processor_name_.empty()) processor_name_ = "Processor";

  const uint32_t asked = devices_asked_for();
  if (asked == 0) {
    one_a_node(allowed);
  } else {
    split(allowed, asked);
  }
  for (auto& site : sites_) finish(site);
  hwloc_bitmap_free(allowed);
  share(read_cgroup_limits());
}

void Topology::one_a_node(hwloc_const_bitmap_t allowed) {
  for (hwloc_obj_t node = nullptr;
       (node = hwloc_get_next_obj_by_type(topology_, HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
    if (!hwloc_bitmap_intersects(node->cpuset, allowed)) continue;
    Site site;
    site.cpus = hwloc_bitmap_alloc();
    hwloc_bitmap_and(site.cpus, node->cpuset, allowed);
    site.memory_bytes = node->attr->numanode.local_memory;
    sites_.push_back(std::move(site));
  }
}

// Consecutive cores for each device; with more devices than cores, several devices share one.
void Topology::split(hwloc_const_bitmap_t allowed, uint32_t count) {
  std::vector<hwloc_obj_t> cores;
  for (hwloc_obj_t core = nullptr;
       (core = hwloc_get_next_obj_by_type(topology_, HWLOC_OBJ_CORE, core)) != nullptr;) {
    if (hwloc_bitmap_intersects(core->cpuset, allowed)) cores.push_back(core);
  }
  if (cores.empty()) return one_a_node(allowed);
  uint64_t memory = 0;
  for (hwloc_obj_t node = nullptr;
       (node = hwloc_get_next_obj_by_type(topology_, HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
    memory += node->attr->numanode.local_memory;
  }
  for (uint32_t i = 0; i < count; ++i) {
    Site site;
    site.cpus = hwloc_bitmap_alloc();
    const size_t begin = count <= cores.size() ? i * cores.size() / count : i % cores.size();
    const size_t end = count <= cores.size() ? (i + 1) * cores.size() / count : begin + 1;
    for (size_t c = begin; c < end; ++c) hwloc_bitmap_or(site.cpus, site.cpus, cores[c]->cpuset);
    hwloc_bitmap_and(site.cpus, site.cpus, allowed);
    site.memory_bytes = memory / count;
    sites_.push_back(std::move(site));
  }
}

void Topology::finish(Site& site) {
  site.nodes = hwloc_bitmap_alloc();
  hwloc_cpuset_to_nodeset(topology_, site.cpus, site.nodes);
  site.numa_node = hwloc_bitmap_first(site.nodes);
  // Also a core of which only some hardware threads are allowed computes like one.
  for (hwloc_obj_t core = nullptr;
       (core = hwloc_get_next_obj_by_type(topology_, HWLOC_OBJ_CORE, core)) != nullptr;) {
    if (!hwloc_bitmap_intersects(core->cpuset, site.cpus)) continue;
    hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
    hwloc_bitmap_and(cpus, core->cpuset, site.cpus);
    site.cores_cpus.push_back(cpus);
    ++site.cores;
  }
  site.cores = std::max(site.cores, 1u);
  int processor = -1;
  while ((processor = hwloc_bitmap_next(site.cpus, processor)) >= 0) {
    site.processors.push_back(static_cast<uint32_t>(processor));
  }
}

// What a container leaves, in the proportion of what the devices would have: beyond its memory the
// kernel kills, and threads beyond its processors only take each other's time.
void Topology::share(const CgroupLimits& limits) {
  uint64_t memory = 0, cores = 0;
  for (const auto& site : sites_) {
    memory += site.memory_bytes;
    cores += site.cores;
  }
  for (auto& site : sites_) {
    if (limits.memory_left_bytes && *limits.memory_left_bytes < memory) {
      const double part = static_cast<double>(site.memory_bytes) / static_cast<double>(memory);
      site.memory_bytes =
          static_cast<uint64_t>(part * static_cast<double>(*limits.memory_left_bytes));
    }
    if (limits.processors && *limits.processors < static_cast<double>(cores)) {
      const double part = *limits.processors * site.cores / static_cast<double>(cores);
      site.cores = std::max(1u, static_cast<uint32_t>(std::ceil(part)));
    }
  }
}

int Site::this_core() const {
  const auto cpu = static_cast<unsigned>(sched_getcpu());
  for (size_t i = 0; i < cores_cpus.size(); ++i) {
    if (hwloc_bitmap_isset(cores_cpus[i], cpu)) return static_cast<int>(i);
  }
  return -1;
}

void Topology::bind_this_thread(const Site& site) const {
  // A refusal (a container without the right, say) leaves the thread unbound: slower, not wrong.
  (void)hwloc_set_cpubind(topology_, site.cpus, HWLOC_CPUBIND_THREAD);
}

void Topology::bind_thread(pthread_t thread, hwloc_const_bitmap_t cpus) const {
  (void)hwloc_set_thread_cpubind(topology_, thread, cpus, 0);
}

void Topology::bind_memory(const Site& site, void* address, uint64_t size_bytes) const {
  if (!several_nodes_) return;
  (void)hwloc_set_area_membind(topology_, address, size_bytes, site.nodes, HWLOC_MEMBIND_BIND,
                               HWLOC_MEMBIND_BYNODESET);
}

}  // namespace xhal::cpu
