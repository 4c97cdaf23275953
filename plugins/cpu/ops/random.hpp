// SPDX-License-Identifier: Apache-2.0
// random.hpp: Philox4x32-10 and what is made of its words, block by block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xhal::cpu {

struct RandomKernels {
  // words[4 * i + k] = word k of counter `counter + i` (the upper 64 counter bits are 0)
  // under key `seed`.
  void (*words)(uint64_t seed, uint64_t counter, uint32_t* words, size_t counters);
  // The upper `digits` bits of each word as a number in [0, 1).
  void (*unit)(const uint32_t* words, float* to, size_t n, int digits);
  // Standard normal numbers, two from two words; n is a multiple of 4.
  void (*normal)(const uint32_t* words, float* to, size_t n);
  // Exponential numbers of rate 1.
  void (*exponential)(const uint32_t* words, float* to, size_t n);
};

// For the instruction set chosen at this moment.
const RandomKernels& random_kernels();

}  // namespace xhal::cpu
