// SPDX-License-Identifier: Apache-2.0
// optimizer.hpp: optimiser steps on dense f32 runs.
#pragma once

#include <cstddef>

namespace xhal::cpu {

struct AdamStep {
  float lr, beta1, beta2, weight_decay, eps, inverse_grad_scale;
  float step_size;                    // lr / (1 - beta1^step)
  float inverse_root_of_correction2;  // 1 / sqrt(1 - beta2^step)
  bool maximize, decoupled;
};

// Inputs may be the outputs. max_sq is null without amsgrad.
struct AdamRun {
  const float *param, *grad, *avg, *sq, *max_sq;
  float *param_out, *avg_out, *sq_out, *max_sq_out;
};

struct SgdStep {
  float lr, momentum, dampening, weight_decay, inverse_grad_scale;
  bool nesterov, maximize, first;
};

struct OptimizerKernels {
  void (*adam)(const AdamRun& run, const AdamStep& step, size_t n);
  // momentum and momentum_out are null when there is none.
  void (*sgd)(const float* param, const float* grad, const float* momentum, float* param_out,
              float* momentum_out, const SgdStep& step, size_t n);
  // out = in * scale; returns whether all products' inputs were finite.
  bool (*unscale)(const float* in, float scale, float* out, size_t n);
};

// For the instruction set chosen at this moment.
const OptimizerKernels& optimizer_kernels();

}  // namespace xhal::cpu
