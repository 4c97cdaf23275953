// SPDX-License-Identifier: Apache-2.0
// Random numbers: philox by seed and offset, the same whatever the thread count or the layout.
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/bernoulli_ops.h>
#include <ATen/ops/exponential_ops.h>
#include <ATen/ops/multinomial_ops.h>
#include <ATen/ops/native_dropout_backward_ops.h>
#include <ATen/ops/native_dropout_ops.h>
#include <ATen/ops/normal_ops.h>
#include <ATen/ops/random_ops.h>
#include <ATen/ops/randperm_ops.h>
#include <ATen/ops/uniform_ops.h>

#include <limits>

#include "generator.h"
#include "native.h"
#include "op_call.h"
#include "pointwise.h"
#include "views.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using OptGenerator = std::optional<at::Generator>;

// An operator on CPU tensors comes here, too, when it was given a generator of xhal.
Philox take(const OptGenerator& generator, const Tensor& out, int64_t outputs_each = 1) {
  expect_generator(generator, out.device().type());
  return take_random(generator, out.device().index(), out.numel() * outputs_each);
}

// out = op(first, second; seed, offset)
template <class A, class B>
bool run_two(uint32_t id, const Tensor& out, A first, B second, const OptGenerator& generator) {
  if (!is_native(out.scalar_type())) return false;
  const Philox random = take(generator, out);
  OpCall call(id, out);
  return call.out(out).scalar(first).scalar(second).random(random).run();
}

Tensor& uniform(Tensor& self, double from, double to, OptGenerator generator) {
  TORCH_CHECK(from <= to, "uniform_ expects to return a [from, to) range, but found from=", from,
              " > to=", to);
  if (is_float(self.scalar_type()) && run_two(XHAL_OP_uniform, self, from, to, generator))
    return self;
  return on_host<at::_ops::uniform_>(self, from, to, generator);
}

Tensor& normal(Tensor& self, double mean, double std, OptGenerator generator) {
  TORCH_CHECK(std >= 0, "normal expects std >= 0.0, but found std ", std);
  if (is_float(self.scalar_type()) && run_two(XHAL_OP_normal, self, mean, std, generator))
    return self;
  return on_host<at::_ops::normal_>(self, mean, std, generator);
}

Tensor& exponential(Tensor& self, double lambda, OptGenerator generator) {
  TORCH_CHECK(lambda > 0, "exponential_ expects lambda > 0.0, but found lambda=", lambda);
  if (is_float(self.scalar_type())) {
    const Philox random = take(generator, self);
    OpCall call(XHAL_OP_exponential, self);
    if (call.out(self).scalar(lambda).random(random).run()) return self;
  }
  return on_host<at::_ops::exponential_>(self, lambda, generator);
}

// ---- integers

// The largest integer random_ may draw: all of an integer type, all that a float
// type holds exactly.
int64_t highest(at::ScalarType type) {
  switch (type) {
    case at::kByte:
      return std::numeric_limits<uint8_t>::max();
    case at::kChar:
      return std::numeric_limits<int8_t>::max();
    case at::kShort:
      return std::numeric_limits<int16_t>::max();
    case at::kInt:
      return std::numeric_limits<int32_t>::max();
    case at::kBool:
      return 1;
    case at::kFloat:
      return int64_t(1) << 24;
    case at::kHalf:
      return int64_t(1) << 11;
    case at::kBFloat16:
      return int64_t(1) << 8;
    default:
      return std::numeric_limits<int64_t>::max() - 1;
  }
}

bool run_random(Tensor& self, int64_t from, std::optional<int64_t> to,
                const OptGenerator& generator) {
  if (!is_native(self.scalar_type()) || self.scalar_type() == at::kBool) return false;
  return run_two(XHAL_OP_random_int, self, from, to.value_or(highest(self.scalar_type()) + 1),
                 generator);
}
Tensor& random_from(Tensor& self, int64_t from, std::optional<int64_t> to, OptGenerator generator) {
  TORCH_CHECK(!to || from < *to, "random_ expects 'from' to be less than 'to', but got from=", from,
              " >= to=", to.value_or(0));
  return run_random(self, from, to, generator)
             ? self
             : on_host<at::_ops::random__from>(self, from, to, generator);
}
Tensor& random_to(Tensor& self, int64_t to, OptGenerator generator) {
  TORCH_CHECK(to > 0, "random_ expects 'from' to be less than 'to', but got from=0 >= to=", to);
  return run_random(self, 0, to, generator) ? self
                                            : on_host<at::_ops::random__to>(self, to, generator);
}
Tensor& random_any(Tensor& self, OptGenerator generator) {
  return run_random(self, 0, {}, generator) ? self : on_host<at::_ops::random_>(self, generator);
}

Tensor& randperm_out(int64_t n, OptGenerator generator, Tensor& out) {
  TORCH_CHECK(n >= 0, "n must be non-negative, got", n);
  at::native::resize_output(out, {n});
  if (is_native(out.scalar_type())) {
    const Philox random = take(generator, out);
    OpCall call(XHAL_OP_randperm, out);
    if (call.out(out).random(random).run()) return out;
  }
  return on_host<at::_ops::randperm_generator_out>(n, generator, out);
}

// ---- yes or no

Tensor& bernoulli_scalar(Tensor& self, double p, OptGenerator generator) {
  TORCH_CHECK(0 <= p && p <= 1, "bernoulli_ expects p to be in [0, 1], but got p=", p);
  if (is_native(self.scalar_type())) {
    const Philox random = take(generator, self);
    OpCall call(XHAL_OP_bernoulli, self);
    if (call.absent().out(self).scalar(p).random(random).run()) return self;
  }
  return on_host<at::_ops::bernoulli__float>(self, p, generator);
}

bool run_bernoulli(const Tensor& p, const Tensor& out, const OptGenerator& generator) {
  if (!is_float(p.scalar_type()) || !is_native(out.scalar_type()) || p.device() != out.device())
    return false;
  const Tensor probability = p.expand(out.sizes());
  const Philox random = take(generator, out);
  OpCall call(XHAL_OP_bernoulli, out);
  return call.in(probability).out(out).scalar(0.5).random(random).run();
}
Tensor& bernoulli_tensor(Tensor& self, const Tensor& p, OptGenerator generator) {
  return run_bernoulli(p, self, generator)
             ? self
             : on_host<at::_ops::bernoulli__Tensor>(self, p, generator);
}
Tensor& bernoulli_out(const Tensor& p, OptGenerator generator, Tensor& out) {
  at::native::resize_output(out, p.sizes());
  return run_bernoulli(p, out, generator) ? out
                                          : on_host<at::_ops::bernoulli_out>(p, generator, out);
}

// ---- dropout

std::tuple<Tensor, Tensor> dropout(const Tensor& input, double p, std::optional<bool> train) {
  TORCH_CHECK(p >= 0 && p <= 1, "dropout probability has to be between 0 and 1, but got ", p);
  const auto mask = [&] { return new_dense_like(input, at::kBool); };
  if ((train && !*train) || p == 0) return {input.clone(), mask().fill_(true)};
  if (p == 1) return {new_dense_like(input).zero_(), mask().fill_(false)};
  if (is_float(input.scalar_type())) {
    const Tensor out = new_dense_like(input), kept = mask();
    const Philox random = take(OptGenerator(), out);
    OpCall call(XHAL_OP_dropout, input);
    if (call.in(input).out(out).out(kept).scalar(p).random(random).run()) return {out, kept};
  }
  return on_host<at::_ops::native_dropout>(input, p, train);
}

Tensor dropout_backward(const Tensor& grad, const Tensor& mask, double scale) {
  Tensor out;
  return Pointwise(XHAL_OP_dropout_grad, Types::common)
                 .operand(grad)
                 .plain(mask)
                 .scalar(0, scale)
                 .run(out)
             ? out
             : on_host<at::_ops::native_dropout_backward>(grad, mask, scale);
}

// ---- draws by weight: the largest of weight / exponential is a draw; without replacement, the n
// largest --------------

// One answer from the device for the good case.
void check_weights(const Tensor& self) {
  const Tensor sum = self.sum(-1, /*keepdim=*/false, at::kFloat).gt(0).all();
  const Tensor fine =
      self.min().ge(0).logical_and_(self.max().lt(std::numeric_limits<double>::infinity()));
  if (fine.logical_and(sum).item().toBool()) return;
  TORCH_CHECK(fine.item().toBool(),
              "probability tensor contains either `inf`, `nan` or element < 0");
  TORCH_CHECK(false, "invalid multinomial distribution (sum of probabilities <= 0)");
}

Tensor multinomial(const Tensor& self, int64_t samples, bool replacement, OptGenerator generator) {
  const bool one = samples == 1 || !replacement;
  if (one && is_float(self.scalar_type()) && (self.dim() == 1 || self.dim() == 2) && samples > 0 &&
      samples <= self.size(-1) && self.numel() > 0) {
    check_weights(self);
    Tensor noise = new_tensor(self.sizes(), at::kFloat, self.device());
    noise.exponential_(1, generator);
    // Less than every score, also one that is so small that it has become 0.
    const Tensor score = self.div(noise).masked_fill_(self.le(0), -1);
    return samples == 1 ? score.argmax(-1, /*keepdim=*/true) : std::get<1>(score.topk(samples));
  }
  return on_host<at::_ops::multinomial>(self, samples, replacement, generator);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using namespace at::_ops;
  native<uniform_, &xhal_torch::uniform>(m);
  native<normal_, &xhal_torch::normal>(m);
  native<exponential_, &xhal_torch::exponential>(m);
  native<random__from, &random_from>(m);
  native<random__to, &random_to>(m);
  native<random_, &random_any>(m);
  native<randperm_generator_out, &randperm_out>(m);
  native<bernoulli__float, &bernoulli_scalar>(m);
  native<bernoulli__Tensor, &bernoulli_tensor>(m);
  native<at::_ops::bernoulli_out, &xhal_torch::bernoulli_out>(m);
  native<native_dropout, &dropout>(m);
  native<native_dropout_backward, &dropout_backward>(m);
  native<at::_ops::multinomial, &xhal_torch::multinomial>(m);
}

}  // namespace xhal_torch
