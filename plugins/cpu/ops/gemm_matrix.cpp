// SPDX-License-Identifier: Apache-2.0
// gemm_matrix.cpp: packing, and the choice of tiles.
#include "gemm_matrix.hpp"

#include <unistd.h>

#include <cstring>

namespace xhal::cpu {

View::View(const xhal_tensor_desc& t, uint32_t position) : type(dtype_of(t)), operand(position) {
  const uint32_t first = t.ndim - 2;
  rows = t.sizes[first];
  columns = t.sizes[first + 1];
  row_stride = t.strides[first];
  column_stride = t.strides[first + 1];
  if (t.ndim == 3 && t.sizes[0] != 1) batch_stride = t.strides[0];
}

View View::transposed() const {
  View v = *this;
  std::swap(v.rows, v.columns);
  std::swap(v.row_stride, v.column_stride);
  return v;
}

Packer::Packer(const View& v, DType to)
    : transposed_(v.column_major() && !v.row_major()),
      converts_(v.type != to),
      load_(loader<float>(v.type, transposed_ || v.column_stride == 1)),
      item_bytes_(static_cast<int64_t>(size_of(v.type))) {}

void Packer::run(const View& v, const char* from, int64_t begin, int64_t end, int64_t length,
                 char* to) const {
  const int64_t line_stride = transposed_ ? v.column_stride : v.row_stride;
  const int64_t stride = transposed_ ? v.row_stride : v.column_stride;
  const auto n = static_cast<size_t>(length);
  for (int64_t line = begin; line < end; ++line) {
    const char* source = from + line * line_stride * item_bytes_;
    if (converts_ || item_bytes_ == sizeof(float)) {
      load_(source, stride, n, reinterpret_cast<float*>(to) + line * length);
      continue;
    }
    auto* target = reinterpret_cast<uint16_t*>(to) + line * length;
    const auto* halves = reinterpret_cast<const uint16_t*>(source);
    if (stride == 1) {
      std::memcpy(target, halves, n * sizeof(uint16_t));
    } else {
      for (int64_t i = 0; i < length; ++i) target[i] = halves[i * stride];
    }
  }
}

// Tiles of at least 2 Mflop, two for each processor of the machine if they can be so large, none
// with more than 256 rows: at 256 a primitive's own repacking of the second matrix no longer costs,
// at 64 it is a tenth of the run. The processors are those the machine has, not those this process
// may use: results must not depend on that.
Tiles cut_into_tiles(int64_t batch, int64_t m, int64_t n, int64_t k) {
  constexpr int64_t kLeastFlops = 2'000'000;
  static const int64_t wanted = std::clamp<int64_t>(2 * sysconf(_SC_NPROCESSORS_CONF), 4, 64);
  const auto round_up = [](int64_t value, int64_t to) { return (value + to - 1) / to * to; };
  Tiles t;
  if (batch == 0 || m == 0 || n == 0) return t;
  const int64_t per_matrix = std::max<int64_t>(1, wanted / batch);
  const double row_flops =
      2.0 * static_cast<double>(n) * static_cast<double>(std::max<int64_t>(k, 1));
  const auto rows_least = static_cast<int64_t>(kLeastFlops / row_flops) + 1;
  t.rows = std::clamp(round_up((m + per_matrix - 1) / per_matrix, 16), int64_t{64}, int64_t{256});
  t.rows = std::min(std::max(t.rows, round_up(rows_least, 16)), m);
  t.row_count = (m + t.rows - 1) / t.rows;
  t.columns = n;
  const int64_t column_tiles = per_matrix / t.row_count;
  if (column_tiles > 1 && n >= 512 && static_cast<double>(t.rows) * row_flops > 4.0 * kLeastFlops)
    t.columns = std::max<int64_t>(256, round_up((n + column_tiles - 1) / column_tiles, 64));
  t.columns = std::min(t.columns, n);
  t.column_count = (n + t.columns - 1) / t.columns;
  return t;
}

}  // namespace xhal::cpu
