// SPDX-License-Identifier: Apache-2.0
// The collectives, each as one submission: what is sent, what is received, and how to
// take it apart.
#include <ATen/ops/empty.h>

#include "dtype.h"
#include "process_group.h"

namespace xhal_torch {

using at::Tensor;
using c10d::OpType;
using WorkPtr = ProcessGroupXhal::WorkPtr;
using Tensors = ProcessGroupXhal::Tensors;

namespace {

// ---- what libxcoll moves and reduces

// Complex numbers are summed as pairs.
Elements reducible(const Tensor& tensor, const char* what) {
  auto type = tensor.scalar_type();
  uint64_t count = static_cast<uint64_t>(tensor.numel());
  if (c10::isComplexType(type)) {
    type = c10::toRealValueType(type);
    count *= 2;
  }
  const Dtype dtype = dtype_of(type);
  const xcoll_dtype number = dtype.code << 8 | dtype.bits;
  TORCH_CHECK_NOT_IMPLEMENTED(dtype.bits && xcoll_dtype_bytes(number), what,
                              ": libxcoll cannot reduce ", tensor.scalar_type());
  return {number, count};
}

// Moving needs the width only.
Elements movable(const Tensor& tensor) {
  const Dtype dtype = dtype_of(tensor.scalar_type());
  const xcoll_dtype number = dtype.code << 8 | dtype.bits;
  if (dtype.bits && xcoll_dtype_bytes(number))
    return {number, static_cast<uint64_t>(tensor.numel())};
  return {XCOLL_U8, static_cast<uint64_t>(tensor.nbytes())};
}

xcoll_reduction reduction_of(const c10d::ReduceOp& op, const Tensor& tensor) {
  const bool complex = tensor.is_complex();
  switch (static_cast<c10d::ReduceOp::RedOpType>(op)) {
    case c10d::ReduceOp::SUM:
      return XCOLL_SUM;
    case c10d::ReduceOp::AVG:
      return XCOLL_AVG;
    case c10d::ReduceOp::PRODUCT:
      if (complex) break;
      return XCOLL_PROD;
    case c10d::ReduceOp::MIN:
      if (complex) break;
      return XCOLL_MIN;
    case c10d::ReduceOp::MAX:
      if (complex) break;
      return XCOLL_MAX;
    case c10d::ReduceOp::BAND:
      return XCOLL_BAND;
    case c10d::ReduceOp::BOR:
      return XCOLL_BOR;
    case c10d::ReduceOp::BXOR:
      return XCOLL_BXOR;
    default:
      break;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(false, "the backend xhal does not have this reduction for ",
                              tensor.scalar_type());
}

const Tensor& single(const std::vector<Tensor>& tensors, const char* what) {
  TORCH_CHECK_VALUE(tensors.size() == 1, what, ": one tensor for each call, not ", tensors.size());
  return tensors[0];
}

void require_dense(const Tensor& tensor, const char* what) {
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided && tensor.is_non_overlapping_and_dense(), what,
                    ": the tensor must be dense (use .contiguous())");
}

// One buffer for the shares of all ranks.
Tensor shares(const std::vector<Tensor>& like, bool fill) {
  int64_t total = 0;
  for (const Tensor& tensor : like) total += tensor.numel();
  Tensor flat = at::empty({total}, like[0].options());
  if (!fill) return flat;
  int64_t at = 0;
  for (const Tensor& tensor : like) {
    flat.narrow(0, at, tensor.numel()).view(tensor.sizes()).copy_(tensor);
    at += tensor.numel();
  }
  return flat;
}

void take_apart(const Tensor& flat, const std::vector<Tensor>& into) {
  int64_t at = 0;
  for (Tensor tensor : into) {
    tensor.copy_(flat.narrow(0, at, tensor.numel()).view(tensor.sizes()));
    at += tensor.numel();
  }
}

bool same_numel(const std::vector<Tensor>& tensors) {
  for (const Tensor& tensor : tensors) {
    if (tensor.numel() != tensors[0].numel()) return false;
  }
  return true;
}

}  // namespace

// ---- one tensor on every rank

WorkPtr ProcessGroupXhal::broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) {
  const Tensor& tensor = single(tensors, "broadcast");
  require_dense(tensor, "broadcast");
  Submission s(OpType::BROADCAST, tensors);
  add(s, XCOLL_BROADCAST, options.timeout, movable(tensor), tensor, tensor, options.rootRank);
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) {
  single(tensors, "all_reduce");
  c10d::AllreduceCoalescedOptions same;
  same.reduceOp = options.reduceOp;
  same.timeout = options.timeout;
  return allreduce_coalesced(tensors, same);
}

WorkPtr ProcessGroupXhal::allreduce_coalesced(Tensors& tensors,
                                              const c10d::AllreduceCoalescedOptions& options) {
  Submission s(OpType::ALLREDUCE, tensors);
  for (const Tensor& tensor : tensors) {
    require_dense(tensor, "all_reduce");
    const Elements elements = reducible(tensor, "all_reduce");
    add(s, XCOLL_ALL_REDUCE, options.timeout, elements, tensor, tensor).op.reduction =
        reduction_of(options.reduceOp, tensor);
  }
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::reduce(Tensors& tensors, const c10d::ReduceOptions& options) {
  const Tensor& tensor = single(tensors, "reduce");
  require_dense(tensor, "reduce");
  Submission s(OpType::REDUCE, tensors);
  const Tensor into = getRank() == options.rootRank ? tensor : Tensor();
  add(s, XCOLL_REDUCE, options.timeout, reducible(tensor, "reduce"), tensor, into, options.rootRank)
      .op.reduction = reduction_of(options.reduceOp, tensor);
  return submit(std::move(s));
}

// ---- a share from every rank

WorkPtr ProcessGroupXhal::_allgather_base(Tensor& output, Tensor& input,
                                          const c10d::AllgatherOptions& options) {
  Tensors outputs{output}, inputs{input};
  return allgather_into_tensor_coalesced(outputs, inputs, options);
}

WorkPtr ProcessGroupXhal::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                          const c10d::AllgatherOptions& options) {
  Submission s(OpType::_ALLGATHER_BASE, outputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    require_dense(outputs[i], "all_gather_into_tensor");
    TORCH_CHECK_VALUE(outputs[i].numel() == inputs[i].numel() * getSize() &&
                          outputs[i].scalar_type() == inputs[i].scalar_type(),
                      "all_gather_into_tensor: the output must have the input's type and ",
                      getSize(), " times its elements");
    const Tensor from = inputs[i].contiguous();
    add(s, XCOLL_ALL_GATHER, options.timeout, movable(from), from, outputs[i]);
  }
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                                    const c10d::AllgatherOptions& options) {
  const Tensor from = single(inputs, "all_gather").contiguous();
  const Tensors& into = outputs.at(0);
  TORCH_CHECK_VALUE(outputs.size() == 1 && into.size() == static_cast<size_t>(getSize()),
                    "all_gather: one output for each of the ", getSize(), " ranks");
  Submission s(OpType::ALLGATHER, into);
  const Tensor flat = shares(into, false);
  const bool even = same_numel(into);
  Call& c = add(s, even ? XCOLL_ALL_GATHER : XCOLL_ALL_GATHER_V, options.timeout, movable(from),
                from, flat);
  for (size_t i = 0; i < into.size() && !even; ++i) c.send_counts.push_back(movable(into[i]).count);
  s.plan.after.push_back([flat, into] { take_apart(flat, into); });
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::gather(std::vector<Tensors>& outputs, Tensors& inputs,
                                 const c10d::GatherOptions& options) {
  const Tensor from = single(inputs, "gather").contiguous();
  Submission s(OpType::GATHER, {});
  Tensor flat;
  if (getRank() == options.rootRank) {
    TORCH_CHECK_VALUE(outputs.size() == 1 && outputs[0].size() == static_cast<size_t>(getSize()) &&
                          same_numel(outputs[0]) && outputs[0][0].numel() == from.numel(),
                      "gather: the root needs ", getSize(), " outputs of the input's size");
    flat = shares(outputs[0], false);
    s.plan.outputs = outputs[0];
    s.plan.after.push_back([flat, into = outputs[0]] { take_apart(flat, into); });
  }
  add(s, XCOLL_GATHER, options.timeout, movable(from), from, flat, options.rootRank);
  return submit(std::move(s));
}

// ---- a share for every rank

WorkPtr ProcessGroupXhal::scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                  const c10d::ScatterOptions& options) {
  const Tensor& into = single(outputs, "scatter");
  require_dense(into, "scatter");
  Submission s(OpType::SCATTER, outputs);
  Tensor flat;
  if (getRank() == options.rootRank) {
    TORCH_CHECK_VALUE(inputs.size() == 1 && inputs[0].size() == static_cast<size_t>(getSize()) &&
                          same_numel(inputs[0]) && inputs[0][0].numel() == into.numel(),
                      "scatter: the root needs ", getSize(), " inputs of the output's size");
    flat = shares(inputs[0], true);
  }
  add(s, XCOLL_SCATTER, options.timeout, movable(into), flat, into, options.rootRank);
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::_reduce_scatter_base(Tensor& output, Tensor& input,
                                               const c10d::ReduceScatterOptions& options) {
  Tensors outputs{output}, inputs{input};
  return reduce_scatter_tensor_coalesced(outputs, inputs, options);
}

WorkPtr ProcessGroupXhal::reduce_scatter_tensor_coalesced(
    Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& options) {
  Submission s(OpType::_REDUCE_SCATTER_BASE, outputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    require_dense(outputs[i], "reduce_scatter_tensor");
    TORCH_CHECK_VALUE(inputs[i].numel() == outputs[i].numel() * getSize() &&
                          outputs[i].scalar_type() == inputs[i].scalar_type(),
                      "reduce_scatter_tensor: the input must have the output's type and ",
                      getSize(), " times its elements");
    const Tensor from = inputs[i].contiguous();
    const Elements elements = reducible(outputs[i], "reduce_scatter_tensor");
    add(s, XCOLL_REDUCE_SCATTER, options.timeout, elements, from, outputs[i]).op.reduction =
        reduction_of(options.reduceOp, from);
  }
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                         const c10d::ReduceScatterOptions& options) {
  const Tensor& into = single(outputs, "reduce_scatter");
  require_dense(into, "reduce_scatter");
  const Tensors& from = inputs.at(0);
  TORCH_CHECK_VALUE(inputs.size() == 1 && from.size() == static_cast<size_t>(getSize()) &&
                        from[getRank()].numel() == into.numel(),
                    "reduce_scatter: one input for each of the ", getSize(),
                    " ranks, this rank's of the output's size");
  Submission s(OpType::REDUCE_SCATTER, outputs);
  const bool even = same_numel(from);
  Call& c = add(s, even ? XCOLL_REDUCE_SCATTER : XCOLL_REDUCE_SCATTER_V, options.timeout,
                reducible(into, "reduce_scatter"), shares(from, true), into);
  c.op.reduction = reduction_of(options.reduceOp, into);
  for (size_t i = 0; i < from.size() && !even; ++i)
    c.send_counts.push_back(reducible(from[i], "reduce_scatter").count);
  return submit(std::move(s));
}

// ---- a share from every rank for every rank

WorkPtr ProcessGroupXhal::alltoall_base(Tensor& output, Tensor& input,
                                        std::vector<int64_t>& output_splits,
                                        std::vector<int64_t>& input_splits,
                                        const c10d::AllToAllOptions& options) {
  require_dense(output, "all_to_all_single");
  const Tensor from = input.contiguous();
  const uint64_t ranks = static_cast<uint64_t>(getSize());
  const bool even = output_splits.empty() && input_splits.empty();
  Elements each = movable(from);
  each.count = even ? each.count / ranks : 0;
  Submission s(OpType::ALLTOALL_BASE, {output});
  Call& c =
      add(s, even ? XCOLL_ALL_TO_ALL : XCOLL_ALL_TO_ALL_V, options.timeout, each, from, output);
  if (even) {
    TORCH_CHECK_VALUE(input.numel() == output.numel() && input.numel() % getSize() == 0,
                      "all_to_all_single: input and output must have the same size, a multiple of ",
                      getSize());
    return submit(std::move(s));
  }
  const auto counts = [&](const std::vector<int64_t>& splits, const Tensor& tensor) {
    const uint64_t rows = tensor.dim() ? static_cast<uint64_t>(tensor.size(0)) : 1;
    const uint64_t row = rows ? movable(tensor).count / rows : 0;
    std::vector<uint64_t> made;
    for (int64_t split : splits) made.push_back(static_cast<uint64_t>(split) * row);
    if (splits.empty()) made.assign(ranks, rows / ranks * row);
    return made;
  };
  c.send_counts = counts(input_splits, from);
  c.recv_counts = counts(output_splits, output);
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::alltoall(Tensors& outputs, Tensors& inputs,
                                   const c10d::AllToAllOptions& options) {
  TORCH_CHECK_VALUE(
      inputs.size() == static_cast<size_t>(getSize()) && outputs.size() == inputs.size(),
      "all_to_all: one input and one output for each of the ", getSize(), " ranks");
  const Tensor from = shares(inputs, true), to = shares(outputs, false);
  Submission s(OpType::ALLTOALL, outputs);
  const Elements any{movable(from).type, 0};
  Call& c = add(s, XCOLL_ALL_TO_ALL_V, options.timeout, any, from, to);
  for (const Tensor& tensor : inputs) c.send_counts.push_back(movable(tensor).count);
  for (const Tensor& tensor : outputs) c.recv_counts.push_back(movable(tensor).count);
  s.plan.after.push_back([to, into = outputs] { take_apart(to, into); });
  return submit(std::move(s));
}

// ---- point to point, barrier

// Messages between two ranks match in order; torch's tags are not looked at, as with
// other device backends.
WorkPtr ProcessGroupXhal::send(Tensors& tensors, int destination, int) {
  const Tensor from = single(tensors, "send").contiguous();
  Submission s(OpType::SEND, {});
  add(s, XCOLL_SEND, c10d::kUnsetTimeout, movable(from), from, {}, destination);
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::recv(Tensors& tensors, int source, int) {
  const Tensor& into = single(tensors, "recv");
  require_dense(into, "recv");
  Submission s(OpType::RECV, tensors);
  add(s, XCOLL_RECV, c10d::kUnsetTimeout, movable(into), {}, into, source);
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::barrier(const c10d::BarrierOptions& options) {
  Submission s(OpType::BARRIER, {});
  add(s, XCOLL_BARRIER, options.timeout, {}, {}, {});
  // Where a device is in use, its queued work is before the barrier too, and wait() waits for both.
  if (device_is_open(current_device())) {
    s.device = at::Device(kXhal, current_device());
    s.plan.block_host = true;
  }
  return submit(std::move(s));
}

}  // namespace xhal_torch
