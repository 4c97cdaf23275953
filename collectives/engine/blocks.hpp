// SPDX-License-Identifier: Apache-2.0
// blocks.hpp: how a buffer is divided between ranks, in elements.
#pragma once

#include <algorithm>
#include <cstdint>

#include "schedule/schedule.hpp"

namespace xcoll::engine {

struct Span {
  uint64_t offset = 0;
  uint64_t count = 0;
};

class Blocks {
 public:
  Blocks() = default;

  // One block: the buffer.
  static Blocks whole(uint64_t count) { return Blocks(Form::kEqual, count, count); }
  // `ranks` blocks of `count` each.
  static Blocks equal(uint64_t count, uint32_t ranks) {
    return Blocks(Form::kEqual, count, count * ranks);
  }
  // `total` divided as evenly as multiples of `unit` allow; the last blocks may be short or empty.
  static Blocks divided(uint64_t total, uint32_t ranks, uint64_t unit) {
    const uint64_t share = (total + ranks - 1) / ranks;
    return Blocks(Form::kEqual, (share + unit - 1) / unit * unit, total);
  }
  // Block r has counts[r] and begins at offsets[r]; both outlive this object.
  static Blocks table(const uint64_t* counts, const uint64_t* offsets, uint32_t ranks) {
    Blocks blocks(Form::kTable, 0, 0);
    blocks.counts_ = counts;
    blocks.offsets_ = offsets;
    blocks.total_ = offsets[ranks - 1] + counts[ranks - 1];
    blocks.block_ = *std::max_element(counts, counts + ranks);
    return blocks;
  }

  Span operator[](int16_t block) const {
    if (block == schedule::kAll) return {0, total_};
    const auto index = static_cast<uint64_t>(block);
    if (form_ == Form::kTable) return {offsets_[index], counts_[index]};
    const uint64_t offset = std::min(index * block_, total_);
    return {offset, std::min(block_, total_ - offset)};
  }

  uint64_t total() const { return total_; }
  uint64_t largest() const { return std::min(block_, total_); }

 private:
  enum class Form : uint8_t { kEqual, kTable };
  Blocks(Form form, uint64_t block, uint64_t total) : form_(form), block_(block), total_(total) {}

  Form form_ = Form::kEqual;
  uint64_t block_ = 0;
  uint64_t total_ = 0;
  const uint64_t* counts_ = nullptr;
  const uint64_t* offsets_ = nullptr;
};

}  // namespace xcoll::engine
