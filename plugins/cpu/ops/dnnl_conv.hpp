// SPDX-License-Identifier: Apache-2.0
// dnnl_conv.hpp: convolutions by oneDNN, with the changes of layout it wants.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "op.hpp"

namespace xhal::cpu {

// A convolution joins two images: y = conv(x, weights). Its gradient for x is also the transposed
// convolution of y.
struct ConvSpec {
  enum class Kind : uint8_t { forward, backward_data, backward_weights, transposed_forward };
  Kind kind = Kind::forward;
  DType type = DType::f32;  // of images and weights: f32 or bf16
  int spatial = 2;          // dimensions; the arrays below have that many
  int64_t n = 0, groups = 1, x_channels = 0, y_channels = 0;
  std::array<int64_t, 3> x_size{}, y_size{}, kernel{}, stride{}, dilation{}, padding{};
  std::array<int64_t, 5> x_strides{}, y_strides{};  // n, channel, spatial
  std::array<int64_t, 6> weights_strides{};         // group, y channel, x channel, spatial
  bool channels_last = false;                       // the images are; else oneDNN chooses a layout
  bool bias = false;  // f32: added, or for backward_weights the sum of y
};

// A compiled convolution: immutable, run by many threads at once, each run on the calling thread.
class DnnlConv {
 public:
  // Weights have the layout of `like`, if given. nullptr, with oneDNN's reason in `why`, when
  // there is none.
  static std::shared_ptr<const DnnlConv> make(const ConvSpec& spec, const DnnlConv* like,
                                              std::string& why);
  ~DnnlConv();

  // Of the weights as the primitive has them (f32 when they are its result); 0: as the
  // caller has them.
  uint64_t packed_weights_bytes() const;
  bool pack_weights(const void* weights, void* packed) const;
  bool unpack_weights(const void* packed, void* weights) const;

  uint64_t scratch_bytes() const;
  // `weights` packed if they are to be. False when oneDNN reports a failure, for lack of memory.
  bool run(void* x, void* weights, void* y, float* bias, void* scratch) const;

 private:
  struct Impl;
  explicit DnnlConv(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace xhal::cpu
