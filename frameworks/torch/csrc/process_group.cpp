#include "process_group.h"

#include <ATen/ops/empty.h>
#include <c10/core/StreamGuard.h>

#include <set>

#include "allocator.h"
#include "compat.h"
#include "dtype.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using c10d::OpType;

// ---- what libxcoll moves and reduces
// ---------------------------------------------------------------------------------

struct Elements {
  xcoll_dtype type;
  uint64_t count;
};

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

void* data_of(const Tensor& tensor) { return tensor.unsafeGetTensorImpl()->mutable_data(); }

const Tensor& single(const std::vector<Tensor>& tensors, const char* what) {
  TORCH_CHECK_VALUE(tensors.size() == 1, what, ": one tensor for each call, not ", tensors.size());
  return tensors[0];
}

void require_dense(const Tensor& tensor, const char* what) {
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided && tensor.is_non_overlapping_and_dense(), what,
                    ": the tensor must be dense (use .contiguous())");
}

Tensor packed(const Tensor& tensor) { return tensor.contiguous(); }

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

// Groups that nobody has destroyed when the interpreter exits.
struct Alive {
  std::mutex mutex;
  std::set<ProcessGroupXhal*> groups;
};
Alive& alive() {
  static Alive* const made = new Alive;
  return *made;
}

}  // namespace

// ---- life
// ------------------------------------------------------------------------------------------------------------

ProcessGroupXhal::ProcessGroupXhal(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                   std::chrono::milliseconds timeout)
    : Backend(rank, size),
      options_(c10::make_intrusive<Options>("xhal", timeout)),
      timeout_(timeout) {
  constexpr const char* kKey = "xhal/unique_id";
  xcoll_unique_id id{};
  if (rank == 0) {
    check_collective(xcoll_unique_id_create(&id));
    store->set(kKey, std::vector<uint8_t>(id.bytes, id.bytes + sizeof id.bytes));
  } else {
    const std::vector<uint8_t> bytes = store->get(kKey);
    TORCH_CHECK_WITH(DistBackendError, bytes.size() == sizeof id.bytes,
                     "the store holds no valid id of the group: are all ranks of one torch_xhal?");
    std::copy(bytes.begin(), bytes.end(), id.bytes);
  }
  xcoll_config config{};
  config.struct_size = sizeof config;
  config.timeout_ns = static_cast<uint64_t>(timeout.count()) * 1000000u;
  check_collective(xcoll_comm_init(&id, size, rank, &config, &comm_));
  std::lock_guard lock(alive().mutex);
  alive().groups.insert(this);
}

ProcessGroupXhal::~ProcessGroupXhal() { close(); }

void ProcessGroupXhal::close() {
  {
    std::lock_guard lock(alive().mutex);
    if (!alive().groups.erase(this)) return;
  }
  if (!is_shut_down()) {
    for (const auto& [lane, stream] : streams_) {
      // Bounded by the deadlines of the operations; a failure has been reported to whoever waited
      // for it.
      xhal_stream_synchronize(stream_handle(lane.first, stream.id()), XHAL_FOREVER);
    }
  }
  follower_.stop();
  xcoll_comm_destroy(comm_);
}

void ProcessGroupXhal::abort() { xcoll_comm_abort(comm_, "aborted by the program"); }

void ProcessGroupXhal::setTimeout(std::chrono::milliseconds timeout) {
  timeout_ = timeout;
  options_->timeout = timeout;
  check_collective(
      xcoll_comm_set_timeout(comm_, static_cast<uint64_t>(timeout.count()) * 1000000u));
}

c10::intrusive_ptr<c10d::Backend> make_process_group(const c10::intrusive_ptr<c10d::Store>& store,
                                                     int rank, int size,
                                                     std::chrono::milliseconds timeout) {
  return c10::make_intrusive<ProcessGroupXhal>(store, rank, size, timeout);
}

void close_process_groups() {
  while (true) {
    ProcessGroupXhal* group = nullptr;
    {
      std::lock_guard lock(alive().mutex);
      if (alive().groups.empty()) return;
      group = *alive().groups.begin();
    }
    group->close();
  }
}

// ---- submitting
// ------------------------------------------------------------------------------------------------------

ProcessGroupXhal::Call ProcessGroupXhal::call(xcoll_kind kind,
                                              std::chrono::milliseconds timeout) const {
  Call made;
  made.op.struct_size = sizeof made.op;
  made.op.kind = kind;
  if (timeout.count() > 0 && timeout != timeout_)
    made.op.timeout_ns = static_cast<uint64_t>(timeout.count()) * 1000000u;
  return made;
}

// The tensor takes part: it stays alive, and the group works where it is.
void ProcessGroupXhal::touch(Submission& submission, const Tensor& tensor) {
  if (tensor.device().type() == kXhal) submission.device = tensor.device();
  submission.plan.kept.push_back(tensor);
}

c10::Stream ProcessGroupXhal::stream_of(DeviceIndex device, OpType type) {
  const std::pair<DeviceIndex, int> lane(device, type == OpType::SEND   ? 1
                                                 : type == OpType::RECV ? 2
                                                                        : 0);
  std::lock_guard lock(mutex_);
  auto found = streams_.find(lane);
  if (found == streams_.end()) {
    const StreamId id = stream_from_pool(device, /*urgent=*/true);
    found = streams_.emplace(lane, c10::Stream(c10::Stream::UNSAFE, c10::Device(kXhal, device), id))
                .first;
  }
  return found->second;
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::submit(Submission submission) {
  if (coalescing_) {
    Submission& all = *coalescing_;
    std::move(submission.calls.begin(), submission.calls.end(), std::back_inserter(all.calls));
    const auto append = [](auto& to, auto& from) { to.insert(to.end(), from.begin(), from.end()); };
    append(all.plan.outputs, submission.plan.outputs);
    append(all.plan.kept, submission.plan.kept);
    append(all.plan.after, submission.plan.after);
    if (submission.device) all.device = submission.device;
    return {};
  }
  std::vector<xcoll_op> ops;
  for (Call& call : submission.calls) {
    if (!call.send_counts.empty()) call.op.send_counts = call.send_counts.data();
    if (!call.recv_counts.empty()) call.op.recv_counts = call.recv_counts.data();
    ops.push_back(call.op);
  }
  return submission.device ? submit_on_device(submission, ops) : submit_on_host(submission, ops);
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::submit_on_device(Submission& submission,
                                                             std::vector<xcoll_op>& ops) {
  const DeviceIndex device = submission.device->index();
  const c10::Stream stream = stream_of(device, submission.plan.type);
  xhal_stream* ours = stream_handle(device, stream.id());
  xhal_event ready{}, done{};
  check(xhal_event_record(current_stream(device), 0, &ready), "starting a collective");
  check(xhal_stream_wait_event(ours, &ready), "starting a collective");
  check_collective(xcoll_submit(comm_, ops.data(), ops.size(), ours, nullptr));
  for (const Tensor& tensor : submission.plan.kept) {
    if (tensor.device().type() == kXhal)
      record_stream(tensor.storage().data_ptr(), device, stream.id());
  }
  {
    const c10::StreamGuard guard(stream);
    for (const auto& step : submission.plan.after) step();
  }
  submission.plan.after.clear();
  submission.plan.kept.clear();
  check(xhal_event_record(ours, 0, &done), "submitting a collective");
  return c10::make_intrusive<XhalWork>(getRank(), xcoll_comm_sequence(comm_),
                                       std::move(submission.plan), device, stream, done);
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::submit_on_host(Submission& submission,
                                                           std::vector<xcoll_op>& ops) {
  xcoll_request* request = nullptr;
  check_collective(xcoll_submit(comm_, ops.data(), ops.size(), nullptr, &request));
  auto work = c10::make_intrusive<XhalWork>(getRank(), xcoll_comm_sequence(comm_),
                                            std::move(submission.plan), request, timeout_);
  follower_.add(work);
  return work;
}

// Calls until endCoalescing are one group. A start without an end (an exception came between) is
// given up here.
void ProcessGroupXhal::startCoalescing() {
  if (coalescing_ && !coalescing_->calls.empty()) {
    TORCH_WARN("the group was still coalescing ", coalescing_->calls.size(),
               " operation(s) whose end never came; they are dropped and were not communicated");
  }
  coalescing_.emplace();
  coalescing_->plan.type = OpType::COALESCED;
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::endCoalescing() {
  TORCH_CHECK(coalescing_, "endCoalescing without startCoalescing");
  Submission all = std::move(*coalescing_);
  coalescing_.reset();
  if (all.calls.empty()) return {};
  return submit(std::move(all));
}

// ---- collectives
// -----------------------------------------------------------------------------------------------------

ProcessGroupXhal::WorkPtr ProcessGroupXhal::broadcast(Tensors& tensors,
                                                      const c10d::BroadcastOptions& options) {
  const Tensor& tensor = single(tensors, "broadcast");
  require_dense(tensor, "broadcast");
  const Elements elements = movable(tensor);
  Submission s;
  s.plan.type = OpType::BROADCAST;
  s.plan.outputs = tensors;
  touch(s, tensor);
  Call c = call(XCOLL_BROADCAST, options.timeout);
  c.op.send = c.op.recv = data_of(tensor);
  c.op.count = elements.count;
  c.op.dtype = elements.type;
  c.op.peer = static_cast<int32_t>(options.rootRank);
  s.calls.push_back(std::move(c));
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::allreduce(Tensors& tensors,
                                                      const c10d::AllreduceOptions& options) {
  single(tensors, "all_reduce");
  c10d::AllreduceCoalescedOptions same;
  same.reduceOp = options.reduceOp;
  same.timeout = options.timeout;
  return allreduce_coalesced(tensors, same);
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::allreduce_coalesced(
    Tensors& tensors, const c10d::AllreduceCoalescedOptions& options) {
  Submission s;
  s.plan.type = OpType::ALLREDUCE;
  s.plan.outputs = tensors;
  for (const Tensor& tensor : tensors) {
    require_dense(tensor, "all_reduce");
    const Elements elements = reducible(tensor, "all_reduce");
    touch(s, tensor);
    Call c = call(XCOLL_ALL_REDUCE, options.timeout);
    c.op.send = c.op.recv = data_of(tensor);
    c.op.count = elements.count;
    c.op.dtype = elements.type;
    c.op.reduction = reduction_of(options.reduceOp, tensor);
    s.calls.push_back(std::move(c));
  }
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::reduce(Tensors& tensors,
                                                   const c10d::ReduceOptions& options) {
  const Tensor& tensor = single(tensors, "reduce");
  require_dense(tensor, "reduce");
  const Elements elements = reducible(tensor, "reduce");
  Submission s;
  s.plan.type = OpType::REDUCE;
  s.plan.outputs = tensors;
  touch(s, tensor);
  Call c = call(XCOLL_REDUCE, options.timeout);
  c.op.send = data_of(tensor);
  c.op.recv = getRank() == options.rootRank ? data_of(tensor) : nullptr;
  c.op.count = elements.count;
  c.op.dtype = elements.type;
  c.op.reduction = reduction_of(options.reduceOp, tensor);
  c.op.peer = static_cast<int32_t>(options.rootRank);
  s.calls.push_back(std::move(c));
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::_allgather_base(Tensor& output, Tensor& input,
                                                            const c10d::AllgatherOptions& options) {
  Tensors outputs{output}, inputs{input};
  return allgather_into_tensor_coalesced(outputs, inputs, options);
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::allgather_into_tensor_coalesced(
    Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) {
  Submission s;
  s.plan.type = OpType::_ALLGATHER_BASE;
  s.plan.outputs = outputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    require_dense(outputs[i], "all_gather_into_tensor");
    TORCH_CHECK_VALUE(outputs[i].numel() == inputs[i].numel() * getSize() &&
                          outputs[i].scalar_type() == inputs[i].scalar_type(),
                      "all_gather_into_tensor: the output must have the input's type and ",
                      getSize(), " times its elements");
    const Tensor from = packed(inputs[i]);
    const Elements elements = movable(from);
    touch(s, outputs[i]);
    touch(s, from);
    Call c = call(XCOLL_ALL_GATHER, options.timeout);
    c.op.send = data_of(from);
    c.op.recv = data_of(outputs[i]);
    c.op.count = elements.count;
    c.op.dtype = elements.type;
    s.calls.push_back(std::move(c));
  }
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::allgather(std::vector<Tensors>& outputs,
                                                      Tensors& inputs,
                                                      const c10d::AllgatherOptions& options) {
  const Tensor from = packed(single(inputs, "all_gather"));
  const Tensors& into = outputs.at(0);
  TORCH_CHECK_VALUE(outputs.size() == 1 && into.size() == static_cast<size_t>(getSize()),
                    "all_gather: one output for each of the ", getSize(), " ranks");
  Submission s;
  s.plan.type = OpType::ALLGATHER;
  s.plan.outputs = into;
  touch(s, from);
  const Tensor flat = shares(into, false);
  touch(s, flat);
  const uint64_t width =
      movable(from).type == XCOLL_U8 && from.element_size() > 1 ? from.element_size() : 1;
  const bool even = same_numel(into);
  Call c = call(even ? XCOLL_ALL_GATHER : XCOLL_ALL_GATHER_V, options.timeout);
  c.op.send = data_of(from);
  c.op.recv = data_of(flat);
  c.op.count = movable(from).count;
  c.op.dtype = movable(from).type;
  if (!even) {
    for (const Tensor& tensor : into)
      c.send_counts.push_back(static_cast<uint64_t>(tensor.numel()) * width);
  }
  s.calls.push_back(std::move(c));
  s.plan.after.push_back([flat, into] { take_apart(flat, into); });
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::gather(std::vector<Tensors>& outputs, Tensors& inputs,
                                                   const c10d::GatherOptions& options) {
  const Tensor from = packed(single(inputs, "gather"));
  const bool root = getRank() == options.rootRank;
  Submission s;
  s.plan.type = OpType::GATHER;
  touch(s, from);
  const Elements elements = movable(from);
  Call c = call(XCOLL_GATHER, options.timeout);
  c.op.send = data_of(from);
  c.op.count = elements.count;
  c.op.dtype = elements.type;
  c.op.peer = static_cast<int32_t>(options.rootRank);
  if (root) {
    TORCH_CHECK_VALUE(outputs.size() == 1 && outputs[0].size() == static_cast<size_t>(getSize()) &&
                          same_numel(outputs[0]) && outputs[0][0].numel() == from.numel(),
                      "gather: the root needs ", getSize(), " outputs of the input's size");
    const Tensors into = outputs[0];
    const Tensor flat = shares(into, false);
    touch(s, flat);
    c.op.recv = data_of(flat);
    s.plan.outputs = into;
    s.plan.after.push_back([flat, into] { take_apart(flat, into); });
  }
  s.calls.push_back(std::move(c));
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                                    const c10d::ScatterOptions& options) {
  const Tensor& into = single(outputs, "scatter");
  require_dense(into, "scatter");
  Submission s;
  s.plan.type = OpType::SCATTER;
  s.plan.outputs = outputs;
  touch(s, into);
  const Elements elements = movable(into);
  Call c = call(XCOLL_SCATTER, options.timeout);
  c.op.recv = data_of(into);
  c.op.count = elements.count;
  c.op.dtype = elements.type;
  c.op.peer = static_cast<int32_t>(options.rootRank);
  if (getRank() == options.rootRank) {
    TORCH_CHECK_VALUE(inputs.size() == 1 && inputs[0].size() == static_cast<size_t>(getSize()) &&
                          same_numel(inputs[0]) && inputs[0][0].numel() == into.numel(),
                      "scatter: the root needs ", getSize(), " inputs of the output's size");
    const Tensor flat = shares(inputs[0], true);
    touch(s, flat);
    c.op.send = data_of(flat);
  }
  s.calls.push_back(std::move(c));
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::_reduce_scatter_base(
    Tensor& output, Tensor& input, const c10d::ReduceScatterOptions& options) {
  Tensors outputs{output}, inputs{input};
  return reduce_scatter_tensor_coalesced(outputs, inputs, options);
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::reduce_scatter_tensor_coalesced(
    Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& options) {
  Submission s;
  s.plan.type = OpType::_REDUCE_SCATTER_BASE;
  s.plan.outputs = outputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    require_dense(outputs[i], "reduce_scatter_tensor");
    TORCH_CHECK_VALUE(inputs[i].numel() == outputs[i].numel() * getSize() &&
                          outputs[i].scalar_type() == inputs[i].scalar_type(),
                      "reduce_scatter_tensor: the input must have the output's type and ",
                      getSize(), " times its elements");
    const Tensor from = packed(inputs[i]);
    const Elements elements = reducible(outputs[i], "reduce_scatter_tensor");
    touch(s, outputs[i]);
    touch(s, from);
    Call c = call(XCOLL_REDUCE_SCATTER, options.timeout);
    c.op.send = data_of(from);
    c.op.recv = data_of(outputs[i]);
    c.op.count = elements.count;
    c.op.dtype = elements.type;
    c.op.reduction = reduction_of(options.reduceOp, from);
    s.calls.push_back(std::move(c));
  }
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::reduce_scatter(
    Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ReduceScatterOptions& options) {
  const Tensor& into = single(outputs, "reduce_scatter");
  require_dense(into, "reduce_scatter");
  const Tensors& from = inputs.at(0);
  TORCH_CHECK_VALUE(inputs.size() == 1 && from.size() == static_cast<size_t>(getSize()) &&
                        from[getRank()].numel() == into.numel(),
                    "reduce_scatter: one input for each of the ", getSize(),
                    " ranks, this rank's of the output's size");
  Submission s;
  s.plan.type = OpType::REDUCE_SCATTER;
  s.plan.outputs = outputs;
  const Tensor flat = shares(from, true);
  touch(s, into);
  touch(s, flat);
  const Elements elements = reducible(into, "reduce_scatter");
  const bool even = same_numel(from);
  Call c = call(even ? XCOLL_REDUCE_SCATTER : XCOLL_REDUCE_SCATTER_V, options.timeout);
  c.op.send = data_of(flat);
  c.op.recv = data_of(into);
  c.op.count = elements.count;
  c.op.dtype = elements.type;
  c.op.reduction = reduction_of(options.reduceOp, flat);
  if (!even) {
    const uint64_t pairs = into.is_complex() ? 2 : 1;
    for (const Tensor& tensor : from)
      c.send_counts.push_back(static_cast<uint64_t>(tensor.numel()) * pairs);
  }
  s.calls.push_back(std::move(c));
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::alltoall_base(Tensor& output, Tensor& input,
                                                          std::vector<int64_t>& output_splits,
                                                          std::vector<int64_t>& input_splits,
                                                          const c10d::AllToAllOptions& options) {
  require_dense(output, "all_to_all_single");
  const Tensor from = packed(input);
  const Elements elements = movable(from);
  Submission s;
  s.plan.type = OpType::ALLTOALL_BASE;
  s.plan.outputs = {output};
  touch(s, output);
  touch(s, from);
  const uint64_t ranks = static_cast<uint64_t>(getSize());
  const bool even = output_splits.empty() && input_splits.empty();
  Call c = call(even ? XCOLL_ALL_TO_ALL : XCOLL_ALL_TO_ALL_V, options.timeout);
  c.op.send = data_of(from);
  c.op.recv = data_of(output);
  c.op.dtype = elements.type;
  if (even) {
    TORCH_CHECK_VALUE(input.numel() == output.numel() && input.numel() % getSize() == 0,
                      "all_to_all_single: input and output must have the same size, a multiple of ",
                      getSize());
    c.op.count = elements.count / ranks;
  } else {
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
  }
  s.calls.push_back(std::move(c));
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::alltoall(Tensors& outputs, Tensors& inputs,
                                                     const c10d::AllToAllOptions& options) {
  TORCH_CHECK_VALUE(
      inputs.size() == static_cast<size_t>(getSize()) && outputs.size() == inputs.size(),
      "all_to_all: one input and one output for each of the ", getSize(), " ranks");
  const Tensor from = shares(inputs, true), to = shares(outputs, false);
  Submission s;
  s.plan.type = OpType::ALLTOALL;
  s.plan.outputs = outputs;
  touch(s, from);
  touch(s, to);
  Call c = call(XCOLL_ALL_TO_ALL_V, options.timeout);
  c.op.send = data_of(from);
  c.op.recv = data_of(to);
  c.op.dtype = movable(from).type;
  for (const Tensor& tensor : inputs) c.send_counts.push_back(movable(tensor).count);
  for (const Tensor& tensor : outputs) c.recv_counts.push_back(movable(tensor).count);
  s.calls.push_back(std::move(c));
  const Tensors into = outputs;
  s.plan.after.push_back([to, into] { take_apart(to, into); });
  return submit(std::move(s));
}

// ---- point to point, barrier
// -----------------------------------------------------------------------------------------

// Messages between two ranks match in order; torch's tags are not looked at, as with other device
// backends.
ProcessGroupXhal::WorkPtr ProcessGroupXhal::send(Tensors& tensors, int destination, int) {
  const Tensor from = packed(single(tensors, "send"));
  const Elements elements = movable(from);
  Submission s;
  s.plan.type = OpType::SEND;
  touch(s, from);
  Call c = call(XCOLL_SEND, c10d::kUnsetTimeout);
  c.op.send = data_of(from);
  c.op.count = elements.count;
  c.op.dtype = elements.type;
  c.op.peer = destination;
  s.calls.push_back(std::move(c));
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::recv(Tensors& tensors, int source, int) {
  const Tensor& into = single(tensors, "recv");
  require_dense(into, "recv");
  const Elements elements = movable(into);
  Submission s;
  s.plan.type = OpType::RECV;
  s.plan.outputs = tensors;
  touch(s, into);
  Call c = call(XCOLL_RECV, c10d::kUnsetTimeout);
  c.op.recv = data_of(into);
  c.op.count = elements.count;
  c.op.dtype = elements.type;
  c.op.peer = source;
  s.calls.push_back(std::move(c));
  return submit(std::move(s));
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::barrier(const c10d::BarrierOptions& options) {
  Submission s;
  s.plan.type = OpType::BARRIER;
  s.calls.push_back(call(XCOLL_BARRIER, options.timeout));
  // Where a device is in use, its queued work is before the barrier too, and wait() waits for both.
  if (device_is_open(current_device())) {
    s.device = at::Device(kXhal, current_device());
    s.plan.block_host = true;
  }
  return submit(std::move(s));
}

}  // namespace xhal_torch
