// norm.hpp: what the files of the normalisations share.
#pragma once

#include "row_kernels.hpp"
#include "rows.hpp"

namespace xhal::cpu {

// XHAL_OK, or out of memory with its text.
xhal_status row_status(bool failed, int64_t length, const Launch& launch);

// channel_norm.cpp
Prepared prepare_group_norm(const OpRequest& request, Refusal& refusal);
Prepared prepare_group_norm_grad(const OpRequest& request, Refusal& refusal);
Prepared prepare_batch_norm(const OpRequest& request, Refusal& refusal);
Prepared prepare_batch_norm_grad(const OpRequest& request, Refusal& refusal);

}  // namespace xhal::cpu
