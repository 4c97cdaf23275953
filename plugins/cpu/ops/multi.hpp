// SPDX-License-Identifier: Apache-2.0
// multi.hpp: operators over lists of tensors that are one single-tensor operator for each.
#pragma once

#include "op.hpp"

namespace xhal::cpu {

Prepared prepare_multi_axpby(const OpRequest& request, Refusal& refusal);
Prepared prepare_multi_mul(const OpRequest& request, Refusal& refusal);
Prepared prepare_multi_div(const OpRequest& request, Refusal& refusal);
Prepared prepare_multi_lerp(const OpRequest& request, Refusal& refusal);
Prepared prepare_multi_addcmul(const OpRequest& request, Refusal& refusal);
Prepared prepare_multi_addcdiv(const OpRequest& request, Refusal& refusal);
Prepared prepare_multi_sqrt(const OpRequest& request, Refusal& refusal);
Prepared prepare_multi_norm(const OpRequest& request, Refusal& refusal);

}  // namespace xhal::cpu
