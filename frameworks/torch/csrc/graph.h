// SPDX-License-Identifier: Apache-2.0
// graph.h: what the random operators need to know of a capture (graph.cpp).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime.h"

namespace xhal_torch {

inline constexpr int64_t kGraphRandomSlots = 4096;  // random operators in one graph

// The random numbers a capture has taken so far.
struct GraphRandom {
  uint64_t slots = 0;             // device address of int64 offsets, one for each use
  std::vector<uint64_t> offsets;  // outputs taken before each use, and in all
};

// The capture under way on the current stream of the device; null when there is none.
GraphRandom* captured_random(DeviceIndex index);

// Makes torch.accelerator.Graph find us under the name torch gives the device.
void register_graphs(const std::string& device_name);

}  // namespace xhal_torch
