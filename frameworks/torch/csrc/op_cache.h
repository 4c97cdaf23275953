// SPDX-License-Identifier: Apache-2.0
// op_cache.h: prepared operators by what they were prepared for.
//
// A key is a row of 64-bit words that says everything xhal_op_prepare is told: device, operator,
// attributes, groups, formats, sizes, strides. Refusals are cached too. A thread finds its recent
// keys without a lock. The table is bounded by bytes, for a prepared operator may hold compiled
// code and a program's shapes may never repeat: what has not been used for longest is dropped.
#pragma once

#include <c10/util/SmallVector.h>
#include <xhal/xhal.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime.h"

namespace xhal_torch {

// Key words, each tagged in its top byte.
namespace key {
inline constexpr uint64_t kAttribute = 1, kGroup = 2, kOperand = 3;
inline uint64_t header(uint32_t id, DeviceIndex device, bool deterministic) {
  return id | uint64_t(uint8_t(device)) << 32 | uint64_t(deterministic) << 40;
}
// Followed by `count` value words.
inline uint64_t attribute(uint32_t index, uint32_t kind, uint32_t count) {
  return kAttribute << 56 | uint64_t(kind) << 48 | uint64_t(index) << 32 | count;
}
inline uint64_t group(uint32_t size) { return kGroup << 56 | size; }
// Followed by `ndim` sizes and `ndim` strides.
inline uint64_t operand(uint8_t code, uint8_t bits, uint32_t flags, uint32_t ndim) {
  return kOperand << 56 | uint64_t(code) << 48 | uint64_t(bits) << 40 | uint64_t(flags) << 32 |
         ndim;
}
inline uint64_t tag(uint64_t word) { return word >> 56; }
inline uint32_t low(uint64_t word) { return static_cast<uint32_t>(word); }
inline uint8_t byte(uint64_t word, int index) { return static_cast<uint8_t>(word >> (8 * index)); }
}  // namespace key

using KeyWords = c10::SmallVector<uint64_t, 48>;

struct PreparedOp {
  PreparedOp() = default;
  ~PreparedOp();
  PreparedOp(const PreparedOp&) = delete;
  PreparedOp& operator=(const PreparedOp&) = delete;

  std::vector<uint64_t> words;
  xhal_op* op = nullptr;  // null: refused
  uint64_t workspace_bytes = 0;
  bool half = false;     // has 16-bit operands
  bool rewrite = false;  // some operand should be contiguous, of another dtype, or better aligned
  std::vector<xhal_operand_need> needs;
  std::string refusal;
};

// The entry of a key, prepared now if nobody has. The pointer is good until this
// thread's next call.
const PreparedOp* find_op(const KeyWords& words);

const char* op_name(uint32_t id);

}  // namespace xhal_torch
