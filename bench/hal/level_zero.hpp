// SPDX-License-Identifier: Apache-2.0
// level_zero.hpp: Level Zero's loader, with a driver that does nothing, as a peer of libxhal and
// of its layers.
#pragma once

#include <string>

#include "bench.hpp"

namespace xhal::bench {

// Appending a barrier to a command list: a call with one handle that the loader looks behind.
enum class LevelZero {
  slot,        // the driver's function, from its table
  loader,      // through the loader, one driver
  validation,  // ... and its validation layer with parameter checks
  tracing,     // ... and its tracing layer, nobody listening
};

// A peer that takes its turns in a process of its own, for the loader reads its settings once. It
// has no sample, and tells why, when Level Zero is not installed.
Peer level_zero(LevelZero way, Goals goal = {});

}  // namespace xhal::bench
