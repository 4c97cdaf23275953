// SPDX-License-Identifier: Apache-2.0
// pointwise_int.cpp: pointwise kernels for integers and bool. All compute in int64; storing cuts to
// the width, so that narrower types wrap, and makes bool of anything that is not 0.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/pointwise_int.cpp"
#include "hwy/foreach_target.h"
//
#include <algorithm>
#include <cmath>

#include "hwy/highway.h"
#include "pointwise.hpp"

HWY_BEFORE_NAMESPACE();
namespace xhal::cpu {
namespace HWY_NAMESPACE {
namespace {

using I = int64_t;
using U = uint64_t;

template <class F>
void map1(const I* const* in, const size_t* inc, I* const* out, size_t n, const I* params) {
  const F f;
  const I p[2] = {params[0], params[1]};
  const I* a = in[0];
  I* to = out[0];
  if (inc[0] == 1) {
    for (size_t i = 0; i < n; ++i) to[i] = f(p, a[i]);
  } else {
    std::fill(to, to + n, f(p, a[0]));
  }
}

template <class F>
void map2(const I* const* in, const size_t* inc, I* const* out, size_t n, const I* params) {
  const F f;
  const I p[2] = {params[0], params[1]};
  const I *a = in[0], *b = in[1];
  I* to = out[0];
  if (inc[0] == 1 && inc[1] == 1) {
    for (size_t i = 0; i < n; ++i) to[i] = f(p, a[i], b[i]);
  } else if (inc[0] == 1) {
    const I y = b[0];
    for (size_t i = 0; i < n; ++i) to[i] = f(p, a[i], y);
  } else {
    const I x = a[0];
    for (size_t i = 0; i < n; ++i) to[i] = f(p, x, b[i * inc[1]]);
  }
}

template <class F>
void map3(const I* const* in, const size_t* inc, I* const* out, size_t n, const I* params) {
  const F f;
  const I p[2] = {params[0], params[1]};
  for (size_t i = 0; i < n; ++i)
    out[0][i] = f(p, in[0][i * inc[0]], in[1][i * inc[1]], in[2][i * inc[2]]);
}

I wrap(U x) { return static_cast<I>(x); }

#define XHAL_MAP(Name, arguments, expression)                      \
  struct Name {                                                    \
    HWY_INLINE I operator() arguments const { return expression; } \
  };
#define XHAL_MAP1(Name, expression) \
  XHAL_MAP(Name, ([[maybe_unused]] const I* p, [[maybe_unused]] I x), expression)
#define XHAL_MAP2(Name, expression) \
  XHAL_MAP(Name, ([[maybe_unused]] const I* p, I a, I b), expression)

XHAL_MAP1(Copy, x)
XHAL_MAP1(Neg, wrap(U{0} - static_cast<U>(x)))
XHAL_MAP1(Abs, x < 0 ? wrap(U{0} - static_cast<U>(x)) : x)
XHAL_MAP1(Sign, (x > 0) - (x < 0))
XHAL_MAP1(Relu, x > 0 ? x : 0)
XHAL_MAP1(LogicalNot, x == 0)
XHAL_MAP1(BitwiseNot, p[0] != 0 ? I{x == 0} : ~x)  // params[0]: bool
XHAL_MAP1(False, 0)
XHAL_MAP1(True, 1)
XHAL_MAP1(Square, wrap(static_cast<U>(x) * static_cast<U>(x)))
XHAL_MAP1(Cube, wrap(static_cast<U>(x) * static_cast<U>(x) * static_cast<U>(x)))
XHAL_MAP1(ScaleShift, wrap(static_cast<U>(p[0]) * static_cast<U>(x) + static_cast<U>(p[1])))
XHAL_MAP2(Axpby,
          wrap(static_cast<U>(p[0]) * static_cast<U>(a) + static_cast<U>(p[1]) * static_cast<U>(b)))
XHAL_MAP2(Add, wrap(static_cast<U>(a) + static_cast<U>(p[0]) * static_cast<U>(b)))
XHAL_MAP2(Sub, wrap(static_cast<U>(a) - static_cast<U>(p[0]) * static_cast<U>(b)))
XHAL_MAP2(Mul, wrap(static_cast<U>(a) * static_cast<U>(b)))
XHAL_MAP2(Minimum, a < b ? a : b)
XHAL_MAP2(Maximum, a > b ? a : b)
XHAL_MAP2(Equal, a == b)
XHAL_MAP2(NotEqual, a != b)
XHAL_MAP2(Less, a < b)
XHAL_MAP2(LessEqual, a <= b)
XHAL_MAP2(Greater, a > b)
XHAL_MAP2(GreaterEqual, a >= b)
XHAL_MAP2(LogicalAnd, (a != 0) & (b != 0))
XHAL_MAP2(LogicalOr, (a != 0) | (b != 0))
XHAL_MAP2(LogicalXor, (a != 0) ^ (b != 0))
XHAL_MAP2(AddBool, (a != 0) | ((b != 0) & (p[0] != 0)))
XHAL_MAP2(BitwiseAnd, a& b)
XHAL_MAP2(BitwiseOr, a | b)
XHAL_MAP2(BitwiseXor, a ^ b)
// params[0]: the width in bits. A shift by the width or more, or by a negative number, leaves
// nothing (of a negative number shifted right: -1).
XHAL_MAP2(ShiftLeft, static_cast<U>(b) < static_cast<U>(p[0]) ? wrap(static_cast<U>(a) << b) : 0)
XHAL_MAP2(ShiftRight, static_cast<U>(b) < static_cast<U>(p[0]) ? a >> b : (a < 0 ? -1 : 0))

struct Quotient {
  I truncated, remainder;
};
Quotient divide(I a, I b) {
  if (b == 0) return {0, 0};
  if (b == -1) return {wrap(U{0} - static_cast<U>(a)), 0};
  return {a / b, a % b};
}
bool signs_differ(I r, I b) { return r != 0 && (r < 0) != (b < 0); }
I div_floor(I a, I b) {
  const Quotient q = divide(a, b);
  return signs_differ(q.remainder, b) ? q.truncated - 1 : q.truncated;
}
I remainder(I a, I b) {
  const Quotient q = divide(a, b);
  return signs_differ(q.remainder, b) ? q.remainder + b : q.remainder;
}
I power(I base, I exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 != 0 ? -1 : 1) : 0;
  U result = 1, square = static_cast<U>(base);
  for (; exponent != 0; exponent >>= 1, square *= square)
    if (exponent & 1) result *= square;
  return wrap(result);
}
XHAL_MAP2(DivTrunc, divide(a, b).truncated)
XHAL_MAP2(DivFloor, div_floor(a, b))
XHAL_MAP2(Remainder, remainder(a, b))
XHAL_MAP2(Fmod, divide(a, b).remainder)
XHAL_MAP2(Pow, power(a, b))
#undef XHAL_MAP1
#undef XHAL_MAP2
XHAL_MAP(Clamp, (const I*, I x, I lo, I hi), std::min(std::max(x, lo), hi))
XHAL_MAP(Where, (const I*, I c, I a, I b), c != 0 ? a : b)
XHAL_MAP(Addcmul, (const I* p, I x, I a, I b),
         wrap(static_cast<U>(x) + static_cast<U>(p[0]) * static_cast<U>(a) * static_cast<U>(b)))
#undef XHAL_MAP

}  // namespace

PointwiseFn<int64_t> pick_int(Kernel kernel) {
  switch (kernel) {
    case Kernel::copy:
      return map1<Copy>;
    case Kernel::neg:
      return map1<Neg>;
    case Kernel::abs:
      return map1<Abs>;
    case Kernel::sign:
      return map1<Sign>;
    case Kernel::relu:
      return map1<Relu>;
    case Kernel::logical_not:
      return map1<LogicalNot>;
    case Kernel::bitwise_not:
      return map1<BitwiseNot>;
    case Kernel::is_nan:
    case Kernel::is_inf:
      return map1<False>;
    case Kernel::is_finite:
      return map1<True>;
    case Kernel::square:
      return map1<Square>;
    case Kernel::cube:
      return map1<Cube>;
    case Kernel::scale_shift:
      return map1<ScaleShift>;
    case Kernel::axpby:
      return map2<Axpby>;
    case Kernel::add:
      return map2<Add>;
    case Kernel::sub:
      return map2<Sub>;
    case Kernel::mul:
      return map2<Mul>;
    case Kernel::div_trunc:
      return map2<DivTrunc>;
    case Kernel::div_floor:
      return map2<DivFloor>;
    case Kernel::remainder:
      return map2<Remainder>;
    case Kernel::fmod:
      return map2<Fmod>;
    case Kernel::pow:
      return map2<Pow>;
    case Kernel::minimum:
      return map2<Minimum>;
    case Kernel::maximum:
      return map2<Maximum>;
    case Kernel::eq:
      return map2<Equal>;
    case Kernel::ne:
      return map2<NotEqual>;
    case Kernel::lt:
      return map2<Less>;
    case Kernel::le:
      return map2<LessEqual>;
    case Kernel::gt:
      return map2<Greater>;
    case Kernel::ge:
      return map2<GreaterEqual>;
    case Kernel::logical_and:
      return map2<LogicalAnd>;
    case Kernel::logical_or:
      return map2<LogicalOr>;
    case Kernel::logical_xor:
      return map2<LogicalXor>;
    case Kernel::add_bool:
      return map2<AddBool>;
    case Kernel::bitwise_and:
      return map2<BitwiseAnd>;
    case Kernel::bitwise_or:
      return map2<BitwiseOr>;
    case Kernel::bitwise_xor:
      return map2<BitwiseXor>;
    case Kernel::shift_left:
      return map2<ShiftLeft>;
    case Kernel::shift_right:
      return map2<ShiftRight>;
    case Kernel::clamp:
      return map3<Clamp>;
    case Kernel::where:
      return map3<Where>;
    case Kernel::addcmul:
      return map3<Addcmul>;
    default:
      return nullptr;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace xhal::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace xhal::cpu {
HWY_EXPORT(pick_int);
PointwiseFn<int64_t> int_kernel(Kernel kernel) { return HWY_DYNAMIC_DISPATCH(pick_int)(kernel); }
}  // namespace xhal::cpu
#endif
