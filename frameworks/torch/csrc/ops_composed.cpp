// SPDX-License-Identifier: Apache-2.0
// Small operators that torch leaves to each backend and that a few kernels of the catalogue make.
#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_efficientzerotensor_ops.h>
#include <ATen/ops/_weight_norm_interface_backward_ops.h>
#include <ATen/ops/_weight_norm_interface_ops.h>
#include <ATen/ops/addbmm_ops.h>
#include <ATen/ops/aminmax_ops.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/channel_shuffle_ops.h>
#include <ATen/ops/conj_physical_ops.h>
#include <ATen/ops/cosh_ops.h>
#include <ATen/ops/count_nonzero_ops.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal_ops.h>
#include <ATen/ops/exp2_ops.h>
#include <ATen/ops/eye_ops.h>
#include <ATen/ops/fmax_ops.h>
#include <ATen/ops/fmin_ops.h>
#include <ATen/ops/frac_ops.h>
#include <ATen/ops/histc_ops.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linspace_ops.h>
#include <ATen/ops/log10_ops.h>
#include <ATen/ops/log_normal_ops.h>
#include <ATen/ops/lshift_ops.h>
#include <ATen/ops/masked_scatter_ops.h>
#include <ATen/ops/nan_to_num_ops.h>
#include <ATen/ops/nansum_ops.h>
#include <ATen/ops/norm_ops.h>
#include <ATen/ops/normal_ops.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/pixel_shuffle_native.h>
#include <ATen/ops/pixel_unshuffle_native.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/put_ops.h>
#include <ATen/ops/roll_ops.h>
#include <ATen/ops/rshift_ops.h>
#include <ATen/ops/sinh_ops.h>
#include <ATen/ops/std_mean_ops.h>
#include <ATen/ops/take_ops.h>
#include <ATen/ops/tan_ops.h>
#include <ATen/ops/trace_ops.h>
#include <ATen/ops/var_mean.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/where.h>
#include <ATen/ops/xlogy_ops.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "capture.h"
#include "composed.h"
#include "op_call.h"
#include "operands.h"
#include "pointwise.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Scalar;
using at::Tensor;
using Dims = at::OptionalIntArrayRef;
using Generator = std::optional<at::Generator>;

// ---- pointwise

Tensor log10(const Tensor& self) { return self.log2().mul_(0.30102999566398120); }
Tensor exp2(const Tensor& self) {
  Tensor out;  // at::pow of a number forgets how its exponent lies
  return Pointwise(XHAL_OP_pow, Types::common).number(2.0).operand(self).run(out)
             ? out
             : at::pow(Scalar(2.0), self);
}
Tensor frac(const Tensor& self) { return self.sub(self.trunc()); }
Tensor tan(const Tensor& self) { return self.sin().div_(self.cos()); }
Tensor sinh(const Tensor& self) { return self.expm1().sub_(self.neg().expm1_()).mul_(0.5); }
Tensor cosh(const Tensor& self) { return self.exp().add_(self.neg().exp_()).mul_(0.5); }
Tensor fmax(const Tensor& self, const Tensor& other) {
  return at::where(other.isnan().logical_or(self.ge(other)), self, other);
}
Tensor fmin(const Tensor& self, const Tensor& other) {
  return at::where(other.isnan().logical_or(self.le(other)), self, other);
}
Tensor xlogy(const Tensor& self, const Tensor& other) {
  const Tensor zero = self.eq(0).logical_and(other.isnan().logical_not_());
  return self.mul(other.log()).masked_fill_(zero, 0);
}

template <class Limits>
Tensor replaced(const Tensor& self, const Limits& nan, const Limits& above, const Limits& below) {
  double most = std::numeric_limits<float>::max();
  if (self.scalar_type() == at::kHalf) most = std::numeric_limits<at::Half>::max();
  if (self.scalar_type() == at::kBFloat16) most = std::numeric_limits<at::BFloat16>::max();
  Tensor out = self.masked_fill(self.isnan(), nan.value_or(0));
  const double inf = std::numeric_limits<double>::infinity();
  out.masked_fill_(self.eq(inf), above.value_or(most));
  return out.masked_fill_(self.eq(-inf), below.value_or(-most));
}
Tensor& nan_to_num(const Tensor& self, std::optional<double> nan, std::optional<double> above,
                   std::optional<double> below, Tensor& out) {
  at::assert_no_internal_overlap(out);
  check_written(out, self);
  return composable(self) && out.scalar_type() == self.scalar_type()
             ? store(replaced(self, nan, above, below), out)
             : on_host<at::_ops::nan_to_num_out>(self, nan, above, below, out);
}

template <class By>
Tensor shift_left(const Tensor& self, const By& by) {
  return self.bitwise_left_shift(by);
}
template <class By>
Tensor shift_right(const Tensor& self, const By& by) {
  return self.bitwise_right_shift(by);
}

Tensor& conj_in_place(Tensor& self) {
  if (self.is_complex()) at::view_as_real(self).select(-1, 1).neg_();
  return self;
}

// ---- reductions

bool equal(const Tensor& self, const Tensor& other) {
  if (self.device() != other.device())
    refuse_devices(self.device(), other.device(), "other", "equal");
  if (!self.sizes().equals(other.sizes())) return false;
  if (self.numel() == 0) return true;
  return self.eq(other).all().item().toBool();
}
Tensor trace(const Tensor& self) {
  TORCH_CHECK(self.dim() == 2, "trace: expected a matrix");
  return self.diagonal().sum();
}
Tensor count_nonzero(const Tensor& self, c10::IntArrayRef dims) { return self.ne(0).sum(dims); }
Tensor nansum(const Tensor& self, Dims dims, bool keep, std::optional<at::ScalarType> type) {
  if (!composable(self)) return on_host<at::_ops::nansum>(self, dims, keep, type);
  return self.masked_fill(self.isnan(), 0).sum(dims, keep, type);
}
std::tuple<Tensor, Tensor> std_mean(const Tensor& self, Dims dims,
                                    const std::optional<Scalar>& correction, bool keep) {
  if (!composable(self)) {
    return on_host<at::_ops::std_mean_correction>(self, dims, correction, keep);
  }
  auto [var, mean] = at::var_mean(self, dims, correction, keep);
  return {var.sqrt_(), mean};
}
std::tuple<Tensor&, Tensor&> aminmax(const Tensor& self, std::optional<int64_t> dim, bool keep,
                                     Tensor& least, Tensor& most) {
  if (self.numel() == 0) return on_host<at::_ops::aminmax_out>(self, dim, keep, least, most);
  const auto dims = dim ? c10::IntArrayRef(*dim) : c10::IntArrayRef();
  store(self.amin(dims, keep), least);
  store(self.amax(dims, keep), most);
  return {least, most};
}
// How many integers lie in each of equal bins; torch's CPU counts floats only. False where the
// arithmetic could overflow, or a limit is no integer.
bool run_histc(const Tensor& self, int64_t bins, const Scalar& min, const Scalar& max,
               Tensor& counts) {
  if (!c10::isIntegralType(self.scalar_type(), /*includeBool=*/false) ||
      !is_native(self.scalar_type()) || !min.isIntegral(false) || !max.isIntegral(false))
    return false;
  TORCH_CHECK(bins > 0, "bins must be > 0");
  const Tensor values = self.reshape({-1}).to(at::kLong);
  int64_t low = min.toLong(), high = max.toLong();
  if (low == high && values.numel() > 0) {
    low = values.min().item().toLong();
    high = values.max().item().toLong();
  }
  if (low == high) {
    --low;
    ++high;
  }
  TORCH_CHECK(low < high, "torch.histc: max must be larger than min");
  int64_t span = 0, product = 0;
  if (__builtin_sub_overflow(high, low, &span) || __builtin_mul_overflow(span, bins, &product))
    return false;
  // What lies outside is counted in a bin of its own, and dropped.
  const Tensor inside = values.ge(low).logical_and_(values.le(high));
  const Tensor within = values.clamp(low, high).sub_(low).mul_(bins).floor_divide_(span);
  const Tensor bin = at::where(inside, within.clamp_max_(bins - 1), bins);
  const Tensor all = at::zeros({bins + 1}, values.options());
  counts = all.index_add(0, bin, at::ones_like(values)).narrow(0, 0, bins).to(self.scalar_type());
  return true;
}
Tensor histc(const Tensor& self, int64_t bins, const Scalar& min, const Scalar& max) {
  Tensor counts;
  return run_histc(self, bins, min, max, counts) ? counts
                                                 : on_host<at::_ops::histc>(self, bins, min, max);
}
Tensor& histc_out(const Tensor& self, int64_t bins, const Scalar& min, const Scalar& max,
                  Tensor& out) {
  Tensor counts;
  return run_histc(self, bins, min, max, counts)
             ? store(counts, out)
             : on_host<at::_ops::histc_out>(self, bins, min, max, out);
}
Tensor& norm(const Tensor& self, const std::optional<Scalar>& p, c10::IntArrayRef dims, bool keep,
             Tensor& out) {
  if (!composable(self)) return on_host<at::_ops::norm_out>(self, p, dims, keep, out);
  return at::linalg_vector_norm_out(out, self, p.value_or(2), dims, keep);
}
Tensor addbmm(const Tensor& self, const Tensor& left, const Tensor& right, const Scalar& beta,
              const Scalar& alpha) {
  const Tensor product = left.bmm(right).sum(c10::IntArrayRef{0}).mul_(alpha);
  return beta.toDouble() == 0 ? product : product.add(self.mul(beta));
}

// w = g * v / |v|, the norm over all dimensions but one.
using Two = std::tuple<Tensor, Tensor>;
c10::SmallVector<int64_t, 8> all_but(const Tensor& tensor, int64_t dim) {
  c10::SmallVector<int64_t, 8> dims;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (d != c10::maybe_wrap_dim(dim, tensor.dim())) dims.push_back(d);
  }
  return dims;
}
Two weight_norm(const Tensor& v, const Tensor& g, int64_t dim) {
  if (!composable(v)) return on_host<at::_ops::_weight_norm_interface>(v, g, dim);
  const Tensor length = at::linalg_vector_norm(v, 2, all_but(v, dim), true, at::kFloat);
  return {v.mul(g.div(length)).to(v.scalar_type()), length};
}
Two weight_norm_backward(const Tensor& grad, const Tensor& v, const Tensor& g, const Tensor& length,
                         int64_t dim) {
  if (!composable(v)) {
    return on_host<at::_ops::_weight_norm_interface_backward>(grad, v, g, length, dim);
  }
  const Tensor along = grad.mul(v).sum(all_but(v, dim), true).div_(length);
  const Tensor across = grad.sub(v.mul(along.div(length)));
  return {across.mul(g.div(length)).to(v.scalar_type()), along.to(g.scalar_type())};
}

// ---- making and moving

Tensor& eye(int64_t rows, int64_t columns, Tensor& out) {
  TORCH_CHECK(rows >= 0 && columns >= 0, "n must be greater or equal to 0, got ",
              rows < 0 ? rows : columns);
  out.resize_({rows, columns});
  out.zero_();
  out.diagonal().fill_(1);
  return out;
}
Tensor& eye_square(int64_t n, Tensor& out) { return eye(n, n, out); }

// Each half counts from its own end, so that both ends are met exactly.
Tensor& linspace(const Scalar& start, const Scalar& end, int64_t steps, Tensor& out) {
  TORCH_CHECK(steps >= 0, "number of steps must be non-negative");
  if (!composable(out) || start.isComplex() || end.isComplex()) {
    return on_host<at::_ops::linspace_out>(start, end, steps, out);
  }
  if (out.numel() != steps) out.resize_({steps});
  if (steps == 0) return out;
  if (steps == 1) return out.fill_(start);
  const double from = start.toDouble(), to = end.toDouble();
  const double step = (to - from) / static_cast<double>(steps - 1);
  const int64_t half = steps / 2;
  const Tensor line = out.is_contiguous() ? out : at::empty_like(out);
  const Tensor low = line.narrow(0, 0, half), high = line.narrow(0, half, steps - half);
  const double middle = to - step * static_cast<double>(steps - 1 - half);
  OpCall first(XHAL_OP_arange, out), second(XHAL_OP_arange, out);
  const bool done = first.out(low).scalar(from).scalar(step).run() &&
                    second.out(high).scalar(middle).scalar(step).run();
  if (!done) return on_host<at::_ops::linspace_out>(start, end, steps, out);
  high.narrow(0, high.numel() - 1, 1).fill_(to);
  if (!line.is_same(out)) out.copy_(line);
  return out;
}

Tensor roll(const Tensor& self, c10::IntArrayRef shifts, c10::IntArrayRef dims) {
  TORCH_CHECK(!shifts.empty(), "`shifts` required");
  if (dims.empty()) {
    TORCH_CHECK(shifts.size() == 1, "shifts and dimensions must align. shifts: ", shifts.size(),
                ", dims:0");
    return xhal_torch::roll(self.reshape(-1), shifts, c10::IntArrayRef{0}).view(self.sizes());
  }
  TORCH_CHECK(shifts.size() == dims.size(),
              "shifts and dimensions must align. shifts: ", shifts.size(), ", dims:", dims.size());
  Tensor turned = self;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (self.numel() == 0) continue;
    const int64_t size = self.size(dims[i]);
    const int64_t by = ((shifts[i] % size) + size) % size;
    if (by == 0) continue;
    turned = at::cat({turned.narrow(dims[i], size - by, by), turned.narrow(dims[i], 0, size - by)},
                     dims[i]);
  }
  return turned.is_same(self) ? self.clone() : turned;
}

Tensor channel_shuffle(const Tensor& self, int64_t groups) {
  TORCH_CHECK(self.dim() > 2 && groups > 0 && self.size(1) % groups == 0,
              "channel_shuffle: the channels must be a multiple of the groups");
  c10::SmallVector<int64_t, 8> apart(self.sizes().begin(), self.sizes().end());
  apart[1] = self.size(1) / groups;
  apart.insert(apart.begin() + 1, groups);
  return self.reshape(apart).transpose(1, 2).reshape(self.sizes());
}

// torch's generic form is contiguous; the CPU's keeps the format.
Tensor pixel_shuffle(const Tensor& self, int64_t factor) {
  return at::native::math_pixel_shuffle(self, factor).contiguous(self.suggest_memory_format());
}
Tensor pixel_unshuffle(const Tensor& self, int64_t factor) {
  return at::native::math_pixel_unshuffle(self, factor).contiguous(self.suggest_memory_format());
}

Tensor take(const Tensor& self, const Tensor& index) {
  if (!is_native(self.scalar_type()) || self.numel() == 0 || index.scalar_type() != at::kLong ||
      index.device() != self.device()) {
    return on_host<at::_ops::take>(self, index);
  }
  const Tensor flat = index.reshape(-1);
  const Tensor wrapped = at::where(flat.lt(0), flat.add(self.numel()), flat);
  return self.reshape(-1).index_select(0, wrapped).view(index.sizes());
}

// Writes at positions of the flattened tensor.
bool flat_writable(const Tensor& self, const Tensor& where, const Tensor& source) {
  return is_native(self.scalar_type()) && self.scalar_type() == source.scalar_type() &&
         self.device() == where.device() && self.device() == source.device() &&
         self.is_contiguous() && self.numel() > 0;
}
Tensor& put(Tensor& self, const Tensor& index, const Tensor& source, bool accumulate) {
  if (!flat_writable(self, index, source) || index.scalar_type() != at::kLong ||
      index.numel() != source.numel()) {
    return on_host<at::_ops::put_>(self, index, source, accumulate);
  }
  const c10::List<std::optional<Tensor>> where({std::optional<Tensor>(index.reshape(-1))});
  self.view(-1).index_put_(where, source.reshape(-1), accumulate);
  return self;
}
Tensor& masked_scatter(Tensor& self, const Tensor& mask, const Tensor& source) {
  if (!flat_writable(self, mask, source) || mask.scalar_type() != at::kBool) {
    return on_host<at::_ops::masked_scatter_>(self, mask, source);
  }
  const Tensor where = mask.expand(self.sizes()).reshape(-1).nonzero().squeeze(1);
  TORCH_CHECK(where.numel() <= source.numel(), "masked_scatter: the mask has ", where.numel(),
              " ones, the source only ", source.numel(), " elements");
  self.view(-1).index_copy_(0, where, source.reshape(-1).narrow(0, 0, where.numel()));
  return self;
}

// ---- normal numbers around given means

// As the CPU and CUDA, at the price of one answer from the device.
void check_spread(const Tensor& std) {
  TORCH_CHECK(!std.is_complex(), "normal expects standard deviation to be non-complex");
  if (std.numel() == 0) return;
  if (std.device().type() == kXhal) {
    const DeviceIndex index = std.device().index();
    refuse_wait_in_capture(index, current_stream(index),
                           "torch.normal asks whether all elements of std are >= 0");
  }
  TORCH_CHECK(std.min().ge(0).item().toBool(), "normal expects all elements of std >= 0.0");
}
Tensor normal_around(const Tensor& mean, double std, Generator generator) {
  return at::empty_like(mean).normal_(0, std, std::move(generator)).add_(mean);
}
Tensor normal_spread(double mean, const Tensor& std, Generator generator) {
  check_spread(std);
  return at::empty_like(std).normal_(0, 1, std::move(generator)).mul_(std).add_(mean);
}
Tensor normal_of(const Tensor& mean, const Tensor& std, Generator generator) {
  check_spread(std);
  const Tensor spread = std.expand(at::infer_size(mean.sizes(), std.sizes())).contiguous();
  return at::empty_like(spread).normal_(0, 1, std::move(generator)).mul_(std).add_(mean);
}
Tensor& log_normal(Tensor& self, double mean, double std, Generator generator) {
  return self.normal_(mean, std, std::move(generator)).exp_();
}

// ---- zeros without memory: autograd's own shorthand, which other operators know how to read

Tensor efficient_zero(c10::IntArrayRef sizes, std::optional<at::ScalarType> type,
                      std::optional<at::Layout>, std::optional<at::Device> given,
                      std::optional<bool>) {
  at::Device device = given.value_or(at::Device(kXhal));
  if (!device.has_index()) device.set_index(current_device());
  at::native::ZeroTensorAllocator nothing(device);
  constexpr c10::DispatchKeySet keys = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1) |
                                       c10::DispatchKeySet(c10::DispatchKey::ZeroTensor);
  return Tensor(at::detail::empty_generic(
      sizes, &nothing, keys, type.value_or(c10::get_default_dtype_as_scalartype()), std::nullopt));
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
#define XHAL_ADD(op) Composed<at::_ops::op, op##_out, &xhal_torch::op>::add(m);
  XHAL_ADD(log10)
  XHAL_ADD(exp2)
  XHAL_ADD(frac)
  XHAL_ADD(tan)
  XHAL_ADD(sinh)
  XHAL_ADD(cosh)
  XHAL_ADD(addbmm)
#undef XHAL_ADD
  Composed<at::_ops::fmax, fmax_out, &xhal_torch::fmax, Mixed::promoted>::add(m);
  Composed<at::_ops::fmin, fmin_out, &xhal_torch::fmin, Mixed::promoted>::add(m);
  Composed<xlogy_Tensor, xlogy_OutTensor, &xhal_torch::xlogy, Mixed::promoted>::add(m);
  native<nan_to_num_out, &xhal_torch::nan_to_num>(m);
  native<__lshift___Scalar, &shift_left<Scalar>>(m);
  native<__lshift___Tensor, &shift_left<Tensor>>(m);
  native<__rshift___Scalar, &shift_right<Scalar>>(m);
  native<__rshift___Tensor, &shift_right<Tensor>>(m);
  native<conj_physical_, &conj_in_place>(m);
  native<at::_ops::equal, &xhal_torch::equal>(m);
  native<at::_ops::trace, &xhal_torch::trace>(m);
  native<count_nonzero_dim_IntList, &xhal_torch::count_nonzero>(m);
  native<at::_ops::nansum, &xhal_torch::nansum>(m);
  native<std_mean_correction, &xhal_torch::std_mean>(m);
  native<aminmax_out, &xhal_torch::aminmax>(m);
  native<norm_out, &xhal_torch::norm>(m);
  native<at::_ops::histc, &xhal_torch::histc>(m);
  native<at::_ops::histc_out, &xhal_torch::histc_out>(m);
  native<_weight_norm_interface, &weight_norm>(m);
  native<_weight_norm_interface_backward, &weight_norm_backward>(m);
  native<eye_m_out, &xhal_torch::eye>(m);
  native<eye_out, &eye_square>(m);
  native<linspace_out, &xhal_torch::linspace>(m);
  m.impl("roll", TORCH_FN(xhal_torch::roll));
  m.impl("channel_shuffle", TORCH_FN(xhal_torch::channel_shuffle));
  m.impl("pixel_shuffle", TORCH_FN(xhal_torch::pixel_shuffle));
  m.impl("pixel_unshuffle", TORCH_FN(xhal_torch::pixel_unshuffle));
  native<at::_ops::take, &xhal_torch::take>(m);
  native<put_, &xhal_torch::put>(m);
  native<masked_scatter_, &xhal_torch::masked_scatter>(m);
  native<normal_Tensor_float, &normal_around>(m);
  native<normal_float_Tensor, &normal_spread>(m);
  native<normal_Tensor_Tensor, &normal_of>(m);
  native<log_normal_, &xhal_torch::log_normal>(m);
  m.impl("_efficientzerotensor", TORCH_FN(efficient_zero));
}

}  // namespace xhal_torch
