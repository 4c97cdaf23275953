// SPDX-License-Identifier: Apache-2.0
#include "engine/recorder.hpp"

namespace xcoll::engine {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

}  // namespace

uint64_t Recorder::begin(const Operation& operation, uint64_t sequence) {
  const uint64_t number = last_.load(kRelaxed) + 1;
  Line& to = line(number);
  to.ended.store(0, kRelaxed);
  to.number.store(number, kRelaxed);
  to.sequence.store(sequence, kRelaxed);
  to.count.store(operation.signature.count, kRelaxed);
  to.words.store(operation.signature.words, kRelaxed);
  to.peer.store(operation.peer, kRelaxed);
  to.started.store(ticks(), kRelaxed);
  last_.store(number, kRelaxed);
  return number;
}

void Recorder::finish(uint64_t number, xcoll_status status) {
  Line& to = line(number);
  if (to.number.load(kRelaxed) != number) return;  // overwritten meanwhile
  to.status.store(status, kRelaxed);
  to.ended.store(ticks(), kRelaxed);
}

}  // namespace xcoll::engine
