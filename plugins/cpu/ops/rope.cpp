// SPDX-License-Identifier: Apache-2.0
// rope.cpp: rotary position embedding: pairs of a row are turned by an angle that depends
// on the position.
#include <algorithm>
#include <vector>

#include "convert.hpp"
#include "op.hpp"

namespace xhal::cpu {
namespace {

constexpr int64_t kLongestRow = 4096;  // elements; heads are 32 to 256

// A row of one operand: where it begins, element by element through the outer dims.
struct Rows {
  DType type;
  int64_t step;                          // between the elements of a row
  int64_t strides[XHAL_MAX_DIMENSIONS];  // of the outer dims

  explicit Rows(const xhal_tensor_desc& t) : type(dtype_of(t)), step(t.strides[t.ndim - 1]) {
    std::copy_n(t.strides, XHAL_MAX_DIMENSIONS, strides);
  }
  char* at(void* base, const int64_t* index, uint32_t outer) const {
    int64_t elements = 0;
    for (uint32_t d = 0; d < outer; ++d) elements += index[d] * strides[d];
    return static_cast<char*>(base) + elements * static_cast<int64_t>(size_of(type));
  }
};

class RopeOp : public Op {
 public:
  RopeOp(const OpRequest& request)
      : in_(*request.operand(0)),
        cos_(*request.operand(1)),
        sin_(*request.operand(2)),
        out_(*request.operand(3)),
        outer_(request.operand(3)->ndim - 1),
        interleaved_(request.attribute_int("interleaved") != 0),
        inverse_(request.attribute_int("inverse") != 0) {
    const auto& t = *request.operand(3);
    std::copy_n(t.sizes, XHAL_MAX_DIMENSIONS, sizes_);
    length_ = t.sizes[outer_];
    for (uint32_t d = 0; d < outer_; ++d) rows_ *= t.sizes[d];
    flops = 3.0 * static_cast<double>(rows_ * length_);
    bytes = 3.0 * static_cast<double>(rows_ * length_) * static_cast<double>(size_of(out_.type));
  }

  xhal_status run(const Launch& launch) const override {
    if (length_ == 0) return XHAL_OK;
    launch.pool.parallel_for(rows_, std::max<int64_t>(1, 8192 / length_),
                             [&](int64_t begin, int64_t end) {
                               for (int64_t row = begin; row < end; ++row) turn(launch, row);
                             });
    return XHAL_OK;
  }

 private:
  void turn(const Launch& launch, int64_t row) const {
    int64_t index[XHAL_MAX_DIMENSIONS] = {};
    for (uint32_t d = outer_; d-- > 0; row /= sizes_[d]) index[d] = row % sizes_[d];
    float x[kLongestRow], y[kLongestRow], c[kLongestRow / 2], s[kLongestRow / 2];
    const auto load = [&](const Rows& rows, uint32_t operand, int64_t n, float* to) {
      loader<float>(rows.type, rows.step == 1)(rows.at(launch.pointers[operand], index, outer_),
                                               rows.step, static_cast<size_t>(n), to);
    };
    const int64_t half = length_ / 2;
    load(in_, 0, length_, x);
    load(cos_, 1, half, c);
    load(sin_, 2, half, s);
    for (int64_t j = 0; j < half; ++j) {
      const int64_t a = interleaved_ ? 2 * j : j, b = interleaved_ ? 2 * j + 1 : j + half;
      const float angle = inverse_ ? -s[j] : s[j];
      y[a] = x[a] * c[j] - x[b] * angle;
      y[b] = x[b] * c[j] + x[a] * angle;
    }
    storer<float>(out_.type, out_.step == 1)(y, static_cast<size_t>(length_),
                                             out_.at(launch.pointers[3], index, outer_), out_.step);
  }

  Rows in_, cos_, sin_, out_;
  uint32_t outer_;
  bool interleaved_, inverse_;
  int64_t sizes_[XHAL_MAX_DIMENSIONS], length_ = 0, rows_ = 1;
};

Prepared prepare_rope(const OpRequest& request, Refusal& refusal) {
  const auto& in = *request.operand(0);
  if (in.sizes[in.ndim - 1] > kLongestRow) {
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 1,
                  text("rope: rows of more than ", kLongestRow, " elements"));
  }
  return std::make_unique<RopeOp>(request);
}

constexpr KernelEntry kEntries[] = {{XHAL_OP_rope, prepare_rope}};

}  // namespace

std::span<const KernelEntry> rope_ops() { return kEntries; }

}  // namespace xhal::cpu
