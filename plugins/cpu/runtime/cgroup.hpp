// SPDX-License-Identifier: Apache-2.0
// cgroup.hpp: what a container (control group, version 1 or 2) leaves this process of the machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace xhal::cpu {

// The tightest of the group's own limits and those of the groups above it; nothing: no limit.
struct CgroupLimits {
  std::optional<uint64_t> memory_bytes;
  std::optional<uint64_t> memory_left_bytes;  // of it; what the page cache holds counts as left
  std::optional<double> processors;           // processor time in a second, in seconds
};

// `root` is put before the absolute paths of the kernel's files.
CgroupLimits read_cgroup_limits(const std::string& root = "");

}  // namespace xhal::cpu
