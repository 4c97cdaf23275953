// SPDX-License-Identifier: Apache-2.0
// reduce.cpp: sums, extremes, norms and variances over any dimensions of tensors with any strides.
//
// The result does not depend on the number of threads: the input is cut by its sizes alone, each
// part is reduced in a fixed order (a run or a few rows in f32, these in f64), and the parts are
// joined in order.
#include "reduce.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "convert.hpp"
#include "iterate.hpp"

namespace xhal::cpu {
namespace {

constexpr int64_t kColumns = 512;  // of a tile when a kept dimension is the innermost
constexpr int64_t kPart = 65536;   // elements reduced by one part
constexpr int64_t kMaxParts = 64;  // of one result
constexpr int64_t kOnStack = 64;   // results and parts that need no workspace

constexpr DType native(float) { return DType::f32; }
constexpr DType native(int64_t) { return DType::i64; }

template <class T>
class Reduction {
 public:
  using A = AccumulatorOf<T>;

  Reduction(const ReducedDims& dims, DType type, Fold fold)
      : fold_(fold), type_(type), size_(size_of(type)) {
    if constexpr (std::is_same_v<T, float>) {
      fns_ = float_fold(fold);
    } else {
      fns_ = int_fold(fold);
    }
    const int64_t* kept[] = {dims.kept_in.data(), dims.kept_out.data(), dims.kept_second.data()};
    kept_ = plan_iteration(dims.kept, dims.kept_sizes.data(), kept);
    const int64_t* reduced[] = {dims.reduced_in.data()};
    reduced_ = plan_iteration(dims.reduced, dims.reduced_sizes.data(), reduced);
    const int64_t run = std::abs(reduced_.inner_stride(0)), row = std::abs(kept_.inner_stride(0));
    by_columns_ = kept_.inner() > 1 && (reduced_.inner() == 1 || row < run);
    stride_ = by_columns_ ? kept_.inner_stride(0) : reduced_.inner_stride(0);
    direct_ = stride_ == 1 && type == native(T{});
    load_ = loader<T>(type, stride_ == 1);

    tiles_ = by_columns_ ? (kept_.inner() + kColumns - 1) / kColumns : 1;
    groups_ =
        by_columns_ ? kept_.count / std::max<int64_t>(1, kept_.inner()) * tiles_ : kept_.count;
    const int64_t width = by_columns_ ? std::min(kColumns, kept_.inner()) : 1;
    // A result is reduced in parts when there are too few of them to keep several threads busy.
    parts_ = 1;
    if (groups_ > 0 && groups_ < 64)
      parts_ = std::clamp<int64_t>(reduced_.count * width / kPart, 1, kMaxParts / groups_ + 1);
    part_length_ = (reduced_.count + parts_ - 1) / std::max<int64_t>(1, parts_);
    width_ = width;
  }

  const IterPlan& kept() const { return kept_; }
  int64_t reduced_count() const { return reduced_.count; }
  int64_t results() const { return kept_.count; }
  int64_t partials() const { return parts_ == 1 ? 0 : groups_ * parts_ * width_; }

  // results[i] for element i of the kept nest. `means` (one a result) is for sum_centered_squares.
  void run(const void* in, WorkerPool& pool, A* results, A* partials, const double* means) const {
    const int64_t units = groups_ * parts_;
    const int64_t cost = std::max<int64_t>(1, part_length_ * width_);
    pool.parallel_for(
        units, std::max<int64_t>(1, kPart / 2 / cost), [&](int64_t begin, int64_t end) {
          for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t group = unit / parts_, part = unit % parts_;
            const int64_t first = part * part_length_;
            const int64_t last = std::min(reduced_.count, first + part_length_);
            A* to = parts_ == 1 ? results + result_of(group) : partials + unit * width_;
            if (by_columns_) {
              fold_columns(in, group, first, last, to, means);
            } else {
              *to = fold_one(in, group, first, last, means);
            }
          }
        });
    if (parts_ == 1) return;
    for (int64_t group = 0; group < groups_; ++group) {
      A* to = results + result_of(group);
      const int64_t width = by_columns_ ? columns_of(group) : 1;
      for (int64_t i = 0; i < width; ++i) {
        A joined = partials[group * parts_ * width_ + i];
        for (int64_t part = 1; part < parts_; ++part)
          joined = fold_join(fold_, joined, partials[(group * parts_ + part) * width_ + i]);
        to[i] = joined;
      }
    }
  }

 private:
  int64_t result_of(int64_t group) const {
    return by_columns_ ? group / tiles_ * kept_.inner() + group % tiles_ * kColumns : group;
  }
  int64_t columns_of(int64_t group) const {
    return std::min(kColumns, kept_.inner() - group % tiles_ * kColumns);
  }

  A fold_one(const void* in, int64_t group, int64_t first, int64_t last,
             const double* means) const {
    const char* base = static_cast<const char*>(in) + IterPosition(kept_, group).offset(0) * size_;
    const float param = means != nullptr ? static_cast<float>(means[group]) : param_;
    A acc = fold_start<A>(fold_);
    alignas(64) T block[kFoldRun];
    size_t filled = 0;
    IterPosition at(reduced_, first);
    while (first < last) {
      int64_t n = std::min({last - first, at.left(), static_cast<int64_t>(kFoldRun)});
      const char* from = base + at.offset(0) * size_;
      if (direct_ && n >= 256) {
        acc = fold_join(fold_, acc,
                        fns_.run(reinterpret_cast<const T*>(from), static_cast<size_t>(n), param));
      } else {
        n = std::min(n, static_cast<int64_t>(kFoldRun - filled));
        load_(from, stride_, static_cast<size_t>(n), block + filled);
        filled += static_cast<size_t>(n);
        if (filled == kFoldRun) {
          acc = fold_join(fold_, acc, fns_.run(block, filled, param));
          filled = 0;
        }
      }
      at.advance(n);
      first += n;
    }
    if (filled > 0) acc = fold_join(fold_, acc, fns_.run(block, filled, param));
    return acc;
  }

  void fold_columns(const void* in, int64_t group, int64_t first, int64_t last, A* to,
                    const double* means) const {
    constexpr size_t kTogether = 8;  // rows that share one pass over the accumulators
    const int64_t columns = columns_of(group), result = result_of(group);
    const auto n = static_cast<size_t>(columns);
    const char* base = static_cast<const char*>(in) + IterPosition(kept_, result).offset(0) * size_;
    alignas(64) T acc[kColumns], block[kTogether][kColumns];
    alignas(64) float params[kColumns];
    params[0] = param_;
    if (means != nullptr)
      for (int64_t i = 0; i < columns; ++i) params[i] = static_cast<float>(means[result + i]);
    const T start = static_cast<T>(fold_start<A>(fold_));
    std::fill_n(to, columns, fold_start<A>(fold_));
    std::fill_n(acc, columns, start);
    size_t joined = 0;
    IterPosition at(reduced_, first);
    while (first < last) {
      const T* rows[kTogether];
      const size_t count = static_cast<size_t>(std::min<int64_t>(kTogether, last - first));
      for (size_t k = 0; k < count; ++k, at.advance(1)) {
        const char* from = base + at.offset(0) * size_;
        rows[k] = direct_ ? reinterpret_cast<const T*>(from) : block[k];
        if (!direct_) load_(from, stride_, n, block[k]);
      }
      fns_.rows(rows, count, n, acc, params);
      first += static_cast<int64_t>(count);
      joined += count;
      if (joined < kFoldRows && first < last) continue;
      fold_join_all<T>(fold_, to, acc, n);
      std::fill_n(acc, columns, start);
      joined = 0;
    }
  }

 public:
  float param_ = 0;  // the exponent of sum_powers

 private:
  Fold fold_;
  DType type_;
  int64_t size_;
  FoldFns<T> fns_;
  IterPlan kept_, reduced_;
  bool by_columns_, direct_;
  int64_t stride_, tiles_, groups_, parts_, part_length_, width_;
  LoadFn<T> load_;
};

// Results [begin, end) of a kept nest to the tensor that is its operand `view`.
template <class A>
void write_results(const IterPlan& kept, int view, StoreFn<A> store, const A* results, void* out,
                   int64_t size, int64_t begin, int64_t end) {
  IterPosition at(kept, begin);
  while (begin < end) {
    const int64_t n = std::min(end - begin, at.left());
    store(results + begin, static_cast<size_t>(n), static_cast<char*>(out) + at.offset(view) * size,
          kept.inner_stride(view));
    at.advance(n);
    begin += n;
  }
}

// What becomes of the folded value.
enum class Finish : uint8_t { as_is, mean, root, power_root };

template <class T>
class ReduceOp final : public Op {
 public:
  using A = AccumulatorOf<T>;

  ReduceOp(const ReducedDims& dims, DType in, DType out, Fold fold, Finish finish)
      : reduction_(dims, in, fold), finish_(finish) {
    out_size_ = static_cast<int64_t>(size_of(out));
    store_ = storer<A>(out, reduction_.kept().inner_stride(1) == 1);
    const int64_t cells = reduction_.results() + reduction_.partials();
    if (cells > kOnStack) workspace_bytes = static_cast<uint64_t>(cells) * sizeof(A);
  }

  double exponent = 2;
  void set_param(float p) { reduction_.param_ = p; }

  xhal_status run(const Launch& launch) const override {
    A on_stack[kOnStack];
    A* results = workspace_bytes != 0 ? static_cast<A*>(launch.workspace) : on_stack;
    reduction_.run(launch.pointers[0], launch.pool, results, results + reduction_.results(),
                   nullptr);
    void* out = launch.pointers[1];
    launch.pool.parallel_for(reduction_.results(), kPart / 2, [&](int64_t begin, int64_t end) {
      if (finish_ != Finish::as_is)
        for (int64_t i = begin; i < end; ++i) results[i] = finished(results[i]);
      write_results(reduction_.kept(), 1, store_, results, out, out_size_, begin, end);
    });
    return XHAL_OK;
  }

 private:
  A finished(A x) const {
    if constexpr (std::is_same_v<A, double>) {
      switch (finish_) {
        case Finish::mean:
          return x / static_cast<double>(reduction_.reduced_count());
        case Finish::root:
          return std::sqrt(x);
        case Finish::power_root:
          return std::pow(x, 1.0 / exponent);
        default:
          return x;
      }
    }
    return x;
  }

  Reduction<T> reduction_;
  Finish finish_;
  int64_t out_size_;
  StoreFn<A> store_;
};

Prepared bad_dims(const OpRequest& request, Refusal& refusal) {
  return refuse(
      refusal, XHAL_ERR_INVALID_ARGUMENT, 1,
      text(
          "`", op_name(request.id()),
          "` needs dims that the input has, and outputs that all keep them or all leave them out"));
}

bool is_extreme(Fold fold) {
  return fold == Fold::max || fold == Fold::min || fold == Fold::max_abs || fold == Fold::min_abs;
}

Prepared prepare_fold(const OpRequest& request, Fold fold, Finish finish, Refusal& refusal,
                      double p = 0) {
  const xhal_tensor_desc &in = *request.operand(0), &out = *request.operand(1);
  ReducedDims dims;
  if (!match_dims(in, out, out, request.attribute_ints("dims"), dims))
    return bad_dims(request, refusal);
  if (element_count(in) == 0 && element_count(out) != 0 && is_extreme(fold) &&
      request.id() != XHAL_OP_norm)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1,
                  text("`", op_name(request.id()), "` of nothing has no value"));
  const DType in_type = dtype_of(in), out_type = dtype_of(out);
  if (!is_float(in_type))
    return std::make_unique<ReduceOp<int64_t>>(dims, in_type, out_type, fold, finish);
  auto op = std::make_unique<ReduceOp<float>>(dims, in_type, out_type, fold, finish);
  op->exponent = p;
  op->set_param(static_cast<float>(p));
  return op;
}

template <Fold kFold, Finish kFinish = Finish::as_is>
Prepared prepare_reduce(const OpRequest& request, Refusal& refusal) {
  return prepare_fold(request, kFold, kFinish, refusal);
}

Prepared prepare_norm(const OpRequest& request, Refusal& refusal) {
  const double p = request.attribute_float("p");
  if (p == 2) return prepare_fold(request, Fold::sum_squares, Finish::root, refusal);
  if (p == 1) return prepare_fold(request, Fold::sum_abs, Finish::as_is, refusal);
  if (p == 0) return prepare_fold(request, Fold::count, Finish::as_is, refusal);
  if (std::isinf(p))
    return prepare_fold(request, p > 0 ? Fold::max_abs : Fold::min_abs, Finish::as_is, refusal);
  return prepare_fold(request, Fold::sum_powers, Finish::power_root, refusal, p);
}

class VarianceOp final : public Op {
 public:
  VarianceOp(const ReducedDims& dims, DType in, DType out, double correction, bool root)
      : sum_(dims, in, Fold::sum),
        squares_(dims, in, Fold::sum_centered_squares),
        correction_(correction),
        root_(root) {
    store_ = storer<double>(out, false);
    out_size_ = static_cast<int64_t>(size_of(out));
    const int64_t cells = 2 * sum_.results() + sum_.partials();
    if (cells > kOnStack) workspace_bytes = static_cast<uint64_t>(cells) * sizeof(double);
  }

  xhal_status run(const Launch& launch) const override {
    double on_stack[kOnStack];
    double* means = workspace_bytes != 0 ? static_cast<double*>(launch.workspace) : on_stack;
    const int64_t results = sum_.results();
    double* squares = means + results;
    double* partials = squares + results;
    const auto n = static_cast<double>(sum_.reduced_count());
    const void* in = launch.pointers[0];
    sum_.run(in, launch.pool, means, partials, nullptr);
    for (int64_t i = 0; i < results; ++i) means[i] /= n;
    squares_.run(in, launch.pool, squares, partials, means);
    for (int64_t i = 0; i < results; ++i) {
      // The mean was rounded to f32 for the differences; what that adds is known.
      const double off = static_cast<double>(static_cast<float>(means[i])) - means[i];
      const double sum = squares[i] - n * off * off;
      const double variance = (sum < 0 ? 0 : sum) / std::max(0.0, n - correction_);
      squares[i] = root_ ? std::sqrt(variance) : variance;
    }
    write_results(sum_.kept(), 1, store_, squares, launch.pointers[1], out_size_, 0, results);
    if (has_mean)
      write_results(sum_.kept(), 2, store_, means, launch.pointers[2], out_size_, 0, results);
    return XHAL_OK;
  }

  bool has_mean = false;

 private:
  Reduction<float> sum_, squares_;
  double correction_;
  bool root_;
  int64_t out_size_;
  StoreFn<double> store_;
};

Prepared prepare_var(const OpRequest& request, Refusal& refusal) {
  const xhal_tensor_desc &in = *request.operand(0), &out = *request.operand(1);
  const xhal_tensor_desc* mean = request.operand(2);
  ReducedDims dims;
  if (!match_dims(in, out, mean != nullptr ? *mean : out, request.attribute_ints("dims"), dims))
    return bad_dims(request, refusal);
  if (mean != nullptr && dtype_of(*mean) != dtype_of(out))
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 3,
                  "`mean` of `var` must have the format of `out`");
  auto op = std::make_unique<VarianceOp>(dims, dtype_of(in), dtype_of(out),
                                         request.attribute_float("correction"),
                                         request.attribute_int("sqrt") != 0);
  op->has_mean = mean != nullptr;
  return op;
}

}  // namespace

bool match_dims(const xhal_tensor_desc& in, const xhal_tensor_desc& out,
                const xhal_tensor_desc& second, std::span<const int64_t> list, ReducedDims& dims) {
  if (!same_sizes(out, second)) return false;
  std::array<bool, XHAL_MAX_DIMENSIONS> reduce{};
  for (uint32_t d = 0; d < in.ndim; ++d) reduce[d] = list.empty();
  for (int64_t dim : list) {
    if (dim < 0) dim += in.ndim;
    if (in.ndim == 0 && (dim == 0 || dim == -1)) continue;
    if (dim < 0 || dim >= in.ndim) return false;
    reduce[dim] = true;
  }
  const bool keeps = out.ndim == in.ndim;
  uint32_t at = 0;
  for (uint32_t d = 0; d < in.ndim; ++d) {
    if (reduce[d]) {
      dims.reduced_sizes[dims.reduced] = in.sizes[d];
      dims.reduced_in[dims.reduced++] = in.strides[d];
      if (keeps) ++at;
      continue;
    }
    dims.kept_sizes[dims.kept] = in.sizes[d];
    dims.kept_in[dims.kept] = in.strides[d];
    dims.kept_out[dims.kept] = out.strides[at];
    dims.kept_second[dims.kept++] = second.strides[at++];
  }
  return true;
}

std::span<const KernelEntry> reduce_ops() {
  static constexpr KernelEntry kOps[] = {
      {XHAL_OP_sum, prepare_reduce<Fold::sum>},
      {XHAL_OP_mean, prepare_reduce<Fold::sum, Finish::mean>},
      {XHAL_OP_prod, prepare_reduce<Fold::product>},
      {XHAL_OP_amax, prepare_reduce<Fold::max>},
      {XHAL_OP_amin, prepare_reduce<Fold::min>},
      {XHAL_OP_any, prepare_reduce<Fold::any>},
      {XHAL_OP_all, prepare_reduce<Fold::all>},
      {XHAL_OP_norm, prepare_norm},
      {XHAL_OP_var, prepare_var},
      {XHAL_OP_argmax, prepare_argmax},
      {XHAL_OP_argmin, prepare_argmin},
      {XHAL_OP_cumsum, prepare_cumsum},
  };
  return kOps;
}

}  // namespace xhal::cpu
