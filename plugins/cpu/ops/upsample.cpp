// SPDX-License-Identifier: Apache-2.0
// upsample.cpp: nearest and bilinear interpolation of planes, and their gradients.
#include <cmath>
#include <vector>

#include "pooling.hpp"

namespace xhal::cpu {
namespace {

// Which two input rows (or columns) one output row lies between, and the weight of the second.
struct Tap {
  int64_t first, second;
  float weight;
};

std::vector<Tap> nearest_taps(int64_t in, int64_t out) {
  std::vector<Tap> taps;
  for (int64_t o = 0; o < out; ++o) taps.push_back({o * in / out, o * in / out, 0.0f});
  return taps;
}

std::vector<Tap> linear_taps(int64_t in, int64_t out, bool align_corners) {
  std::vector<Tap> taps;
  for (int64_t o = 0; o < out; ++o) {
    double at;
    if (align_corners) {
      at = out > 1
               ? static_cast<double>(o) * static_cast<double>(in - 1) / static_cast<double>(out - 1)
               : 0.0;
    } else {
      at = std::max(
          0.0, (static_cast<double>(o) + 0.5) * static_cast<double>(in) / static_cast<double>(out) -
                   0.5);
    }
    const int64_t first = std::min(static_cast<int64_t>(at), in - 1);
    taps.push_back(
        {first, std::min(first + 1, in - 1), static_cast<float>(at - static_cast<double>(first))});
  }
  return taps;
}

class UpsampleOp final : public PlaneOp {
 public:
  bool prepare(const OpRequest& request, Refusal& refusal, std::string_view name, bool linear,
               bool backward) {
    backward_ = backward;
    linear_ = linear;
    if (!set(request, 0, 1, name, refusal)) return false;
    const Planes& in = backward ? to : from;
    const Planes& out = backward ? from : to;
    const bool align = linear && request.attribute_int("align_corners") != 0;
    if (in.size() == 0) return true;
    rows_ =
        linear ? linear_taps(in.height, out.height, align) : nearest_taps(in.height, out.height);
    columns_ = linear ? linear_taps(in.width, out.width, align) : nearest_taps(in.width, out.width);
    set_costs(linear ? 8 : 1);
    return true;
  }

 private:
  bool make_plane(const Launch&, int64_t, const float* in, float* out) const override {
    const auto width = static_cast<int64_t>(columns_.size());
    if (backward_) {
      std::fill_n(out, to.size(), 0.0f);
      for (size_t r = 0; r < rows_.size(); ++r)
        spread(in + static_cast<int64_t>(r) * width, rows_[r], out);
    } else {
      for (size_t r = 0; r < rows_.size(); ++r)
        interpolate(in, rows_[r], out + static_cast<int64_t>(r) * width);
    }
    return true;
  }

  void interpolate(const float* in, const Tap& y, float* row) const {
    const float* const a = in + y.first * from.width;
    const float* const b = in + y.second * from.width;
    for (size_t c = 0; c < columns_.size(); ++c) {
      const Tap& x = columns_[c];
      if (!linear_) {
        row[c] = a[x.first];
        continue;
      }
      const float upper = (1.0f - x.weight) * a[x.first] + x.weight * a[x.second];
      const float lower = (1.0f - x.weight) * b[x.first] + x.weight * b[x.second];
      row[c] = (1.0f - y.weight) * upper + y.weight * lower;
    }
  }

  void spread(const float* row, const Tap& y, float* out) const {
    float* const a = out + y.first * to.width;
    float* const b = out + y.second * to.width;
    for (size_t c = 0; c < columns_.size(); ++c) {
      const Tap& x = columns_[c];
      if (!linear_) {
        a[x.first] += row[c];
        continue;
      }
      const float upper = (1.0f - y.weight) * row[c], lower = y.weight * row[c];
      a[x.first] += (1.0f - x.weight) * upper;
      a[x.second] += x.weight * upper;
      b[x.first] += (1.0f - x.weight) * lower;
      b[x.second] += x.weight * lower;
    }
  }

  bool backward_ = false, linear_ = false;
  std::vector<Tap> rows_, columns_;
};

Prepared make(const OpRequest& request, Refusal& refusal, std::string_view name, bool linear,
              bool backward) {
  auto op = std::make_unique<UpsampleOp>();
  if (!op->prepare(request, refusal, name, linear, backward)) return nullptr;
  return op;
}

}  // namespace

Prepared prepare_upsample_nearest(const OpRequest& request, Refusal& refusal) {
  return make(request, refusal, "upsample_nearest", false, false);
}
Prepared prepare_upsample_nearest_grad(const OpRequest& request, Refusal& refusal) {
  return make(request, refusal, "upsample_nearest_grad", false, true);
}
Prepared prepare_upsample_bilinear(const OpRequest& request, Refusal& refusal) {
  return make(request, refusal, "upsample_bilinear", true, false);
}
Prepared prepare_upsample_bilinear_grad(const OpRequest& request, Refusal& refusal) {
  return make(request, refusal, "upsample_bilinear_grad", true, true);
}

}  // namespace xhal::cpu
