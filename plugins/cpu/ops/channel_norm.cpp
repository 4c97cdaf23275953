// SPDX-License-Identifier: Apache-2.0
// channel_norm.cpp: normalisations of images: over channel groups of a sample, or over all samples
// of a channel.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "norm.hpp"

namespace xhal::cpu {
namespace {

size_t padded(int64_t n) { return (static_cast<size_t>(n) + 15) / 16 * 16; }

// [n, c, ...] seen as [n, groups, c / groups, ...].
xhal_tensor_desc grouped(const xhal_tensor_desc& t, int64_t groups) {
  xhal_tensor_desc g = t;
  g.ndim = t.ndim + 1;
  g.sizes[1] = groups;
  g.sizes[2] = t.sizes[1] / groups;
  g.strides[1] = t.strides[1] * g.sizes[2];
  g.strides[2] = t.strides[1];
  for (uint32_t d = 2; d < t.ndim; ++d) {
    g.sizes[d + 1] = t.sizes[d];
    g.strides[d + 1] = t.strides[d];
  }
  return g;
}

// [n, c, ...] seen as [c, n, ...].
xhal_tensor_desc channels_first(const xhal_tensor_desc& t) {
  xhal_tensor_desc c = t;
  std::swap(c.sizes[0], c.sizes[1]);
  std::swap(c.strides[0], c.strides[1]);
  return c;
}

RowView group_view(const OpRequest& request, uint32_t group, int64_t groups) {
  const xhal_tensor_desc* t = request.operand(group);
  if (t == nullptr) return {};
  const xhal_tensor_desc g = grouped(*t, groups);
  return RowView(g, request.first_operand(group), 2, g.ndim - 2);
}

RowView channel_view(const OpRequest& request, uint32_t group) {
  const xhal_tensor_desc* t = request.operand(group);
  if (t == nullptr) return {};
  const xhal_tensor_desc c = channels_first(*t);
  return RowView(c, request.first_operand(group), 1, c.ndim - 1);
}

float value_at(const FlatView& view, void* const* pointers, int64_t i, float otherwise) {
  return view.present() ? view.at(pointers, i) : otherwise;
}

void set_if_present(const FlatView& view, void* const* pointers, int64_t i, float value) {
  if (view.present()) view.set(pointers, i, value);
}

// Runs body(begin, end, buffers) on parts of the rows of `in`, with dense memory for `buffers` rows
// in each thread: buffer k begins at k * padded(length).
template <class Body>
xhal_status over_rows(const Launch& launch, const RowView& in, size_t buffers, Body&& body) {
  const int64_t length = in.length();
  std::atomic<bool> failed{false};
  launch.pool.parallel_for(in.rows(), row_grain(length), [&](int64_t begin, int64_t end) {
    float* memory = thread_scratch(buffers * padded(length));
    if (memory == nullptr) return failed.store(true, std::memory_order_relaxed);
    body(begin, end, memory);
  });
  return row_status(failed, length, launch);
}

// Rows that are read, and rows that are made from them.
template <class Body>
xhal_status over_row_pairs(const Launch& launch, const RowView& in, const RowView& out,
                           Body&& body) {
  return over_rows(launch, in, 2, [&](int64_t begin, int64_t end, float* memory) {
    float* const second = memory + padded(in.length());
    RowView::Cursor from(in, launch.pointers, begin), to(out, launch.pointers, begin);
    for (int64_t row = begin; row < end; ++row, from.next(), to.next()) {
      auto* y = static_cast<float*>(to.target(second));
      body(row, static_cast<const float*>(from.read(memory)), y);
      to.commit(y);
    }
  });
}

// Rows of the gradient and of the input; body(row, g, x, make) writes a row of the input's gradient
// into what make() gives, if it wants one.
template <class Body>
xhal_status over_gradients(const Launch& launch, const RowView& grad, const RowView& in,
                           const RowView& din, Body&& body) {
  return over_rows(launch, in, 3, [&](int64_t begin, int64_t end, float* memory) {
    float* const second = memory + padded(in.length());
    float* const third = second + padded(in.length());
    RowView::Cursor grads(grad, launch.pointers, begin), from(in, launch.pointers, begin);
    RowView::Cursor to(din, launch.pointers, begin);
    for (int64_t row = begin; row < end; ++row, grads.next(), from.next(), to.next()) {
      const auto* g = static_cast<const float*>(grads.read(memory));
      const auto* x = static_cast<const float*>(from.read(second));
      float* dx = nullptr;
      body(row, g, x, [&] { return dx = static_cast<float*>(to.target(third)); });
      if (dx != nullptr) to.commit(dx);
    }
  });
}

class GroupNormOp final : public Op {
 public:
  GroupNormOp(const OpRequest& request, int64_t groups)
      : kernels_(channel_kernels()), groups_(groups), eps_(request.attribute_float("eps")) {
    const xhal_tensor_desc& in = *request.operand(0);
    channels_ = in.sizes[1] / groups;
    in_ = group_view(request, 0, groups);
    weight_ = flat_view(request, 1);
    bias_ = flat_view(request, 2);
    out_ = group_view(request, 3, groups);
    mean_ = flat_view(request, 4);
    rstd_ = flat_view(request, 5);
  }

  xhal_status run(const Launch& launch) const override {
    const int64_t length = in_.length();
    if (length == 0) return XHAL_OK;
    const int64_t spatial = length / channels_;
    const auto n = static_cast<size_t>(spatial);
    return over_row_pairs(launch, in_, out_, [&](int64_t row, const float* x, float* y) {
      const RowStats s = kernels_.mean_rstd(x, static_cast<size_t>(length), eps_);
      for (int64_t c = 0; c < channels_; ++c) {
        const int64_t channel = row % groups_ * channels_ + c;
        const float scale = s.rstd * value_at(weight_, launch.pointers, channel, 1.0f);
        const float shift = value_at(bias_, launch.pointers, channel, 0.0f);
        const float* part = x + c * spatial;
        kernels_.combine(part, part, s.mean, 0, scale, shift, y + c * spatial, n);
      }
      set_if_present(mean_, launch.pointers, row, s.mean);
      set_if_present(rstd_, launch.pointers, row, s.rstd);
    });
  }

 private:
  const ChannelKernels& kernels_;
  int64_t groups_, channels_;  // channels of a group
  double eps_;
  RowView in_, out_;
  FlatView weight_, bias_, mean_, rstd_;
};

class GroupNormGradOp final : public Op {
 public:
  GroupNormGradOp(const OpRequest& request, int64_t groups)
      : kernels_(channel_kernels()), groups_(groups) {
    const xhal_tensor_desc& in = *request.operand(1);
    samples_ = in.sizes[0];
    channels_ = in.sizes[1] / groups;
    grad_ = group_view(request, 0, groups);
    in_ = group_view(request, 1, groups);
    mean_ = flat_view(request, 2);
    rstd_ = flat_view(request, 3);
    weight_ = flat_view(request, 4);
    din_ = group_view(request, 5, groups);
    dweight_ = flat_view(request, 6);
    dbias_ = flat_view(request, 7);
    workspace_bytes = static_cast<uint64_t>(2 * samples_ * channels_ * groups_) * sizeof(float);
  }

  xhal_status run(const Launch& launch) const override {
    const int64_t length = in_.length(), all_channels = channels_ * groups_;
    const int64_t spatial = channels_ == 0 ? 0 : length / channels_;
    auto* weight_sums = static_cast<float*>(launch.workspace);  // [samples, channels]
    float* bias_sums = weight_sums + samples_ * all_channels;
    const auto n = static_cast<size_t>(spatial);
    const xhal_status status = over_gradients(
        launch, grad_, in_, din_, [&](int64_t row, const float* g, const float* x, auto&& make) {
          const float mean = value_at(mean_, launch.pointers, row, 0);
          const float rstd = value_at(rstd_, launch.pointers, row, 0);
          const int64_t first_channel = row % groups_ * channels_, sample = row / groups_;
          double grad_total = 0, product_total = 0;
          for (int64_t c = 0; c < channels_; ++c) {
            double grad_sum, product_sum;
            kernels_.grad_sums(g + c * spatial, x + c * spatial, mean, n, &grad_sum, &product_sum);
            const double w = value_at(weight_, launch.pointers, first_channel + c, 1.0f);
            grad_total += w * grad_sum;
            product_total += w * product_sum;
            const int64_t at = sample * all_channels + first_channel + c;
            weight_sums[at] = static_cast<float>(product_sum * rstd);
            bias_sums[at] = static_cast<float>(grad_sum);
          }
          if (!din_.present()) return;
          float* const dx = make();
          const double count = static_cast<double>(length), r = rstd;
          const auto b = static_cast<float>(-r * r * r * product_total / count);
          const auto shift = static_cast<float>(-r * grad_total / count);
          for (int64_t c = 0; c < channels_; ++c) {
            const float w = value_at(weight_, launch.pointers, first_channel + c, 1.0f);
            kernels_.combine(g + c * spatial, x + c * spatial, mean, rstd * w, b, shift,
                             dx + c * spatial, n);
          }
        });
    if (status != XHAL_OK) return status;
    write_sums(launch, dweight_, weight_sums);
    write_sums(launch, dbias_, bias_sums);
    return XHAL_OK;
  }

 private:
  void write_sums(const Launch& launch, const FlatView& to, const float* sums) const {
    if (!to.present()) return;
    const int64_t all_channels = channels_ * groups_;
    float row[256];
    for (int64_t i = 0; i < all_channels; i += 256) {
      const int64_t n = std::min<int64_t>(256, all_channels - i);
      kernels_.sum_rows(sums + i, static_cast<size_t>(samples_), static_cast<size_t>(all_channels),
                        row, static_cast<size_t>(n));
      to.write(launch.pointers, i, n, row);
    }
  }

  const ChannelKernels& kernels_;
  int64_t groups_, channels_, samples_;
  RowView grad_, in_, din_;
  FlatView mean_, rstd_, weight_, dweight_, dbias_;
};

class BatchNormOp final : public Op {
 public:
  explicit BatchNormOp(const OpRequest& request)
      : kernels_(channel_kernels()),
        training_(request.attribute_int("training") != 0),
        eps_(request.attribute_float("eps")),
        momentum_(request.attribute_float("momentum")) {
    in_ = channel_view(request, 0);
    weight_ = flat_view(request, 1);
    bias_ = flat_view(request, 2);
    running_mean_ = flat_view(request, 3);
    running_var_ = flat_view(request, 4);
    out_ = channel_view(request, 5);
    mean_ = flat_view(request, 6);
    rstd_ = flat_view(request, 7);
  }

  xhal_status run(const Launch& launch) const override {
    const int64_t length = in_.length();
    if (length == 0) return XHAL_OK;
    return over_row_pairs(launch, in_, out_, [&](int64_t c, const float* x, float* y) {
      const RowStats s = stats(launch, c, x, static_cast<size_t>(length));
      const float scale = s.rstd * value_at(weight_, launch.pointers, c, 1.0f);
      const float shift = value_at(bias_, launch.pointers, c, 0.0f);
      kernels_.combine(x, x, s.mean, 0, scale, shift, y, static_cast<size_t>(length));
      set_if_present(mean_, launch.pointers, c, s.mean);
      set_if_present(rstd_, launch.pointers, c, s.rstd);
    });
  }

 private:
  RowStats stats(const Launch& launch, int64_t c, const float* x, size_t n) const {
    if (!training_) {
      const double var = value_at(running_var_, launch.pointers, c, 1.0f);
      return {value_at(running_mean_, launch.pointers, c, 0.0f),
              static_cast<float>(1.0 / std::sqrt(var + eps_))};
    }
    const double count = static_cast<double>(n);
    const double mean = row_kernels(DType::f32).sum(x, n) / count;
    const auto m = static_cast<float>(mean);
    const double off = m - mean;
    const double squares =
        std::max(0.0, kernels_.sum_centered_squares(x, m, n) - count * off * off);
    update(launch, running_mean_, c, mean);
    update(launch, running_var_, c, squares / (count - 1));
    return {m, static_cast<float>(1.0 / std::sqrt(squares / count + eps_))};
  }

  void update(const Launch& launch, const FlatView& running, int64_t c, double now) const {
    if (!running.present()) return;
    const double before = value_at(running, launch.pointers, c, 0);
    const auto after = static_cast<float>((1 - momentum_) * before + momentum_ * now);
    running.set(launch.pointers, c, after);
  }

  const ChannelKernels& kernels_;
  bool training_;
  double eps_, momentum_;
  RowView in_, out_;
  FlatView weight_, bias_, running_mean_, running_var_, mean_, rstd_;
};

class BatchNormGradOp final : public Op {
 public:
  explicit BatchNormGradOp(const OpRequest& request)
      : kernels_(channel_kernels()),
        training_(request.attribute_int("training") != 0),
        eps_(request.attribute_float("eps")) {
    grad_ = channel_view(request, 0);
    in_ = channel_view(request, 1);
    weight_ = flat_view(request, 2);
    running_mean_ = flat_view(request, 3);
    running_var_ = flat_view(request, 4);
    mean_ = flat_view(request, 5);
    rstd_ = flat_view(request, 6);
    din_ = channel_view(request, 7);
    dweight_ = flat_view(request, 8);
    dbias_ = flat_view(request, 9);
  }

  xhal_status run(const Launch& launch) const override {
    const auto n = static_cast<size_t>(in_.length());
    return over_gradients(
        launch, grad_, in_, din_, [&](int64_t c, const float* g, const float* x, auto&& make) {
          const RowStats s = stats(launch, c);
          double grad_sum, product_sum;
          kernels_.grad_sums(g, x, s.mean, n, &grad_sum, &product_sum);
          set_if_present(dweight_, launch.pointers, c, static_cast<float>(product_sum * s.rstd));
          set_if_present(dbias_, launch.pointers, c, static_cast<float>(grad_sum));
          if (!din_.present() || n == 0) return;
          const double w = value_at(weight_, launch.pointers, c, 1), r = s.rstd,
                       count = static_cast<double>(n);
          const double b = training_ ? -w * r * r * r * product_sum / count : 0;
          const double shift = training_ ? -w * r * grad_sum / count : 0;
          kernels_.combine(g, x, s.mean, static_cast<float>(r * w), static_cast<float>(b),
                           static_cast<float>(shift), make(), n);
        });
  }

 private:
  RowStats stats(const Launch& launch, int64_t c) const {
    if (training_)
      return {value_at(mean_, launch.pointers, c, 0), value_at(rstd_, launch.pointers, c, 1)};
    const double var = value_at(running_var_, launch.pointers, c, 1);
    return {value_at(running_mean_, launch.pointers, c, 0),
            static_cast<float>(1.0 / std::sqrt(var + eps_))};
  }

  const ChannelKernels& kernels_;
  bool training_;
  double eps_;
  RowView grad_, in_, din_;
  FlatView weight_, running_mean_, running_var_, mean_, rstd_, dweight_, dbias_;
};

bool check_groups(const OpRequest& request, uint32_t in_group, int64_t groups, Refusal& refusal) {
  const xhal_tensor_desc& in = *request.operand(in_group);
  if (in.ndim < XHAL_MAX_DIMENSIONS && groups > 0 && in.sizes[1] % groups == 0) return true;
  refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + in_group,
         text("`", op_name(request.id()),
              "` needs 2 to 7 dimensions and a number of channels that `groups` divides"));
  return false;
}

}  // namespace

Prepared prepare_group_norm(const OpRequest& request, Refusal& refusal) {
  const int64_t groups = request.attribute_int("groups");
  if (!check_groups(request, 0, groups, refusal)) return nullptr;
  return std::make_unique<GroupNormOp>(request, groups);
}

Prepared prepare_group_norm_grad(const OpRequest& request, Refusal& refusal) {
  const int64_t groups = request.attribute_int("groups");
  if (!check_groups(request, 1, groups, refusal)) return nullptr;
  return std::make_unique<GroupNormGradOp>(request, groups);
}

Prepared prepare_batch_norm(const OpRequest& request, Refusal& refusal) {
  const bool has_running = request.operand(3) != nullptr && request.operand(4) != nullptr;
  if (request.attribute_int("training") == 0 && !has_running)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
                  "`batch_norm` without training needs the running statistics");
  return std::make_unique<BatchNormOp>(request);
}

Prepared prepare_batch_norm_grad(const OpRequest& request, Refusal& refusal) {
  const uint32_t first = request.attribute_int("training") != 0 ? 5 : 3;
  if (request.operand(first) == nullptr || request.operand(first + 1) == nullptr)
    return refuse(
        refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
        "`batch_norm_grad` needs mean and rstd when training, else the running statistics");
  return std::make_unique<BatchNormGradOp>(request);
}

}  // namespace xhal::cpu
