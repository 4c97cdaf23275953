// SPDX-License-Identifier: Apache-2.0
#include "engine/kernels/reduce.hpp"

#define XCOLL_LEVEL baseline
#define XCOLL_TABLE baseline_table
#include "engine/kernels/reduce.inc"
