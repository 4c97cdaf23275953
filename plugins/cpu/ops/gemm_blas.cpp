// SPDX-License-Identifier: Apache-2.0
// gemm_blas.cpp: loads OpenBLAS when a processor needs it.
#include "gemm_blas.hpp"

#include <boost/dll/shared_library.hpp>
#include <optional>

namespace xhal::cpu {
namespace {

constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;  // CBLAS_ORDER, CBLAS_TRANSPOSE

const BlasGemm* load() {
  namespace dll = boost::dll;
  static auto* const library = new dll::shared_library;  // stays loaded until the process exits
  std::error_code failed;
  library->load("libopenblas.so.0", failed,
                dll::load_mode::rtld_now | dll::load_mode::rtld_local |
                    dll::load_mode::search_system_folders);
  if (failed || !library->has("cblas_sgemm") || !library->has("openblas_set_num_threads"))
    return nullptr;
  library->get<void(int)>("openblas_set_num_threads")(1);
  auto* const blas = new BlasGemm;
  blas->sgemm = reinterpret_cast<BlasGemm::Sgemm>(
      &library->get<std::remove_pointer_t<BlasGemm::Sgemm>>("cblas_sgemm"));
  return blas;
}

}  // namespace

const BlasGemm* BlasGemm::get() {
  static const BlasGemm* const blas = load();
  return blas;
}

void BlasGemm::run(int64_t m, int64_t n, int64_t k, const float* a, bool a_transposed, int64_t lda,
                   const float* b, bool b_transposed, int64_t ldb, float* c, int64_t ldc,
                   bool accumulate) const {
  sgemm(kRowMajor, a_transposed ? kTransposed : kPlain, b_transposed ? kTransposed : kPlain,
        static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), 1.0f, a,
        static_cast<int>(lda), b, static_cast<int>(ldb), accumulate ? 1.0f : 0.0f, c,
        static_cast<int>(ldc));
}

}  // namespace xhal::cpu
