// SPDX-License-Identifier: Apache-2.0
// transfer.hpp: copying and filling memory as fast as it goes.
#pragma once

#include <cstdint>

#include "worker_pool.hpp"

namespace xhal::cpu {

// About how long it takes, in nanoseconds: only decides where it runs.
constexpr uint32_t cost_of_copy(uint64_t bytes) {
  return bytes >= (uint64_t{1} << 34) ? UINT32_MAX : static_cast<uint32_t>(bytes / 8);
}
constexpr uint32_t cost_of_fill(uint64_t bytes) { return cost_of_copy(bytes) / 2; }

void copy_memory(WorkerPool& pool, void* dst, const void* src, uint64_t size_bytes);
// `pattern_bytes` is 1, 2, 4 or 8; dst and size are multiples of it.
void fill_memory(WorkerPool& pool, void* dst, uint64_t size_bytes, uint64_t pattern,
                 uint32_t pattern_bytes);

}  // namespace xhal::cpu
