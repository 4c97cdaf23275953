// SPDX-License-Identifier: Apache-2.0
// comm.hpp: a communicator of one rank: its memory, its engine, and how it ends.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bootstrap/rendezvous.hpp"
#include "engine/engine.hpp"
#include "engine/stream_order.hpp"
#include "tuner/tuner.hpp"

namespace xcoll::engine {

struct Config {
  uint64_t timeout_ns;
  uint32_t recorder_entries;
  std::string name;

  // Defaults for what `config` (may be null) leaves open. Throws.
  static Config of(const xcoll_config* config);
};

// How often this process is a forked child: what was made at another count belongs to an ancestor.
uint32_t fork_generation();

class Comm {
 public:
  // Meets the other ranks. Throws.
  static std::unique_ptr<Comm> join(const xcoll_unique_id& id, int32_t ranks, int32_t rank,
                                    const Config& config);

  int32_t rank() const { return static_cast<int32_t>(rank_); }
  int32_t size() const { return static_cast<int32_t>(membership_.segment.ranks()); }
  const Config& config() const { return config_; }
  Engine& engine() { return engine_; }
  const Engine& engine() const { return engine_; }
  void set_timeout(uint64_t timeout_ns);

  // Throws FORKED in a child of the process that made it.
  void check_process() const;
  bool forked() const;

  ~Comm();

  Operation check(const xcoll_op& op) const;
  // Submits without waiting: in the order of a stream, or (null) when its turn comes.
  std::shared_ptr<Batch> submit(std::vector<Operation> operations, xhal_stream* stream);
  xcoll_status abort(const char* reason);
  xcoll_status async_error();
  xcoll_failure failure() const;
  // Null for a rank that gives a negative color.
  std::unique_ptr<Comm> split(int32_t color, int32_t key);
  void dump(int fd) const;

 private:
  Comm(bootstrap::Membership membership, uint32_t rank, Config config);
  void dump_into_recorder_dir() const;
  template <typename T>
  std::vector<T> gather_from_all(const T& own);

  bootstrap::Membership membership_;
  uint32_t rank_;
  Config config_;
  uint32_t forks_;
  tuner::Tuner tuner_;
  std::unique_ptr<StreamOrder> streams_;  // its buffers outlive the engine that uses them
  Engine engine_;
};

}  // namespace xcoll::engine
