// SPDX-License-Identifier: Apache-2.0
// gemm_blas.hpp: OpenBLAS's f32 product, for processors without AVX-512, where oneDNN 2.6 reaches a
// quarter of it.
#pragma once

#include <cstdint>

namespace xhal::cpu {

// Row-major dst[m, n] = src[m, k] weights[k, n] (+ dst when accumulate), on the calling thread.
struct BlasGemm {
  using Sgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                         const float* a, int lda, const float* b, int ldb, float beta, float* c,
                         int ldc);
  Sgemm sgemm = nullptr;

  // The library is loaded on the first call; nullptr when it is not installed. Its symbol is
  // looked up in the library itself, so that one of the same name in the process (libtorch_cpu has
  // it) is not taken.
  static const BlasGemm* get();

  void run(int64_t m, int64_t n, int64_t k, const float* a, bool a_transposed, int64_t lda,
           const float* b, bool b_transposed, int64_t ldb, float* c, int64_t ldc,
           bool accumulate) const;
};

}  // namespace xhal::cpu
