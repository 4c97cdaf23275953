// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/reduce.hpp"

#define XCOLL_LEVEL avx512
#define XCOLL_TABLE avx512_table
#include "engine/kernels/reduce.inc"
