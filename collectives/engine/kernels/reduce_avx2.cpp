// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/reduce.hpp"

#define XCOLL_LEVEL avx2
#define XCOLL_TABLE avx2_table
#include "engine/kernels/reduce.inc"
