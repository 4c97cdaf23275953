// SPDX-License-Identifier: Apache-2.0
// attention.hpp: scaled dot-product attention in tiles: what the forward and the
// backward pass share.
//
// A unit of work is one key-value head of one batch item with the query heads that use it, and a
// part of the query rows. Keys and values are brought into f32 once a unit, in the layouts the
// products read; queries follow in blocks of kRows, scores in tiles of kRows x kColumns that stay
// in the cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "op.hpp"

namespace xhal::cpu {

constexpr int64_t kPanel = 32;  // columns of a panel: the operand on the right of a product

// Row-major f32 kernels. A matrix on the right is a row of panels, each `depth` rows of 32 columns,
// zero where it has fewer; buffers written as products have room for whole panels.
struct AttentionKernels {
  struct Left {
    const float* data;
    int64_t row, step;  // between rows, and along the contracted dimension
  };
  struct Right {
    const float* data;
    int64_t row, panel;  // between rows of a panel, and between panels
  };
  // c[rows, columns] = left right, or += with `add`.
  void (*product)(Left left, Right right, int64_t depth, float* c, int64_t c_row, int64_t rows,
                  int64_t columns, bool add);
  // panel[e][i] = rows[i][e] for i < kPanel, e < depth; rows are `stride` apart.
  void (*transpose)(const float* rows, int64_t stride, int64_t depth, float* panel);
  // Scores become exp(score - max), zero from `valid` to `padded`; max and sum go on from the tiles
  // before. Returns what the tiles before must be multiplied by.
  float (*softmax_row)(float* scores, int64_t valid, int64_t padded, float* max, float* sum);
  // Scores become p = exp(score - log_sum), dp becomes p * (dp * keep - delta); keep may be NULL,
  // else p *= keep after it.
  void (*grad_row)(float* scores, float* dp, const float* keep, int64_t valid, int64_t padded,
                   float log_sum, float delta);
  void (*scale)(float* x, int64_t n, float factor);
  float (*dot)(const float* a, const float* b, int64_t n);
};
const AttentionKernels& attention_kernels();

// A [batch, head, row, element] tensor.
struct HeadTensor {
  uint32_t operand = 0;
  DType type = DType::f32;
  int64_t strides[4] = {};

  HeadTensor() = default;
  HeadTensor(const xhal_tensor_desc& t, uint32_t position) : operand(position), type(dtype_of(t)) {
    for (uint32_t d = 0; d < t.ndim && d < 4; ++d) strides[d] = t.strides[d];
  }
  char* row(void* const* pointers, int64_t b, int64_t h, int64_t i) const {
    return static_cast<char*>(pointers[operand]) +
           (b * strides[0] + h * strides[1] + i * strides[2]) * static_cast<int64_t>(size_of(type));
  }
};

struct AttentionShape {
  int64_t b = 0, h = 0, hk = 0, s = 0, t = 0, d = 0, dv = 0;
  bool causal = false, has_mask = false;
  float scale = 1, dropout = 0;
  HeadTensor q, k, v, mask;

  // Columns that row i can see.
  int64_t visible(int64_t i) const { return causal ? std::min(t, i + 1) : t; }

  // Reads the groups from `first` on: q, k, v; the mask separately. False with `refusal` filled in.
  bool read(const OpRequest& request, uint32_t first, uint32_t mask_group, Refusal& refusal);
  // Query rows are cut so that there are about 16 units, but none with fewer than 128 rows.
  int64_t rows_per_unit() const;
  int64_t parts() const {
    return std::max<int64_t>(1, (s + rows_per_unit() - 1) / rows_per_unit());
  }
};

// The distance between rows of a buffer of `n` columns: whole panels, and not a power of two that
// would make rows collide in the cache.
constexpr int64_t pitch_of(int64_t n) {
  const int64_t whole = (n + kPanel - 1) / kPanel * kPanel;
  return whole >= 128 ? whole + 16 : whole;
}
constexpr int64_t whole_panels(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

// Rows [first, first + count) of one head as f32, times `factor`, `pitch` apart; zero up
// to the pitch.
void load_rows(const HeadTensor& x, void* const* pointers, int64_t b, int64_t h, int64_t first,
               int64_t count, int64_t width, float factor, float* to, int64_t pitch);
void store_rows(const HeadTensor& x, void* const* pointers, int64_t b, int64_t h, int64_t first,
                int64_t count, int64_t width, const float* from, int64_t pitch);
// Rows of one head as panels of their transpose; `buffer` has room for kPanel rows.
void load_transposed(const HeadTensor& x, void* const* pointers, int64_t b, int64_t h,
                     int64_t count, int64_t width, float* panels, float* buffer);
// Adds columns [first, first + n) of row i of the mask to the scores: -inf where a bool
// mask is false.
void add_mask(const AttentionShape& shape, void* const* pointers, int64_t b, int64_t h, int64_t i,
              int64_t first, int64_t n, float* scores, float* buffer);
// keep[e] = 0 or 1 / (1 - p) for columns [first, first + n) of row i, from the random numbers
// of that place.
void fill_keep(const AttentionShape& shape, uint64_t seed, uint64_t offset, int64_t b, int64_t h,
               int64_t i, int64_t first, int64_t n, float* keep);

Prepared prepare_sdpa_grad(const OpRequest& request, Refusal& refusal);

}  // namespace xhal::cpu
