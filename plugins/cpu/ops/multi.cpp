// SPDX-License-Identifier: Apache-2.0
// multi.cpp: operators over lists of tensors: a single-tensor operator for each, prepared together,
// run one after the other.
#include "multi.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "pointwise.hpp"

namespace xhal::cpu {
namespace {

constexpr int kMaxOperands = 4;

class MultiOp final : public Op {
 public:
  void add(Prepared op, std::span<const uint32_t> operands) {
    workspace_bytes = std::max(workspace_bytes, op->workspace_bytes);
    Item item{std::move(op), {}, static_cast<uint32_t>(operands.size())};
    std::copy(operands.begin(), operands.end(), item.operands.begin());
    items_.push_back(std::move(item));
  }
  // The items' scalar `to` is the launch's scalar `from`.
  void pass_scalar(int from, int to) { passed_.push_back({from, to}); }

  xhal_status run(const Launch& launch) const override {
    Scalar scalars[kMaxScalars];
    std::copy(std::begin(fixed_), std::end(fixed_), scalars);
    for (const auto& [from, to] : passed_) scalars[to] = launch.scalars[from];
    for (const Item& item : items_) {
      void* pointers[kMaxOperands];
      for (uint32_t k = 0; k < item.count; ++k) pointers[k] = launch.pointers[item.operands[k]];
      const xhal_status status =
          item.op->run({pointers, scalars, launch.workspace, launch.pool, launch.error});
      if (status != XHAL_OK) return status;
    }
    return XHAL_OK;
  }

 private:
  struct Item {
    Prepared op;
    std::array<uint32_t, kMaxOperands> operands;
    uint32_t count;
  };
  struct Passed {
    int from, to;
  };
  std::vector<Item> items_;
  std::vector<Passed> passed_;
  Scalar fixed_[kMaxScalars]{};
};

// Lists are as long as the first one, or empty if they may be.
bool check_lengths(const OpRequest& request, std::span<const uint32_t> groups,
                   uint32_t may_be_empty, Refusal& refusal) {
  const size_t count = request.group(groups[0]).size();
  for (uint32_t group : groups) {
    const size_t size = request.group(group).size();
    if (size == count || (size == 0 && (may_be_empty >> group & 1) != 0)) continue;
    refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(group),
           text("the lists given to `", op_name(request.id()), "` differ in length: ", count,
                " and ", size));
    return false;
  }
  return true;
}

// One operator `id` for each position of the lists; its groups are the lists `groups`,
// empty ones absent.
std::unique_ptr<MultiOp> each(const OpRequest& request, uint32_t id,
                              std::span<const uint32_t> groups, uint32_t may_be_empty,
                              std::span<const xhal_attribute> attributes, Refusal& refusal) {
  if (!check_lengths(request, groups, may_be_empty, refusal)) return nullptr;
  auto multi = std::make_unique<MultiOp>();
  const auto count = static_cast<uint32_t>(request.group(groups[0]).size());
  for (uint32_t i = 0; i < count; ++i) {
    xhal_tensor_desc tensors[kMaxOperands];
    uint32_t sizes[kMaxOperands], operands[kMaxOperands], given = 0;
    for (size_t g = 0; g < groups.size(); ++g) {
      const auto list = request.group(groups[g]);
      sizes[g] = list.empty() ? 0 : 1;
      if (list.empty()) continue;
      tensors[given] = list[i];
      operands[given++] = request.first_operand(groups[g]) + i;
    }
    xhal_op_info info{};
    info.struct_size = sizeof info;
    info.id = id;
    info.flags = request.info().flags;
    info.attribute_count = static_cast<uint32_t>(attributes.size());
    info.attributes = attributes.data();
    info.group_count = static_cast<uint32_t>(groups.size());
    info.group_sizes = sizes;
    info.operand_count = given;
    info.operands = tensors;
    Prepared op = prepare_op(info, refusal);
    if (op == nullptr) {
      if (refusal.operand != 0) refusal.operand = 1 + operands[refusal.operand - 1];
      return nullptr;
    }
    multi->add(std::move(op), {operands, given});
  }
  return multi;
}

}  // namespace

Prepared prepare_multi_axpby(const OpRequest& request, Refusal& refusal) {
  constexpr uint32_t kGroups[] = {0, 1, 2};
  auto op = each(request, XHAL_OP_axpby, kGroups, 1u << 1, {}, refusal);
  if (op == nullptr) return nullptr;
  op->pass_scalar(0, 0);
  op->pass_scalar(1, 1);
  return op;
}

Prepared prepare_multi_mul(const OpRequest& request, Refusal& refusal) {
  constexpr uint32_t kGroups[] = {0, 1, 3};
  if (!check_lengths(request, kGroups, 1u << 1, refusal)) return nullptr;
  const auto x = request.group(0), y = request.group(1), out = request.group(3);
  const xhal_tensor_desc* factor = request.operand(2);
  auto multi = std::make_unique<MultiOp>();
  for (uint32_t i = 0; i < x.size(); ++i) {
    Prepared op =
        prepare_scaled_product(x[i], y.empty() ? nullptr : &y[i], factor, out[i], refusal);
    if (op == nullptr) return nullptr;
    uint32_t operands[kMaxOperands] = {i}, given = 1;
    if (!y.empty()) operands[given++] = request.first_operand(1) + i;
    if (factor != nullptr) operands[given++] = request.first_operand(2);
    operands[given++] = request.first_operand(3) + i;
    multi->add(std::move(op), {operands, given});
  }
  multi->pass_scalar(0, 0);
  return multi;
}

Prepared prepare_multi_div(const OpRequest& request, Refusal& refusal) {
  constexpr uint32_t kGroups[] = {0, 1, 2};
  auto op = each(request, XHAL_OP_div, kGroups, 1u << 1, {}, refusal);
  if (op == nullptr) return nullptr;
  op->pass_scalar(0, 1);
  return op;
}

Prepared prepare_multi_lerp(const OpRequest& request, Refusal& refusal) {
  if (request.group(0).size() != request.group(1).size() ||
      request.group(0).size() != request.group(2).size())
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
                  "the lists given to `multi_lerp` differ in length");
  auto multi = std::make_unique<MultiOp>();
  const auto a = request.group(0), b = request.group(1), out = request.group(2);
  for (uint32_t i = 0; i < a.size(); ++i) {
    const xhal_tensor_desc tensors[] = {a[i], b[i], out[i]};
    const uint32_t sizes[] = {1, 1, 0, 1};  // no weight tensor
    xhal_op_info info{};
    info.struct_size = sizeof info;
    info.id = XHAL_OP_lerp;
    info.group_count = 4;
    info.group_sizes = sizes;
    info.operand_count = 3;
    info.operands = tensors;
    Prepared op = prepare_op(info, refusal);
    if (op == nullptr) return nullptr;
    const uint32_t operands[] = {i, request.first_operand(1) + i, request.first_operand(2) + i};
    multi->add(std::move(op), operands);
  }
  multi->pass_scalar(0, 0);
  return multi;
}

Prepared prepare_multi_addcmul(const OpRequest& request, Refusal& refusal) {
  constexpr uint32_t kGroups[] = {0, 1, 2, 3};
  auto op = each(request, XHAL_OP_addcmul, kGroups, 0, {}, refusal);
  if (op != nullptr) op->pass_scalar(0, 0);
  return op;
}

Prepared prepare_multi_addcdiv(const OpRequest& request, Refusal& refusal) {
  constexpr uint32_t kGroups[] = {0, 1, 2, 3};
  auto op = each(request, XHAL_OP_addcdiv, kGroups, 0, {}, refusal);
  if (op != nullptr) op->pass_scalar(0, 0);
  return op;
}

Prepared prepare_multi_sqrt(const OpRequest& request, Refusal& refusal) {
  constexpr uint32_t kGroups[] = {0, 1};
  return each(request, XHAL_OP_sqrt, kGroups, 0, {}, refusal);
}

Prepared prepare_multi_norm(const OpRequest& request, Refusal& refusal) {
  constexpr uint32_t kGroups[] = {0, 1};
  xhal_attribute p{};
  p.index = 1;
  p.kind = XHAL_ATTR_FLOAT;
  p.value.f = request.attribute_float("p");
  p.count = 1;
  return each(request, XHAL_OP_norm, kGroups, 0, {&p, 1}, refusal);
}

}  // namespace xhal::cpu
