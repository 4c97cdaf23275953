// SPDX-License-Identifier: Apache-2.0
// index.cpp: reading at positions given by a tensor: index_select, gather, index.
#include "index.hpp"

#include <algorithm>
#include <cstring>

namespace xhal::cpu {

constexpr int64_t kGrain = 16384;  // elements a chunk of simple moves

IterPlan make_plan(uint32_t ndim, const int64_t* sizes,
                   std::initializer_list<const int64_t*> strides, bool keep_order) {
  return plan_iteration(ndim, sizes, std::span(strides.begin(), strides.size()), keep_order);
}

Strides dense_strides(uint32_t ndim, const int64_t* sizes) {
  Strides strides{};
  int64_t step = 1;
  for (uint32_t d = ndim; d-- > 0; step *= sizes[d]) strides[d] = step;
  return strides;
}

int normal_dim(int64_t dim, uint32_t ndim) {
  const auto n = static_cast<int64_t>(ndim);
  if (dim < 0) dim += n;
  return dim >= 0 && dim < n ? static_cast<int>(dim) : -1;
}

void IndexTable::add(const xhal_tensor_desc& index, uint32_t operand, int64_t bound,
                     int64_t target_stride) {
  IndexInput& input = inputs[static_cast<size_t>(input_count++)];
  input.operand = operand;
  input.wide = dtype_of(index) == DType::i64;
  input.bound = bound;
  input.target_stride = target_stride;
  input.plan = make_plan(index.ndim, index.sizes, {index.strides}, true);
  count = element_count(index);
}

xhal_status IndexTable::fill(const Launch& launch, std::string_view op, int64_t* table) const {
  for (int k = 0; k < input_count; ++k) {
    const IndexInput& input = inputs[static_cast<size_t>(k)];
    const void* base = launch.pointers[input.operand];
    std::atomic<int64_t> first_bad{count};
    launch.pool.parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
      int64_t position = begin;
      const int64_t stride = input.plan.inner_stride(0);
      for_each_run<1>(input.plan, begin, end, [&](const auto& offsets, int64_t n) {
        for (int64_t i = 0; i < n; ++i, ++position) {
          int64_t value = input.read(base, offsets[0] + i * stride);
          if (negative && value < 0) value += input.bound;
          if (static_cast<uint64_t>(value) >= static_cast<uint64_t>(input.bound)) {
            int64_t seen = first_bad.load(std::memory_order_relaxed);
            while (position < seen && !first_bad.compare_exchange_weak(seen, position)) {
            }
            value = 0;
          }
          table[position] = (k == 0 ? 0 : table[position]) + value * input.target_stride;
        }
      });
    });
    const int64_t bad = first_bad.load();
    if (bad == count) continue;
    const int64_t value = input.read(base, IterPosition(input.plan, bad).offset(0));
    *launch.error =
        text(op, ": index ", value, " at position ", bad,
             input_count > 1 ? " of index tensor " + std::to_string(k) : std::string(),
             " is outside [", negative ? -input.bound : int64_t{0}, ", ", input.bound, ")");
    return XHAL_ERR_DEVICE;
  }
  return XHAL_OK;
}

SameTypeCopy::SameTypeCopy(const xhal_tensor_desc& from, const xhal_tensor_desc& to)
    : plan_(make_plan(to.ndim, to.sizes, {to.strides, from.strides})),
      item_bytes_(size_of(dtype_of(to))) {}

void SameTypeCopy::run(WorkerPool& pool, const void* from, void* to) const {
  const int64_t to_step = plan_.inner_stride(0), from_step = plan_.inner_stride(1);
  with_bits(item_bytes_, [&](auto bits) {
    using T = decltype(bits);
    const auto* source = static_cast<const T*>(from);
    auto* target = static_cast<T*>(to);
    pool.parallel_for(plan_.count, kGrain, [&](int64_t begin, int64_t end) {
      for_each_run<2>(plan_, begin, end, [&](const auto& offsets, int64_t n) {
        T* t = target + offsets[0];
        const T* s = source + offsets[1];
        if (to_step == 1 && from_step == 1) {
          std::memcpy(t, s, static_cast<size_t>(n) * sizeof(T));
        } else {
          for (int64_t i = 0; i < n; ++i) t[i * to_step] = s[i * from_step];
        }
      });
    });
  });
}

namespace {

// out[nest] = in[nest without the indexed dimensions + table[position of the index]]
class GatherOp final : public Op {
 public:
  uint32_t in = 0, out = 0;
  size_t item_bytes = 1;
  std::string_view name;
  IndexTable table;
  IterPlan plan;  // out, in, table

  xhal_status run(const Launch& launch) const override {
    if (plan.count == 0) return XHAL_OK;
    auto* offsets = static_cast<int64_t*>(launch.workspace);
    if (const xhal_status status = table.fill(launch, name, offsets); status != XHAL_OK)
      return status;
    with_bits(item_bytes, [&](auto bits) { move<decltype(bits)>(launch, offsets); });
    return XHAL_OK;
  }

 private:
  template <class T>
  void move(const Launch& launch, const int64_t* table_base) const {
    const auto* from = static_cast<const T*>(launch.pointers[in]);
    auto* to = static_cast<T*>(launch.pointers[out]);
    const int64_t to_step = plan.inner_stride(0), from_step = plan.inner_stride(1),
                  table_step = plan.inner_stride(2);
    launch.pool.parallel_for(plan.count, kGrain, [&](int64_t begin, int64_t end) {
      for_each_run<3>(plan, begin, end, [&](const auto& at, int64_t n) {
        T* t = to + at[0];
        const T* s = from + at[1];
        const int64_t* offset = table_base + at[2];
        if (table_step != 0) {
          for (int64_t i = 0; i < n; ++i)
            t[i * to_step] = s[i * from_step + offset[i * table_step]];
        } else if (to_step == 1 && from_step == 1) {
          std::memcpy(t, s + *offset, static_cast<size_t>(n) * sizeof(T));
        } else {
          for (int64_t i = 0; i < n; ++i) t[i * to_step] = s[i * from_step + *offset];
        }
      });
    });
  }
};

double bytes_of(const xhal_tensor_desc& t) {
  return static_cast<double>(element_count(t)) * static_cast<double>(size_of(dtype_of(t)));
}

// What index_select and index share: in, the indices, out, and the dimensions [first, first +
// count) they replace.
Prepared make_index(const OpRequest& request, Refusal& refusal, std::string_view name, int first,
                    int replaced, bool negative) {
  const auto& in = *request.operand(0);
  const auto indices = request.group(1);
  const auto& out = *request.operand(2);
  const uint32_t index_ndim = indices[0].ndim;

  if (dtype_of(in) != dtype_of(out))
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(2),
                  text(name, ": in and out must have the same dtype"));

  auto op = std::make_unique<GatherOp>();
  op->in = 0;
  op->out = request.first_operand(2);
  op->item_bytes = size_of(dtype_of(out));
  op->name = name;
  op->table.negative = negative;
  for (int k = 0; k < replaced; ++k)
    op->table.add(indices[static_cast<size_t>(k)],
                  request.first_operand(1) + static_cast<uint32_t>(k), in.sizes[first + k],
                  in.strides[first + k]);

  Strides in_strides{}, table_strides{};
  const Strides index_strides = dense_strides(index_ndim, indices[0].sizes);
  for (uint32_t d = 0; d < out.ndim; ++d) {
    const auto before = static_cast<uint32_t>(first);
    if (d < before) {
      in_strides[d] = in.strides[d];
    } else if (d < before + index_ndim) {
      table_strides[d] = index_strides[d - before];
    } else {
      in_strides[d] = in.strides[d - index_ndim + static_cast<uint32_t>(replaced)];
    }
  }
  op->plan = make_plan(out.ndim, out.sizes, {out.strides, in_strides.data(), table_strides.data()});
  op->workspace_bytes = op->table.bytes();
  op->bytes = 2 * bytes_of(out) + static_cast<double>(op->table.count * 8);
  return op;
}

Prepared prepare_index_select(const OpRequest& request, Refusal& refusal) {
  const auto& in = *request.operand(0);
  const int dim = normal_dim(request.attribute_int("dim"), in.ndim);
  if (dim < 0)
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0, "index_select: in has no such dimension");
  return make_index(request, refusal, "index_select", dim, 1, false);
}

Prepared prepare_index(const OpRequest& request, Refusal& refusal) {
  const auto& in = *request.operand(0);
  const auto indices = request.group(1);
  const auto dims = request.attribute_ints("dims");
  if (indices.empty() || dims.size() != indices.size())
    return refuse(
        refusal, XHAL_ERR_INVALID_ARGUMENT, 2,
        "index: `dims` must name one dimension for each index tensor, and there must be one");
  const int first = normal_dim(dims[0], in.ndim);
  for (size_t k = 0; k < dims.size(); ++k)
    if (first < 0 || normal_dim(dims[k], in.ndim) != first + static_cast<int>(k))
      return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
                    "index: `dims` must be adjacent dimensions of in, in ascending order");
  return make_index(request, refusal, "index", first, static_cast<int>(dims.size()), true);
}

Prepared prepare_gather(const OpRequest& request, Refusal& refusal) {
  const auto& in = *request.operand(0);
  const auto& index = *request.operand(1);
  const auto& out = *request.operand(2);
  const auto invalid = [&](uint32_t operand, std::string reason) {
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + operand, "gather: " + reason);
  };
  if (dtype_of(in) != dtype_of(out)) return invalid(2, "in and out must have the same dtype");
  if (in.ndim != index.ndim) return invalid(1, "index must have as many dimensions as in");
  const int dim = in.ndim == 0 ? 0 : normal_dim(request.attribute_int("dim"), in.ndim);
  if (dim < 0) return invalid(0, "in has no such dimension");
  for (uint32_t d = 0; d < in.ndim; ++d)
    if (static_cast<int>(d) != dim && index.sizes[d] > in.sizes[d])
      return invalid(1, text("index is larger than in in dimension ", d));

  auto op = std::make_unique<GatherOp>();
  op->in = 0;
  op->out = 2;
  op->item_bytes = size_of(dtype_of(out));
  op->name = "gather";
  const bool scalar = in.ndim == 0;
  op->table.add(index, 1, scalar ? 1 : in.sizes[dim], scalar ? 0 : in.strides[dim]);
  Strides in_strides{};
  std::copy_n(in.strides, in.ndim, in_strides.begin());
  if (!scalar) in_strides[static_cast<size_t>(dim)] = 0;
  const Strides table_strides = dense_strides(index.ndim, index.sizes);
  op->plan = make_plan(out.ndim, out.sizes, {out.strides, in_strides.data(), table_strides.data()});
  op->workspace_bytes = op->table.bytes();
  op->bytes = 2 * bytes_of(out) + bytes_of(index);
  return op;
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_index_select, prepare_index_select},
    {XHAL_OP_embedding_grad, prepare_embedding_grad},
    {XHAL_OP_gather, prepare_gather},
    {XHAL_OP_scatter, prepare_scatter},
    {XHAL_OP_index, prepare_index},
    {XHAL_OP_index_put, prepare_index_put},
    {XHAL_OP_index_add, prepare_index_add},
    {XHAL_OP_topk, prepare_topk},
    {XHAL_OP_sort, prepare_sort},
    {XHAL_OP_nonzero, prepare_nonzero},
};

}  // namespace

std::span<const KernelEntry> index_ops() { return kOps; }

}  // namespace xhal::cpu
