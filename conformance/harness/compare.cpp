// SPDX-License-Identifier: Apache-2.0
// compare.cpp: the tolerance classes of the catalogue.
//
// The device may compute in f32 (for f64 in f64) and rounds once when it stores. So: let e be what
// that arithmetic may be off, then everything between the rounded (exact - e) and the rounded
// (exact + e) is right. Integers and `exact` have e = 0.
#include <fmt/core.h>

#include <cmath>

#include "harness/harness.hpp"

namespace xhal::cts {
namespace {

using ref::DType;

struct Precision {
  double half_ulp;  // relative
  double smallest;  // devices may flush what is smaller
};
constexpr Precision kSingle = {0x1p-24, 0x1p-126}, kDouble = {0x1p-53, 0x1p-1022};
constexpr double kRoundingsOfUlp = 8;  // 4 ulp
constexpr double kRoundingsOfSum = 4;  // beside one for each term

double allowed_error(const ref::Tensor& wanted, size_t i, Tolerance tolerance) {
  if (tolerance == Tolerance::exact || !ref::is_float(wanted.dtype)) return 0;
  const double value = std::fabs(wanted.values[i]);
  const double magnitude = wanted.magnitude.empty() ? value : std::max(value, wanted.magnitude[i]);
  const double roundings = tolerance == Tolerance::ulp
                               ? kRoundingsOfUlp
                               : wanted.terms + kRoundingsOfSum + kRoundingsOfUlp;
  const Precision& in = wanted.dtype == DType::f64 ? kDouble : kSingle;
  return roundings * in.half_ulp * magnitude + in.smallest;
}

bool acceptable(double got, double wanted, double error, DType type) {
  if (std::isnan(wanted)) return std::isnan(got);
  if (error == 0 || std::isinf(wanted)) return got == ref::round_to(type, wanted);
  return got >= ref::round_to(type, wanted - error) && got <= ref::round_to(type, wanted + error);
}

ref::Sizes position_of(const ref::Tensor& t, int64_t index) {
  ref::Sizes at(t.sizes.size());
  for (size_t d = at.size(); d-- > 0;) {
    at[d] = index % t.sizes[d];
    index /= t.sizes[d];
  }
  return at;
}

}  // namespace

std::string first_difference(const ref::Tensor& wanted, const ref::Tensor& got,
                             Tolerance tolerance) {
  const int64_t count = wanted.defined >= 0 ? wanted.defined : wanted.count();
  int64_t wrong = 0, first = -1;
  for (int64_t i = 0; i < count; ++i) {
    const auto j = static_cast<size_t>(i);
    if (acceptable(got.values[j], wanted.values[j], allowed_error(wanted, j, tolerance),
                   wanted.dtype))
      continue;
    if (wrong++ == 0) first = i;
  }
  if (wrong == 0) return {};
  const auto j = static_cast<size_t>(first);
  std::string position;
  for (const auto index : position_of(wanted, first))
    position += fmt::format("{}{}", position.empty() ? "" : ", ", index);
  return fmt::format(
      "{} of {} elements are wrong; the first at [{}]: {:.9g}, but {:.9g} +- {:.2g} is right ({})",
      wrong, count, position, got.values[j], wanted.values[j], allowed_error(wanted, j, tolerance),
      ref::name_of(wanted.dtype));
}

}  // namespace xhal::cts
