// SPDX-License-Identifier: Apache-2.0
// elements.hpp: buffers of any element type, and the reference that collectives are compared with.
#pragma once

#include <xcoll/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace xcoll::testing {

inline constexpr xcoll_dtype kAllTypes[] = {XCOLL_F32, XCOLL_F64, XCOLL_F16, XCOLL_BF16,
                                            XCOLL_I8,  XCOLL_U8,  XCOLL_I32, XCOLL_U32,
                                            XCOLL_I64, XCOLL_U64, XCOLL_BOOL};
inline constexpr xcoll_reduction kAllReductions[] = {XCOLL_SUM,  XCOLL_AVG,  XCOLL_MIN, XCOLL_MAX,
                                                     XCOLL_PROD, XCOLL_BAND, XCOLL_BOR, XCOLL_BXOR};

std::string name_of(xcoll_dtype dtype);
std::string name_of_reduction(xcoll_reduction reduction);
bool is_defined(xcoll_dtype dtype, xcoll_reduction reduction);

using Bytes = std::vector<unsigned char>;

// Element i of rank r's buffer: a small number that depends on both, so that a misplaced one shows.
Bytes input_of(int32_t rank, uint64_t count, xcoll_dtype dtype, uint64_t seed = 0);

// The reduction of equally long buffers, element by element, one rank after the other.
Bytes reduced(const std::vector<Bytes>& inputs, xcoll_dtype dtype, xcoll_reduction reduction);

// Elements [begin, begin + count).
Bytes part(const Bytes& bytes, uint64_t begin, uint64_t count, xcoll_dtype dtype);

// "equal", or which element differs first.
std::string difference(const Bytes& expected, const void* actual, xcoll_dtype dtype);

}  // namespace xcoll::testing
