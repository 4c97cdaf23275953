// SPDX-License-Identifier: Apache-2.0
// torch.accelerator.Graph: a capture of the current stream, launched as one.
//
// Memory allocated during the capture comes from a pool of the graph's own, so that nobody is
// handed what a replay writes. Random numbers stay random: during the capture every random
// operator reads its offset from a slot on the device, and each replay first sets the slots to
// where the generator stands.
#include "compat.h"

#if XHAL_TORCH_HAS_GRAPH
#include <ATen/core/GraphImplInterface.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <mutex>

#include "copy.h"
#include "generator.h"
#include "graph.h"
#include "op_call.h"
#include "views.h"

namespace xhal_torch {
namespace {

struct Capture {
  GraphRandom random;
  XhalGenerator* generator = nullptr;
};

std::mutex captures_mutex;
Capture* captures[kMaxDevices] = {};

class Graph final : public at::GraphImplInterface {
 public:
  explicit Graph(const at::GraphImplArgs&) {}
  ~Graph() override { release(); }

  void capture_begin(at::MempoolId_t, at::GraphCaptureMode) override {
    TORCH_CHECK(!graph_, "this graph holds a capture already; reset() it first");
    index_ = current_device();
    Device& found = device(index_);
    stream_ = current_stream(index_);
    TORCH_CHECK(!found.captured_stream.load(),
                "another graph is being captured on xhal:", static_cast<int>(index_));
    check(xhal_pool_create(found.context, nullptr, &pool_), "making a graph's pool");
    slots_ = new_tensor({kSlots}, at::kLong, at::Device(kXhal, index_));
    capture_.random = {address_of(slots_), {}};
    capture_.generator =
        static_cast<XhalGenerator*>(default_generator(index_).unsafeGetGeneratorImpl());
    check(xhal_stream_begin_capture(stream_, pool_), "beginning a capture");
    found.capture_pool.store(pool_);
    found.captured_stream.store(stream_);
    capturing_ = true;
    std::lock_guard lock(captures_mutex);
    captures[index_] = &capture_;
  }

  void capture_end() override {
    TORCH_CHECK(capturing_, "capture_end without capture_begin");
    check(leave_capture(), "ending a capture");
    if (capture_.random.offsets.empty()) return;
    const auto uses = static_cast<int64_t>(capture_.random.offsets.size()) - 1;
    at::Tensor host = at::empty({uses}, at::TensorOptions().dtype(at::kLong));
    for (int64_t i = 0; i < uses; ++i) {
      host.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(capture_.random.offsets[i] / 4);
    }
    relative_ = to_device(host, at::Device(kXhal, index_));
  }

  void instantiate() override {}

  void replay() override {
    TORCH_CHECK(graph_, "the graph holds no capture");
    xhal_stream* stream = current_stream(index_);
    if (relative_.defined()) {
      const Philox base =
          capture_.generator->take(static_cast<int64_t>(capture_.random.offsets.back()));
      const at::Tensor used = slots_.narrow(0, 0, relative_.numel());
      OpCall call(XHAL_OP_add, index_);
      TORCH_CHECK(
          call.in(relative_).absent().out(used).scalar(int64_t(0)).scalar(base.offset).run(),
          "setting the random offsets of a graph: ", call.refusal());
    }
    check(xhal_graph_launch(stream, graph_), "replaying a graph");
  }

  void reset() override {
    release();
    capture_ = {};
    slots_ = relative_ = at::Tensor();
  }

  at::MempoolId_t pool() const override { return {0, reinterpret_cast<uint64_t>(pool_)}; }
  void enable_debug_mode() override {}
  void debug_dump(const std::string&) override {
    uint64_t nodes = 0;
    if (graph_) check(xhal_graph_size(graph_, &nodes), "counting a graph's nodes");
    TORCH_WARN("graph of ", nodes, " nodes; XHAL_LAYERS=trace shows them as they run");
  }

 private:
  static constexpr int64_t kSlots = kGraphRandomSlots;

  xhal_status leave_capture() {
    capturing_ = false;
    {
      std::lock_guard lock(captures_mutex);
      captures[index_] = nullptr;
    }
    device(index_).captured_stream.store(nullptr);
    return xhal_stream_end_capture(stream_, &graph_);
  }

  void release() {
    if (!is_shut_down()) {
      // An exception came between begin and end: what was captured is dropped.
      if (capturing_) leave_capture();
      if (graph_) xhal_graph_destroy(graph_);
      // Blocks still held by tensors keep the pool: it goes with the context then.
      if (pool_) xhal_pool_destroy(pool_);
    }
    graph_ = nullptr;
    pool_ = nullptr;
  }

  DeviceIndex index_ = -1;
  xhal_stream* stream_ = nullptr;
  xhal_pool* pool_ = nullptr;
  xhal_graph* graph_ = nullptr;
  bool capturing_ = false;
  Capture capture_;
  at::Tensor slots_, relative_;
};

}  // namespace

GraphRandom* captured_random(DeviceIndex index) {
  if (!device(index).captured_stream.load(std::memory_order_acquire)) return nullptr;
  if (device(index).captured_stream.load() != current_stream(index)) return nullptr;
  std::lock_guard lock(captures_mutex);
  return captures[index] ? &captures[index]->random : nullptr;
}

void register_graphs(const std::string& device_name) {
  at::GraphImplRegistry()->Register(
      device_name, [](const at::GraphImplArgs& args) -> std::unique_ptr<at::GraphImplInterface> {
        return std::make_unique<Graph>(args);
      });
}

}  // namespace xhal_torch
#endif
