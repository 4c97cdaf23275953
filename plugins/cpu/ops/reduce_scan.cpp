// SPDX-License-Identifier: Apache-2.0
// reduce_scan.cpp: reductions that need the order of the elements: argmax, argmin, cumsum.
#include <algorithm>
#include <cmath>

#include "convert.hpp"
#include "iterate.hpp"
#include "reduce.hpp"

namespace xhal::cpu {
namespace {

constexpr int64_t kColumns = 256;
constexpr int64_t kGrain = 16384;  // elements

template <class T>
FoldFns<T> fold_fns(Fold fold) {
  if constexpr (std::is_same_v<T, float>) {
    return float_fold(fold);
  } else {
    return int_fold(fold);
  }
}

template <class T>
bool is_nan(T x) {
  return x != x;
}

// Whether x takes the place of `best`, which came before it.
template <class T>
bool beats(T x, T best, bool largest) {
  if (is_nan(best)) return false;
  return is_nan(x) || (largest ? x > best : x < best);
}

template <class T>
class ArgOp final : public Op {
 public:
  ArgOp(const OpRequest& request, const ReducedDims& dims, bool largest)
      : largest_(largest),
        fns_(fold_fns<T>(largest ? Fold::max : Fold::min)),
        has_value_(request.operand(1) != nullptr),
        index_operand_(request.first_operand(2)) {
    const DType type = dtype_of(*request.operand(0));
    size_ = static_cast<int64_t>(size_of(type));
    const int64_t* kept[] = {dims.kept_in.data(), dims.kept_out.data(), dims.kept_second.data()};
    kept_ = plan_iteration(dims.kept, dims.kept_sizes.data(), kept);
    const int64_t* reduced[] = {dims.reduced_in.data()};
    reduced_ = plan_iteration(dims.reduced, dims.reduced_sizes.data(), reduced, true);
    by_columns_ =
        kept_.inner() > 1 && (reduced_.inner() == 1 ||
                              std::abs(kept_.inner_stride(0)) < std::abs(reduced_.inner_stride(0)));
    stride_ = by_columns_ ? kept_.inner_stride(0) : reduced_.inner_stride(0);
    load_ = loader<T>(type, stride_ == 1);
    store_value_ = storer<T>(type, false);
  }

  xhal_status run(const Launch& launch) const override {
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, reduced_.count));
    if (by_columns_) {
      const int64_t tiles = (kept_.inner() + kColumns - 1) / kColumns;
      launch.pool.parallel_for(kept_.count / kept_.inner() * tiles,
                               std::max<int64_t>(1, grain / kColumns),
                               [&](int64_t begin, int64_t end) {
                                 for (int64_t i = begin; i < end; ++i)
                                   search_columns(launch, i, tiles);
                               });
    } else {
      launch.pool.parallel_for(kept_.count, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) search_one(launch, i);
      });
    }
    return XHAL_OK;
  }

 private:
  void write(const Launch& launch, const IterPosition& at, int64_t column, int64_t index,
             T value) const {
    auto* indices = static_cast<int64_t*>(launch.pointers[index_operand_]);
    indices[at.offset(1) + column * kept_.inner_stride(1)] = index;
    if (!has_value_) return;
    char* values = static_cast<char*>(launch.pointers[1]);
    store_value_(&value, 1, values + (at.offset(2) + column * kept_.inner_stride(2)) * size_, 1);
  }

  void search_one(const Launch& launch, int64_t result) const {
    const IterPosition kept(kept_, result);
    const char* base = static_cast<const char*>(launch.pointers[0]) + kept.offset(0) * size_;
    alignas(64) T block[kFoldRun];
    T best{};
    int64_t best_index = -1;
    IterPosition at(reduced_, 0);
    for (int64_t done = 0; done < reduced_.count;) {
      const int64_t n = std::min(at.left(), static_cast<int64_t>(kFoldRun));
      load_(base + at.offset(0) * size_, stride_, static_cast<size_t>(n), block);
      const T top = static_cast<T>(fns_.run(block, static_cast<size_t>(n), 0));
      if (best_index < 0 || beats(top, best, largest_)) {
        const T* found =
            std::find_if(block, block + n, [&](T x) { return is_nan(top) ? is_nan(x) : x == top; });
        best = top;
        best_index = done + (found - block);
        if (is_nan(best)) break;
      }
      at.advance(n);
      done += n;
    }
    write(launch, kept, 0, best_index, best);
  }

  void search_columns(const Launch& launch, int64_t tile, int64_t tiles) const {
    const int64_t first = tile % tiles * kColumns;
    const int64_t columns = std::min(kColumns, kept_.inner() - first);
    const IterPosition kept(kept_, tile / tiles * kept_.inner() + first);
    const char* base = static_cast<const char*>(launch.pointers[0]) + kept.offset(0) * size_;
    alignas(64) T row[kColumns], best[kColumns];
    int64_t index[kColumns] = {};
    IterPosition at(reduced_, 0);
    for (int64_t i = 0; i < reduced_.count; ++i, at.advance(1)) {
      load_(base + at.offset(0) * size_, stride_, static_cast<size_t>(columns),
            i == 0 ? best : row);
      if (i == 0) continue;
      for (int64_t c = 0; c < columns; ++c) {
        const bool better = beats(row[c], best[c], largest_);
        best[c] = better ? row[c] : best[c];
        index[c] = better ? i : index[c];
      }
    }
    for (int64_t c = 0; c < columns; ++c) write(launch, kept, c, index[c], best[c]);
  }

  bool largest_;
  FoldFns<T> fns_;
  bool has_value_;
  uint32_t index_operand_;
  int64_t size_, stride_;
  IterPlan kept_, reduced_;  // kept: in, index, value
  bool by_columns_;
  LoadFn<T> load_;
  StoreFn<T> store_value_;
};

Prepared prepare_arg(const OpRequest& request, bool largest, Refusal& refusal) {
  const xhal_tensor_desc &in = *request.operand(0), &index = *request.operand(2);
  const xhal_tensor_desc* value = request.operand(1);
  const int64_t dim = request.attribute_int("dim");
  const std::span<const int64_t> list =
      request.attribute_int("all") != 0 ? std::span<const int64_t>() : std::span(&dim, 1);
  ReducedDims dims;
  if (!match_dims(in, index, value != nullptr ? *value : index, list, dims))
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(2),
                  text("`", op_name(request.id()),
                       "` needs a dim that the input has, and outputs that both keep it or leave "
                       "it out"));
  if (element_count(in) == 0 && element_count(index) != 0)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1,
                  text("`", op_name(request.id()), "` of nothing has no value"));
  if (value != nullptr && dtype_of(*value) != dtype_of(in))
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 2,
                  text("`value` of `", op_name(request.id()), "` must have the input's format"));
  if (is_float(dtype_of(in))) return std::make_unique<ArgOp<float>>(request, dims, largest);
  return std::make_unique<ArgOp<int64_t>>(request, dims, largest);
}

template <class T>
class CumsumOp final : public Op {
 public:
  using A = AccumulatorOf<T>;

  CumsumOp(const xhal_tensor_desc& in, const xhal_tensor_desc& out, uint32_t dim)
      : length_(in.sizes[dim]), in_step_(in.strides[dim]), out_step_(out.strides[dim]) {
    std::array<int64_t, XHAL_MAX_DIMENSIONS> sizes{}, in_strides{}, out_strides{};
    uint32_t dims = 0;
    for (uint32_t d = 0; d < in.ndim; ++d) {
      if (d == dim) continue;
      sizes[dims] = in.sizes[d];
      in_strides[dims] = in.strides[d];
      out_strides[dims++] = out.strides[d];
    }
    const int64_t* strides[] = {in_strides.data(), out_strides.data()};
    outer_ = plan_iteration(dims, sizes.data(), strides);
    by_columns_ = outer_.inner() > 1 && std::abs(outer_.inner_stride(0)) < std::abs(in_step_);
    in_size_ = static_cast<int64_t>(size_of(dtype_of(in)));
    out_size_ = static_cast<int64_t>(size_of(dtype_of(out)));
    load_ = loader<T>(dtype_of(in), false);
    store_ = storer<A>(dtype_of(out), false);
  }

  xhal_status run(const Launch& launch) const override {
    if (length_ == 0 || outer_.count == 0) return XHAL_OK;
    const int64_t grain = std::max<int64_t>(1, kGrain / length_);
    const int64_t tiles = (outer_.inner() + kColumns - 1) / kColumns;
    const int64_t units = by_columns_ ? outer_.count / outer_.inner() * tiles : outer_.count;
    launch.pool.parallel_for(units, by_columns_ ? std::max<int64_t>(1, grain / kColumns) : grain,
                             [&](int64_t begin, int64_t end) {
                               for (int64_t i = begin; i < end; ++i) {
                                 if (by_columns_) {
                                   sum_columns(launch, i, tiles);
                                 } else {
                                   sum_row(launch, i);
                                 }
                               }
                             });
    return XHAL_OK;
  }

 private:
  static A plus(A a, T x) {
    if constexpr (std::is_same_v<T, int64_t>)
      return static_cast<A>(static_cast<uint64_t>(a) + static_cast<uint64_t>(x));
    return a + static_cast<A>(x);
  }

  void sum_row(const Launch& launch, int64_t index) const {
    const IterPosition at(outer_, index);
    const char* from = static_cast<const char*>(launch.pointers[0]) + at.offset(0) * in_size_;
    char* to = static_cast<char*>(launch.pointers[1]) + at.offset(1) * out_size_;
    T block[512];
    A sums[512];
    A sum = 0;
    for (int64_t i = 0; i < length_; i += 512) {
      const int64_t n = std::min<int64_t>(512, length_ - i);
      load_(from + i * in_step_ * in_size_, in_step_, static_cast<size_t>(n), block);
      for (int64_t k = 0; k < n; ++k) sums[k] = sum = plus(sum, block[k]);
      store_(sums, static_cast<size_t>(n), to + i * out_step_ * out_size_, out_step_);
    }
  }

  void sum_columns(const Launch& launch, int64_t tile, int64_t tiles) const {
    const int64_t first = tile % tiles * kColumns;
    const auto columns = static_cast<size_t>(std::min(kColumns, outer_.inner() - first));
    const IterPosition at(outer_, tile / tiles * outer_.inner() + first);
    const char* from = static_cast<const char*>(launch.pointers[0]) + at.offset(0) * in_size_;
    char* to = static_cast<char*>(launch.pointers[1]) + at.offset(1) * out_size_;
    T row[kColumns];
    A sums[kColumns] = {};
    for (int64_t i = 0; i < length_; ++i) {
      load_(from + i * in_step_ * in_size_, outer_.inner_stride(0), columns, row);
      for (size_t c = 0; c < columns; ++c) sums[c] = plus(sums[c], row[c]);
      store_(sums, columns, to + i * out_step_ * out_size_, outer_.inner_stride(1));
    }
  }

  int64_t length_, in_step_, out_step_, in_size_, out_size_;
  IterPlan outer_;
  bool by_columns_;
  LoadFn<T> load_;
  StoreFn<A> store_;
};

}  // namespace

Prepared prepare_argmax(const OpRequest& request, Refusal& refusal) {
  return prepare_arg(request, true, refusal);
}

Prepared prepare_argmin(const OpRequest& request, Refusal& refusal) {
  return prepare_arg(request, false, refusal);
}

Prepared prepare_cumsum(const OpRequest& request, Refusal& refusal) {
  xhal_tensor_desc in = *request.operand(0), out = *request.operand(1);
  int64_t dim = request.attribute_int("dim");
  if (in.ndim == 0 && (dim == 0 || dim == -1)) {  // a single value is a row of one
    in.ndim = out.ndim = 1;
    in.sizes[0] = out.sizes[0] = 1;
    in.strides[0] = out.strides[0] = 1;
  }
  if (dim < 0) dim += in.ndim;
  if (dim < 0 || dim >= in.ndim)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
                  text("`cumsum` has no dimension ", request.attribute_int("dim")));
  const auto d = static_cast<uint32_t>(dim);
  if (is_float(dtype_of(in))) return std::make_unique<CumsumOp<float>>(in, out, d);
  return std::make_unique<CumsumOp<int64_t>>(in, out, d);
}

}  // namespace xhal::cpu
