// SPDX-License-Identifier: Apache-2.0
// index.hpp: what the operators that read or write at positions given by a tensor have in common.
#pragma once

#include <array>
#include <atomic>
#include <string>

#include "iterate.hpp"
#include "op.hpp"

namespace xhal::cpu {

using Strides = std::array<int64_t, XHAL_MAX_DIMENSIONS>;

// One tensor of indices into a dimension of another.
struct IndexInput {
  uint32_t operand = 0;
  bool wide = false;          // i64, else i32
  int64_t bound = 0;          // legal: [0, bound), and with `negative` [-bound, bound)
  int64_t target_stride = 0;  // elements per step of the index
  IterPlan plan;              // over the index tensor in row-major order

  int64_t read(const void* base, int64_t offset) const {
    return wide ? static_cast<const int64_t*>(base)[offset]
                : static_cast<const int32_t*>(base)[offset];
  }
};

// Turns indices into element offsets, once a run: table[i] = sum over inputs of
// index[i] * target_stride.
struct IndexTable {
  int64_t count = 0;
  bool negative = false;  // negative indices count from the end
  std::array<IndexInput, XHAL_MAX_DIMENSIONS> inputs;
  int input_count = 0;

  void add(const xhal_tensor_desc& index, uint32_t operand, int64_t bound, int64_t target_stride);
  uint64_t bytes() const {
    return (static_cast<uint64_t>(count) * sizeof(int64_t) + 63) & ~uint64_t{63};
  }
  // XHAL_ERR_DEVICE and launch.error for the first index outside its bounds.
  xhal_status fill(const Launch& launch, std::string_view op, int64_t* table) const;
};

// A nest over `ndim` dimensions with the strides given for each operand.
IterPlan make_plan(uint32_t ndim, const int64_t* sizes,
                   std::initializer_list<const int64_t*> strides, bool keep_order = false);

// body(offsets, n) for runs of n elements along the innermost dimension of elements [begin, end)
// of the nest.
template <int kOperands, class Body>
void for_each_run(const IterPlan& plan, int64_t begin, int64_t end, Body&& body) {
  IterPosition at(plan, begin);
  while (begin < end) {
    const int64_t n = std::min(at.left(), end - begin);
    std::array<int64_t, kOperands> offsets;
    for (int o = 0; o < kOperands; ++o) offsets[o] = at.offset(o);
    body(offsets, n);
    at.advance(n);
    begin += n;
  }
}

// Copies a tensor of one dtype to another layout.
class SameTypeCopy {
 public:
  SameTypeCopy() = default;
  SameTypeCopy(const xhal_tensor_desc& from, const xhal_tensor_desc& to);
  void run(WorkerPool& pool, const void* from, void* to) const;

 private:
  IterPlan plan_;
  size_t item_bytes_ = 1;
};

// Row-major strides of these sizes.
Strides dense_strides(uint32_t ndim, const int64_t* sizes);
// dim counted from the end when negative; -1 when there is no such dimension.
int normal_dim(int64_t dim, uint32_t ndim);

// Calls f with an unsigned integer of the width of a dtype.
template <class F>
void with_bits(size_t item_bytes, F&& f) {
  switch (item_bytes) {
    case 1:
      return f(uint8_t{});
    case 2:
      return f(uint16_t{});
    case 4:
      return f(uint32_t{});
    default:
      return f(uint64_t{});
  }
}

Prepared prepare_embedding_grad(const OpRequest& request, Refusal& refusal);
Prepared prepare_scatter(const OpRequest& request, Refusal& refusal);
Prepared prepare_index_put(const OpRequest& request, Refusal& refusal);
Prepared prepare_index_add(const OpRequest& request, Refusal& refusal);
Prepared prepare_topk(const OpRequest& request, Refusal& refusal);
Prepared prepare_sort(const OpRequest& request, Refusal& refusal);
Prepared prepare_nonzero(const OpRequest& request, Refusal& refusal);

}  // namespace xhal::cpu
