// SPDX-License-Identifier: Apache-2.0
// graph.hpp: recorded work: the commands of a capture in one piece, run from front to back
// at each replay.
//
// A capture takes the commands of all streams that joined it in the order they were submitted. That
// order honours every dependency, and each operator uses all cores anyway, so a replay is a loop:
// nothing is allocated, resolved or queued.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "command.hpp"
#include "operator.hpp"
#include "wait.hpp"
#include "xhal/plugin.hpp"

namespace xhal::cpu {

class Context;
class Device;
class Stream;

class Graph {
 public:
  template <class C>
  C* append(Kind kind, uint64_t trailing_bytes) {
    const uint32_t bytes = whole_lines(sizeof(C) + trailing_bytes);
    auto* command = static_cast<C*>(room(bytes));
    commands_.push_back(command);
    command->bytes = bytes;
    command->kind = kind;
    command->flags = 0;
    host_calls_ = host_calls_ || kind == Kind::host_call;
    return command;
  }
  void keep(std::shared_ptr<const void> thing) { kept_.push_back(std::move(thing)); }

  const std::vector<Command*>& commands() const { return commands_; }
  bool has_host_calls() const { return host_calls_; }
  CostEstimate& cost() { return cost_; }

  // One replay at a time. A stream that finds it taken is put in line and handed to an executor
  // when it is free.
  bool take(Stream* stream);
  bool take_now();
  void give_back();

  // Replays submitted and not finished.
  void submitted() { pending_.fetch_add(1); }
  void finished();
  void wait_idle();

 private:
  void* room(uint32_t bytes);

  static constexpr uint32_t kChunkBytes = 32 << 10;
  struct Free {
    void operator()(char* p) const { ::operator delete (p, std::align_val_t{64}); }
  };

  std::vector<std::unique_ptr<char, Free>> chunks_;
  uint32_t left_bytes_ = 0;
  char* place_ = nullptr;
  std::vector<Command*> commands_;
  std::vector<std::shared_ptr<const void>> kept_;
  bool host_calls_ = false;
  CostEstimate cost_;

  SpinLock lock_;
  bool taken_ = false;
  Stream* first_ = nullptr;
  std::atomic<uint32_t> pending_{0};
};

// The xhal_graph.
struct GraphHandle : plugin::Object {
  GraphHandle(Device& d, std::unique_ptr<Graph> g) : device(d), graph(std::move(g)) {}
  xhal_status size(uint64_t* node_count);
  xhal_status destroy();
  void let_go() { graph.reset(); }

  Device& device;
  std::unique_ptr<Graph> graph;
};

// A capture under way: the graph so far, and for every stream in it what its next
// command comes after.
class Capture {
 public:
  Capture(Stream& origin, uint32_t id);

  uint32_t id() const { return id_; }
  Stream& origin() const { return origin_; }

  template <class C, class Fill>
  void record(const Stream& stream, Kind kind, uint64_t trailing_bytes, Fill&& fill) {
    const std::lock_guard lock(mutex_);
    C* command = graph_->append<C>(kind, trailing_bytes);
    command->correlation = 0;
    fill(*command);
    note(stream);
  }
  void keep(std::shared_ptr<const void> thing);

  // A name for what `stream` has recorded so far, and the join of `stream` behind a name.
  uint64_t mark(const Stream& stream);
  void join(Stream& stream, uint64_t mark);
  // A submission was refused: the capture cannot succeed any more.
  void spoil(const std::string& reason);
  // Takes all streams out; returns the graph, or throws CAPTURE with the reason.
  std::unique_ptr<Graph> end();

 private:
  using Seen = std::map<const Stream*, uint64_t>;  // commands of each stream
  void note(const Stream& stream);                 // call with the lock held

  Stream& origin_;
  const uint32_t id_;
  std::mutex mutex_;
  std::unique_ptr<Graph> graph_ = std::make_unique<Graph>();
  std::map<Stream*, Seen> streams_;
  std::vector<Seen> marks_;
  std::string spoiled_;
};

}  // namespace xhal::cpu
