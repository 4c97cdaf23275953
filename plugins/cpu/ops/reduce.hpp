// SPDX-License-Identifier: Apache-2.0
// reduce.hpp: the inner loops of reductions: a run of elements to one value, or a row added to a
// row of accumulators.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "op.hpp"

namespace xhal::cpu {

// What is reduced: a map of each element, and how two results are joined.
enum class Fold : uint8_t {
  sum,
  product,
  max,
  min,
  any,
  all,
  sum_squares,
  sum_abs,
  sum_powers,
  count,
  max_abs,
  min_abs,               // floats only
  sum_centered_squares,  // of x - param; floats only
};

template <class T>
struct Accumulator;
template <>
struct Accumulator<float> {
  using Type = double;
};
template <>
struct Accumulator<int64_t> {
  using Type = int64_t;
};
template <class T>
using AccumulatorOf = typename Accumulator<T>::Type;

// Of n dense elements. Runs of a few thousand elements are summed in T, with enough partial sums
// for an error of a few eps; longer ones are for the caller to cut.
template <class T>
using FoldRunFn = AccumulatorOf<T> (*)(const T* x, size_t n, float param);
// acc[i] joined with rows[k][i] for all `count` rows; param has one value a column for
// sum_centered_squares, else one.
template <class T>
using FoldRowsFn = void (*)(const T* const* rows, size_t count, size_t n, T* acc,
                            const float* param);

template <class T>
struct FoldFns {
  FoldRunFn<T> run = nullptr;
  FoldRowsFn<T> rows = nullptr;
};

// For the instruction set chosen at this moment.
FoldFns<float> float_fold(Fold fold);
FoldFns<int64_t> int_fold(Fold fold);

// The longest run for FoldRunFn and the most rows for FoldRowsFn before the result is joined in
// the wider type.
constexpr size_t kFoldRun = 2048;
constexpr size_t kFoldRows = 64;

// The dimensions of an input as two nests: the kept ones, with the strides of the outputs, and
// the reduced ones.
struct ReducedDims {
  std::array<int64_t, XHAL_MAX_DIMENSIONS> kept_sizes{}, kept_in{}, kept_out{}, kept_second{},
      reduced_sizes{}, reduced_in{};
  uint32_t kept = 0, reduced = 0;
};

// Which dimensions of `in` are reduced and which one of `out` (and of `second`, of the same sizes)
// each kept one is; false when `list` names one that is not there or the sizes are not the same.
bool match_dims(const xhal_tensor_desc& in, const xhal_tensor_desc& out,
                const xhal_tensor_desc& second, std::span<const int64_t> list, ReducedDims& dims);

// reduce_scan.cpp
Prepared prepare_argmax(const OpRequest& request, Refusal& refusal);
Prepared prepare_argmin(const OpRequest& request, Refusal& refusal);
Prepared prepare_cumsum(const OpRequest& request, Refusal& refusal);

template <class A>
A fold_start(Fold fold);
template <class A>
A fold_join(Fold fold, A a, A b);
// to[i] joined with from[i].
template <class T>
void fold_join_all(Fold fold, AccumulatorOf<T>* to, const T* from, size_t n);

}  // namespace xhal::cpu
