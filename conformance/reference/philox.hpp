// SPDX-License-Identifier: Apache-2.0
// philox.hpp: Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
// 3", SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace xhal::ref {

using Words = std::array<uint32_t, 4>;

Words philox4x32_10(Words counter, std::array<uint32_t, 2> key);

// The word of element `i`, as ops.inc states it: counter (offset + i/4, 0), key seed.
uint32_t random_word(uint64_t seed, uint64_t offset, uint64_t i);

}  // namespace xhal::ref
