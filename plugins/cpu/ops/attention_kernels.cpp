// SPDX-License-Identifier: Apache-2.0
// attention_kernels.cpp: the inner loops of attention, for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_kernels.cpp"
#include "hwy/foreach_target.h"
//
#include <cmath>

#include "attention.hpp"
#include "math-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {
namespace {

using Left = AttentionKernels::Left;
using Right = AttentionKernels::Right;

// Rows of a register tile of two vectors: 16 or 8 sums, enough to hide the latency
// of a multiplication.
constexpr int kTileRows = HWY_TARGET == HWY_AVX3 ? 8 : 4;

template <int kRows>
HWY_INLINE void tile(const Left& left, const float* b, int64_t b_row, int64_t depth, float* c,
                     int64_t c_row, bool add) {
  const size_t n = lanes();
  V sum[kRows][2];
  for (int r = 0; r < kRows; ++r) {
    sum[r][0] = add ? load(c + r * c_row) : hn::Zero(D());
    sum[r][1] = add ? load(c + r * c_row + n) : hn::Zero(D());
  }
  const float* a = left.data;
  for (int64_t k = 0; k < depth; ++k, a += left.step, b += b_row) {
    const V b0 = load(b), b1 = load(b + n);
    for (int r = 0; r < kRows; ++r) {
      const V x = set(a[r * left.row]);
      sum[r][0] = hn::MulAdd(x, b0, sum[r][0]);
      sum[r][1] = hn::MulAdd(x, b1, sum[r][1]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    store(sum[r][0], c + r * c_row);
    store(sum[r][1], c + r * c_row + n);
  }
}

void product(Left left, Right right, int64_t depth, float* c, int64_t c_row, int64_t rows,
             int64_t columns, bool add) {
  const auto step = static_cast<int64_t>(2 * lanes());
  for (int64_t j = 0; j < columns; j += step) {
    const float* b = right.data + j / kPanel * right.panel + j % kPanel;
    Left at = left;
    float* to = c + j;
    int64_t r = 0;
    for (; r + kTileRows <= rows;
         r += kTileRows, at.data += kTileRows * left.row, to += kTileRows * c_row)
      tile<kTileRows>(at, b, right.row, depth, to, c_row, add);
    for (; r + 2 <= rows; r += 2, at.data += 2 * left.row, to += 2 * c_row)
      tile<2>(at, b, right.row, depth, to, c_row, add);
    if (r < rows) tile<1>(at, b, right.row, depth, to, c_row, add);
  }
}

void transpose(const float* rows, int64_t stride, int64_t depth, float* panel) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t e = 0; e < depth; ++e)
    for (int64_t i = 0; i < kPanel; ++i) panel[e * kPanel + i] = rows[i * stride + e];
#else
  // Four rows at a time: after two rounds of interleaving, 128-bit block b of vector j has column 4
  // * b + j of them.
  const D d;
  const hn::Repartition<uint64_t, D> d64;
  const auto step = static_cast<int64_t>(lanes());
  int64_t e = 0;
  for (; e + step <= depth; e += step)
    for (int64_t i = 0; i < kPanel; i += 4) {
      const float* from = rows + i * stride + e;
      const V r0 = load(from), r1 = load(from + stride), r2 = load(from + 2 * stride),
              r3 = load(from + 3 * stride);
      const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));
      const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
      const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));
      const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
      const V column[4] = {hn::BitCast(d, hn::InterleaveLower(d64, low01, low23)),
                           hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23)),
                           hn::BitCast(d, hn::InterleaveLower(d64, high01, high23)),
                           hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23))};
      HWY_ALIGN float blocks[4][HWY_MAX_BYTES / sizeof(float)];
      for (int j = 0; j < 4; ++j) hn::Store(column[j], d, blocks[j]);
      for (int64_t block = 0; block < step / 4; ++block)
        for (int64_t j = 0; j < 4; ++j)
          std::memcpy(panel + (e + 4 * block + j) * kPanel + i, blocks[j] + 4 * block,
                      4 * sizeof(float));
    }
  for (; e < depth; ++e)
    for (int64_t i = 0; i < kPanel; ++i) panel[e * kPanel + i] = rows[i * stride + e];
#endif
}

HWY_INLINE void fill(float* x, int64_t from, int64_t to, float value) {
  for (int64_t i = from; i < to; ++i) x[i] = value;
}

float softmax_row(float* scores, int64_t valid, int64_t padded, float* max, float* sum) {
  fill(scores, valid, padded, -INFINITY);
  const auto step = static_cast<int64_t>(lanes());
  V largest = set(*max);
  for (int64_t i = 0; i < padded; i += step) largest = hn::Max(largest, load(scores + i));
  const float now = max_lanes(largest);
  if (now == -INFINITY) {  // nothing to see up to here
    fill(scores, 0, padded, 0.0f);
    return 1.0f;
  }
  const V shift = set(now);
  V total = hn::Zero(D());
  for (int64_t i = 0; i < padded; i += step) {
    const V p = exp_nonpositive(hn::Sub(load(scores + i), shift));
    total = hn::Add(total, p);
    store(p, scores + i);
  }
  const float before = *max;
  const float correction = before == now         ? 1.0f
                           : before == -INFINITY ? 0.0f
                                                 : hn::GetLane(exp_nonpositive(set(before - now)));
  *sum = *sum * correction + sum_lanes(total);
  *max = now;
  return correction;
}

void grad_row(float* scores, float* dp, const float* keep, int64_t valid, int64_t padded,
              float log_sum, float delta) {
  fill(scores, valid, padded, -INFINITY);
  const auto step = static_cast<int64_t>(lanes());
  if (log_sum == -INFINITY) {  // a row that saw nothing
    fill(scores, 0, padded, 0.0f);
    fill(dp, 0, padded, 0.0f);
    return;
  }
  const V shift = set(log_sum), d = set(delta);
  for (int64_t i = 0; i < padded; i += step) {
    const V p = exp_nonpositive(hn::Sub(load(scores + i), shift));
    if (keep == nullptr) {
      store(hn::Mul(p, hn::Sub(load(dp + i), d)), dp + i);
      store(p, scores + i);
    } else {
      const V k = load(keep + i);
      store(hn::Mul(p, hn::Sub(hn::Mul(load(dp + i), k), d)), dp + i);
      store(hn::Mul(p, k), scores + i);
    }
  }
}

void scale(float* x, int64_t n, float factor) {
  const V f = set(factor);
  for_each_vector(static_cast<size_t>(n), [&](size_t i, size_t k) HWY_ATTR {
    if (k == lanes()) return store(hn::Mul(load(x + i), f), x + i);
    store_some(hn::Mul(load_some(x + i, k), f), x + i, k);
  });
}

float dot(const float* a, const float* b, int64_t n) {
  V sum = hn::Zero(D());
  for_each_vector(static_cast<size_t>(n), [&](size_t i, size_t k) HWY_ATTR {
    sum = k == lanes() ? hn::MulAdd(load(a + i), load(b + i), sum)
                       : hn::MulAdd(load_some(a + i, k), load_some(b + i, k), sum);
  });
  return sum_lanes(sum);
}

}  // namespace

const AttentionKernels& pick_attention_kernels() {
  static constexpr AttentionKernels kKernels = {product,  transpose, softmax_row,
                                                grad_row, scale,     dot};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace xhal::cpu {
HWY_EXPORT(pick_attention_kernels);
const AttentionKernels& attention_kernels() {
  return HWY_DYNAMIC_DISPATCH(pick_attention_kernels)();
}
}  // namespace xhal::cpu
#endif
