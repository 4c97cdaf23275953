// SPDX-License-Identifier: Apache-2.0
#include "engine/collective_run.hpp"

#include <cstring>

#include "base/clock.hpp"
#include "base/float_mode.hpp"
#include "engine/failure_board.hpp"

namespace xcoll::engine {
namespace {

using schedule::CounterKind;
using schedule::Operand;
using schedule::Place;
using schedule::Step;
using schedule::StepKind;

// Counters only grow: the sequence above, the number of pieces done below.
uint64_t tag(uint64_t sequence, uint64_t piece) { return sequence << 24 | (piece + 1); }

// Executes single steps of one operation on one piece.
class Machine {
 public:
  Machine(const RankView& view, const Operation& operation, uint64_t sequence,
          uint64_t piece_elements)
      : view_(view), op_(operation), sequence_(sequence), piece_elements_(piece_elements) {}

  void move(const Step& step, uint64_t piece) const {
    const bool to_user = step.to.place == Place::kRecv;
    const Range range = user(to_user ? step.to : step.from, piece);
    if (range.count == 0) return;
    const std::byte* from = address(step.from, piece);
    std::byte* to = address(step.to, piece);
    if (from != to) std::memcpy(to, from, range.count * op_.element_bytes);
  }

  void reduce(const Step& step, uint64_t piece) const {
    const Operand own{Place::kSend, 0, 0, step.from.block};
    const uint64_t count = user(own, piece).count;
    if (count == 0) return;
    const void* sources[shm::kMaxRanks];
    for (uint32_t rank = 0; rank < view_.ranks(); ++rank) {
      const Operand theirs{step.from.place, static_cast<uint16_t>(rank), step.from.to,
                           step.from.block};
      sources[rank] = address(rank == view_.rank ? own : theirs, piece);
    }
    std::byte* to = address(step.to, piece);
    const DefaultFloatMode same_on_every_thread;
    if (step.also.place == Place::kNone) {
      op_.combine(to, sources, view_.ranks(), count);
      return;
    }
    reduce_twice(to, address(step.also, piece), sources, count);
  }

  void signal(const Step& step, uint64_t piece) const {
    // An exchange and not a store: it orders the store before the look at who sleeps.
    counter(step).value.exchange(tag(sequence_, piece));
    if (step.counter == CounterKind::kCell) {
      shm::ring_if_sleeping(view_.segment, step.toward);
    } else {
      shm::ring_all_sleeping(view_.segment, view_.rank);
    }
  }

  bool reached(const Step& step, uint64_t piece, uint32_t polls) const {
    const std::atomic<uint64_t>& value = counter(step).value;
    const uint64_t wanted = tag(sequence_, piece);
    for (;;) {
      if (value.load() >= wanted) return true;
      if (polls-- == 0) return false;
      cpu_relax();
    }
  }

 private:
  struct Range {
    uint64_t offset;
    uint64_t count;
  };

  // What `operand` (in user memory) covers of piece number `piece`, in elements.
  Range user(const Operand& operand, uint64_t piece) const {
    const Blocks& blocks = operand.place == Place::kSend ? op_.send_blocks : op_.recv_blocks;
    const Span block = blocks[operand.block];
    if (piece_elements_ == 0) return {block.offset, block.count};
    const uint64_t begin = piece * piece_elements_;
    if (begin >= block.count) return {block.offset, 0};
    return {block.offset + begin, std::min(piece_elements_, block.count - begin)};
  }

  std::byte* address(const Operand& operand, uint64_t piece) const {
    const shm::Segment& segment = view_.segment;
    switch (operand.place) {
      case Place::kSend:
        return const_cast<std::byte*>(op_.send) + user(operand, piece).offset * op_.element_bytes;
      case Place::kRecv:
        return op_.recv + user(operand, piece).offset * op_.element_bytes;
      case Place::kPost: {
        std::byte* post = op_.post_bytes <= shm::kInlineBytes
                              ? segment.entry(operand.rank, sequence_).payload
                              : segment.post(operand.rank, sequence_);
        return post + op_.send_blocks[operand.block].offset * op_.element_bytes;
      }
      case Place::kOut:
        return segment.out(operand.rank, piece);
      case Place::kCell:
        return segment.cell(operand.rank, operand.to, piece);
      case Place::kNone:
        break;
    }
    return nullptr;
  }

  shm::Counter& counter(const Step& step) const {
    switch (step.counter) {
      case CounterKind::kOut:
        return view_.segment.out_counter(step.owner);
      case CounterKind::kAck:
        return view_.segment.ack_counter(step.owner);
      case CounterKind::kCell:
        break;
    }
    return view_.segment.cell_counter(step.owner, step.toward);
  }

  // In tiles, so that the second copy is taken while the first is in the nearest cache.
  void reduce_twice(std::byte* to, std::byte* also, const void** sources, uint64_t count) const {
    const uint64_t tile = 8192 / op_.element_bytes;
    for (uint64_t begin = 0; begin < count; begin += tile) {
      const uint64_t length = std::min(tile, count - begin);
      const uint64_t bytes = length * op_.element_bytes;
      op_.combine(to, sources, view_.ranks(), length);
      std::memcpy(also, to, bytes);
      to += bytes;
      also += bytes;
      for (uint32_t rank = 0; rank < view_.ranks(); ++rank) {
        sources[rank] = static_cast<const std::byte*>(sources[rank]) + bytes;
      }
    }
  }

  const RankView& view_;
  const Operation& op_;
  uint64_t sequence_;
  uint64_t piece_elements_;
};

}  // namespace

Advance CollectiveRun::advance(const RankView& view, const Operation& operation, uint64_t sequence,
                               uint32_t polls) {
  bool moved = false;
  if (phase_ == Phase::kBefore) {
    const Signature& signature = operation.signature;
    schedule_ = &view.schedules.get(signature.kind(), signature.algorithm(), signature.root);
    post(view, operation, sequence);
    phase_ = Phase::kEnter;
    moved = true;
  }
  if (phase_ == Phase::kEnter) {
    const uint32_t entries_before = next_entry_;
    const Advance entered = enter(view, operation, sequence, polls);
    if (entered == Advance::kMismatch) return entered;
    moved = moved || next_entry_ != entries_before;
    if (entered == Advance::kBlocked) return moved ? Advance::kMoved : Advance::kBlocked;
    phase_ = Phase::kLoop;
  }
  const uint32_t step_before = next_step_;
  const uint64_t iteration_before = iteration_;
  const Advance looped = loop(view, operation, sequence, polls);
  if (looped == Advance::kDone) return looped;
  moved = moved || next_step_ != step_before || iteration_ != iteration_before;
  return moved ? Advance::kMoved : Advance::kBlocked;
}

void CollectiveRun::post(const RankView& view, const Operation& operation, uint64_t sequence) {
  const Machine machine(view, operation, sequence, 0);
  for (const Step& step : schedule_->before) machine.move(step, 0);
  if (operation.is_all_to_all_v()) {
    // Both tables of counts, so that every rank can check every pair.
    auto* table = reinterpret_cast<uint64_t*>(view.segment.post(view.rank, sequence));
    const uint64_t* counts = operation.counts.data();
    const size_t ranks = view.ranks();
    std::memcpy(table, counts, ranks * sizeof(uint64_t));
    std::memcpy(table + ranks, counts + 2 * ranks, ranks * sizeof(uint64_t));
  }
  shm::Entry& entry = view.segment.entry(view.rank, sequence);
  const Signature& signature = operation.signature;
  entry.fingerprint.store(fingerprint_at(signature.fingerprint, sequence),
                          std::memory_order_relaxed);
  entry.count.store(signature.count, std::memory_order_relaxed);
  entry.words.store(signature.words, std::memory_order_relaxed);
  entry.root.store(signature.root, std::memory_order_relaxed);
  entry.sequence.exchange(sequence);
  shm::ring_all_sleeping(view.segment, view.rank);
}

Advance CollectiveRun::enter(const RankView& view, const Operation& operation, uint64_t sequence,
                             uint32_t polls) {
  const uint64_t expected = fingerprint_at(operation.signature.fingerprint, sequence);
  for (; next_entry_ < view.ranks(); ++next_entry_) {
    const shm::Entry& entry = view.segment.entry(next_entry_, sequence);
    while (entry.sequence.load() != sequence) {
      blocked_on_ = next_entry_;
      if (polls-- == 0) return Advance::kBlocked;
      cpu_relax();
    }
    if (entry.fingerprint.load(std::memory_order_relaxed) != expected) return Advance::kMismatch;
  }
  if (!operation.is_all_to_all_v()) {
    plan_pieces(view, operation, operation.largest_block);
    return Advance::kDone;
  }
  return plan_all_to_all_v(view, operation, sequence) ? Advance::kDone : Advance::kMismatch;
}

void CollectiveRun::plan_pieces(const RankView& view, const Operation& operation,
                                uint64_t largest_block) {
  if (!schedule_->in_pieces) {
    iterations_ = pieces_ = 1;
    return;
  }
  piece_elements_ = view.cell_bytes() / operation.element_bytes;
  pieces_ = (largest_block + piece_elements_ - 1) / piece_elements_;
  iterations_ = pieces_ == 0 ? 0 : pieces_ + schedule_->max_lag;
}

// False when a pair disagrees on what goes from one to the other.
bool CollectiveRun::plan_all_to_all_v(const RankView& view, const Operation& operation,
                                      uint64_t sequence) {
  const uint32_t ranks = view.ranks();
  const auto table_of = [&](uint32_t rank) {
    return reinterpret_cast<const uint64_t*>(view.segment.post(rank, sequence));
  };
  uint64_t largest = 0;
  for (uint32_t from = 0; from < ranks; ++from) {
    for (uint32_t to = 0; to < ranks; ++to) {
      const uint64_t sent = table_of(from)[to];
      if (sent != table_of(to)[ranks + from]) return false;
      largest = std::max(largest, sent);
    }
  }
  plan_pieces(view, operation, largest);
  return true;
}

Advance CollectiveRun::loop(const RankView& view, const Operation& operation, uint64_t sequence,
                            uint32_t polls) {
  const Machine machine(view, operation, sequence, piece_elements_);
  const std::vector<Step>& steps = schedule_->loop;
  for (; iteration_ < iterations_; ++iteration_, next_step_ = 0) {
    // A long operation ends soon when the communicator has failed meanwhile.
    if (iteration_ > 0 && has_failed(view.segment)) {
      return Advance::kBlocked;
    }
    for (; next_step_ < steps.size(); ++next_step_) {
      const Step& step = steps[next_step_];
      const uint64_t piece = iteration_ - step.lag;
      if (iteration_ < step.lag || piece >= pieces_) continue;
      switch (step.kind) {
        case StepKind::kPut:
        case StepKind::kCopy:
          machine.move(step, piece);
          break;
        case StepKind::kReduce:
          machine.reduce(step, piece);
          break;
        case StepKind::kSignal:
          machine.signal(step, piece);
          break;
        case StepKind::kWait:
          if (machine.reached(step, piece, polls)) break;
          blocked_on_ = step.owner;
          return Advance::kBlocked;
      }
    }
  }
  return Advance::kDone;
}

}  // namespace xcoll::engine
