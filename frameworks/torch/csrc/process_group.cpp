// SPDX-License-Identifier: Apache-2.0
#include "process_group.h"

#include <c10/core/StreamGuard.h>

#include <set>

#include "allocator.h"
#include "compat.h"

namespace xhal_torch {
namespace {

using at::Tensor;
using c10d::OpType;

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
      // Bounded by the deadlines of the operations; a failure has been reported to whoever
      // waited for it.
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

ProcessGroupXhal::Call& ProcessGroupXhal::add(Submission& submission, xcoll_kind kind,
                                              std::chrono::milliseconds timeout,
                                              const Elements& elements, const Tensor& send,
                                              const Tensor& recv, int64_t peer) const {
  Call& made = submission.calls.emplace_back();
  made.op.struct_size = sizeof made.op;
  made.op.kind = kind;
  if (timeout.count() > 0 && timeout != timeout_)
    made.op.timeout_ns = static_cast<uint64_t>(timeout.count()) * 1000000u;
  made.op.count = elements.count;
  made.op.dtype = elements.type;
  made.op.peer = static_cast<int32_t>(peer);
  if (send.defined()) {
    made.op.send = send.unsafeGetTensorImpl()->mutable_data();
    submission.keep(send);
  }
  if (recv.defined()) {
    made.op.recv = recv.unsafeGetTensorImpl()->mutable_data();
    if (!recv.is_same(send)) submission.keep(recv);
  }
  return made;
}

void ProcessGroupXhal::Submission::keep(const Tensor& tensor) {
  if (tensor.device().type() == kXhal) device = tensor.device();
  plan.kept.push_back(tensor);
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

}  // namespace xhal_torch
