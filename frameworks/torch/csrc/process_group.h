// SPDX-License-Identifier: Apache-2.0
// process_group.h: the c10d backend `xhal` over libxcoll, for tensors of xhal devices and
// of the host.
//
// Device work runs on a stream of the group's own, after what the caller's stream has been given,
// and overlaps with what it is given later. All ranks make a group at the same time: it meets over
// the store once, then the store is not used.
//
// Tensors of devices and of the host have a communicator each, as if they were two backends: what a
// background thread communicates of the host's (a checkpoint's plan) does not have to come in one
// order with the training's. One call works in one place: tensors of two are refused.
//
// Every tensor is communicated as if it were contiguous: its elements in logical order. One that is
// laid out otherwise goes through a buffer that is.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <map>
#include <thread>

#include "process_group_work.h"

namespace xhal_torch {

struct Elements {
  xcoll_dtype type;
  uint64_t count;
};

class ProcessGroupXhal final : public c10d::Backend {
 public:
  using Tensors = std::vector<at::Tensor>;
  using WorkPtr = c10::intrusive_ptr<c10d::Work>;

  ProcessGroupXhal(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                   std::chrono::milliseconds timeout);
  ~ProcessGroupXhal() override;

  const std::string getBackendName() const override { return "xhal"; }
  bool supportsCoalescing() const override { return true; }
  c10::intrusive_ptr<Options> getBackendOptions() override { return options_; }
  void setTimeout(std::chrono::milliseconds timeout) override;
  uint64_t getSequenceNumberForGroup() override {
    return xcoll_comm_sequence(device_comm_) + xcoll_comm_sequence(host_comm_);
  }
  void setSequenceNumberForGroup() override {}

  void startCoalescing() override;
  WorkPtr endCoalescing() override;

  WorkPtr broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override;
  WorkPtr allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override;
  WorkPtr allreduce_coalesced(Tensors& tensors,
                              const c10d::AllreduceCoalescedOptions& options) override;
  WorkPtr reduce(Tensors& tensors, const c10d::ReduceOptions& options) override;
  WorkPtr allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                    const c10d::AllgatherOptions& options) override;
  WorkPtr _allgather_base(at::Tensor& output, at::Tensor& input,
                          const c10d::AllgatherOptions& options) override;
  WorkPtr allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                          const c10d::AllgatherOptions& options) override;
  WorkPtr gather(std::vector<Tensors>& outputs, Tensors& inputs,
                 const c10d::GatherOptions& options) override;
  WorkPtr scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                  const c10d::ScatterOptions& options) override;
  WorkPtr reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                         const c10d::ReduceScatterOptions& options) override;
  WorkPtr _reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                               const c10d::ReduceScatterOptions& options) override;
  WorkPtr reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                          const c10d::ReduceScatterOptions& options) override;
  WorkPtr alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_splits,
                        std::vector<int64_t>& input_splits,
                        const c10d::AllToAllOptions& options) override;
  WorkPtr alltoall(Tensors& outputs, Tensors& inputs,
                   const c10d::AllToAllOptions& options) override;
  WorkPtr send(Tensors& tensors, int destination, int tag) override;
  WorkPtr recv(Tensors& tensors, int source, int tag) override;
  WorkPtr barrier(const c10d::BarrierOptions& options) override;

  // Leaves the communicators, with `wait` after what the group's streams still have to do.
  // Idempotent; called at exit for groups still alive.
  void close(bool wait);
  void abort() override;

 private:
  struct Call {
    xcoll_op op{};
    std::vector<uint64_t> send_counts, recv_counts;
  };
  struct Submission {
    Submission() = default;
    Submission(c10d::OpType type, const Tensors& outputs) {
      plan.type = type;
      plan.outputs = outputs;
    }
    // The tensor takes part: it stays alive, and the group works where it is. Throws ValueError
    // when another one is elsewhere.
    void keep(const at::Tensor& tensor);
    // The tensor's elements in order, to be sent; itself or a copy.
    at::Tensor to_send(const at::Tensor& tensor, const char* what);
    // Where to receive the tensor's elements in order; itself or what is copied into it afterwards.
    at::Tensor to_receive(const at::Tensor& tensor, const char* what);
    // Both at once.
    at::Tensor in_place(const at::Tensor& tensor, const char* what);
    // One buffer for all of `tensors`, which are of one type and in one place: filled with them, or
    // to be copied into them afterwards.
    at::Tensor join(const Tensors& tensors, bool fill, const char* what);
    at::Tensor take_apart_later(const Tensors& tensors, const char* what);
    void copy_later(const at::Tensor& from, const at::Tensor& to);

    std::vector<Call> calls;
    WorkPlan plan;
    std::optional<at::Device> place;
    bool host_comm = false;  // a barrier of the host waits for the device too
  };

  // One more operation of a submission. An undefined tensor is none; `peer` is the root, or whom a
  // message is for or from.
  Call& add(Submission& submission, xcoll_kind kind, std::chrono::milliseconds timeout,
            const Elements& elements, const at::Tensor& send, const at::Tensor& recv,
            int64_t peer = 0) const;
  WorkPtr submit(Submission submission);
  WorkPtr submit_on_device(Submission& submission, std::vector<xcoll_op>& ops);
  WorkPtr submit_on_host(Submission& submission, std::vector<xcoll_op>& ops);
  c10::Stream stream_of(DeviceIndex device, const Submission& submission);

  xcoll_comm* device_comm_ = nullptr;
  xcoll_comm* host_comm_ = nullptr;
  c10::intrusive_ptr<Options> options_;
  std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  // Collectives, sends, receives and the host's barriers have a stream each: a send that waits for
  // its receiver holds nothing else up.
  std::map<std::pair<DeviceIndex, int>, c10::Stream> streams_;
  std::map<std::thread::id, Submission> coalescing_;  // by the thread that began it
  Follower follower_;
};

c10::intrusive_ptr<c10d::Backend> make_process_group(const c10::intrusive_ptr<c10d::Store>& store,
                                                     int rank, int size,
                                                     std::chrono::milliseconds timeout);
void close_process_groups(bool wait);

}  // namespace xhal_torch
