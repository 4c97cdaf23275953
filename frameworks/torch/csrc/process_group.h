// SPDX-License-Identifier: Apache-2.0
// process_group.h: the c10d backend `xhal` over libxcoll, for tensors of xhal devices and
// of the host.
//
// Device work runs on a stream of the group's own, after what the caller's stream has been given,
// and overlaps with what it is given later. All ranks make a group at the same time: it meets over
// the store once, then the store is not used.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <map>

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
  uint64_t getSequenceNumberForGroup() override { return xcoll_comm_sequence(comm_); }
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

  // Waits for the group's streams and leaves the communicator. Idempotent; called at exit for
  // groups still alive.
  void close();
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
    // The tensor takes part: it stays alive, and the group works where it is.
    void keep(const at::Tensor& tensor);

    std::vector<Call> calls;
    WorkPlan plan;
    std::optional<at::Device> device;
  };

  // One more operation of a submission. An undefined tensor is none; `peer` is the root, or whom a
  // message is for or from.
  Call& add(Submission& submission, xcoll_kind kind, std::chrono::milliseconds timeout,
            const Elements& elements, const at::Tensor& send, const at::Tensor& recv,
            int64_t peer = 0) const;
  WorkPtr submit(Submission submission);
  WorkPtr submit_on_device(Submission& submission, std::vector<xcoll_op>& ops);
  WorkPtr submit_on_host(Submission& submission, std::vector<xcoll_op>& ops);
  c10::Stream stream_of(DeviceIndex device, c10d::OpType type);

  xcoll_comm* comm_ = nullptr;
  c10::intrusive_ptr<Options> options_;
  std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  // Collectives, sends and receives have a stream each: a send that waits for its receiver holds
  // nothing else up.
  std::map<std::pair<DeviceIndex, int>, c10::Stream> streams_;
  std::optional<Submission> coalescing_;
  Follower follower_;
};

c10::intrusive_ptr<c10d::Backend> make_process_group(const c10::intrusive_ptr<c10d::Store>& store,
                                                     int rank, int size,
                                                     std::chrono::milliseconds timeout);
void close_process_groups();

}  // namespace xhal_torch
