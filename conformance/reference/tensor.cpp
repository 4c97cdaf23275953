// SPDX-License-Identifier: Apache-2.0
#include "reference/tensor.hpp"

#include <cassert>

namespace xhal::ref {

int64_t count_of(const Sizes& sizes) {
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  return count;
}

void Position::next() {
  for (size_t d = sizes_.size(); d-- > 0;) {
    if (++at_[d] < sizes_[d]) return;
    at_[d] = 0;
  }
  done_ = true;
}

int64_t Tensor::index_of(const Sizes& at) const {
  assert(at.size() == sizes.size());
  int64_t index = 0;
  for (size_t d = 0; d < sizes.size(); ++d) {
    assert(at[d] >= 0 && at[d] < sizes[d]);
    index = index * sizes[d] + at[d];
  }
  return index;
}

}  // namespace xhal::ref
