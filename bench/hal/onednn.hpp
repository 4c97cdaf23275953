// SPDX-License-Identifier: Apache-2.0
// onednn.hpp: oneDNN called directly, as a peer of the cpu plugin. The only place that knows which
// version of its API is installed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "peak.hpp"

namespace xhal::bench {

// One prepared primitive with its memory, on a thread of its own with an OpenMP team that is bound
// one thread to a core. Unbound, libgomp's threads sometimes share a core after a pause and spin
// against each other for milliseconds: that would be no fair peer.
class OneDnn {
 public:
  // c[n, n] = a[n, n] * b[n, n], row-major as a framework has them.
  static OneDnn matmul(int64_t n, Format format, unsigned threads);
  // softmax along the last dimension of f32 [rows, columns], from `src` to `dst`.
  static OneDnn softmax(int64_t rows, int64_t columns, float* src, float* dst, unsigned threads);
  static std::string version();

  // Nanoseconds of one of `count` runs.
  double ns_per_run(uint32_t count);

 private:
  struct Part;
  std::shared_ptr<Part> part_;
};

}  // namespace xhal::bench
