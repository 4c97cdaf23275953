// SPDX-License-Identifier: Apache-2.0
// norm.hpp: what the files of the normalisations share.
#pragma once

#include "rows.hpp"

namespace xhal::cpu {

// channel_norm.cpp
Prepared prepare_group_norm(const OpRequest& request, Refusal& refusal);
Prepared prepare_group_norm_grad(const OpRequest& request, Refusal& refusal);
Prepared prepare_batch_norm(const OpRequest& request, Refusal& refusal);
Prepared prepare_batch_norm_grad(const OpRequest& request, Refusal& refusal);

}  // namespace xhal::cpu
