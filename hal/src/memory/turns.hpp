// SPDX-License-Identifier: Apache-2.0
// turns.hpp: the pieces of staging memory that a copy takes turns with, and the helper stream that
// works on them. What was submitted keeps the pieces from then on.
#pragma once

#include "memory/context_memory.hpp"

namespace xhal {

struct Turns {
  static constexpr uint32_t kMostPieces = 4;

  Turns() = default;
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;
  ~Turns() {
    // First the helper: what it got last is what a piece that is set aside waits for.
    if (helper != nullptr) {
      const xhal_event last = give_back_helper(*helper_context, *helper);
      for (uint32_t i = 0; i < count; ++i) piece[i]->helper_work.store(last.value);
    }
    for (uint32_t i = 0; i < count; ++i) piece[i]->drop();
  }

  xhal_status take_helper_of(ContextState& context) {
    helper_context = &context;
    return take_helper(context, &helper);
  }
  StreamState& helper_side() const { return *state_of(helper->stream); }

  // At most `wanted` pieces, of at least min(size, kLargestPiece) bytes each.
  xhal_status take_pieces(uint64_t size, uint32_t wanted, StreamState& side) {
    StreamState* other = helper == nullptr ? nullptr : &helper_side();
    const uint32_t needed = size > Staging::kLargestPiece ? wanted : 1;
    for (; count < needed; ++count) {
      if (const auto s = side.context->memory->staging->take(size, side, other, &piece[count]);
          s != XHAL_OK)
        return s;
    }
    return XHAL_OK;
  }

  // Submitting ended half-way: something may have been submitted that nothing waits for any more.
  xhal_status abandon(xhal_status status) {
    for (uint32_t i = 0; i < count; ++i) piece[i]->unsafe.store(true, std::memory_order_relaxed);
    return status;
  }

  HelperStream* helper = nullptr;
  ContextState* helper_context = nullptr;
  Piece* piece[kMostPieces] = {};
  uint32_t count = 0;
};

}  // namespace xhal
