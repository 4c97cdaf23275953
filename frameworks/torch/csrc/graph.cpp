// SPDX-License-Identifier: Apache-2.0
// torch.accelerator.Graph: a capture of the current stream, launched as one. What a capture owns:
// capture.h.
#include "graph.h"

#include "compat.h"

#if XHAL_TORCH_HAS_GRAPH
#include <ATen/core/GraphImplInterface.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <mutex>
#include <optional>

#include "capture.h"
#include "copy.h"
#include "generator.h"
#include "op_call.h"
#include "views.h"

namespace xhal_torch {
namespace {

class Graph final : public at::GraphImplInterface {
 public:
  explicit Graph(const at::GraphImplArgs&) {}
  ~Graph() override { release(); }

  // The modes say which unsafe calls of which threads a capture forbids. Here no call is unsafe:
  // memory comes from pools, other streams' work goes on untouched, and what cannot be part of a
  // graph, a wait of the host for a captured stream, raises in every mode and thread.
  void capture_begin(at::MempoolId_t pool, at::GraphCaptureMode) override {
    TORCH_CHECK(!graph_ && !capturing_, "this graph holds a capture already; reset() it first");
    index_ = current_device();
    reap_graph_pools(index_);
    auto memory = graph_pool(index_, pool);
    slots_ = new_tensor({Capture::kSlots}, at::kLong, at::Device(kXhal, index_));
    auto& generator =
        *static_cast<XhalGenerator*>(default_generator(index_).unsafeGetGeneratorImpl());
    capture_ = std::make_shared<Capture>(std::move(memory), generator, address_of(slots_));
    capture_begins(index_, capture_);
    leave_default_stream();
    const xhal_status status = xhal_stream_begin_capture(stream_, capture_->pool()->handle());
    if (status < 0) {
      capture_is_over(index_);
      return_to_default_stream();
      capture_.reset();
      fail(status, "beginning a capture");
    }
    capturing_ = true;
  }

  void capture_end() override {
    TORCH_CHECK(capturing_, "capture_end without capture_begin");
    check(leave_capture(), "ending a capture");
    if (const std::string refused = capture_->refused(); !refused.empty()) {
      release();
      TORCH_CHECK(false,
                  "ending a capture: there is no graph, because a call inside the capture "
                  "was refused and its part is missing: ",
                  refused, ". Take that call out of the capture, then capture again");
    }
    const std::vector<uint64_t> offsets = capture_->random_offsets();
    if (offsets.empty()) return;
    const auto uses = static_cast<int64_t>(offsets.size()) - 1;
    at::Tensor host = at::empty({uses}, at::TensorOptions().dtype(at::kLong));
    for (int64_t i = 0; i < uses; ++i)
      host.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(offsets[i] / 4);
    relative_ = to_device(host, at::Device(kXhal, index_));
    outputs_ = offsets.back();
  }

  void instantiate() override {}

  void replay() override {
    TORCH_CHECK(graph_, "the graph holds no capture");
    const std::lock_guard lock(replaying_);
    xhal_stream* stream = launch_stream(index_);
    if (relative_.defined()) set_random_slots(stream);
    check(xhal_graph_launch(stream, graph_), "replaying a graph");
    if (relative_.defined()) {
      last_stream_ = stream;
      check(xhal_event_record(stream, 0, &last_.emplace()), "replaying a graph");
    }
  }

  void reset() override { release(); }

  at::MempoolId_t pool() const override {
    TORCH_CHECK(capture_, "the graph has a memory pool once its capture has begun");
    return capture_->pool()->id();
  }
  void enable_debug_mode() override {}
  void debug_dump(const std::string&) override {
    uint64_t nodes = 0;
    if (graph_) check(xhal_graph_size(graph_, &nodes), "counting a graph's nodes");
    TORCH_WARN("graph of ", nodes, " nodes; XHAL_LAYERS=trace shows them as they run");
  }

 private:
  // Seed and offsets of this replay. One on another stream before it may still read the old ones.
  void set_random_slots(xhal_stream* stream) {
    if (last_ && last_stream_ != stream)
      check(xhal_stream_wait_event(stream, &*last_), "replaying a graph");
    XhalGenerator& generator = capture_->generator();
    Philox base;
    {
      const std::lock_guard generator_lock(generator.mutex_);
      base = generator.take(static_cast<int64_t>(outputs_));
    }
    check(xhal_stream_fill(stream, address_of(slots_), sizeof(int64_t), base.seed, sizeof(int64_t)),
          "setting the random seed of a graph");
    OpCall call(XHAL_OP_add, index_);
    const at::Tensor used = slots_.narrow(0, 1, relative_.numel());
    TORCH_CHECK(call.in(relative_).absent().out(used).scalar(int64_t(0)).scalar(base.offset).run(),
                "setting the random offsets of a graph: ", call.refusal());
  }

  // All threads share the default stream: what others submit there would be recorded instead of
  // run. So this thread goes to another one for the time of the capture.
  void leave_default_stream() {
    left_default_ = current_stream_id(index_) == 0;
    if (left_default_) exchange_stream(index_, stream_from_pool(index_, false));
    stream_ = current_stream(index_);
  }
  void return_to_default_stream() {
    if (left_default_ && current_stream(index_) == stream_) exchange_stream(index_, 0);
    left_default_ = false;
  }

  xhal_status leave_capture() {
    capturing_ = false;
    const xhal_status status = xhal_stream_end_capture(stream_, &graph_);
    capture_is_over(index_);
    return_to_default_stream();
    capture_->end();
    return status;
  }

  void release() {
    if (!is_shut_down()) {
      // An exception came between begin and end: what was captured is dropped.
      if (capturing_) leave_capture();
      if (graph_) xhal_graph_destroy(graph_);
    }
    graph_ = nullptr;
    capturing_ = false;
    capture_.reset();
    last_.reset();
    outputs_ = 0;
    slots_ = relative_ = at::Tensor();
  }

  DeviceIndex index_ = -1;
  xhal_stream* stream_ = nullptr;
  xhal_graph* graph_ = nullptr;
  bool capturing_ = false, left_default_ = false;
  std::shared_ptr<Capture> capture_;
  at::Tensor slots_, relative_;  // Capture's slots; the offset of each use from a replay's first
  uint64_t outputs_ = 0;         // random numbers that a replay takes
  std::mutex replaying_;         // of what follows
  std::optional<xhal_event> last_;
  xhal_stream* last_stream_ = nullptr;
};

}  // namespace

void register_graphs(const std::string& device_name) {
  at::GraphImplRegistry()->Register(
      device_name, [](const at::GraphImplArgs& args) -> std::unique_ptr<at::GraphImplInterface> {
        return std::make_unique<Graph>(args);
      });
}

}  // namespace xhal_torch
#else
namespace xhal_torch {
void register_graphs(const std::string&) {}
}  // namespace xhal_torch
#endif
