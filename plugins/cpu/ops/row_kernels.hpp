// row_kernels.hpp: the arithmetic of row operators on dense f32 rows.
#pragma once

#include <cstddef>

namespace xhal::cpu {

struct RowStats {
  float mean, rstd;
};

struct RowKernels {
  // y may be x in all of them.
  void (*softmax)(const float* x, float* y, size_t n);
  void (*log_softmax)(const float* x, float* y, size_t n);
  void (*softmax_grad)(const float* grad, const float* y, float* dx, size_t n);
  void (*log_softmax_grad)(const float* grad, const float* y, float* dx, size_t n);
  // log(sum(exp(x)))
  float (*log_sum)(const float* x, size_t n);
  // dx = (exp(x - log_sum) - smooth) * scale
  void (*softmax_minus)(const float* x, float log_sum, float smooth, float scale, float* dx,
                        size_t n);
  double (*sum)(const float* x, size_t n);
  double (*sum_centered_squares)(const float* x, float mean, size_t n);

  RowStats (*mean_rstd)(const float* x, size_t n, double eps);
  float (*inverse_rms)(const float* x, size_t n, double eps);
  // (x - mean) * rstd * weight + bias; weight and bias may be null.
  void (*normalise)(const float* x, RowStats s, const float* weight, const float* bias, float* y,
                    size_t n);
  // x * scale + shift
  void (*scale_shift)(const float* x, float scale, float shift, float* y, size_t n);
  // Both gradients of a normalised row; any of dx, dweight, dbias may be null; dweight and dbias
  // are added to. `centered` is false for rms_norm: no mean, and none of grad's taken out.
  void (*normalise_grad)(const float* grad, const float* x, RowStats s, const float* weight,
                         bool centered, float* dx, float* dweight, float* dbias, size_t n);
  // sum(grad) and sum(grad * (x - mean))
  void (*grad_sums)(const float* grad, const float* x, float mean, size_t n, double* grad_sum,
                    double* product_sum);
  // dx = a * grad + b * (x - mean) + c
  void (*combine)(const float* grad, const float* x, float mean, float a, float b, float c,
                  float* dx, size_t n);
  // to[i] = sum over rows of from[row * stride + i], joined in f64
  void (*sum_rows)(const float* from, size_t rows, size_t stride, float* to, size_t n);
};

// For the instruction set chosen at this moment.
const RowKernels& row_kernels();

}  // namespace xhal::cpu
