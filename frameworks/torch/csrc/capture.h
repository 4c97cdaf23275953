// SPDX-License-Identifier: Apache-2.0
// capture.h: what a capture owns, and which streams are in one. One capture a device at a time.
//
// Memory: every stream of a capture, the one it began on and those that joined it, allocates from
// the capture's private pool, so that nobody is handed what a replay writes. The pool lives as long
// as a graph or a block of it. A block that a captured stream uses beside its own is freed when the
// capture ends: until then no event can tell when that use is over.
//
// Random numbers: random operators of a capture read seed and offset from slots on the device, and
// each replay first sets the slots to where the generator then stands.
#pragma once

#include <c10/core/Allocator.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "generator.h"
#include "runtime.h"

namespace xhal_torch {

using PoolId = std::pair<unsigned long long, unsigned long long>;  // torch's MempoolId_t

// A private pool. Given up with its last graph and its last block; its memory goes back to the
// device once the work that used it has run.
class GraphPool {
 public:
  GraphPool(DeviceIndex index, PoolId id);
  ~GraphPool();
  GraphPool(const GraphPool&) = delete;
  GraphPool& operator=(const GraphPool&) = delete;

  xhal_pool* handle() const { return handle_; }
  DeviceIndex index() const { return index_; }
  PoolId id() const { return id_; }

 private:
  xhal_pool* handle_ = nullptr;
  DeviceIndex index_;
  PoolId id_;
};

// The pool that torch calls `id`, made now when there is none; {0, 0}: a new one.
std::shared_ptr<GraphPool> graph_pool(DeviceIndex index, PoolId id);

// Calls `visit` for the device's own pool and every private one, without a lock.
void for_each_pool(DeviceIndex index, const std::function<void(xhal_pool*)>& visit);

// Gives the memory of private pools back that nobody holds any more and no work uses.
void reap_graph_pools(DeviceIndex index);

class Capture {
 public:
  static constexpr int64_t kMostRandomUses = 4096;  // random operators in one graph
  static constexpr int64_t kSlots = 1 + kMostRandomUses;

  // `slots`: device address of kSlots int64: the seed, then an offset for each use.
  Capture(std::shared_ptr<GraphPool> pool, XhalGenerator& generator, uint64_t slots)
      : pool_(std::move(pool)), generator_(generator), slots_(slots) {}

  const std::shared_ptr<GraphPool>& pool() const { return pool_; }
  XhalGenerator& generator() const { return generator_; }

  // Slots for one use of `outputs` random numbers by `generator`, which must be the device's own.
  Philox take_random(const XhalGenerator& generator, int64_t outputs);
  // Outputs taken before each use, and in all; empty when there was none.
  std::vector<uint64_t> random_offsets() const;

  // Freed when the capture is over.
  void free_at_end(c10::DataPtr block);
  // Kept until the graph is gone: pinned memory that replays read or write.
  void keep(c10::DataPtr block);
  void end();

  // For a call whose host side must wait, asked before it submits anything: what it had recorded
  // would be replayed on host memory that is long gone. Raises, and marks the capture, for a
  // program that catches this would go on with a graph that lacks a part.
  [[noreturn]] void refuse_wait(const char* doing);
  // What was refused first; empty when nothing was.
  std::string refused() const;

 private:
  const std::shared_ptr<GraphPool> pool_;
  XhalGenerator& generator_;
  const uint64_t slots_;
  mutable std::mutex mutex_;  // of what follows
  std::vector<uint64_t> offsets_;
  std::vector<c10::DataPtr> at_end_, kept_;
  std::string refused_;
};

// Makes `capture` the one under way on its device; throws when there is one.
void capture_begins(DeviceIndex index, std::shared_ptr<Capture> capture);
void capture_is_over(DeviceIndex index);

namespace detail {
std::shared_ptr<Capture> find_capture(DeviceIndex index, xhal_stream* stream);
}

// The capture that a stream of the device is in; null when it is in none.
inline std::shared_ptr<Capture> capture_of(DeviceIndex index, xhal_stream* stream) {
  if (!device(index).captures.load(std::memory_order_acquire)) [[likely]]
    return nullptr;
  return detail::find_capture(index, stream);
}

// Raises when the stream is in a capture: what `doing` names makes the host wait for it.
inline void refuse_wait_in_capture(DeviceIndex index, xhal_stream* stream, const char* doing) {
  if (const auto capture = capture_of(index, stream)) [[unlikely]]
    capture->refuse_wait(doing);
}

}  // namespace xhal_torch
