// SPDX-License-Identifier: Apache-2.0
// cpu_usage.hpp: how busy processors and memory are, as the kernel counts it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace xhal::cpu {

// Time of some processors since boot, in the kernel's own unit.
struct CpuUsage {
  uint64_t busy = 0, all = 0;
};

std::optional<CpuUsage> read_cpu_usage(const std::vector<uint32_t>& processors);

// Memory that a program could still get without swapping; of the whole machine.
std::optional<uint64_t> available_memory_bytes();
std::optional<uint64_t> all_memory_bytes();

}  // namespace xhal::cpu
