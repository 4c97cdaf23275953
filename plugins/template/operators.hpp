// SPDX-License-Identifier: Apache-2.0
// operators.hpp: what the device computes. VENDOR: replace all of it by your own; the catalogue
// (xhal/ops.inc) says what each operator means.
//
// Here: the three of the core profile, one element at a time.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "xhal/catalog.h"
#include "xhal/plugin.hpp"

namespace vendor {

using namespace xhal::plugin;

inline std::byte* memory_at(uint64_t address) { return reinterpret_cast<std::byte*>(address); }

// One element on its way. The catalogue computes integers and bool as i64, so none is rounded.
struct Number {
  bool whole;
  int64_t i;
  double f;

  template <class T>
  T as() const {
    if constexpr (std::is_same_v<T, bool>) return whole ? i != 0 : f != 0;
    if constexpr (std::is_floating_point_v<T>) return whole ? static_cast<T>(i) : static_cast<T>(f);
    if (whole) return static_cast<T>(i);  // wraps
    return static_cast<T>(f >= -0x1p63 && f < 0x1p63 ? static_cast<int64_t>(f) : INT64_MIN);
  }
};
constexpr Number whole(int64_t i) { return {true, i, 0}; }

// A dtype the device computes with.
struct Format {
  uint8_t code, bits;
  Number (*load)(const std::byte* from);
  void (*store)(std::byte* to, Number value);
};

template <class T>
constexpr Format format(uint8_t code) {
  return {code, 8 * sizeof(T),
          [](const std::byte* from) {
            T value;
            std::memcpy(&value, from, sizeof value);
            if constexpr (std::is_floating_point_v<T>) return Number{false, 0, value};
            return whole(static_cast<int64_t>(value));
          },
          [](std::byte* to, Number number) {
            const T value = number.as<T>();
            std::memcpy(to, &value, sizeof value);
          }};
}

constexpr Format kFormats[] = {format<float>(XHAL_CODE_FLOAT),  format<double>(XHAL_CODE_FLOAT),
                               format<int8_t>(XHAL_CODE_INT),   format<int16_t>(XHAL_CODE_INT),
                               format<int32_t>(XHAL_CODE_INT),  format<int64_t>(XHAL_CODE_INT),
                               format<uint8_t>(XHAL_CODE_UINT), format<bool>(XHAL_CODE_BOOL)};

inline const Format* format_of(uint8_t code, uint8_t bits) {
  for (const auto& f : kFormats) {
    if (f.code == code && f.bits == bits) return &f;
  }
  return nullptr;
}

// UNSUPPORTED is for what the catalogue lists and this plugin has not.
inline xhal_status check_format(uint32_t op, const xhal_tensor_desc& t,
                                const xhal_tensor_desc& out) {
  const bool axpby = op == XHAL_OP_axpby, u32 = t.code == XHAL_CODE_UINT && t.bits == 32;
  const bool half = t.bits == 16 && (t.code == XHAL_CODE_FLOAT || t.code == XHAL_CODE_BFLOAT);
  if (axpby && (t.code == XHAL_CODE_BOOL || t.code != out.code || t.bits != out.bits || u32))
    return XHAL_ERR_INVALID_ARGUMENT;
  if (half || u32 || t.lanes != 1 || t.layout != 0) return XHAL_ERR_UNSUPPORTED;
  return format_of(t.code, t.bits) != nullptr ? XHAL_OK : XHAL_ERR_INVALID_ARGUMENT;
}

// alpha * x + beta * y, as the catalogue says: integers wrap, floats are computed in their format.
inline Number axpby(uint8_t bits, Number alpha, Number x, Number beta, Number y) {
  const auto in = [&](auto t) {
    using T = decltype(t);
    return alpha.as<T>() * x.as<T>() + beta.as<T>() * y.as<T>();
  };
  if (x.whole) return whole(static_cast<int64_t>(in(uint64_t{})));
  return {false, 0, bits == 64 ? in(double{}) : in(float{})};
}

// A prepared operator; it holds no memory of its own.
struct Program {
  int64_t count() const {
    int64_t count = 1;
    for (uint32_t d = 0; d < operands[last].ndim; ++d) count *= operands[last].sizes[d];
    return count;
  }
  uint32_t scalar_count() const { return id == XHAL_OP_fill ? 1 : id == XHAL_OP_axpby ? 2 : 0; }
  Number default_scalar() const { return whole(id == XHAL_OP_fill ? 0 : 1); }

  // The catalogue's cost formula of one run.
  void cost(xhal_op_properties* properties) const {
    const auto elements = static_cast<double>(count());
    properties->flops = id == XHAL_OP_axpby ? 3 * elements : 0;
    for (uint32_t i = 0; i <= last; ++i) properties->bytes += elements * operands[i].bits / 8;
  }

  void run(const uint64_t* addresses, const Number* scalars) const {
    const auto& out = operands[last];
    int64_t index[XHAL_MAX_DIMENSIONS] = {};
    const auto at = [&](uint32_t i) {
      int64_t elements = operands[i].offset_elements;
      for (uint32_t d = 0; d < out.ndim; ++d) elements += index[d] * operands[i].strides[d];
      return memory_at(addresses[i]) + elements * operands[i].bits / 8;
    };
    const auto load = [&](uint32_t i) {
      return format_of(operands[i].code, operands[i].bits)->load(at(i));
    };
    for (int64_t n = count(); n > 0; --n) {
      Number value = scalars[0];
      if (id == XHAL_OP_strided_copy) value = load(0);
      if (id == XHAL_OP_axpby)
        value = axpby(out.bits, scalars[0], load(0), scalars[1], last == 2 ? load(1) : whole(1));
      format_of(out.code, out.bits)->store(at(last), value);
      for (uint32_t d = out.ndim; d-- > 0 && ++index[d] == out.sizes[d];) index[d] = 0;
    }
  }

  uint32_t id, last;  // the output is the last operand
  xhal_tensor_desc operands[3];
};

// Refuses, with the operand and the reason, what the device cannot do: frameworks fall back on what
// they are told.
inline xhal_status prepare(const xhal_op_info* info, Program& program) {
  const uint32_t groups = info->id == XHAL_OP_fill           ? 1
                          : info->id == XHAL_OP_strided_copy ? 2
                          : info->id == XHAL_OP_axpby        ? 3
                                                             : 0;
  if (groups == 0)
    return fail(XHAL_ERR_UNSUPPORTED, "this plugin has no operator " + std::to_string(info->id));
  bool right = info->group_count == groups;
  for (uint32_t g = 0; right && g < groups; ++g)
    right = info->group_sizes[g] == 1 || (groups == 3 && g == 1 && info->group_sizes[g] == 0);
  if (!right)
    return fail(XHAL_ERR_INVALID_ARGUMENT, "the groups of operands are not the catalogue's");
  const auto& out = info->operands[info->operand_count - 1];
  for (uint32_t i = 0; i < info->operand_count; ++i) {
    const auto& t = info->operands[i];
    const auto refuse = [&](xhal_status status, const char* why) {
      return fail(status, "operand " + std::to_string(i) + why, "", i + 1);
    };
    if (const auto status = check_format(info->id, t, out); status != XHAL_OK)
      return refuse(status, " has a dtype or layout this plugin does not compute with");
    if (t.ndim > XHAL_MAX_DIMENSIONS || t.ndim != out.ndim ||
        !std::equal(t.sizes, t.sizes + t.ndim, out.sizes) ||
        std::any_of(t.sizes, t.sizes + t.ndim, [](int64_t size) { return size < 0; }))
      return refuse(XHAL_ERR_INVALID_ARGUMENT, " does not have the output's sizes");
  }
  program.id = info->id;
  program.last = info->operand_count - 1;
  std::copy_n(info->operands, info->operand_count, program.operands);
  return XHAL_OK;
}

}  // namespace vendor
