// SPDX-License-Identifier: Apache-2.0
// The collectives, each as one submission: what is sent, what is received, and how to
// take it apart.
#include <ATen/MemoryOverlap.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <torch/csrc/distributed/c10d/Utils.hpp>

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

void require_strided(const Tensor& tensor, const char* what) {
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, what, ": the tensor has the layout ",
                    tensor.layout(), "; only strided tensors are communicated (use .to_dense())");
}

// Its memory holds its elements in logical order, without gaps and as they are.
bool is_in_order(const Tensor& tensor) {
  return tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg();
}

Tensor in_order(const Tensor& tensor) { return tensor.resolve_conj().resolve_neg().contiguous(); }

void require_same_type(const Tensor& a, const Tensor& b, const char* what) {
  TORCH_CHECK_VALUE(a.scalar_type() == b.scalar_type(), what,
                    ": all tensors must have one type, not ", a.scalar_type(), " and ",
                    b.scalar_type());
}

// A list with a tensor for each rank; `own` is what this rank gives or gets of its place in it.
void check_list(const std::vector<Tensor>& list, const Tensor& own, int rank, int size,
                const char* what) {
  TORCH_CHECK_VALUE(list.size() == static_cast<size_t>(size), what, ": the list has ", list.size(),
                    " tensors, the group ", size, " ranks");
  for (const Tensor& tensor : list) require_same_type(own, tensor, what);
  const Tensor& mine = list[static_cast<size_t>(rank)];
  TORCH_CHECK_VALUE(mine.numel() == own.numel(), what, ": tensor ", rank,
                    " of the list, this rank's, has ", mine.numel(),
                    " elements and the tensor that goes with it ", own.numel());
}

void check_pairs(const std::vector<Tensor>& outputs, const std::vector<Tensor>& inputs,
                 const char* what) {
  TORCH_CHECK_VALUE(outputs.size() == inputs.size(), what, ": ", outputs.size(), " outputs for ",
                    inputs.size(), " inputs");
  for (size_t i = 0; i < inputs.size(); ++i) require_same_type(outputs[i], inputs[i], what);
}

// What autograd sees of a call does not depend on how its tensors are laid out.
using BelowAutograd = at::AutoDispatchBelowADInplaceOrView;

bool same_numel(const std::vector<Tensor>& tensors) {
  for (const Tensor& tensor : tensors) {
    if (tensor.numel() != tensors[0].numel()) return false;
  }
  return true;
}

}  // namespace

// ---- buffers

Tensor ProcessGroupXhal::Submission::to_send(const Tensor& tensor, const char* what) {
  require_strided(tensor, what);
  const BelowAutograd guard;
  return is_in_order(tensor) ? tensor : in_order(tensor);
}

Tensor ProcessGroupXhal::Submission::to_receive(const Tensor& tensor, const char* what) {
  require_strided(tensor, what);
  TORCH_CHECK_VALUE(at::has_internal_overlap(tensor) != at::MemOverlap::Yes, what,
                    ": several elements of the output share one place in memory (an expanded "
                    "tensor); use .contiguous()");
  if (is_in_order(tensor)) return tensor;
  const BelowAutograd guard;
  const Tensor buffer = at::empty(tensor.sizes(), tensor.options());
  copy_later(buffer, tensor);
  return buffer;
}

Tensor ProcessGroupXhal::Submission::in_place(const Tensor& tensor, const char* what) {
  const Tensor buffer = to_receive(tensor, what);
  const BelowAutograd guard;
  if (!buffer.is_same(tensor)) Tensor(buffer).copy_(tensor);
  return buffer;
}

void ProcessGroupXhal::Submission::copy_later(const Tensor& from, const Tensor& to) {
  keep(to);
  plan.after.push_back([from, to] {
    const BelowAutograd guard;
    Tensor(to).copy_(from);
  });
}

Tensor ProcessGroupXhal::Submission::join(const Tensors& tensors, bool fill, const char* what) {
  int64_t total = 0;
  for (const Tensor& tensor : tensors) {
    require_strided(tensor, what);
    keep(tensor);
    total += tensor.numel();
  }
  const BelowAutograd guard;
  const Tensor flat = at::empty({total}, tensors[0].options());
  int64_t at = 0;
  for (const Tensor& tensor : tensors) {
    Tensor part = flat.narrow(0, at, tensor.numel()).view(tensor.sizes());
    if (fill) part.copy_(tensor);
    at += tensor.numel();
  }
  return flat;
}

Tensor ProcessGroupXhal::Submission::take_apart_later(const Tensors& tensors, const char* what) {
  const Tensor flat = join(tensors, false, what);
  const BelowAutograd guard;
  int64_t at = 0;
  for (const Tensor& tensor : tensors) {
    copy_later(flat.narrow(0, at, tensor.numel()).view(tensor.sizes()), tensor);
    at += tensor.numel();
  }
  return flat;
}

// ---- one tensor on every rank

WorkPtr ProcessGroupXhal::broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) {
  const Tensor& tensor = single(tensors, "broadcast");
  Submission s(OpType::BROADCAST, tensors);
  const Tensor buffer = s.in_place(tensor, "broadcast");
  add(s, XCOLL_BROADCAST, options.timeout, movable(tensor), buffer, buffer, options.rootRank);
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
    const Tensor buffer = s.in_place(tensor, "all_reduce");
    const Elements elements = reducible(tensor, "all_reduce");
    add(s, XCOLL_ALL_REDUCE, options.timeout, elements, buffer, buffer).op.reduction =
        reduction_of(options.reduceOp, tensor);
  }
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::reduce(Tensors& tensors, const c10d::ReduceOptions& options) {
  const Tensor& tensor = single(tensors, "reduce");
  Submission s(OpType::REDUCE, tensors);
  const bool is_root = getRank() == options.rootRank;
  const Tensor from = is_root ? s.in_place(tensor, "reduce") : s.to_send(tensor, "reduce");
  const Tensor into = is_root ? from : Tensor();
  add(s, XCOLL_REDUCE, options.timeout, reducible(tensor, "reduce"), from, into, options.rootRank)
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
  constexpr const char* kName = "all_gather_into_tensor";
  check_pairs(outputs, inputs, kName);
  Submission s(OpType::_ALLGATHER_BASE, outputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    TORCH_CHECK_VALUE(outputs[i].numel() == inputs[i].numel() * getSize(), kName,
                      ": the output must have ", getSize(), " times the input's ",
                      inputs[i].numel(), " elements, it has ", outputs[i].numel());
    const Tensor from = s.to_send(inputs[i], kName);
    add(s, XCOLL_ALL_GATHER, options.timeout, movable(from), from, s.to_receive(outputs[i], kName));
  }
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                                    const c10d::AllgatherOptions& options) {
  TORCH_CHECK_VALUE(outputs.size() == 1, "all_gather: one list of outputs for each call");
  const Tensors& into = outputs[0];
  check_list(into, single(inputs, "all_gather"), getRank(), getSize(), "all_gather");
  Submission s(OpType::ALLGATHER, into);
  const Tensor from = s.to_send(inputs[0], "all_gather");
  const Tensor flat = s.take_apart_later(into, "all_gather");
  const bool even = same_numel(into);
  Call& c = add(s, even ? XCOLL_ALL_GATHER : XCOLL_ALL_GATHER_V, options.timeout, movable(from),
                from, flat);
  for (size_t i = 0; i < into.size() && !even; ++i) c.send_counts.push_back(movable(into[i]).count);
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::gather(std::vector<Tensors>& outputs, Tensors& inputs,
                                 const c10d::GatherOptions& options) {
  Submission s(OpType::GATHER, {});
  const Tensor from = s.to_send(single(inputs, "gather"), "gather");
  Tensor flat;
  if (getRank() == options.rootRank) {
    TORCH_CHECK_VALUE(outputs.size() == 1, "gather: the root needs one list of outputs");
    check_list(outputs[0], from, getRank(), getSize(), "gather");
    TORCH_CHECK_VALUE(same_numel(outputs[0]), "gather: all outputs must have the input's ",
                      from.numel(), " elements");
    flat = s.take_apart_later(outputs[0], "gather");
    s.plan.outputs = outputs[0];
  }
  add(s, XCOLL_GATHER, options.timeout, movable(from), from, flat, options.rootRank);
  return submit(std::move(s));
}

// ---- a share for every rank

WorkPtr ProcessGroupXhal::scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                  const c10d::ScatterOptions& options) {
  const Tensor& into = single(outputs, "scatter");
  Submission s(OpType::SCATTER, outputs);
  Tensor flat;
  if (getRank() == options.rootRank) {
    TORCH_CHECK_VALUE(inputs.size() == 1, "scatter: the root needs one list of inputs");
    check_list(inputs[0], into, getRank(), getSize(), "scatter");
    TORCH_CHECK_VALUE(same_numel(inputs[0]), "scatter: all inputs must have the output's ",
                      into.numel(), " elements");
    flat = s.join(inputs[0], true, "scatter");
  }
  add(s, XCOLL_SCATTER, options.timeout, movable(into), flat, s.to_receive(into, "scatter"),
      options.rootRank);
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::_reduce_scatter_base(Tensor& output, Tensor& input,
                                               const c10d::ReduceScatterOptions& options) {
  Tensors outputs{output}, inputs{input};
  return reduce_scatter_tensor_coalesced(outputs, inputs, options);
}

WorkPtr ProcessGroupXhal::reduce_scatter_tensor_coalesced(
    Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& options) {
  constexpr const char* kName = "reduce_scatter_tensor";
  check_pairs(outputs, inputs, kName);
  Submission s(OpType::_REDUCE_SCATTER_BASE, outputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    TORCH_CHECK_VALUE(inputs[i].numel() == outputs[i].numel() * getSize(), kName,
                      ": the input must have ", getSize(), " times the output's ",
                      outputs[i].numel(), " elements, it has ", inputs[i].numel());
    const Tensor from = s.to_send(inputs[i], kName);
    const Elements elements = reducible(outputs[i], kName);
    add(s, XCOLL_REDUCE_SCATTER, options.timeout, elements, from, s.to_receive(outputs[i], kName))
        .op.reduction = reduction_of(options.reduceOp, from);
  }
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                         const c10d::ReduceScatterOptions& options) {
  const Tensor& into = single(outputs, "reduce_scatter");
  TORCH_CHECK_VALUE(inputs.size() == 1, "reduce_scatter: one list of inputs for each call");
  const Tensors& from = inputs[0];
  check_list(from, into, getRank(), getSize(), "reduce_scatter");
  Submission s(OpType::REDUCE_SCATTER, outputs);
  const Tensor flat = s.join(from, true, "reduce_scatter");
  const bool even = same_numel(from);
  Call& c = add(s, even ? XCOLL_REDUCE_SCATTER : XCOLL_REDUCE_SCATTER_V, options.timeout,
                reducible(into, "reduce_scatter"), flat, s.to_receive(into, "reduce_scatter"));
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
  constexpr const char* kName = "all_to_all_single";
  require_same_type(output, input, kName);
  c10d::checkSplitSizes(input_splits, input, getSize());
  c10d::checkSplitSizes(output_splits, output, getSize());
  if (input.numel() > 0 && output.numel() > 0) {
    const int64_t sent = input.numel() / input.size(0), received = output.numel() / output.size(0);
    TORCH_CHECK_VALUE(sent == received, kName, ": a row of the input has ", sent,
                      " elements, one of the output ", received);
  }
  const uint64_t ranks = static_cast<uint64_t>(getSize());
  const bool even = output_splits.empty() && input_splits.empty();
  TORCH_CHECK_VALUE(!even || input.numel() == output.numel(), kName,
                    ": without splits input and "
                    "output must have the same size, not ",
                    input.numel(), " and ", output.numel(), " elements");
  Elements each = movable(input);
  each.count = even ? each.count / ranks : 0;
  Submission s(OpType::ALLTOALL_BASE, {output});
  const Tensor from = s.to_send(input, kName);
  Call& c = add(s, even ? XCOLL_ALL_TO_ALL : XCOLL_ALL_TO_ALL_V, options.timeout, each, from,
                s.to_receive(output, kName));
  if (even) return submit(std::move(s));
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
  const auto own = static_cast<size_t>(getRank());
  TORCH_CHECK_VALUE(inputs.size() == static_cast<size_t>(getSize()), "all_to_all: ", inputs.size(),
                    " inputs for ", getSize(), " ranks");
  check_list(inputs, inputs[own], getRank(), getSize(), "all_to_all");
  check_list(outputs, inputs[own], getRank(), getSize(), "all_to_all");
  Submission s(OpType::ALLTOALL, outputs);
  const Tensor from = s.join(inputs, true, "all_to_all");
  const Tensor to = s.take_apart_later(outputs, "all_to_all");
  const Elements any{movable(from).type, 0};
  Call& c = add(s, XCOLL_ALL_TO_ALL_V, options.timeout, any, from, to);
  for (const Tensor& tensor : inputs) c.send_counts.push_back(movable(tensor).count);
  for (const Tensor& tensor : outputs) c.recv_counts.push_back(movable(tensor).count);
  return submit(std::move(s));
}

// ---- point to point, barrier

WorkPtr ProcessGroupXhal::send(Tensors& tensors, int destination, int tag) {
  Submission s(OpType::SEND, {});
  const Tensor from = s.to_send(single(tensors, "send"), "send");
  add(s, XCOLL_SEND, c10d::kUnsetTimeout, movable(from), from, {}, destination).op.tag = tag;
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::recv(Tensors& tensors, int source, int tag) {
  Submission s(OpType::RECV, tensors);
  const Tensor into = s.to_receive(single(tensors, "recv"), "recv");
  add(s, XCOLL_RECV, c10d::kUnsetTimeout, movable(into), {}, into, source).op.tag = tag;
  return submit(std::move(s));
}

WorkPtr ProcessGroupXhal::barrier(const c10d::BarrierOptions& options) {
  Submission s(OpType::BARRIER, {});
  add(s, XCOLL_BARRIER, options.timeout, {}, {}, {});
  // torch names the host where the group has it: then the barrier is among the host's operations,
  // on every rank, whether a device is open or not.
  s.host_comm = !options.device || options.device->is_cpu();
  // Where a device is in use, its queued work is before the barrier too, and wait() waits for both.
  if (!s.host_comm || device_is_open(current_device())) {
    s.place = at::Device(kXhal, current_device());
    s.plan.block_host = true;
  }
  return submit(std::move(s));
}

}  // namespace xhal_torch
