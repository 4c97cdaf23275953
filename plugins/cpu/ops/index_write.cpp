// SPDX-License-Identifier: Apache-2.0
// index_write.cpp: writing at positions given by a tensor: scatter, index_put, index_add.
//
// Positions may repeat, so writes to one element happen in the order of the index: threads share
// the work along a dimension that is not indexed, where no two of them meet.
#include <algorithm>
#include <cstring>

#include "convert.hpp"
#include "index.hpp"
#include "xhal/half.hpp"

namespace xhal::cpu {
namespace {

enum class Reduce : uint8_t { set, add, multiply };

struct BoolCell {
  uint8_t value;
};

// target = target (reduce) source * alpha
template <class T, class S>
void combine(T& target, S source, Reduce reduce, T alpha) {
  T value;
  if constexpr (std::is_same_v<S, Bf16> || std::is_same_v<S, F16>) {
    value = to_float(source);
  } else {
    value = source;
  }
  if constexpr (std::is_same_v<T, BoolCell>) {
    const bool x = value.value != 0, y = target.value != 0;
    target.value = reduce == Reduce::multiply ? (x && y) : (x || y);
  } else if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<
        std::conditional_t<(sizeof(T) < 4), int32_t, T>>;  // wraps, without promotion's overflow
    const U x = static_cast<U>(value), y = static_cast<U>(target), a = static_cast<U>(alpha);
    target = static_cast<T>(reduce == Reduce::multiply ? y * x : y + a * x);
  } else {
    target = reduce == Reduce::multiply ? target * value : target + alpha * value;
  }
}

class WriteOp final : public Op {
 public:
  std::string_view name;
  DType type = DType::f32;
  Reduce reduce = Reduce::set;
  bool has_source = true, has_alpha = false;
  uint32_t in = 0, source = 0, out = 0;
  IndexTable table;
  uint32_t ndim = 0;
  std::array<int64_t, XHAL_MAX_DIMENSIONS> sizes{};
  Strides target_strides{}, source_strides{}, table_strides{};
  bool indexed[XHAL_MAX_DIMENSIONS] = {};
  SameTypeCopy copy;                   // in to out
  IterPlan shadow_load, shadow_store;  // {in, shadow} and {out, shadow}
  uint64_t shadow_bytes = 0;           // f32 copy of out in which narrow floats are accumulated

  void plan(const xhal_tensor_desc& in_tensor, const xhal_tensor_desc& out_tensor);
  xhal_status run(const Launch& launch) const override;

 private:
  template <class T>
  void set(const Launch& launch, const int64_t* offsets, const T* from) const;
  template <class T, class S>
  void accumulate(const Launch& launch, const int64_t* offsets, T* to, const S* from) const;
  template <class T>
  void accumulate_typed(const Launch& launch, const int64_t* offsets, const void* from) const {
    accumulate(launch, offsets, static_cast<T*>(launch.pointers[out]), static_cast<const T*>(from));
  }
  template <class Body>
  void for_each_part(const Launch& launch, Body&& body) const;

  int shared_dim_ = -1;  // threads share the work along it
  int64_t grain_ = 1;
};

void WriteOp::plan(const xhal_tensor_desc& in_tensor, const xhal_tensor_desc& out_tensor) {
  int64_t count = 1;
  for (uint32_t d = 0; d < ndim; ++d) {
    count *= sizes[d];
    if (!indexed[d] && sizes[d] > 1 &&
        (shared_dim_ < 0 || sizes[d] > sizes[static_cast<size_t>(shared_dim_)]))
      shared_dim_ = static_cast<int>(d);
  }
  if (shared_dim_ >= 0) {
    const int64_t slice =
        std::max<int64_t>(1, count / std::max<int64_t>(1, sizes[static_cast<size_t>(shared_dim_)]));
    grain_ = std::max<int64_t>(16, 16384 / slice);
  }
  const bool narrow = type == DType::bf16 || type == DType::f16;
  if (reduce != Reduce::set && narrow) {
    const Strides dense = dense_strides(out_tensor.ndim, out_tensor.sizes);
    shadow_load = make_plan(out_tensor.ndim, out_tensor.sizes, {dense.data(), in_tensor.strides});
    shadow_store = make_plan(out_tensor.ndim, out_tensor.sizes, {dense.data(), out_tensor.strides});
    shadow_bytes = static_cast<uint64_t>(element_count(out_tensor)) * sizeof(float);
  }
  workspace_bytes = table.bytes() + shadow_bytes;
  bytes = static_cast<double>(size_of(type)) *
          (2 * static_cast<double>(element_count(out_tensor)) + 3 * static_cast<double>(count));
  copy = SameTypeCopy(in_tensor, out_tensor);
}

// body(plan over {target, source, table}, its offsets included) for disjoint parts of the nest.
template <class Body>
void WriteOp::for_each_part(const Launch& launch, Body&& body) const {
  auto part = [&](int64_t begin, int64_t end) {
    auto part_sizes = sizes;
    if (shared_dim_ >= 0) part_sizes[static_cast<size_t>(shared_dim_)] = end - begin;
    IterPlan p =
        make_plan(ndim, part_sizes.data(),
                  {target_strides.data(), source_strides.data(), table_strides.data()}, true);
    if (shared_dim_ >= 0) {
      const auto d = static_cast<size_t>(shared_dim_);
      p.offsets[0] += begin * target_strides[d];
      p.offsets[1] += begin * source_strides[d];
      p.offsets[2] += begin * table_strides[d];
    }
    body(p);
  };
  if (shared_dim_ < 0) return part(0, 1);
  launch.pool.parallel_for(sizes[static_cast<size_t>(shared_dim_)], grain_, part);
}

template <class T>
void WriteOp::set(const Launch& launch, const int64_t* offsets, const T* from) const {
  auto* to = static_cast<T*>(launch.pointers[out]);
  for_each_part(launch, [&](const IterPlan& p) {
    const int64_t to_step = p.inner_stride(0), from_step = p.inner_stride(1),
                  table_step = p.inner_stride(2);
    for_each_run<3>(p, 0, p.count, [&](const auto& at, int64_t n) {
      T* t = to + at[0];
      const T* s = from + at[1];
      const int64_t* offset = offsets + at[2];
      if (table_step == 0 && to_step == 1 && from_step == 1) {
        std::memcpy(t + *offset, s, static_cast<size_t>(n) * sizeof(T));
      } else {
        for (int64_t i = 0; i < n; ++i) t[i * to_step + offset[i * table_step]] = s[i * from_step];
      }
    });
  });
}

template <class T, class S>
void WriteOp::accumulate(const Launch& launch, const int64_t* offsets, T* to, const S* from) const {
  T alpha{};
  if constexpr (!std::is_same_v<T, BoolCell>) {
    alpha = T{1};
    if (has_alpha)
      alpha = std::is_integral_v<T> ? static_cast<T>(launch.scalars[0].as_int())
                                    : static_cast<T>(launch.scalars[0].as_double());
  }
  const Reduce how = reduce;
  for_each_part(launch, [&](const IterPlan& p) {
    const int64_t to_step = p.inner_stride(0), from_step = p.inner_stride(1),
                  table_step = p.inner_stride(2);
    for_each_run<3>(p, 0, p.count, [&](const auto& at, int64_t n) {
      T* t = to + at[0];
      const S* s = from + at[1];
      const int64_t* offset = offsets + at[2];
      if (table_step == 0 && to_step == 1 && from_step == 1 && how == Reduce::add) {
        t += *offset;
        for (int64_t i = 0; i < n; ++i) combine(t[i], s[i], Reduce::add, alpha);
      } else {
        for (int64_t i = 0; i < n; ++i)
          combine(t[i * to_step + offset[i * table_step]], s[i * from_step], how, alpha);
      }
    });
  });
}

xhal_status WriteOp::run(const Launch& launch) const {
  auto* offsets = static_cast<int64_t*>(launch.workspace);
  if (const xhal_status status = table.fill(launch, name, offsets); status != XHAL_OK)
    return status;

  alignas(8) char scalar[8];
  const void* from = has_source ? launch.pointers[source] : scalar;
  if (!has_source) {
    const Scalar& value = launch.scalars[0];
    if (is_float(type)) {
      const auto x = static_cast<float>(value.as_double());
      storer<float>(type, true)(&x, 1, scalar, 1);
    } else {
      const int64_t x = type == DType::boolean ? value.as_double() != 0 : value.as_int();
      storer<int64_t>(type, true)(&x, 1, scalar, 1);
    }
  }

  auto* shadow = reinterpret_cast<float*>(static_cast<char*>(launch.workspace) + table.bytes());
  if (shadow_bytes != 0) {
    const auto load = loader<float>(type, shadow_load.inner_stride(1) == 1);
    const auto* base = static_cast<const uint16_t*>(launch.pointers[in]);
    launch.pool.parallel_for(shadow_load.count, 16384, [&](int64_t begin, int64_t end) {
      for_each_run<2>(shadow_load, begin, end, [&](const auto& at, int64_t n) {
        load(base + at[1], shadow_load.inner_stride(1), static_cast<size_t>(n), shadow + at[0]);
      });
    });
  } else if (launch.pointers[in] != launch.pointers[out]) {
    copy.run(launch.pool, launch.pointers[in], launch.pointers[out]);
  }

  const bool any = table.count > 0 && !std::count(sizes.begin(), sizes.begin() + ndim, 0);
  if (any && reduce == Reduce::set) {
    with_bits(size_of(type),
              [&](auto bits) { set(launch, offsets, static_cast<const decltype(bits)*>(from)); });
  } else if (any) {
    switch (type) {
      case DType::f32:
        accumulate_typed<float>(launch, offsets, from);
        break;
      case DType::bf16:
        accumulate(launch, offsets, shadow, static_cast<const Bf16*>(from));
        break;
      case DType::f16:
        accumulate(launch, offsets, shadow, static_cast<const F16*>(from));
        break;
      case DType::i8:
        accumulate_typed<int8_t>(launch, offsets, from);
        break;
      case DType::u8:
        accumulate_typed<uint8_t>(launch, offsets, from);
        break;
      case DType::i16:
        accumulate_typed<int16_t>(launch, offsets, from);
        break;
      case DType::i32:
        accumulate_typed<int32_t>(launch, offsets, from);
        break;
      case DType::i64:
        accumulate_typed<int64_t>(launch, offsets, from);
        break;
      default:
        accumulate_typed<BoolCell>(launch, offsets, from);
        break;
    }
  }

  if (shadow_bytes != 0) {
    const auto store = storer<float>(type, shadow_store.inner_stride(1) == 1);
    auto* base = static_cast<uint16_t*>(launch.pointers[out]);
    launch.pool.parallel_for(shadow_store.count, 16384, [&](int64_t begin, int64_t end) {
      for_each_run<2>(shadow_store, begin, end, [&](const auto& at, int64_t n) {
        store(shadow + at[0], static_cast<size_t>(n), base + at[1], shadow_store.inner_stride(1));
      });
    });
  }
  return XHAL_OK;
}

// Strides by which the nest moves through the result: out's, or the dense ones of its f32 copy.
Strides result_strides(const WriteOp& op, const xhal_tensor_desc& out) {
  Strides strides{};
  std::copy_n(out.strides, out.ndim, strides.begin());
  const bool narrow = op.type == DType::bf16 || op.type == DType::f16;
  return op.reduce != Reduce::set && narrow ? dense_strides(out.ndim, out.sizes) : strides;
}

}  // namespace

Prepared prepare_scatter(const OpRequest& request, Refusal& refusal) {
  const auto& in = *request.operand(0);
  const auto& index = *request.operand(1);
  const auto* src = request.operand(2);
  const uint32_t out_at = request.first_operand(3);
  const auto& out = *request.operand(3);
  const auto invalid = [&](uint32_t operand, std::string reason) {
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + operand, "scatter: " + reason);
  };
  if (dtype_of(in) != dtype_of(out)) return invalid(out_at, "in and out must have the same dtype");
  if (index.ndim != in.ndim) return invalid(1, "index must have as many dimensions as in");
  const bool scalar = in.ndim == 0;
  const int dim = scalar ? 0 : normal_dim(request.attribute_int("dim"), in.ndim);
  if (dim < 0) return invalid(0, "in has no such dimension");
  const int64_t reduce = request.attribute_int("reduce");
  if (reduce < 0 || reduce > 2)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0, "scatter: reduce must be 0, 1 or 2");
  for (uint32_t d = 0; d < in.ndim; ++d)
    if (static_cast<int>(d) != dim && index.sizes[d] > in.sizes[d])
      return invalid(1, text("index is larger than in in dimension ", d));
  if (src != nullptr) {
    if (dtype_of(*src) != dtype_of(out)) return invalid(2, "src must have in's dtype");
    if (src->ndim != in.ndim) return invalid(2, "src must have as many dimensions as in");
    for (uint32_t d = 0; d < in.ndim; ++d)
      if (index.sizes[d] > src->sizes[d])
        return invalid(2, text("src is smaller than index in dimension ", d));
  }

  auto op = std::make_unique<WriteOp>();
  op->name = "scatter";
  op->type = dtype_of(out);
  op->reduce = static_cast<Reduce>(reduce);
  op->has_source = src != nullptr;
  op->source = 2;
  op->out = out_at;
  op->ndim = index.ndim;
  std::copy_n(index.sizes, index.ndim, op->sizes.begin());
  op->target_strides = result_strides(*op, out);
  if (src != nullptr) std::copy_n(src->strides, src->ndim, op->source_strides.begin());
  op->table_strides = dense_strides(index.ndim, index.sizes);
  const auto d = static_cast<size_t>(dim);
  op->table.add(index, 1, scalar ? 1 : in.sizes[dim], scalar ? 0 : op->target_strides[d]);
  if (!scalar) {
    op->target_strides[d] = 0;
    op->indexed[d] = true;
  }
  op->plan(in, out);
  return op;
}

Prepared prepare_index_put(const OpRequest& request, Refusal& refusal) {
  const auto& in = *request.operand(0);
  const auto& values = *request.operand(1);
  const auto indices = request.group(2);
  const auto dims = request.attribute_ints("dims");
  const uint32_t first_index = request.first_operand(2), out_at = request.first_operand(3);
  const auto& out = *request.operand(3);
  const auto invalid = [&](uint32_t operand, std::string reason) {
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + operand, "index_put: " + reason);
  };
  if (dtype_of(in) != dtype_of(out) || dtype_of(values) != dtype_of(out))
    return invalid(1, "in, values and out must have the same dtype");
  if (indices.empty() || dims.size() != indices.size())
    return invalid(first_index,
                   "`dims` must name one dimension for each index tensor, and there must be one");
  const int first = normal_dim(dims[0], in.ndim);
  for (size_t k = 0; k < dims.size(); ++k) {
    if (first < 0 || normal_dim(dims[k], in.ndim) != first + static_cast<int>(k))
      return invalid(first_index, "`dims` must be adjacent dimensions of in, in ascending order");
    if (!same_sizes(indices[k], indices[0]))
      return invalid(first_index, "all indices must have the same sizes");
  }

  auto op = std::make_unique<WriteOp>();
  op->name = "index_put";
  op->type = dtype_of(out);
  op->reduce = request.attribute_int("accumulate") != 0 ? Reduce::add : Reduce::set;
  op->source = 1;
  op->out = out_at;
  const auto replaced = static_cast<uint32_t>(dims.size()), before = static_cast<uint32_t>(first);
  const uint32_t index_ndim = indices[0].ndim;
  op->ndim = in.ndim - replaced + index_ndim;
  if (op->ndim > XHAL_MAX_DIMENSIONS || values.ndim != op->ndim)
    return invalid(1, "values has the wrong number of dimensions");

  const Strides target = result_strides(*op, out);
  op->table.negative = true;
  for (uint32_t k = 0; k < replaced; ++k)
    op->table.add(indices[k], first_index + k, in.sizes[before + k], target[before + k]);
  const Strides index_strides = dense_strides(index_ndim, indices[0].sizes);
  for (uint32_t d = 0; d < op->ndim; ++d) {
    if (d >= before && d < before + index_ndim) {
      op->sizes[d] = indices[0].sizes[d - before];
      op->table_strides[d] = index_strides[d - before];
      op->indexed[d] = true;
    } else {
      const uint32_t from = d < before ? d : d - index_ndim + replaced;
      op->sizes[d] = in.sizes[from];
      op->target_strides[d] = target[from];
    }
    if (values.sizes[d] != op->sizes[d])
      return invalid(1, text("values has size ", values.sizes[d], " in dimension ", d,
                             " instead of ", op->sizes[d]));
    op->source_strides[d] = values.strides[d];
  }
  op->plan(in, out);
  return op;
}

Prepared prepare_index_add(const OpRequest& request, Refusal& refusal) {
  const auto& in = *request.operand(0);
  const auto& index = *request.operand(1);
  const auto& src = *request.operand(2);
  const auto& out = *request.operand(3);
  const auto invalid = [&](uint32_t operand, std::string reason) {
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + operand, "index_add: " + reason);
  };
  if (dtype_of(in) != dtype_of(out) || dtype_of(src) != dtype_of(out))
    return invalid(2, "in, src and out must have the same dtype");
  const int dim = normal_dim(request.attribute_int("dim"), in.ndim);
  if (dim < 0) return invalid(0, "in has no such dimension");

  auto op = std::make_unique<WriteOp>();
  op->name = "index_add";
  op->type = dtype_of(out);
  op->reduce = Reduce::add;
  op->has_alpha = true;
  op->source = 2;
  op->out = 3;
  op->ndim = in.ndim;
  std::copy_n(src.sizes, src.ndim, op->sizes.begin());
  std::copy_n(src.strides, src.ndim, op->source_strides.begin());
  op->target_strides = result_strides(*op, out);
  const auto d = static_cast<size_t>(dim);
  op->table.add(index, 1, in.sizes[dim], op->target_strides[d]);
  op->table_strides[d] = 1;
  op->target_strides[d] = 0;
  op->indexed[d] = true;
  op->plan(in, out);
  return op;
}

}  // namespace xhal::cpu
