// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "faults.hpp"
#include "xhal/catalog.h"

namespace xhal::faults {
namespace {

// ---- words

int64_t count_of(const xhal_tensor_desc& t) {
  int64_t count = 1;
  for (uint32_t d = 0; d < t.ndim; ++d) count *= t.sizes[d];
  return count;
}

void make_contiguous(xhal_tensor_desc& t) {
  int64_t stride = 1;
  for (uint32_t d = t.ndim; d-- > 0;) {
    t.strides[d] = stride;
    stride *= t.sizes[d];
  }
}

// Only for operands that are contiguous, as in the cases the faults are judged by.
template <class T>
T* elements(uint64_t address, const xhal_tensor_desc& t) {
  return reinterpret_cast<T*>(address) + t.offset_elements;
}

bool is_f32(const xhal_tensor_desc& t) { return t.code == XHAL_CODE_FLOAT && t.bits == 32; }

float to_bf16(float value, bool to_nearest) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (to_nearest) bits += 0x7fff + (bits >> 16 & 1);
  bits &= 0xffff0000;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Changes every f32 element of the last output once the operator has run.
void change_output(Launch& launch, float (*change)(float)) {
  const auto& out = launch.asked.back();
  if (!is_f32(out)) return;
  launch.after = [data = elements<float>(launch.addresses.back(), out), count = count_of(out),
                  change] {
    for (int64_t i = 0; i < count; ++i) data[i] = change(data[i]);
  };
}

void set_scalar(Launch& launch, size_t index, double value) {
  if (index >= launch.scalars.size()) return;
  launch.scalars[index] = {};
  launch.scalars[index].kind = XHAL_SCALAR_FLOAT;
  launch.scalars[index].value.f = value;
}

// ---- faults, by the names in faults.inc

void last_element_skipped(Request& r) {
  if (r.id != XHAL_OP_add) return;
  for (auto& t : r.operands) {
    if (t.ndim > 0 && t.sizes[t.ndim - 1] > 0) --t.sizes[t.ndim - 1];
  }
}

void input_strides_ignored(Request& r) {
  if (r.id == XHAL_OP_add) make_contiguous(r.operands[0]);
}

void output_strides_ignored(Request& r) {
  if (r.id == XHAL_OP_strided_copy) make_contiguous(r.last());
}

void input_offset_ignored(Request& r) {
  if (r.id == XHAL_OP_mul) r.operands[0].offset_elements = 0;
}

void broadcast_stride_taken_for_one(Request& r) {
  if (r.id != XHAL_OP_add) return;
  for (uint32_t d = 0; d < r.operands[0].ndim; ++d) {
    if (r.operands[0].strides[d] == 0) r.operands[0].strides[d] = 1;
  }
}

void alpha_ignored(Launch& l) {
  if (l.id == XHAL_OP_axpby) set_scalar(l, 0, 1);
}

void beta_ignored(Launch& l) {
  if (l.id == XHAL_OP_gemm) set_scalar(l, 1, 1);
}

void scalar_address_ignored(Launch& l) {
  for (size_t i = 0; i < l.scalars.size(); ++i) {
    if (l.scalars[i].kind == XHAL_SCALAR_ADDRESS) set_scalar(l, i, 1);
  }
}

void axis_off_by_one(Request& r) {
  if (r.id != XHAL_OP_softmax) return;
  const auto ndim = static_cast<int64_t>(r.operands[0].ndim);
  for (auto& a : r.attributes) {
    if (a.index == 0) a.value.i = ((a.value.i < 0 ? a.value.i + ndim : a.value.i) + 1) % ndim;
  }
}

void epsilon_missing(Request& r) {
  if (r.id == XHAL_OP_layer_norm) r.set(1, 0.0);
}

void mask_inverted(Launch& l) {
  if (l.id == XHAL_OP_where && l.addresses.size() == 4) std::swap(l.addresses[1], l.addresses[2]);
}

void sum_kept_in_bf16(Launch& l) {
  if (l.id == XHAL_OP_sum) change_output(l, [](float x) { return to_bf16(x, true); });
}

void last_of_reduction_skipped(Request& r) {
  if (r.id != XHAL_OP_sum || count_of(r.last()) != 1) return;  // everything is reduced
  auto& in = r.operands[0];
  if (in.ndim > 0 && in.sizes[0] > 1) --in.sizes[0];
}

void conversion_truncates(Launch& l) {
  const auto& in = l.asked[0];
  const auto& out = l.asked.back();
  if (l.id != XHAL_OP_strided_copy || !is_f32(in) || out.code != XHAL_CODE_BFLOAT) return;
  l.after = [from = elements<float>(l.addresses[0], in),
             to = elements<uint16_t>(l.addresses[1], out), count = count_of(out)] {
    for (int64_t i = 0; i < count; ++i) {
      const float value = to_bf16(from[i], false);
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof bits);
      to[i] = static_cast<uint16_t>(bits >> 16);
    }
  };
}

void causal_mask_ignored(Request& r) {
  if (r.id == XHAL_OP_sdpa) r.set(0, int64_t{0});
}

void transposition_ignored(Request& r) {
  if (r.id == XHAL_OP_gemm) make_contiguous(r.operands[1]);
}

void scatter_overwrites(Request& r) {
  if (r.id == XHAL_OP_scatter) r.set(1, int64_t{0});
}

void gemm_bias_ignored(Launch& l) {
  static float zeros[4096] = {};
  const bool has_bias =
      l.id == XHAL_OP_gemm && l.asked.size() >= 4 && l.asked[l.asked.size() - 2].ndim == 1;
  if (has_bias) l.addresses[l.addresses.size() - 2] = reinterpret_cast<uint64_t>(zeros);
}

void output_cleared_before_input_is_read(Launch& l) {
  const auto& out = l.asked.back();
  if (l.id != XHAL_OP_relu || !is_f32(out)) return;
  l.before = [data = elements<float>(l.addresses.back(), out), count = count_of(out)] {
    std::memset(data, 0, static_cast<size_t>(count) * sizeof(float));
  };
}

void writes_behind_the_end(Launch& l) {
  const auto& out = l.asked.back();
  if (l.id != XHAL_OP_neg || !is_f32(out)) return;
  l.after = [data = elements<float>(l.addresses.back(), out), count = count_of(out)] {
    data[count] = 0;
  };
}

void nan_loses(Launch& l) {
  if (l.id == XHAL_OP_maximum) change_output(l, [](float x) { return std::isnan(x) ? 0.0f : x; });
}

void integers_saturate(Launch& l) {
  const auto& out = l.asked.back();
  if (l.id != XHAL_OP_mul || out.code != XHAL_CODE_INT || out.bits != 8 || l.addresses.size() != 3)
    return;
  l.after = [a = elements<int8_t>(l.addresses[0], l.asked[0]),
             b = elements<int8_t>(l.addresses[1], l.asked[1]),
             to = elements<int8_t>(l.addresses[2], out), count = count_of(out)] {
    for (int64_t i = 0; i < count; ++i)
      to[i] = static_cast<int8_t>(std::min(std::max(a[i] * b[i], -128), 127));
  };
}

void weight_decay_ignored(Launch& l) {
  if (l.id == XHAL_OP_multi_adamw) set_scalar(l, 3, 0);
}

void seed_ignored(Launch& l) {
  if (l.id == XHAL_OP_uniform) set_scalar(l, 2, 0);
}

void sorts_the_other_way(Request& r) {
  if (r.id != XHAL_OP_sort) return;
  for (auto& a : r.attributes) {
    if (a.index == 1) a.value.i = a.value.i == 0;
  }
}

void correction_ignored(Request& r) {
  if (r.id == XHAL_OP_var) r.set(1, 0.0);
}

void smoothing_ignored(Request& r) {
  if (r.id == XHAL_OP_cross_entropy) r.set(2, 0.0);
}

// The default of an attribute that is left out is another one than the catalogue's.
void default_differs(Request& r) {
  if (r.id != XHAL_OP_layer_norm) return;
  for (const auto& a : r.attributes)
    if (a.index == 1) return;
  xhal_attribute eps{1, XHAL_ATTR_FLOAT, {}, 1};
  eps.value.f = 1e-3;
  r.attributes.push_back(eps);
}

void block_scale_doubled(Launch& l) {
  if (l.id == XHAL_OP_dequantise_block) change_output(l, [](float x) { return x * 2; });
}

void gradient_halved(Launch& l) {
  if (l.id == XHAL_OP_mse_loss_grad) change_output(l, [](float x) { return x / 2; });
}

void other_bits_every_second_time(Launch& l) {
  const auto& out = l.asked.back();
  if (l.id != XHAL_OP_exp || !is_f32(out) || count_of(out) < 10 || l.number % 2 != 0) return;
  l.after = [data = elements<uint32_t>(l.addresses.back(), out)] { data[9] ^= 1; };
}

void input_overwritten(Launch& l) {
  const auto& in = l.asked[0];
  if (l.id != XHAL_OP_softmax || !is_f32(in) || count_of(in) == 0 ||
      l.addresses[0] == l.addresses[1])
    return;
  l.after = [data = elements<float>(l.addresses[0], in)] { data[0] += 1; };
}

// Products of bf16 matrices with an f32 result, kept in bf16 on the way.
void narrow_intermediate(Launch& l) {
  if (l.id == XHAL_OP_gemm && l.asked[0].code == XHAL_CODE_BFLOAT)
    change_output(l, [](float x) { return to_bf16(x, true); });
}

Fault planted(const char* name, void (*prepare)(Request&)) { return {name, prepare, nullptr}; }
Fault planted(const char* name, void (*launch)(Launch&)) { return {name, nullptr, launch}; }

}  // namespace

void Request::set(uint32_t index, int64_t value) {
  for (auto& a : attributes) {
    if (a.index == index) a.value.i = value;
  }
}

void Request::set(uint32_t index, double value) {
  for (auto& a : attributes) {
    if (a.index == index) a.value.f = value;
  }
}

const Fault* chosen() {
  static const Fault faults[] = {
#define FAULT(name, tests) planted(#name, name),
#include "faults.inc"
#undef FAULT
  };
  const char* wanted = std::getenv("XHAL_TEST_FAULT");
  if (wanted == nullptr || *wanted == 0) return nullptr;
  for (const auto& fault : faults) {
    if (std::strcmp(fault.name, wanted) == 0) return &fault;
  }
  std::fprintf(stderr, "XHAL_TEST_FAULT=%s names no fault\n", wanted);
  std::abort();
}

}  // namespace xhal::faults
