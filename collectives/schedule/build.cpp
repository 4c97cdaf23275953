// SPDX-License-Identifier: Apache-2.0
// build.cpp: the algorithms.
//
// Why no ring is overwritten too early, in kinds without an ack counter (all_reduce, reduce): let D
// be the depth of the rings, and the copy out have lag 2. A rank that puts piece c has finished
// iteration c-1, so it has waited for every peer's out counter to reach c-3: every peer has reduced
// piece c-3, so its cell of piece c-D is free for D >= 3. A rank that writes its out ring at piece
// c has waited for every peer's cell counter to reach c: every peer has finished iteration c-1, so
// it has copied piece c-3 out. The other kinds say with an ack counter what they have taken, and
// writers wait for the ack of piece c-D.
#include <algorithm>
#include <cassert>

#include "schedule/schedule.hpp"

namespace xcoll::schedule {
namespace {

constexpr uint8_t kReduceLag = 1;
constexpr uint8_t kCopyLag = 2;

class Builder {
 public:
  explicit Builder(const Key& key)
      : key_(key), me_(key.rank), root_(static_cast<uint16_t>(key.root)) {}

  Schedule flat() {
    switch (key_.kind) {
      case XCOLL_ALL_REDUCE:
        post();
        reduce(recv(), Place::kPost, kAll);
        break;
      case XCOLL_REDUCE:
        if (!is_root()) post();
        if (is_root()) reduce(recv(), Place::kPost, kAll);
        break;
      case XCOLL_REDUCE_SCATTER:
      case XCOLL_REDUCE_SCATTER_V:
        post();
        reduce(recv(), Place::kPost, own_block());
        break;
      case XCOLL_BROADCAST:
        if (is_root()) post();
        copy(is_root() ? send() : posted_by(root_), recv());
        break;
      case XCOLL_SCATTER:
        if (is_root()) post();
        copy(is_root() ? send(own_block()) : posted_by(root_, own_block()), recv());
        break;
      case XCOLL_ALL_GATHER:
      case XCOLL_ALL_GATHER_V:
        post();
        copy(send(), recv(own_block()));
        each_peer([&](uint16_t peer) { copy(posted_by(peer), recv(block(peer))); });
        break;
      case XCOLL_GATHER:
        if (!is_root()) post();
        if (is_root()) {
          copy(send(), recv(own_block()));
          each_peer([&](uint16_t peer) { copy(posted_by(peer), recv(block(peer))); });
        }
        break;
      case XCOLL_ALL_TO_ALL:
        post();
        copy(send(own_block()), recv(own_block()));
        each_peer([&](uint16_t peer) { copy(posted_by(peer, own_block()), recv(block(peer))); });
        break;
      default:
        break;  // barrier: entering is all
    }
    return finish(false);
  }

  Schedule pipelined() {
    switch (key_.kind) {
      case XCOLL_ALL_REDUCE:
        reduce_blocks_through_cells();
        each_peer([&](uint16_t peer) {
          wait(CounterKind::kOut, peer, 0, kCopyLag);
          copy(out(peer), recv(block(peer)), kCopyLag);
        });
        break;
      case XCOLL_REDUCE:
        reduce_blocks_through_cells();
        each_peer([&](uint16_t peer) {
          wait(CounterKind::kOut, peer, 0, kCopyLag);
          if (is_root()) copy(out(peer), recv(block(peer)), kCopyLag);
        });
        break;
      case XCOLL_REDUCE_SCATTER:
      case XCOLL_REDUCE_SCATTER_V:
        wait_for_acks();
        put_blocks_into_cells();
        each_peer([&](uint16_t peer) { wait(CounterKind::kCell, peer, me_, kReduceLag); });
        reduce(recv(), Place::kCell, own_block(), kReduceLag);
        signal(CounterKind::kAck, 0, kReduceLag);
        break;
      case XCOLL_ALL_TO_ALL:
      case XCOLL_ALL_TO_ALL_V:
        wait_for_acks();
        put_blocks_into_cells();
        copy(send(own_block()), recv(own_block()), kReduceLag);
        each_peer([&](uint16_t peer) {
          wait(CounterKind::kCell, peer, me_, kReduceLag);
          copy(cell(peer, me_), recv(block(peer)), kReduceLag);
        });
        signal(CounterKind::kAck, 0, kReduceLag);
        break;
      case XCOLL_ALL_GATHER:
      case XCOLL_ALL_GATHER_V:
        wait_for_acks();
        put(send(), out(me_));
        signal(CounterKind::kOut, 0);
        copy(send(), recv(own_block()), kReduceLag);
        each_peer([&](uint16_t peer) {
          wait(CounterKind::kOut, peer, 0, kReduceLag);
          copy(out(peer), recv(block(peer)), kReduceLag);
        });
        signal(CounterKind::kAck, 0, kReduceLag);
        break;
      case XCOLL_BROADCAST:
        if (is_root()) {
          wait_for_acks();
          put(send(), out(me_));
          signal(CounterKind::kOut, 0);
          copy(send(), recv());
        } else {
          wait(CounterKind::kOut, root_, 0);
          copy(out(root_), recv());
          signal(CounterKind::kAck, 0);
        }
        break;
      case XCOLL_GATHER:
        if (is_root()) {
          copy(send(), recv(own_block()));
          each_peer([&](uint16_t peer) {
            wait(CounterKind::kOut, peer, 0);
            copy(out(peer), recv(block(peer)));
          });
          signal(CounterKind::kAck, 0);
        } else {
          wait(CounterKind::kAck, root_, 0, key_.ring_depth);
          put(send(), out(me_));
          signal(CounterKind::kOut, 0);
        }
        break;
      case XCOLL_SCATTER:
        if (is_root()) {
          wait_for_acks();
          put_blocks_into_cells();
          copy(send(own_block()), recv());
        } else {
          wait(CounterKind::kCell, root_, me_);
          copy(cell(root_, me_), recv());
          signal(CounterKind::kAck, 0);
        }
        break;
      default:
        break;
    }
    return finish(true);
  }

 private:
  bool is_root() const { return key_.root == me_; }
  static int16_t block(uint16_t rank) { return static_cast<int16_t>(rank); }
  int16_t own_block() const { return block(me_); }

  // Peers in an order that starts behind the own rank, so that not all ranks visit one peer first.
  template <typename Visit>
  void each_peer(Visit&& visit) const {
    for (uint16_t distance = 1; distance < key_.ranks; ++distance) {
      visit(static_cast<uint16_t>((me_ + distance) % key_.ranks));
    }
  }

  static Operand send(int16_t block = kAll) { return {Place::kSend, 0, 0, block}; }
  static Operand recv(int16_t block = kAll) { return {Place::kRecv, 0, 0, block}; }
  static Operand posted_by(uint16_t rank, int16_t block = kAll) {
    return {Place::kPost, rank, 0, block};
  }
  static Operand out(uint16_t rank) { return {Place::kOut, rank, 0, kAll}; }
  static Operand cell(uint16_t from, uint16_t to) { return {Place::kCell, from, to, kAll}; }

  void post() {
    schedule_.before.push_back({.kind = StepKind::kPut, .to = posted_by(me_), .from = send()});
  }
  void put(Operand from, Operand to) {
    schedule_.loop.push_back({.kind = StepKind::kPut, .to = to, .from = from});
  }
  void copy(Operand from, Operand to, uint8_t lag = 0) {
    schedule_.loop.push_back({.kind = StepKind::kCopy, .lag = lag, .to = to, .from = from});
  }
  void reduce(Operand to, Place contributions, int16_t block, uint8_t lag = 0, Operand also = {}) {
    schedule_.loop.push_back({.kind = StepKind::kReduce,
                              .lag = lag,
                              .to = to,
                              .from = {contributions, 0, me_, block},
                              .also = also});
  }
  void signal(CounterKind counter, uint16_t toward, uint8_t lag = 0) {
    schedule_.loop.push_back({.kind = StepKind::kSignal,
                              .lag = lag,
                              .counter = counter,
                              .owner = me_,
                              .toward = toward});
  }
  void wait(CounterKind counter, uint16_t owner, uint16_t toward, uint8_t lag = 0) {
    schedule_.loop.push_back({.kind = StepKind::kWait,
                              .lag = lag,
                              .counter = counter,
                              .owner = owner,
                              .toward = toward});
  }

  void wait_for_acks() {
    each_peer([&](uint16_t peer) { wait(CounterKind::kAck, peer, 0, key_.ring_depth); });
  }
  void put_blocks_into_cells() {
    each_peer([&](uint16_t peer) {
      put(send(block(peer)), cell(me_, peer));
      signal(CounterKind::kCell, peer);
    });
  }

  // Reduce-scatter into the out rings; where this rank wants its own block it gets it in
  // the same pass.
  void reduce_blocks_through_cells() {
    put_blocks_into_cells();
    each_peer([&](uint16_t peer) { wait(CounterKind::kCell, peer, me_, kReduceLag); });
    if (key_.kind == XCOLL_ALL_REDUCE) {
      reduce(recv(own_block()), Place::kCell, own_block(), kReduceLag, out(me_));
    } else if (is_root()) {
      reduce(recv(own_block()), Place::kCell, own_block(), kReduceLag);
    } else {
      reduce(out(me_), Place::kCell, own_block(), kReduceLag);
    }
    signal(CounterKind::kOut, 0, kReduceLag);
  }

  Schedule finish(bool in_pieces) {
    assert(!in_pieces || key_.ring_depth > kCopyLag);
    schedule_.in_pieces = in_pieces;
    for (const Step& step : schedule_.loop) {
      if (step.kind != StepKind::kWait) schedule_.max_lag = std::max(schedule_.max_lag, step.lag);
    }
    return std::move(schedule_);
  }

  Key key_;
  uint16_t me_;
  uint16_t root_;
  Schedule schedule_;
};

}  // namespace

Schedule build(const Key& key) {
  return key.algorithm == Algorithm::kFlat ? Builder(key).flat() : Builder(key).pipelined();
}

}  // namespace xcoll::schedule
