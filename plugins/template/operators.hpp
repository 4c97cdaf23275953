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

#include "xhal/half.hpp"
#include "xhal/op_check.hpp"
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
    if constexpr (std::is_same_v<T, xhal::Bf16>) return whole ? xhal::to_bf16(i) : xhal::to_bf16(f);
    if constexpr (std::is_same_v<T, xhal::F16>) return whole ? xhal::to_f16(i) : xhal::to_f16(f);
    if constexpr (std::is_arithmetic_v<T>) {
      if (std::is_floating_point_v<T> && !whole) return static_cast<T>(f);
      return static_cast<T>(whole ? i : xhal::to_integer(f));  // integers wrap
    }
  }
};
constexpr Number whole(int64_t i) { return {true, i, 0}; }

// A dtype the device computes with.
struct Format {
  xhal::DType type;
  Number (*load)(const std::byte* from);
  void (*store)(std::byte* to, Number value);
};

template <class T>
constexpr Format format(xhal::DType type) {
  return {type,
          [](const std::byte* from) {
            T value;
            std::memcpy(&value, from, sizeof value);
            if constexpr (std::is_class_v<T>) return Number{false, 0, xhal::to_float(value)};
            if constexpr (std::is_floating_point_v<T>) return Number{false, 0, value};
            if constexpr (std::is_integral_v<T>) return whole(static_cast<int64_t>(value));
          },
          [](std::byte* to, Number number) {
            const T value = number.as<T>();
            std::memcpy(to, &value, sizeof value);
          }};
}

using xhal::DType;
constexpr Format kFormats[] = {
    format<float>(DType::f32),    format<double>(DType::f64),      format<xhal::F16>(DType::f16),
    format<int8_t>(DType::i8),    format<int16_t>(DType::i16),     format<int32_t>(DType::i32),
    format<int64_t>(DType::i64),  format<xhal::Bf16>(DType::bf16), format<uint8_t>(DType::u8),
    format<uint32_t>(DType::u32), format<bool>(DType::boolean)};

inline const Format* format_of(DType type) {
  for (const auto& f : kFormats) {
    if (f.type == type) return &f;
  }
  return nullptr;
}
inline const Format* format_of(const xhal_tensor_desc& t) { return format_of(xhal::dtype_of(t)); }

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
    const auto load = [&](uint32_t i) { return format_of(operands[i])->load(at(i)); };
    for (int64_t n = count(); n > 0; --n) {
      Number value = scalars[0];
      if (id == XHAL_OP_strided_copy) value = load(0);
      if (id == XHAL_OP_axpby)
        value = axpby(out.bits, scalars[0], load(0), scalars[1], last == 2 ? load(1) : whole(1));
      format_of(out)->store(at(last), value);
      for (uint32_t d = out.ndim; d-- > 0 && ++index[d] == out.sizes[d];) index[d] = 0;
    }
  }

  uint32_t id, last;  // the output is the last operand
  xhal_tensor_desc operands[3];
};

// Refuses, with the operand and the reason, what the device cannot do: frameworks fall back on what
// they are told. What contradicts the catalogue is refused by its reader.
inline xhal_status prepare(const xhal_op_info* info, Program& program) {
  if (const auto refusal = xhal::catalogue::check(*info))
    return fail(refusal.status, refusal.text, "", refusal.operand);
  if (info->id != XHAL_OP_fill && info->id != XHAL_OP_strided_copy && info->id != XHAL_OP_axpby)
    return fail(XHAL_ERR_UNSUPPORTED, "this plugin has no operator " + std::to_string(info->id));
  const auto& out = info->operands[info->operand_count - 1];
  for (uint32_t i = 0; i < info->operand_count; ++i) {
    const auto& t = info->operands[i];
    const auto refuse = [&](xhal_status status, const char* why) {
      return fail(status, "operand " + std::to_string(i) + why, "", i + 1);
    };
    if (format_of(t) == nullptr)
      return refuse(XHAL_ERR_UNSUPPORTED, " has a dtype this plugin does not compute with");
    if (info->id == XHAL_OP_axpby && xhal::dtype_of(t) != xhal::dtype_of(out))
      return refuse(XHAL_ERR_INVALID_ARGUMENT, " does not have the output's dtype");
  }
  program.id = info->id;
  program.last = info->operand_count - 1;
  std::copy_n(info->operands, info->operand_count, program.operands);
  return XHAL_OK;
}

}  // namespace vendor
