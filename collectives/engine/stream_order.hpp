// SPDX-License-Identifier: Apache-2.0
// stream_order.hpp: the only place where libxcoll meets xHAL: collectives in the order of a stream.
//
//   idle stream, small:  run in the caller's thread, as long as the other ranks keep up
//   otherwise:           [copy out] -> event -> engine -> timeline -> stream goes on -> [copy in]
//
// A batch that fails while it runs in the caller's thread is the call's error; later, the stream's.
//
// The stream's event makes the batch ready; its completion raises a timeline that the stream waits
// for. Memory that the host cannot see is staged through pinned buffers, copied on the stream
// before and after. A failed batch destroys its timeline, which fails the stream.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "engine/engine.hpp"

struct xhal_event;
struct xhal_stream;

namespace xcoll::engine {

class Timelines;
class Staging;

class StreamOrder {
 public:
  explicit StreamOrder(Engine& engine);
  ~StreamOrder();

  // Submits the operations in the order of `stream`; returns without waiting for another
  // rank. Throws UNSUPPORTED (a stream that is captured), OUT_OF_MEMORY or SYSTEM: nothing was
  // started. Throws DEVICE, or the sticky error that it met: the batch has ended.
  std::shared_ptr<Batch> submit(std::vector<Operation> operations, xhal_stream* stream);

  // The engine is about to end: callbacks of streams that come later do not reach it.
  void detach();

 private:
  struct Link;     // from callbacks of streams to the engine, as long as it lives
  struct Pending;  // what such a callback knows

  void hold(Batch& batch, xhal_stream* stream);
  template <typename Step>
  void on_stream(Batch& batch, Step&& step);
  void start_when_reached(std::unique_ptr<Pending> pending);
  static void on_reached(void* user, int32_t status);

  Engine& engine_;
  std::shared_ptr<Link> link_;
  std::shared_ptr<Timelines> timelines_;
  std::unique_ptr<Staging> staging_;
};

}  // namespace xcoll::engine
