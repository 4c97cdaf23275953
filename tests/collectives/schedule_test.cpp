// SPDX-License-Identifier: Apache-2.0
// Schedules in a model of the shared memory, under many interleavings of the ranks: every step
// reads what it is meant to read, nothing is overwritten before all have read it, and all ranks get
// to the end.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <tuple>

#include "schedule/schedule.hpp"

namespace xcoll::testing {
namespace {

using schedule::Algorithm;
using schedule::CounterKind;
using schedule::Operand;
using schedule::Place;
using schedule::Schedule;
using schedule::Step;
using schedule::StepKind;

constexpr uint8_t kDepth = 4;

struct Case {
  xcoll_kind kind;
  Algorithm algorithm;
  int32_t root;
};

// What lies in a slot: piece number `piece` of `block`, written by `writer`.
struct Content {
  uint16_t writer;
  int16_t block;
  uint64_t piece;
  auto operator<=>(const Content&) const = default;
};

class Model {
 public:
  Model(const Case& tested, uint16_t ranks, uint64_t pieces, uint32_t seed)
      : ranks_(ranks), pieces_(pieces), random_(seed), states_(ranks) {
    for (uint16_t rank = 0; rank < ranks; ++rank) {
      const int32_t root = tested.root;
      states_[rank].schedule =
          schedule::build({tested.kind, tested.algorithm, root, ranks, rank, kDepth});
    }
  }

  // Runs all ranks in a random interleaving; says what went wrong.
  std::string run() {
    for (uint16_t rank = 0; rank < ranks_; ++rank) {
      for (const Step& step : states_[rank].schedule.before) execute(rank, step, 0);
    }
    for (uint64_t idle = 0; idle < 10'000 && problem_.empty();) {
      const auto rank = static_cast<uint16_t>(random_() % ranks_);
      idle = advance(rank) ? 0 : idle + 1;
      if (all_done()) return problem_;
    }
    return problem_.empty() ? "deadlock" : problem_;
  }

 private:
  struct State {
    Schedule schedule;
    uint64_t iteration = 0;
    size_t step = 0;
    bool done = false;
  };

  bool all_done() const {
    return std::all_of(states_.begin(), states_.end(), [](const State& s) { return s.done; });
  }

  // One step of one rank; false when it has to wait or is done.
  bool advance(uint16_t rank) {
    State& state = states_[rank];
    if (state.done) return false;
    const uint64_t pieces = state.schedule.in_pieces ? pieces_ : 1;
    if (state.step == state.schedule.loop.size()) {
      state.step = 0;
      state.done = ++state.iteration == pieces + state.schedule.max_lag;
      return true;
    }
    const Step& step = state.schedule.loop[state.step];
    const uint64_t piece = state.iteration - step.lag;
    if (state.iteration >= step.lag && piece < pieces && !execute(rank, step, piece)) return false;
    ++state.step;
    return true;
  }

  using Slot = std::tuple<Place, uint16_t, uint16_t, uint64_t>;
  Slot slot_of(const Operand& operand, uint64_t piece) const {
    const bool cell = operand.place == Place::kCell;
    const uint64_t index = operand.place == Place::kPost ? 0 : piece % kDepth;
    return {operand.place, operand.rank, cell ? operand.to : uint16_t{0}, index};
  }
  static bool is_shared(const Operand& operand) {
    return operand.place == Place::kPost || operand.place == Place::kOut ||
           operand.place == Place::kCell;
  }

  bool execute(uint16_t rank, const Step& step, uint64_t piece) {
    switch (step.kind) {
      case StepKind::kPut:
      case StepKind::kCopy:
        if (is_shared(step.from)) read(rank, step.from, piece);
        if (is_shared(step.to)) write(rank, step.to, piece, step.from.block);
        return true;
      case StepKind::kReduce:
        for (uint16_t peer = 0; peer < ranks_; ++peer) {
          if (peer == rank) continue;
          read(rank, {step.from.place, peer, step.from.to, step.from.block}, piece);
        }
        if (is_shared(step.to)) write(rank, step.to, piece, step.from.block);
        if (is_shared(step.also)) write(rank, step.also, piece, step.from.block);
        return true;
      case StepKind::kSignal:
        counters_[counter_of(step)] = piece + 1;
        return true;
      case StepKind::kWait:
        return counters_[counter_of(step)] >= piece + 1;
    }
    return true;
  }

  using Counter = std::tuple<CounterKind, uint16_t, uint16_t>;
  static Counter counter_of(const Step& step) {
    return {step.counter, step.owner,
            step.counter == CounterKind::kCell ? step.toward : uint16_t{0}};
  }

  void write(uint16_t rank, const Operand& to, uint64_t piece, int16_t block) {
    if (to.rank != rank) complain(rank, "writes into another rank's memory");
    slots_[slot_of(to, piece)] = {rank, block, piece};
  }
  void read(uint16_t rank, const Operand& from, uint64_t piece) {
    const auto found = slots_.find(slot_of(from, piece));
    if (found == slots_.end()) return complain(rank, "reads what nobody wrote");
    if (found->second.writer != from.rank) complain(rank, "reads another writer's data");
    if (found->second.piece != piece) complain(rank, "reads another piece");
    if (from.place == Place::kCell && found->second.block != static_cast<int16_t>(rank)) {
      complain(rank, "reads another rank's block");
    }
  }
  void complain(uint16_t rank, const char* what) {
    if (problem_.empty()) problem_ = "rank " + std::to_string(rank) + " " + what;
  }

  uint16_t ranks_;
  uint64_t pieces_;
  std::mt19937 random_;
  std::vector<State> states_;
  std::map<Slot, Content> slots_;
  std::map<Counter, uint64_t> counters_;
  std::string problem_;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const Algorithm algorithm : {Algorithm::kFlat, Algorithm::kPipelined}) {
    for (const xcoll_kind kind :
         {XCOLL_ALL_REDUCE, XCOLL_ALL_GATHER, XCOLL_ALL_GATHER_V, XCOLL_REDUCE_SCATTER,
          XCOLL_REDUCE_SCATTER_V, XCOLL_ALL_TO_ALL, XCOLL_ALL_TO_ALL_V, XCOLL_BARRIER}) {
      cases.push_back({kind, algorithm, -1});
    }
    for (const xcoll_kind kind : {XCOLL_BROADCAST, XCOLL_REDUCE, XCOLL_GATHER, XCOLL_SCATTER}) {
      for (const int32_t root : {0, 1}) cases.push_back({kind, algorithm, root});
    }
  }
  return cases;
}

TEST(ScheduleTest, NoInterleavingOverwritesWhatIsStillRead) {
  for (const Case& tested : all_cases()) {
    for (const uint16_t ranks : {2, 3, 5}) {
      for (const uint64_t pieces : {1, 2, 3, 9, 20}) {
        for (uint32_t seed = 0; seed < 20; ++seed) {
          ASSERT_EQ(Model(tested, ranks, pieces, seed).run(), "")
              << "kind " << tested.kind << ", algorithm " << int(tested.algorithm) << ", root "
              << tested.root << ", " << ranks << " ranks, " << pieces << " pieces, seed " << seed;
        }
      }
    }
  }
}

TEST(ScheduleTest, EveryBlockOfAnAllReduceIsReducedAndDeliveredOnce) {
  for (uint16_t rank = 0; rank < 4; ++rank) {
    const Schedule made =
        schedule::build({XCOLL_ALL_REDUCE, Algorithm::kPipelined, -1, 4, rank, kDepth});
    std::map<int16_t, int> delivered;
    for (const Step& step : made.loop) {
      if (step.to.place == Place::kRecv) ++delivered[step.to.block];
    }
    EXPECT_EQ(delivered, (std::map<int16_t, int>{{0, 1}, {1, 1}, {2, 1}, {3, 1}}));
  }
}

}  // namespace
}  // namespace xcoll::testing
