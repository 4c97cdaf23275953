// SPDX-License-Identifier: Apache-2.0
// operators.hpp: every operator of the catalogue, computed the obvious way in doubles.
//
// These loops are the judge: they follow the catalogue's prose literally and are never optimised.
#pragma once

#include "reference/problem.hpp"

namespace xhal::ref {

// pointwise.cpp: one function of the elements at the same position
Results pointwise(const Problem& p);

// reduce.cpp
Results reduce(const Problem& p);
Results variance(const Problem& p);
Results arg_extreme(const Problem& p);
Results cumsum(const Problem& p);

// matrix.cpp
Results gemm(const Problem& p);
Results sdpa(const Problem& p);
Results sdpa_grad(const Problem& p);
Results rope(const Problem& p);

// loss.cpp
Results softmax(const Problem& p);
Results softmax_grad(const Problem& p);
Results nll_loss(const Problem& p);
Results nll_loss_grad(const Problem& p);
Results cross_entropy(const Problem& p);
Results cross_entropy_grad(const Problem& p);
Results mse_loss(const Problem& p);
Results mse_loss_grad(const Problem& p);

// norm.cpp
Results row_norm(const Problem& p);  // layer_norm and rms_norm
Results row_norm_grad(const Problem& p);
Results group_norm(const Problem& p);
Results group_norm_grad(const Problem& p);
Results batch_norm(const Problem& p);
Results batch_norm_grad(const Problem& p);

// index.cpp
Results index_select(const Problem& p);
Results embedding_grad(const Problem& p);
Results gather(const Problem& p);
Results scatter(const Problem& p);
Results index(const Problem& p);
Results index_put(const Problem& p);
Results index_add(const Problem& p);
Results cat(const Problem& p);
Results triangle(const Problem& p);
Results arange(const Problem& p);
Results flip(const Problem& p);
Results sort(const Problem& p);  // and topk
Results nonzero(const Problem& p);
Results quantise_block(const Problem& p);  // and its inverse

// conv.cpp
Results conv(const Problem& p);
Results conv_grad_input(const Problem& p);
Results conv_grad_weight(const Problem& p);

// pool.cpp
Results max_pool(const Problem& p);
Results max_pool_grad(const Problem& p);
Results avg_pool(const Problem& p);  // and its gradient, and the adaptive pair
Results upsample_nearest(const Problem& p);
Results upsample_bilinear(const Problem& p);

// recurrent.cpp
Results lstm_cell(const Problem& p);
Results lstm_cell_grad(const Problem& p);
Results gru_cell(const Problem& p);
Results gru_cell_grad(const Problem& p);

// optimizer.cpp
Results multi_adamw(const Problem& p);
Results multi_sgd(const Problem& p);
Results multi_unscale(const Problem& p);
Results update_scale(const Problem& p);
Results multi_pointwise(const Problem& p);
Results multi_norm(const Problem& p);

}  // namespace xhal::ref
