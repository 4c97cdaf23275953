// reduce.hpp: the inner loops of reductions: a run of elements to one value, or a row added to a
// row of accumulators.
#pragma once

#include <cstddef>
#include <cstdint>

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
// acc[i] joined with x[i]; param has one value a column for sum_centered_squares, else one.
template <class T>
using FoldRowFn = void (*)(const T* x, size_t n, T* acc, const float* param);

template <class T>
struct FoldFns {
  FoldRunFn<T> run = nullptr;
  FoldRowFn<T> row = nullptr;
};

// For the instruction set chosen at this moment.
FoldFns<float> float_fold(Fold fold);
FoldFns<int64_t> int_fold(Fold fold);

// The longest run for FoldRunFn and the most rows for FoldRowFn before the result is joined in the
// wider type.
constexpr size_t kFoldRun = 2048;
constexpr size_t kFoldRows = 64;

template <class A>
A fold_start(Fold fold);
template <class A>
A fold_join(Fold fold, A a, A b);

}  // namespace xhal::cpu
