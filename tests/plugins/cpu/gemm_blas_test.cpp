// SPDX-License-Identifier: Apache-2.0
// gemm_blas_test.cpp: the libraries under the matrix product: which symbols are bound,
// whose threads run.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "dnnl.hpp"
#include "gemm_blas.hpp"
#include "kernel_harness.hpp"

// libtorch_cpu exports BLAS symbols; so does this program.
extern "C" __attribute__((visibility("default"))) void cblas_sgemm() { std::abort(); }

extern "C" {
int omp_get_max_threads(void);
void omp_set_num_threads(int);
}

namespace xhal::cpu::test {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string memory_map() {
  std::ifstream maps("/proc/self/maps");
  return {std::istreambuf_iterator<char>(maps), {}};
}

int64_t thread_count() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
}

void run_gemm() {
  const Tensor a = Tensor::random(DType::f32, {300, 300}, 1);
  Tensor out(DType::f32, {300, 300});
  Call call(XHAL_OP_gemm);
  call.add(a).add(a).absent().absent().add(out);
  ASSERT_EQ(call.run(), XHAL_OK) << call.error;
}

TEST(GemmLibraries, OpenBlasIsOnlyLoadedWhereOneDnnIsSlow) {
  if (!dnnl_has_avx512()) GTEST_SKIP() << "this processor needs it";
  run_gemm();
  EXPECT_THAT(memory_map(), Not(HasSubstr("libopenblas")));
}

TEST(GemmLibraries, BlasSymbolsComeFromOpenBlasItself) {
  ASSERT_NE(dlsym(RTLD_DEFAULT, "cblas_sgemm"), nullptr) << "the decoy is not exported";
  const BlasGemm* blas = BlasGemm::get();
  if (blas == nullptr) GTEST_SKIP() << "libopenblas.so.0 is not installed";
  Dl_info where{};
  ASSERT_NE(dladdr(reinterpret_cast<void*>(blas->sgemm), &where), 0);
  EXPECT_THAT(where.dli_fname, HasSubstr("openblas"));
}

TEST(GemmLibraries, OpenBlasMultipliesWhatItIsGiven) {
  const BlasGemm* blas = BlasGemm::get();
  if (blas == nullptr) GTEST_SKIP() << "libopenblas.so.0 is not installed";
  constexpr int64_t m = 33, n = 29, k = 31;
  const Tensor a = Tensor::random(DType::f32, {m, k}, 1), b = Tensor::random(DType::f32, {k, n}, 2);
  for (const bool a_transposed : {false, true})
    for (const bool b_transposed : {false, true})
      for (const bool add : {false, true}) {
        const Tensor x = a_transposed ? a.stored_as({1, 0}) : a,
                     y = b_transposed ? b.stored_as({1, 0}) : b;
        Tensor c(DType::f32, {m, n});
        c.fill([](int64_t) { return 3; });
        blas->run(m, n, k, static_cast<const float*>(x.data()), a_transposed, a_transposed ? m : k,
                  static_cast<const float*>(y.data()), b_transposed, b_transposed ? k : n,
                  static_cast<float*>(c.data()), n, add);
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < n; ++j) {
            double want = add ? 3 : 0;
            for (int64_t e = 0; e < k; ++e) want += a.at({i, e}) * b.at({e, j});
            ASSERT_NEAR(c.at({i, j}), want, 1e-5);
          }
      }
}

TEST(GemmLibraries, OneDnnRunsOnTheCallingThreadAndOpenMpIsLeftAsItWas) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(3);
  const int64_t threads = thread_count();
  run_gemm();
  EXPECT_EQ(thread_count(), threads);
  EXPECT_EQ(omp_get_max_threads(), 3);
  omp_set_num_threads(before);
}

}  // namespace
}  // namespace xhal::cpu::test
