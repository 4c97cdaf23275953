// SPDX-License-Identifier: Apache-2.0
// training.hpp: the training profile: every operator x dtype x case of the catalogue as
// one named test.
#pragma once

#include <functional>
#include <random>
#include <vector>

#include "harness/harness.hpp"
#include "reference/operators.hpp"
#include "xhal/catalog.h"

namespace xhal::cts {

// Makes the data of a test: deterministic, with shapes as its case wants them.
class Maker {
 public:
  Maker(Case c, ref::DType type, uint32_t seed) : dtype(type), case_(c), random_(seed) {}

  const ref::DType dtype;
  Case layout() const { return case_; }
  bool is(Case c) const { return case_ == c; }
  bool real_numbers() const { return ref::is_float(dtype); }

  // The sizes given; odd ones in the odd case; with dim `empty_dim` 0 in the empty one.
  ref::Sizes shape(ref::Sizes sizes, size_t empty_dim = 0) const;

  double uniform(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random_);
  }
  int64_t whole(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

  // Tensors of random values, rounded to their dtype; without one, to the test's.
  ref::Tensor real(const ref::Sizes& sizes, double low = -4, double high = 4);
  ref::Tensor real(ref::DType type, const ref::Sizes& sizes, double low = -4, double high = 4);
  ref::Tensor integers(ref::DType type, const ref::Sizes& sizes, int64_t low, int64_t high);
  ref::Tensor flags(const ref::Sizes& sizes);
  // Multiples of 1/8, so that quotients, remainders and comparisons have no rounding
  // to argue about.
  ref::Tensor eighths(const ref::Sizes& sizes, double low, double high);
  // What suits the test's dtype: reals, integers that do not overflow when few
  // are multiplied, flags.
  ref::Tensor any(const ref::Sizes& sizes, double low = -4, double high = 4);
  // NaN, the infinities and zeros at the beginning of a tensor of floats.
  void sprinkle_specials(ref::Tensor& t) const;

 private:
  Case case_;
  std::mt19937 random_;
};

constexpr unsigned bit(Case c) { return 1u << static_cast<unsigned>(c); }
inline constexpr unsigned kAllCases = 0x3f;
inline constexpr unsigned kNotEmpty = kAllCases & ~bit(Case::empty);
// Operators without inputs have nothing to repeat.
inline constexpr unsigned kNoBroadcast = kAllCases & ~bit(Case::broadcast);

struct OpTest {
  uint32_t id = 0;
  std::vector<ref::DType> dtypes;
  std::function<std::vector<ref::Problem>(Maker&)> problems;
  ref::Reference reference = nullptr;
  unsigned cases = kAllCases;  // `aliased` is dropped where the catalogue has no alias rule
  bool negative_strides = false;
  // For results that a reference cannot give (random numbers): judges each
  // problem's outputs instead.
  std::function<void(const ref::Problem&, const std::vector<ref::Group>&)> judge;
};

using OpTests = std::vector<OpTest>;
void add_pointwise_tests(OpTests& tests);
void add_reduce_tests(OpTests& tests);
void add_matrix_tests(OpTests& tests);
void add_loss_tests(OpTests& tests);
void add_norm_tests(OpTests& tests);
void add_index_tests(OpTests& tests);
void add_window_tests(OpTests& tests);
void add_recurrent_tests(OpTests& tests);
void add_random_tests(OpTests& tests);
void add_optimizer_tests(OpTests& tests);

// Registers them with GoogleTest, as "training.<operator>/<dtype>/<case>".
void register_training_tests();

const std::vector<ref::DType>& dtypes_of(char types);  // F, N, A, X of the catalogue

// Shorthand for problems.
inline ref::Attribute integer(uint32_t index, int64_t value) { return {index, value}; }
inline ref::Attribute number(uint32_t index, double value) { return {index, value}; }
inline ref::Attribute list(uint32_t index, std::vector<int64_t> values) {
  return {index, std::move(values)};
}
// One of fill, strided_copy and axpby, which every device has, in the maker's dtype.
ref::Problem core_problem(uint32_t id, Maker& maker, const ref::Sizes& sizes);

inline ref::Output output(ref::DType type, ref::Sizes sizes) {
  return {type, std::move(sizes), false};
}

}  // namespace xhal::cts
