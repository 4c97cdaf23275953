// SPDX-License-Identifier: Apache-2.0
// reduce.hpp: combining vectors of many ranks into one. The same source is compiled for several
// levels of the processor; reduction() picks the best one that this machine has.
#pragma once

#include <cstdint>

namespace xcoll::kernels {

// to[i] = from[0][i] op from[1][i] op ... in this order; f16 and bf16 in f32, rounded once. `to`
// may be one of `from`, otherwise they do not overlap. n >= 1.
using Combine = void (*)(void* to, const void* const* from, uint32_t n, uint64_t count);

enum Type : uint8_t { kI8, kI32, kI64, kU8, kU32, kU64, kF16, kF32, kF64, kBF16, kBool, kTypes };
enum Reduction : uint8_t { kSum, kAvg, kMin, kMax, kProd, kBand, kBor, kBxor, kReductions };

struct Table {
  Combine combine[kTypes][kReductions];  // null where the reduction is not defined for the type
};

const Table& baseline_table();
const Table& avx2_table();
const Table& avx512_table();

// By level: "avx512", "avx2" or "baseline"; null when this build or this processor does
// not have it.
const Table* table_of(const char* level);
const Table& best_table();

}  // namespace xcoll::kernels
