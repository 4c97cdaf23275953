// SPDX-License-Identifier: Apache-2.0
// catalogue.hpp: what the catalogue says of an operator beside what its kernel knows:
// aliases and determinism.
#pragma once

#include <cstdint>
#include <vector>

#include "xhal/op.h"

namespace xhal::cpu {

struct OperatorFacts {
  std::vector<uint32_t>
      aliases;                // for each operand: 1 + the input it may share its address with, or 0
  uint32_t first_output = 0;  // operands from here on are outputs
  bool deterministic = true;
};

// `info` has been accepted by prepare_op.
OperatorFacts facts_of(const xhal_op_info& info);

}  // namespace xhal::cpu
