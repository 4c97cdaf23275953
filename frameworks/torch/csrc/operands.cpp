// SPDX-License-Identifier: Apache-2.0
#include "operands.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace xhal_torch {
namespace {

// First byte and the one after the last.
using Range = std::pair<uint64_t, uint64_t>;

Range range_of(const at::TensorBase& tensor) {
  const auto first = reinterpret_cast<uint64_t>(tensor.unsafeGetTensorImpl()->data());
  if (tensor.numel() == 0) return {first, first};
  int64_t last = 0;
  for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
  return {first, first + static_cast<uint64_t>(last + 1) * tensor.element_size()};
}

bool intersect(const Range& a, const Range& b) { return a.first < b.second && b.first < a.second; }

}  // namespace

void refuse_devices(c10::Device one, c10::Device other, std::string_view argument,
                    std::string_view op) {
  std::string where;
  if (!argument.empty()) where = c10::str(" (when checking argument for argument ", argument);
  if (!argument.empty() && !op.empty()) where += c10::str(" in method ", op);
  if (!argument.empty()) where += ")";
  TORCH_CHECK(false,
              "Expected all tensors to be on the same device, but found at least two devices, ",
              one, " and ", other, "!", where);
}

void expect_index_device(const at::TensorBase& index, c10::Device indexed) {
  TORCH_CHECK(index.is_cpu() || index.device() == indexed,
              "indices should be either on cpu or on the same device as the indexed tensor (",
              indexed, ")");
}

bool share_memory(const at::TensorBase& one, const at::TensorBase& other) {
  return one.defined() && other.defined() && one.is_alias_of(other) &&
         intersect(range_of(one), range_of(other));
}

at::Tensor apart_from(const at::Tensor& out, const at::Tensor& input) {
  return share_memory(out, input) ? input.clone() : input;
}

at::Tensor without_repeats(const at::Tensor& tensor) {
  at::Tensor once = tensor;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.stride(d) == 0 && tensor.size(d) > 1) once = once.narrow(d, 0, 1);
  }
  return once;
}

bool independent(at::TensorList out, std::initializer_list<at::TensorList> inputs,
                 bool may_lie_on) {
  std::vector<std::pair<Range, size_t>> written;
  written.reserve(out.size());
  for (size_t i = 0; i < out.size(); ++i) written.emplace_back(range_of(out[i]), i);
  std::sort(written.begin(), written.end());
  for (size_t i = 1; i < written.size(); ++i) {
    if (intersect(written[i - 1].first, written[i].first)) return false;
  }
  for (const at::TensorList& list : inputs) {
    for (size_t i = 0; i < list.size(); ++i) {
      const Range read = range_of(list[i]);
      // Written ranges are disjoint: the first that ends behind the begin of `read` decides.
      auto at = std::partition_point(written.begin(), written.end(), [&](const auto& entry) {
        return entry.first.second <= read.first;
      });
      if (at == written.end() || !intersect(at->first, read)) continue;
      if (!may_lie_on || at->second != i || at->first != read) return false;
    }
  }
  return true;
}

}  // namespace xhal_torch
