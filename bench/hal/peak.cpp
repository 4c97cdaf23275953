// SPDX-License-Identifier: Apache-2.0
#include "peak.hpp"

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "measure/cores.hpp"
#include "measure/measure.hpp"

namespace xhal::bench {
namespace {

// Independent sums: enough to fill the pipelines of two multiply-add units with a latency of
// 4 to 6.
constexpr int kSums = 16;
constexpr int kTurns = 512;

// Each returns the floating point operations it has done.
__attribute__((target("avx2,fma"))) double fma_avx2() {
  __m256 sums[12];
  for (auto& sum : sums) sum = _mm256_set1_ps(0);
  __m256 a = _mm256_set1_ps(1.0001f), b = _mm256_set1_ps(0.9999f);
  keep(a);
  keep(b);
  for (int turn = 0; turn < kTurns; ++turn) {
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm256_fmadd_ps(a, b, sum);
  }
  for (auto& sum : sums) keep(sum);
  return 2.0 * 8 * 12 * kTurns;
}

__attribute__((target("avx512f"))) double fma_avx512() {
  __m512 sums[kSums];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  __m512 a = _mm512_set1_ps(1.0001f), b = _mm512_set1_ps(0.9999f);
  keep(a);
  keep(b);
  for (int turn = 0; turn < kTurns; ++turn) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_fmadd_ps(a, b, sum);
  }
  for (auto& sum : sums) keep(sum);
  return 2.0 * 16 * kSums * kTurns;
}

__attribute__((target("avx512f,avx512bf16"))) double dot_bf16() {
  __m512 sums[kSums];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  __m512 ones = _mm512_set1_ps(1.0f);
  keep(ones);
  const auto a = reinterpret_cast<__m512bh>(ones), b = reinterpret_cast<__m512bh>(ones);
  for (int turn = 0; turn < kTurns; ++turn) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_dpbf16_ps(sum, a, b);
  }
  for (auto& sum : sums) keep(sum);
  return 4.0 * 16 * kSums * kTurns;
}

// Tiles of 16 x 64 bytes; a product of two is 16 x 16 sums of 32 products.
__attribute__((target("amx-tile,amx-bf16"))) double tiles_bf16() {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t columns_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  // GCC 12's _tile_loadconfig tells the compiler that 8 bytes are read: the rest of a local
  // variable would never be stored, and the tiles would fault. Here all 64 are an operand.
  static const Config config;
  static_assert(sizeof config == 64);
  asm volatile("ldtilecfg %0" : : "m"(config));
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int turn = 0; turn < kTurns; ++turn) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 4.0 * 2 * 16 * 16 * 32 * kTurns;
}

// The kernel gives the tile registers only to those who ask.
bool may_use_tiles() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 7 << 0;
  asm volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(7), "c"(0));
  const bool has = (edx & (1u << 22)) != 0 && (edx & (1u << 24)) != 0;  // amx-bf16, amx-tile
  return has && syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

struct Choice {
  double (*run)();
  std::string name;
};

const Choice& choice(Format format) {
  static const Choice f32 = __builtin_cpu_supports("avx512f") ? Choice{fma_avx512, "AVX-512 f32"}
                                                              : Choice{fma_avx2, "AVX2 f32"};
  static const Choice bf16 = may_use_tiles() ? Choice{tiles_bf16, "AMX bf16"}
                             : __builtin_cpu_supports("avx512bf16")
                                 ? Choice{dot_bf16, "AVX-512 bf16"}
                                 : Choice{f32.run, ""};
  return format == Format::bf16 ? bf16 : f32;
}

}  // namespace

std::string peak_instruction(Format format) { return choice(format).name; }

double peak_gflops(Team& team, Format format, uint64_t ns) {
  auto* run = choice(format).run;
  std::vector<double> operations(team.size());
  const uint64_t begin = now_ns();
  team.run([&](unsigned i) {
    const uint64_t end = begin + ns;
    do {
      for (int k = 0; k < 16; ++k) operations[i] += run();
    } while (now_ns() < end);
  });
  double all = 0;
  for (const double n : operations) all += n;
  return all / static_cast<double>(now_ns() - begin);
}

}  // namespace xhal::bench
