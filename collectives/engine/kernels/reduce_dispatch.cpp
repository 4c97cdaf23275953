// SPDX-License-Identifier: Apache-2.0
#include <string_view>

#include "engine/kernels/reduce.hpp"

namespace xcoll::kernels {

const Table* table_of(const char* level) {
  const std::string_view name(level);
  if (name == "baseline") return &baseline_table();
#if defined(__x86_64__)
  if (name == "avx2" && __builtin_cpu_supports("avx2")) return &avx2_table();
  if (name == "avx512" && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return &avx512_table();
  }
#endif
  return nullptr;
}

const Table& best_table() {
  static const Table& best = []() -> const Table& {
    for (const char* level : {"avx512", "avx2"}) {
      if (const Table* table = table_of(level)) return *table;
    }
    return baseline_table();
  }();
  return best;
}

}  // namespace xcoll::kernels
