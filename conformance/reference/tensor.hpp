// SPDX-License-Identifier: Apache-2.0
// tensor.hpp: what the reference computes on: values in row order, with no thought of memory.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "reference/dtype.hpp"

namespace xhal::ref {

using Sizes = std::vector<int64_t>;

int64_t count_of(const Sizes& sizes);

// Counts through all positions of a shape in row order.
class Position {
 public:
  explicit Position(const Sizes& sizes)
      : sizes_(sizes), at_(sizes.size(), 0), done_(count_of(sizes) == 0) {}
  bool done() const { return done_; }
  void next();
  const Sizes& at() const { return at_; }

 private:
  Sizes sizes_;
  Sizes at_;
  bool done_;
};

struct Tensor {
  Tensor() = default;
  Tensor(DType type, Sizes shape)
      : dtype(type), sizes(std::move(shape)), values(count_of(sizes), 0.0) {}

  DType dtype = DType::f32;
  Sizes sizes;
  std::vector<double> values;

  // For inputs: the dim along which the broadcast case makes the values equal and the stride 0;
  // kAnyDim leaves the choice to the case, kNoDim keeps the tensor as it is because its values
  // depend on another one's.
  static constexpr int64_t kAnyDim = -1, kNoDim = -2;
  int64_t broadcast_dim = kAnyDim;

  // For results, as far as they differ from the plain case. Per element: what the rounding of an
  // intermediate may be relative to (the sum of the magnitudes of the terms); empty = the magnitude
  // of the value itself.
  std::vector<double> magnitude;
  // How many terms were summed, for the tolerance classes sum and gemm.
  double terms = 1;
  // Only the first so many values are defined by the catalogue; negative = all.
  int64_t defined = -1;

  int64_t ndim() const { return static_cast<int64_t>(sizes.size()); }
  int64_t count() const { return static_cast<int64_t>(values.size()); }
  int64_t index_of(const Sizes& at) const;
  double& operator()(const Sizes& at) { return values[index_of(at)]; }
  double operator()(const Sizes& at) const { return values[index_of(at)]; }
};

// A position with the dim `d` replaced.
inline Sizes with(Sizes at, int64_t d, int64_t value) {
  at[static_cast<size_t>(d)] = value;
  return at;
}
inline int64_t positive_dim(int64_t dim, int64_t ndim) { return dim < 0 ? dim + ndim : dim; }

}  // namespace xhal::ref
