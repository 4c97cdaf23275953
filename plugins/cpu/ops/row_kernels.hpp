// SPDX-License-Identifier: Apache-2.0
// row_kernels.hpp: the arithmetic of row operators.
#pragma once

#include <cstddef>

#include "op.hpp"

namespace xhal::cpu {

struct RowStats {
  float mean, rstd;
};

// How the memory around a row is used: addresses of rows that will be read soon, to be fetched
// meanwhile (they need not be memory of the tensor), and whether the output goes past the caches
// (then its rows are aligned to 64 bytes).
struct RowHints {
  const void* ahead[2] = {};
  bool stream = false;
};

// Rows dense in memory as f32, bf16 or f16, all operands alike; computed in f32. An output may
// be an input.
struct RowKernels {
  // `buffer` has room for a row of f32; it may be null for f32 rows that are not streamed.
  void (*softmax)(const void* x, void* y, size_t n, float* buffer, RowHints hints);
  void (*log_softmax)(const void* x, void* y, size_t n, float* buffer, RowHints hints);
  // hints.ahead: of grad and y.
  void (*softmax_grad)(const void* grad, const void* y, void* dx, size_t n, RowHints hints);
  void (*log_softmax_grad)(const void* grad, const void* y, void* dx, size_t n, RowHints hints);
  // log(sum(exp(x)))
  float (*log_sum)(const void* x, size_t n, RowHints hints);
  // dx = (exp(x - log_sum) - smooth) * scale
  void (*softmax_minus)(const void* x, float log_sum, float smooth, float scale, void* dx, size_t n,
                        RowHints hints);
  double (*sum)(const void* x, size_t n);
  // y = (x - mean) * rstd * weight + bias; weight and bias may be null. Not `centered`:
  // rms_norm, no mean.
  RowStats (*norm)(const void* x, const float* weight, const float* bias, bool centered, double eps,
                   void* y, size_t n, RowHints hints);
  // dx may be null, dweight and dbias both; these are added to. hints.ahead: of grad and x.
  void (*norm_grad)(const void* grad, const void* x, RowStats stats, const float* weight,
                    bool centered, void* dx, float* dweight, float* dbias, size_t n,
                    RowHints hints);
};

// For the instruction set chosen at this moment.
const RowKernels& row_kernels(DType type);

// The same for f32 alone: what the normalisations of images are made of.
struct ChannelKernels {
  RowStats (*mean_rstd)(const float* x, size_t n, double eps);
  double (*sum_centered_squares)(const float* x, float mean, size_t n);
  // sum(grad) and sum(grad * (x - mean))
  void (*grad_sums)(const float* grad, const float* x, float mean, size_t n, double* grad_sum,
                    double* product_sum);
  // dx = a * grad + b * (x - mean) + c
  void (*combine)(const float* grad, const float* x, float mean, float a, float b, float c,
                  float* dx, size_t n);
  // to[i] = sum over rows of from[row * stride + i], joined in f64
  void (*sum_rows)(const float* from, size_t rows, size_t stride, float* to, size_t n);
};

const ChannelKernels& channel_kernels();

}  // namespace xhal::cpu
