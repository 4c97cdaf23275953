// SPDX-License-Identifier: Apache-2.0
// pointwise_double.cpp: pointwise kernels that compute in f64, for the operators that the catalogue
// gives that dtype. Plain loops: f64 is for the few places that need it (a loss scale, a metric),
// not for speed.
#include <algorithm>
#include <cmath>

#include "pointwise.hpp"

namespace xhal::cpu {
namespace {

template <int kInputs, double (*kFunction)(const double* params, const double* x)>
void map(const double* const* in, const size_t* inc, double* const* out, size_t n,
         const double* params) {
  const double p[2] = {params[0], params[1]};
  double x[kInputs];
  for (size_t i = 0; i < n; ++i) {
    for (int k = 0; k < kInputs; ++k) x[k] = in[k][i * inc[k]];
    out[0][i] = kFunction(p, x);
  }
}

#define XHAL_MAP(name, expression)                                                  \
  double name([[maybe_unused]] const double* p, [[maybe_unused]] const double* x) { \
    return expression;                                                              \
  }
XHAL_MAP(copy, x[0])
XHAL_MAP(neg, -x[0])
XHAL_MAP(abs, std::fabs(x[0]))
XHAL_MAP(sign, (x[0] > 0) - (x[0] < 0))
XHAL_MAP(sqrt, std::sqrt(x[0]))
XHAL_MAP(rsqrt, 1 / std::sqrt(x[0]))
XHAL_MAP(reciprocal, 1 / x[0])
XHAL_MAP(floor, std::floor(x[0]))
XHAL_MAP(ceil, std::ceil(x[0]))
XHAL_MAP(trunc, std::trunc(x[0]))
XHAL_MAP(round, std::nearbyint(x[0]))
XHAL_MAP(logical_not, x[0] == 0)
XHAL_MAP(is_nan, std::isnan(x[0]))
// Of the sign of p[0], or of any if that is 0.
XHAL_MAP(is_inf, std::isinf(x[0]) && std::copysign(1.0, x[0]) * p[0] >= 0)
XHAL_MAP(is_finite, std::isfinite(x[0]))
XHAL_MAP(scale_shift, std::fma(p[0], x[0], p[1]))
XHAL_MAP(axpby, std::fma(p[0], x[0], p[1] * x[1]))
XHAL_MAP(add, std::fma(p[0], x[1], x[0]))
XHAL_MAP(sub, std::fma(-p[0], x[1], x[0]))
XHAL_MAP(mul, x[0] * x[1])
XHAL_MAP(div, x[0] / x[1])
XHAL_MAP(div_trunc, std::trunc(x[0] / x[1]))
XHAL_MAP(fmod, std::fmod(x[0], x[1]))
XHAL_MAP(minimum, std::isnan(x[0]) || std::isnan(x[1]) ? x[0] + x[1] : std::min(x[0], x[1]))
XHAL_MAP(maximum, std::isnan(x[0]) || std::isnan(x[1]) ? x[0] + x[1] : std::max(x[0], x[1]))
XHAL_MAP(equal, x[0] == x[1])
XHAL_MAP(not_equal, x[0] != x[1])
XHAL_MAP(less, x[0] < x[1])
XHAL_MAP(less_equal, x[0] <= x[1])
XHAL_MAP(greater, x[0] > x[1])
XHAL_MAP(greater_equal, x[0] >= x[1])
XHAL_MAP(logical_and, x[0] != 0 && x[1] != 0)
XHAL_MAP(logical_or, x[0] != 0 || x[1] != 0)
XHAL_MAP(logical_xor, (x[0] != 0) != (x[1] != 0))
XHAL_MAP(where, x[0] != 0 ? x[1] : x[2])
#undef XHAL_MAP

double remainder(const double*, const double* x) {  // of the sign of the divisor
  const double r = std::fmod(x[0], x[1]);
  return r != 0 && (x[1] < 0) != (r < 0) ? r + x[1] : r;
}

double div_floor(const double*, const double* x) {  // the floor of the exact quotient
  if (x[1] == 0) return x[0] / x[1];
  const double r = std::fmod(x[0], x[1]);
  double quotient = (x[0] - r) / x[1];
  if (r != 0 && (x[1] < 0) != (r < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, x[0] / x[1]);
  const double down = std::floor(quotient);
  return quotient - down > 0.5 ? down + 1 : down;
}

double clamp(const double*, const double* x) {
  if (std::isnan(x[1])) return x[1];
  if (std::isnan(x[2])) return x[2];
  const double raised = x[0] < x[1] ? x[1] : x[0];
  return raised > x[2] ? x[2] : raised;
}

}  // namespace

PointwiseFn<double> double_kernel(Kernel kernel) {
  switch (kernel) {
    case Kernel::copy:
      return map<1, copy>;
    case Kernel::neg:
      return map<1, neg>;
    case Kernel::abs:
      return map<1, abs>;
    case Kernel::sign:
      return map<1, sign>;
    case Kernel::sqrt:
      return map<1, sqrt>;
    case Kernel::rsqrt:
      return map<1, rsqrt>;
    case Kernel::reciprocal:
      return map<1, reciprocal>;
    case Kernel::floor:
      return map<1, floor>;
    case Kernel::ceil:
      return map<1, ceil>;
    case Kernel::trunc:
      return map<1, trunc>;
    case Kernel::round:
      return map<1, round>;
    case Kernel::logical_not:
      return map<1, logical_not>;
    case Kernel::is_nan:
      return map<1, is_nan>;
    case Kernel::is_inf:
      return map<1, is_inf>;
    case Kernel::is_finite:
      return map<1, is_finite>;
    case Kernel::scale_shift:
      return map<1, scale_shift>;
    case Kernel::axpby:
      return map<2, axpby>;
    case Kernel::add:
      return map<2, add>;
    case Kernel::sub:
      return map<2, sub>;
    case Kernel::mul:
      return map<2, mul>;
    case Kernel::div:
      return map<2, div>;
    case Kernel::div_trunc:
      return map<2, div_trunc>;
    case Kernel::div_floor:
      return map<2, div_floor>;
    case Kernel::remainder:
      return map<2, remainder>;
    case Kernel::fmod:
      return map<2, fmod>;
    case Kernel::minimum:
      return map<2, minimum>;
    case Kernel::maximum:
      return map<2, maximum>;
    case Kernel::eq:
      return map<2, equal>;
    case Kernel::ne:
      return map<2, not_equal>;
    case Kernel::lt:
      return map<2, less>;
    case Kernel::le:
      return map<2, less_equal>;
    case Kernel::gt:
      return map<2, greater>;
    case Kernel::ge:
      return map<2, greater_equal>;
    case Kernel::logical_and:
      return map<2, logical_and>;
    case Kernel::logical_or:
      return map<2, logical_or>;
    case Kernel::logical_xor:
      return map<2, logical_xor>;
    case Kernel::clamp:
      return map<3, clamp>;
    case Kernel::where:
      return map<3, where>;
    default:
      return nullptr;
  }
}

}  // namespace xhal::cpu
