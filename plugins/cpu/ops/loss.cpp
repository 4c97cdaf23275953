// SPDX-License-Identifier: Apache-2.0
// loss.cpp: negative log likelihood, cross entropy and mean squared error, with their gradients.
#include <algorithm>
#include <atomic>
#include <vector>

#include "chunks.hpp"
#include "pointwise.hpp"
#include "rows.hpp"

namespace xhal::cpu {
namespace {

enum Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

size_t padded(int64_t n) { return (static_cast<size_t>(n) + 15) / 16 * 16; }

// The classes of the samples, any stride.
class Targets {
 public:
  Targets() = default;
  Targets(const OpRequest& request, uint32_t group, int64_t classes, int64_t ignored)
      : operand_(request.first_operand(group)), classes_(classes), ignored_(ignored) {
    const xhal_tensor_desc& t = *request.operand(group);
    stride_ = t.ndim == 0 ? 0 : t.strides[0];
  }
  int64_t at(void* const* pointers, int64_t i) const {
    return static_cast<const int64_t*>(pointers[operand_])[i * stride_];
  }
  bool ignores(int64_t target) const { return target == ignored_; }
  bool holds(int64_t target) const { return target >= 0 && target < classes_; }

  xhal_status outside(const Launch& launch, int64_t sample) const {
    *launch.error = text("target[", sample, "] is ", at(launch.pointers, sample), "; there are ",
                         classes_, " classes, and ", ignored_, " means ignored");
    return XHAL_ERR_DEVICE;
  }

 private:
  uint32_t operand_ = 0;
  int64_t stride_ = 0, classes_ = 0, ignored_ = 0;
};

// The smallest sample with a bad target that any thread saw.
class FirstBad {
 public:
  void report(int64_t sample) {
    int64_t seen = sample_.load(std::memory_order_relaxed);
    while (sample < seen &&
           !sample_.compare_exchange_weak(seen, sample, std::memory_order_relaxed)) {
    }
  }
  bool any() const { return sample_.load(std::memory_order_relaxed) != INT64_MAX; }
  int64_t sample() const { return sample_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> sample_{INT64_MAX};
};

// [c] becomes [1, c].
xhal_tensor_desc as_samples(const xhal_tensor_desc& t) {
  xhal_tensor_desc m = t;
  if (t.ndim != 1) return m;
  m.ndim = 2;
  m.sizes[1] = t.sizes[0];
  m.strides[1] = t.strides[0];
  m.sizes[0] = 1;
  m.strides[0] = 0;
  return m;
}

bool check_samples(const OpRequest& request, uint32_t in_group, Refusal& refusal) {
  const uint32_t ndim = request.operand(in_group)->ndim;
  if (ndim <= 2) return true;
  refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(in_group),
         text("`", op_name(request.id()), "` needs [samples, classes] or [classes]"));
  return false;
}

bool check_reduction(const OpRequest& request, Refusal& refusal) {
  const int64_t reduction = request.attribute_int("reduction");
  if (reduction >= kNone && reduction <= kSum) return true;
  refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
         text("attribute `reduction` of `", op_name(request.id()), "` is 0, 1 or 2"));
  return false;
}

float read_one(const FlatView& view, void* const* pointers, int64_t i) {
  return view.at(pointers, i);
}

class NllLossOp final : public Op {
 public:
  NllLossOp(const OpRequest& request, const xhal_tensor_desc& in)
      : reduction_(request.attribute_int("reduction")),
        in_(in, 0),
        samples_(in.sizes[0]),
        classes_(in.sizes[1]),
        targets_(request, 1, classes_, request.attribute_int("ignore_index")),
        weight_(flat_view(request, 2)),
        out_(flat_view(request, 3)),
        total_(flat_view(request, 4)) {}

  xhal_status run(const Launch& launch) const override {
    double sum = 0, total = 0;
    for (int64_t i = 0; i < samples_; ++i) {
      const int64_t target = targets_.at(launch.pointers, i);
      float loss = 0;
      if (!targets_.ignores(target)) {
        if (!targets_.holds(target)) return targets_.outside(launch, i);
        const float w = weight_.present() ? read_one(weight_, launch.pointers, target) : 1.0f;
        loss = -read_one(in_, launch.pointers, i * classes_ + target) * w;
        sum += loss;
        total += w;
      }
      if (reduction_ == kNone) out_.write(launch.pointers, i, 1, &loss);
    }
    const auto result = static_cast<float>(reduction_ == kMean ? sum / total : sum);
    const auto total_weight = static_cast<float>(reduction_ == kNone ? 0 : total);
    if (reduction_ != kNone) out_.write(launch.pointers, 0, 1, &result);
    total_.write(launch.pointers, 0, 1, &total_weight);
    return XHAL_OK;
  }

 private:
  int64_t reduction_;
  FlatView in_;
  int64_t samples_, classes_;
  Targets targets_;
  FlatView weight_, out_, total_;
};

Prepared prepare_nll_loss(const OpRequest& request, Refusal& refusal) {
  if (!check_samples(request, 0, refusal) || !check_reduction(request, refusal)) return nullptr;
  return std::make_unique<NllLossOp>(request, as_samples(*request.operand(0)));
}

class NllLossGradOp final : public Op {
 public:
  NllLossGradOp(const OpRequest& request, const xhal_tensor_desc& din)
      : reduction_(request.attribute_int("reduction")),
        samples_(din.sizes[0]),
        classes_(din.sizes[1]),
        din_(din, request.first_operand(4)),
        din_operand_(request.first_operand(4)),
        row_stride_(din.strides[0]),
        stride_(din.strides[1]),
        size_(static_cast<int64_t>(size_of(dtype_of(din)))),
        targets_(request, 1, classes_, request.attribute_int("ignore_index")),
        grad_(flat_view(request, 0)),
        weight_(flat_view(request, 2)),
        total_(flat_view(request, 3)) {}

  xhal_status run(const Launch& launch) const override {
    FirstBad bad;
    const float total = reduction_ == kMean ? read_one(total_, launch.pointers, 0) : 1.0f;
    launch.pool.parallel_for(samples_, row_grain(classes_), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        clear_row(launch, i);
        const int64_t target = targets_.at(launch.pointers, i);
        if (targets_.ignores(target)) continue;
        if (!targets_.holds(target)) {
          bad.report(i);
          continue;
        }
        const float w = weight_.present() ? read_one(weight_, launch.pointers, target) : 1.0f;
        const float grad = read_one(grad_, launch.pointers, reduction_ == kNone ? i : 0);
        const float value = -w * grad / total;
        din_.write(launch.pointers, i * classes_ + target, 1, &value);
      }
    });
    return bad.any() ? targets_.outside(launch, bad.sample()) : XHAL_OK;
  }

 private:
  void clear_row(const Launch& launch, int64_t i) const {
    char* row = static_cast<char*>(launch.pointers[din_operand_]) + i * row_stride_ * size_;
    if (stride_ == 1) {
      std::fill_n(row, classes_ * size_, char{0});
      return;
    }
    for (int64_t c = 0; c < classes_; ++c) std::fill_n(row + c * stride_ * size_, size_, char{0});
  }

  int64_t reduction_, samples_, classes_;
  FlatView din_;
  uint32_t din_operand_;
  int64_t row_stride_, stride_, size_;
  Targets targets_;
  FlatView grad_, weight_, total_;
};

Prepared prepare_nll_loss_grad(const OpRequest& request, Refusal& refusal) {
  if (!check_samples(request, 4, refusal) || !check_reduction(request, refusal)) return nullptr;
  return std::make_unique<NllLossGradOp>(request, as_samples(*request.operand(4)));
}

class CrossEntropyOp final : public Op {
 public:
  CrossEntropyOp(const OpRequest& request, const xhal_tensor_desc& in)
      : reduction_(request.attribute_int("reduction")),
        smoothing_(request.attribute_float("smoothing")),
        in_(in, 0, 1, 1),
        elements_(in, 0),
        targets_(request, 1, in.sizes[1], request.attribute_int("ignore_index")),
        out_(flat_view(request, 2)),
        log_sum_(flat_view(request, 3)) {
    RowView* const rows[] = {&in_};
    kernels_ = &row_kernels(settle_rows(rows));
    workspace_bytes = static_cast<uint64_t>(in.sizes[0]) * sizeof(double);
  }

  xhal_status run(const Launch& launch) const override {
    auto* losses = static_cast<double*>(launch.workspace);
    std::atomic<bool> failed{false};
    FirstBad bad;
    launch.pool.parallel_for(in_.rows(), row_grain(in_.length()), [&](int64_t begin, int64_t end) {
      if (!run_rows(launch, begin, end, losses, bad)) failed.store(true, std::memory_order_relaxed);
    });
    if (failed) return row_status(failed, in_.length(), launch);
    if (bad.any()) return targets_.outside(launch, bad.sample());
    finish(launch, losses);
    return XHAL_OK;
  }

 private:
  bool run_rows(const Launch& launch, int64_t begin, int64_t end, double* losses,
                FirstBad& bad) const {
    const int64_t classes = in_.length();
    const auto n = static_cast<size_t>(classes);
    float* memory = thread_scratch(padded(classes));
    if (memory == nullptr) return false;
    RowView::Cursor rows(in_, launch.pointers, begin);
    for (int64_t i = begin; i < end; ++i, rows.next()) {
      const void* x = rows.read(memory);
      const double log_sum = kernels_->log_sum(x, n, {{rows.ahead()}});
      log_sum_.set(launch.pointers, i, static_cast<float>(log_sum));
      losses[i] = 0;
      const int64_t target = targets_.at(launch.pointers, i);
      if (targets_.ignores(target)) continue;
      if (!targets_.holds(target)) {
        bad.report(i);
        continue;
      }
      losses[i] =
          (1 - smoothing_) * (log_sum - elements_.at(launch.pointers, i * classes + target));
      if (smoothing_ != 0)
        losses[i] += smoothing_ * (log_sum - kernels_->sum(x, n) / static_cast<double>(classes));
    }
    return true;
  }

  void finish(const Launch& launch, const double* losses) const {
    double sum = 0;
    int64_t used = 0;
    for (int64_t i = 0; i < in_.rows(); ++i) {
      if (reduction_ == kNone) out_.set(launch.pointers, i, static_cast<float>(losses[i]));
      sum += losses[i];
      used += targets_.ignores(targets_.at(launch.pointers, i)) ? 0 : 1;
    }
    if (reduction_ == kMean) sum /= static_cast<double>(used);
    if (reduction_ != kNone) out_.set(launch.pointers, 0, static_cast<float>(sum));
  }

  const RowKernels* kernels_;
  int64_t reduction_;
  double smoothing_;
  RowView in_;
  FlatView elements_;  // of in
  Targets targets_;
  FlatView out_, log_sum_;
};

Prepared prepare_cross_entropy(const OpRequest& request, Refusal& refusal) {
  if (!check_samples(request, 0, refusal) || !check_reduction(request, refusal)) return nullptr;
  return std::make_unique<CrossEntropyOp>(request, as_samples(*request.operand(0)));
}

class CrossEntropyGradOp final : public Op {
 public:
  CrossEntropyGradOp(const OpRequest& request, const xhal_tensor_desc& in,
                     const xhal_tensor_desc& din)
      : reduction_(request.attribute_int("reduction")),
        smoothing_(request.attribute_float("smoothing")),
        in_(in, 1, 1, 1),
        din_(din, request.first_operand(4), 1, 1),
        elements_(in, 1),
        din_elements_(din, request.first_operand(4)),
        targets_(request, 2, in.sizes[1], request.attribute_int("ignore_index")),
        grad_(flat_view(request, 0)),
        log_sum_(flat_view(request, 3)) {
    RowView* const rows[] = {&in_, &din_};
    kernels_ = &row_kernels(settle_rows(rows));
  }

  xhal_status run(const Launch& launch) const override {
    int64_t used = 0;
    for (int64_t i = 0; i < in_.rows(); ++i)
      used += targets_.ignores(targets_.at(launch.pointers, i)) ? 0 : 1;
    const float divisor = reduction_ == kMean ? static_cast<float>(used) : 1.0f;
    std::atomic<bool> failed{false};
    FirstBad bad;
    launch.pool.parallel_for(in_.rows(), row_grain(in_.length()), [&](int64_t begin, int64_t end) {
      if (!run_rows(launch, begin, end, divisor, bad))
        failed.store(true, std::memory_order_relaxed);
    });
    if (failed) return row_status(failed, in_.length(), launch);
    return bad.any() ? targets_.outside(launch, bad.sample()) : XHAL_OK;
  }

 private:
  bool run_rows(const Launch& launch, int64_t begin, int64_t end, float divisor,
                FirstBad& bad) const {
    const int64_t classes = in_.length();
    const auto n = static_cast<size_t>(classes);
    float* memory = thread_scratch(2 * padded(classes));
    if (memory == nullptr) return false;
    const bool stream = din_.streams(launch.pointers) &&
                        launch.pointers[in_.operand()] != launch.pointers[din_.operand()];
    const auto smooth = static_cast<float>(smoothing_ / static_cast<double>(classes));
    RowView::Cursor rows(in_, launch.pointers, begin), to(din_, launch.pointers, begin);
    for (int64_t i = begin; i < end; ++i, rows.next(), to.next()) {
      const int64_t target = targets_.at(launch.pointers, i);
      const bool used = !targets_.ignores(target) && targets_.holds(target);
      if (!used && !targets_.ignores(target)) bad.report(i);
      const float scale =
          used ? read_one(grad_, launch.pointers, reduction_ == kNone ? i : 0) / divisor : 0.0f;
      const float log_sum = read_one(log_sum_, launch.pointers, i);
      // The target's element is written last and alone, so that it is rounded once.
      const int64_t element = i * classes + target;
      const float x_target = used ? elements_.at(launch.pointers, element) : 0.0f;
      void* dx = to.target(memory + padded(classes));
      kernels_->softmax_minus(rows.read(memory), log_sum, smooth, scale, dx, n,
                              {{rows.ahead()}, stream});
      to.commit(dx);
      if (!used) continue;
      const float p = std::exp(x_target - log_sum);
      if (stream) finish_streaming();
      din_elements_.set(launch.pointers, element,
                        (p - smooth - static_cast<float>(1 - smoothing_)) * scale);
    }
    if (stream) finish_streaming();
    return true;
  }

  const RowKernels* kernels_;
  int64_t reduction_;
  double smoothing_;
  RowView in_, din_;
  FlatView elements_, din_elements_;  // of in and din
  Targets targets_;
  FlatView grad_, log_sum_;
};

Prepared prepare_cross_entropy_grad(const OpRequest& request, Refusal& refusal) {
  if (!check_samples(request, 1, refusal) || !check_reduction(request, refusal)) return nullptr;
  return std::make_unique<CrossEntropyGradOp>(request, as_samples(*request.operand(1)),
                                              as_samples(*request.operand(4)));
}

// Sum or mean of the squares, in chunks of fixed size.
class MseLossOp final : public Op {
 public:
  MseLossOp(const OpRequest& request, bool mean)
      : kernels_(channel_kernels()),
        difference_(float_kernel(Kernel::sub)),
        mean_(mean),
        out_(flat_view(request, 2)) {
    for (uint32_t k = 0; k < 2; ++k) in_[k] = flat_view(request, k);
    count_ = in_[0].count();
    chunks_.add(0, count_);
    workspace_bytes = chunks_.size() * sizeof(double);
  }

  xhal_status run(const Launch& launch) const override {
    auto* sums = static_cast<double*>(launch.workspace);
    chunks_.run(launch.pool, [&](const Chunk& chunk, size_t index) {
      constexpr int64_t kBlock = 1024;
      alignas(64) float a[kBlock], b[kBlock];
      double sum = 0;
      for (int64_t i = chunk.begin; i < chunk.end; i += kBlock) {
        const int64_t n = std::min(kBlock, chunk.end - i);
        const float* in[] = {in_[0].read(launch.pointers, i, n, a),
                             in_[1].read(launch.pointers, i, n, b)};
        const size_t inc[] = {1, 1};
        float* out[] = {a};
        const float alpha = 1;
        difference_(in, inc, out, static_cast<size_t>(n), &alpha);
        sum += kernels_.sum_centered_squares(a, 0, static_cast<size_t>(n));
      }
      sums[index] = sum;
    });
    double total = 0;
    for (size_t i = 0; i < chunks_.size(); ++i) total += sums[i];
    const auto result = static_cast<float>(mean_ ? total / static_cast<double>(count_) : total);
    out_.write(launch.pointers, 0, 1, &result);
    return XHAL_OK;
  }

 private:
  const ChannelKernels& kernels_;
  PointwiseFn<float> difference_;
  bool mean_;
  FlatView in_[2], out_;
  int64_t count_;
  ChunkList chunks_{65536};
};

Prepared prepare_mse_loss(const OpRequest& request, Refusal& refusal) {
  const int64_t reduction = request.attribute_int("reduction");
  if (reduction == kNone)
    return prepare_kernel(request, Kernel::square_difference, 2, 2, 0, refusal);
  if (!check_reduction(request, refusal)) return nullptr;
  return std::make_unique<MseLossOp>(request, reduction == kMean);
}

Prepared prepare_mse_loss_grad(const OpRequest& request, Refusal& refusal) {
  const xhal_tensor_desc& da = *request.operand(3);
  const int64_t reduction = request.attribute_int("reduction");
  if (!check_reduction(request, refusal)) return nullptr;
  xhal_op_info info = request.info();
  const std::span all(info.operands, info.operand_count);
  std::vector<xhal_tensor_desc> expanded(all.begin(), all.end());
  xhal_tensor_desc& grad = expanded[0];
  if (element_count(grad) == 1) {  // one gradient for all
    grad.ndim = da.ndim;
    for (uint32_t d = 0; d < da.ndim; ++d) {
      grad.sizes[d] = da.sizes[d];
      grad.strides[d] = 0;
    }
  }
  info.operands = expanded.data();
  const double count = static_cast<double>(element_count(da));
  return prepare_kernel(OpRequest(info), Kernel::mse_grad, 3, 3, reduction == kMean ? 2 / count : 2,
                        refusal);
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_nll_loss, prepare_nll_loss},
    {XHAL_OP_nll_loss_grad, prepare_nll_loss_grad},
    {XHAL_OP_cross_entropy, prepare_cross_entropy},
    {XHAL_OP_cross_entropy_grad, prepare_cross_entropy_grad},
    {XHAL_OP_mse_loss, prepare_mse_loss},
    {XHAL_OP_mse_loss_grad, prepare_mse_loss_grad},
};

}  // namespace

std::span<const KernelEntry> loss_ops() { return kOps; }

}  // namespace xhal::cpu
