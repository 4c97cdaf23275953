// SPDX-License-Identifier: Apache-2.0
// xhal/shape.hpp: the sizes that windows leave of a dimension: convolution and pooling, as the
// catalogue counts them. Header only, C++20; for kernels and bridges alike.
#ifndef XHAL_SHAPE_HPP
#define XHAL_SHAPE_HPP

#include <cstdint>

namespace xhal {

// One dimension of a window that moves over an input. All are at least 1, the padding at least 0.
struct Window {
  int64_t kernel = 1, stride = 1, padding = 0, dilation = 1;

  constexpr int64_t reach() const { return dilation * (kernel - 1) + 1; }
};

// Positions of the window in an input of `size`; 0 when it does not fit even once.
constexpr int64_t convolved_size(int64_t size, const Window& w) {
  const int64_t room = size + 2 * w.padding - w.reach();
  return room < 0 ? 0 : room / w.stride + 1;
}

// The input size whose convolution gives `size`, with output_padding more; 0 when there is none.
constexpr int64_t transposed_size(int64_t size, const Window& w, int64_t output_padding) {
  if (size < 1) return 0;
  const int64_t full = (size - 1) * w.stride - 2 * w.padding + w.reach() + output_padding;
  return full < 0 ? 0 : full;
}

// As convolved_size(); with `ceil` also a window that leaves the input at its end, if it begins
// inside the input or its left padding.
constexpr int64_t pooled_size(int64_t size, const Window& w, bool ceil) {
  const int64_t room = size + 2 * w.padding - w.reach();
  if (room < 0) return 0;
  int64_t out = (room + (ceil ? w.stride - 1 : 0)) / w.stride + 1;
  if (ceil && (out - 1) * w.stride >= size + w.padding) --out;
  return out;
}

}  // namespace xhal

#endif
