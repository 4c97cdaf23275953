// SPDX-License-Identifier: Apache-2.0
// gemm_matrix.hpp: matrices inside tensors, packing them, and cutting a product into tiles.
#pragma once

#include <algorithm>
#include <cstdint>

#include "convert.hpp"
#include "op.hpp"

namespace xhal::cpu {

// A batch of matrices inside a tensor.
struct View {
  DType type = DType::f32;
  uint32_t operand = 0;
  int64_t rows = 0, columns = 0;
  int64_t batch_stride = 0, row_stride = 0, column_stride = 0;

  View() = default;
  View(const xhal_tensor_desc& t, uint32_t position);

  bool row_major() const {
    return (column_stride == 1 || columns == 1) && (row_stride >= columns || rows == 1);
  }
  bool column_major() const {
    return (row_stride == 1 || rows == 1) && (column_stride >= rows || columns == 1);
  }
  // The distance between rows, or columns of a transposed one; dense where there is only one.
  int64_t leading(bool transposed) const {
    return transposed ? (columns == 1 ? rows : column_stride) : (rows == 1 ? columns : row_stride);
  }
  View transposed() const;
  const char* at(const void* base, int64_t batch, int64_t row, int64_t column) const {
    return static_cast<const char*>(base) +
           (batch * batch_stride + row * row_stride + column * column_stride) *
               static_cast<int64_t>(size_of(type));
  }
};

// Copies parts of a matrix to dense memory of its own dtype or f32, along whichever dimension is
// dense at the source: lines are columns of a column-major matrix, else rows.
class Packer {
 public:
  Packer(const View& v, DType to);
  // Of a part of this size.
  int64_t lines(int64_t rows, int64_t columns) const { return transposed_ ? columns : rows; }
  // Lines [begin, end) of the part that begins at `from`, each `length` long; `to` is line 0.
  void run(const View& v, const char* from, int64_t begin, int64_t end, int64_t length,
           char* to) const;

 private:
  bool transposed_, converts_;
  LoadFn<float> load_;
  int64_t item_bytes_;
};

struct Tiles {
  int64_t rows = 0, columns = 0;  // of a full tile
  int64_t row_count = 0, column_count = 0;
};

Tiles cut_into_tiles(int64_t batch, int64_t m, int64_t n, int64_t k);

}  // namespace xhal::cpu
