// SPDX-License-Identifier: Apache-2.0
// index_embedding.cpp: the gradient of an embedding: rows of the gradient, summed by the index
// they came from.
//
// The index is sorted by counting, which keeps the order of equal ones; then every row of the
// result is the sum of its own list, in order, by one thread. Nothing is added twice to memory that
// two threads share.
#include <algorithm>
#include <cstring>

#include "convert.hpp"
#include "index.hpp"

namespace xhal::cpu {
namespace {

class EmbeddingGradOp final : public Op {
 public:
  DType type = DType::f32;
  int64_t rows = 0, width = 0, padding = -1;
  int64_t grad_width_stride = 1, row_stride = 0, width_stride = 1;
  IndexTable table;    // index[i] itself
  IterPlan grad_rows;  // where row i of the gradient begins

  xhal_status run(const Launch& launch) const override {
    auto* index = static_cast<int64_t*>(launch.workspace);
    if (const xhal_status status = table.fill(launch, "embedding_grad", index); status != XHAL_OK)
      return status;
    auto* first = index + table.bytes() / sizeof(int64_t);  // [rows + 2]
    auto* order = first + rows + 2;  // [count]: offsets of gradient rows, by index
    sort_rows(index, first, order);

    const auto* grad = static_cast<const char*>(launch.pointers[0]);
    auto* out = static_cast<char*>(launch.pointers[2]);
    const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width));
    launch.pool.parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        sum_row(grad, std::span(order + first[row], order + first[row + 1]),
                out + row * row_stride * static_cast<int64_t>(size_of(type)));
    });
    return XHAL_OK;
  }

 private:
  void sort_rows(const int64_t* index, int64_t* first, int64_t* order) const {
    std::fill_n(first, rows + 2, 0);
    for (int64_t i = 0; i < table.count; ++i)
      if (index[i] != padding) ++first[index[i] + 2];
    for (int64_t r = 2; r < rows + 2; ++r) first[r] += first[r - 1];
    // first[r + 1] is where the next of row r goes; in the end it is where row r + 1 begins.
    int64_t i = 0;
    for_each_run<1>(grad_rows, 0, table.count, [&](const auto& at, int64_t n) {
      for (int64_t e = 0; e < n; ++e, ++i)
        if (index[i] != padding)
          order[first[index[i] + 1]++] = at[0] + e * grad_rows.inner_stride(0);
    });
  }

  void sum_row(const char* grad, std::span<const int64_t> from, char* to) const {
    constexpr int64_t kPart = 512;
    const auto item = static_cast<int64_t>(size_of(type));
    const auto load = loader<float>(type, grad_width_stride == 1);
    const auto store = storer<float>(type, width_stride == 1);
    alignas(64) float sum[kPart], next[kPart];
    for (int64_t at = 0; at < width; at += kPart) {
      const auto n = static_cast<size_t>(std::min(kPart, width - at));
      std::fill_n(sum, n, 0.0f);
      for (size_t k = 0; k < from.size(); ++k) {
        load(grad + (from[k] + at * grad_width_stride) * item, grad_width_stride, n,
             k == 0 ? sum : next);
        if (k == 0) continue;
        for (size_t e = 0; e < n; ++e) sum[e] += next[e];
      }
      store(sum, n, to + at * width_stride * item, width_stride);
    }
  }
};

}  // namespace

Prepared prepare_embedding_grad(const OpRequest& request, Refusal& refusal) {
  const auto& grad = *request.operand(0);
  const auto& index = *request.operand(1);
  const auto& out = *request.operand(2);
  if (dtype_of(grad) != dtype_of(out))
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 3,
                  "embedding_grad: grad and dweight must have the same dtype");

  auto op = std::make_unique<EmbeddingGradOp>();
  op->type = dtype_of(out);
  op->rows = out.sizes[0];
  op->width = out.sizes[1];
  op->padding = request.attribute_int("padding_index");
  op->grad_width_stride = grad.strides[index.ndim];
  op->row_stride = out.strides[0];
  op->width_stride = out.strides[1];
  op->table.add(index, 1, op->rows, 1);
  op->grad_rows = make_plan(index.ndim, index.sizes, {grad.strides}, true);
  op->workspace_bytes =
      op->table.bytes() + static_cast<uint64_t>(op->rows + 2 + op->table.count) * sizeof(int64_t);
  op->flops = static_cast<double>(element_count(grad));
  op->bytes = static_cast<double>(size_of(op->type)) *
              (static_cast<double>(element_count(grad)) + static_cast<double>(element_count(out)));
  return op;
}

}  // namespace xhal::cpu
