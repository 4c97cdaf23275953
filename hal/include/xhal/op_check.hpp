// SPDX-License-Identifier: Apache-2.0
// xhal/op_check.hpp: a request to xhal_op_prepare, checked against the catalogue. What is left to a
// plugin is what it can: which of the operators, dtypes, layouts and sizes. Header only, C++20.
//
//   if (const auto refusal = catalogue::check(*info)) return fail(refusal.status, refusal.text,
//   ...);
#ifndef XHAL_OP_CHECK_HPP
#define XHAL_OP_CHECK_HPP

#include <algorithm>
#include <string>
#include <utility>

#include "xhal/op_sizes.hpp"

namespace xhal::catalogue {

namespace detail {

inline Refusal check_attributes(const Operator& op, const xhal_op_info& info) {
  for (uint32_t i = 0; i < info.attribute_count; ++i) {
    const xhal_attribute& a = info.attributes[i];
    const auto refuse = [&](std::string why) {
      return Refusal{XHAL_ERR_INVALID_ARGUMENT, 0, 1 + a.index, std::move(why)};
    };
    if (a.index >= op.attribute_count) {
      return refuse(text("`", op.name, "` has no attribute ", a.index, "; it has ",
                         static_cast<uint32_t>(op.attribute_count), " in all"));
    }
    const Attribute& known = op.attributes()[a.index];
    if (a.kind != known.kind && !(known.kind == XHAL_ATTR_FLOAT && a.kind == XHAL_ATTR_INT)) {
      return refuse(text("attribute `", known.name, "` of `", op.name, "` has the wrong kind"));
    }
    const bool list = a.kind == XHAL_ATTR_INTS || a.kind == XHAL_ATTR_FLOATS;
    if (list && a.count != 0 && a.value.ints == nullptr) {
      return refuse(text("attribute `", known.name, "` of `", op.name, "` is a NULL list"));
    }
  }
  return {};
}

inline Refusal check_operand(const Operator& op, const Group& group, uint32_t position,
                             const xhal_tensor_desc& t) {
  const bool absent = (t.flags & XHAL_TENSOR_ABSENT) != 0;
  if (absent && group.arity == Arity::any) return {};
  const auto refuse = [&](xhal_status status, const auto&... why) {
    return Refusal{status, position, 0, text("`", group.name, "` of `", op.name, "`", why...)};
  };
  if (absent) {
    return refuse(XHAL_ERR_INVALID_ARGUMENT,
                  " is marked as absent; only lists have gaps, another group is left empty");
  }
  if (t.ndim > XHAL_MAX_DIMENSIONS) {
    return refuse(XHAL_ERR_INVALID_ARGUMENT, " has ", t.ndim, " dimensions; the most is 8");
  }
  int64_t count = 1;
  for (uint32_t i = 0; i < t.ndim; ++i) {
    if (t.sizes[i] < 0 || __builtin_mul_overflow(count, std::max<int64_t>(t.sizes[i], 1), &count)) {
      return refuse(XHAL_ERR_INVALID_ARGUMENT, " has an impossible size in dimension ", i, ": ",
                    t.sizes[i]);
    }
  }
  if (t.layout != 0 || t.lanes > 1) {
    return refuse(XHAL_ERR_UNSUPPORTED, " must be strided, with one lane an element");
  }
  for (uint32_t i = 0; i < t.ndim && group.output; ++i) {
    if (t.sizes[i] > 1 && t.strides[i] == 0)
      return refuse(XHAL_ERR_INVALID_ARGUMENT, " overlaps itself: it has stride 0 in dimension ",
                    i);
  }
  const DType type = dtype_of(t);
  if (!group.takes(type)) {
    return refuse(XHAL_ERR_INVALID_ARGUMENT, " cannot be ", name_of(type), " (code ", t.code, ", ",
                  t.bits, " bits)");
  }
  return {};
}

// Inputs of the same TYPES have one dtype, or floats of several. (Lists are left to the kernels:
// each place of theirs stands for itself.)
inline Refusal check_mix(const Operator& op, const xhal_op_info& info) {
  uint32_t position = 0, first[kMaxGroups];
  for (uint32_t g = 0; g < op.input_count; position += info.group_sizes[g++]) {
    first[g] = position;
    const Group& group = op.groups()[g];
    for (uint32_t h = 0; h < g; ++h) {
      const Group& other = op.groups()[h];
      const bool lists = group.arity == Arity::any || other.arity == Arity::any;
      if (lists || other.types != group.types) continue;
      if (info.group_sizes[g] == 0 || info.group_sizes[h] == 0) continue;
      const DType mine = dtype_of(info.operands[position]), his = dtype_of(info.operands[first[h]]);
      if (mine == his || (is_float(mine) && is_float(his))) continue;
      return {XHAL_ERR_INVALID_ARGUMENT, position + 1, 0,
              text("`", group.name, "` of `", op.name, "` is ", name_of(mine), " and `", other.name,
                   "` is ", name_of(his), "; only floats may be mixed")};
    }
  }
  return {};
}

inline Refusal check_groups(const Operator& op, const xhal_op_info& info) {
  const auto refuse = [](uint32_t operand, std::string why) {
    return Refusal{XHAL_ERR_INVALID_ARGUMENT, operand, 0, std::move(why)};
  };
  if (info.group_count != op.group_count) {
    return refuse(0, text("`", op.name, "` has ", static_cast<uint32_t>(op.group_count),
                          " operand groups; ", info.group_count, " were given"));
  }
  uint32_t position = 0;
  for (uint32_t g = 0; g < info.group_count; ++g) {
    const Group& group = op.groups()[g];
    const uint32_t size = info.group_sizes[g];
    const bool optional = group.arity == Arity::optional;
    if (group.arity != Arity::any && size != 1 && !(size == 0 && optional)) {
      return refuse(position + 1, text("group `", group.name, "` of `", op.name, "` has ", size,
                                       " operands; it takes ", optional ? "none or one" : "one"));
    }
    if (size > info.operand_count - position) {
      return refuse(0, "operand_count is less than the sum of group_sizes");
    }
    for (uint32_t i = 0; i < size; ++i, ++position) {
      auto refusal = check_operand(op, group, position + 1, info.operands[position]);
      if (refusal) return refusal;
    }
  }
  if (position != info.operand_count) {
    return refuse(0, "operand_count is more than the sum of group_sizes");
  }
  return {};
}

}  // namespace detail

// UNSUPPORTED for an operator or version that this catalogue does not have and for layouts that are
// not strided; INVALID_ARGUMENT, as op.h says, for what contradicts the catalogue: the number and
// kinds of attributes, the sizes of groups, dtypes, dimensions, sizes that do not agree.
inline Refusal check(const xhal_op_info& info) {
  if ((info.operands == nullptr && info.operand_count != 0) ||
      (info.group_sizes == nullptr && info.group_count != 0) ||
      (info.attributes == nullptr && info.attribute_count != 0)) {
    return {XHAL_ERR_INVALID_ARGUMENT, 0, 0, "an array is NULL but its count is not 0"};
  }
  const Operator* op = find(info.id);
  if (op == nullptr) {
    return {XHAL_ERR_UNSUPPORTED, 0, 0,
            text("operator ", info.id, " is not in this plugin's catalogue")};
  }
  if (info.version > op->version) {
    return {XHAL_ERR_UNSUPPORTED, 0, 0,
            text("`", op->name, "` is known up to version ", op->version, "; version ",
                 info.version, " was asked for")};
  }
  if (auto refusal = detail::check_attributes(*op, info)) return refusal;
  if (auto refusal = detail::check_groups(*op, info)) return refusal;
  if (auto refusal = detail::check_mix(*op, info)) return refusal;
  return check_sizes(*op, info);
}

}  // namespace xhal::catalogue

#endif
