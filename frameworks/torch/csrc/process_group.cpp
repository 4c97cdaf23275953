// SPDX-License-Identifier: Apache-2.0
#include "process_group.h"

#include <c10/core/StreamGuard.h>

#include <condition_variable>
#include <set>
#include <thread>

#include "allocator.h"
#include "compat.h"
#include "interrupt.h"

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

// The communicators of a group, made in a thread of their own so that the caller can be
// interrupted: until all ranks have come that takes up to the group's timeout.
struct Joining {
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;
  bool abandoned = false;
  xcoll_status status = XCOLL_OK;
  std::string text;
  xcoll_comm* device_comm = nullptr;
  xcoll_comm* host_comm = nullptr;

  void destroy() const {
    xcoll_comm_destroy(device_comm);
    xcoll_comm_destroy(host_comm);
  }
};

void join(const std::shared_ptr<Joining>& joining, const xcoll_unique_id& id, int rank, int size,
          const xcoll_config& config) {
  xcoll_status status = xcoll_comm_init(&id, size, rank, &config, &joining->device_comm);
  if (status == XCOLL_OK) {
    status = xcoll_comm_split(joining->device_comm, 0, rank, &joining->host_comm);
  }
  std::lock_guard lock(joining->mutex);
  joining->status = status;
  if (status != XCOLL_OK) joining->text = xcoll_last_error();
  if (status != XCOLL_OK || joining->abandoned) joining->destroy();
  joining->over = true;
  joining->changed.notify_all();
}

// One call works in one place.
void check_place(const std::optional<at::Device>& place, at::Device other) {
  TORCH_CHECK_VALUE(
      other.is_cpu() || other.type() == kXhal,
      "the backend xhal communicates tensors of xhal devices and of the host, not of ", other,
      "; nothing was communicated");
  TORCH_CHECK_VALUE(!place || *place == other, "the call has tensors on ", place.value_or(other),
                    " and on ", other,
                    "; nothing was communicated. Move them to one device, or make a call for each");
}

uint64_t nanoseconds(std::chrono::milliseconds timeout) {
  return static_cast<uint64_t>(std::chrono::nanoseconds(timeout).count());
}

}  // namespace

// ---- life

ProcessGroupXhal::ProcessGroupXhal(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                   std::chrono::milliseconds timeout)
    : Backend(rank, size),
      options_(c10::make_intrusive<Options>("xhal", timeout)),
      timeout_(timeout) {
  // A store may outlive groups (torchrun's does) and a new group of the same name finds their keys:
  // each rank counts in the store how often it has joined under this name.
  const int64_t generation = store->add("xhal/joined/" + std::to_string(rank), 1);
  const std::string key = "xhal/unique_id/" + std::to_string(generation);
  xcoll_unique_id id{};
  if (rank == 0) {
    check_collective(xcoll_unique_id_create(&id));
    store->set(key, std::vector<uint8_t>(id.bytes, id.bytes + sizeof id.bytes));
  } else {
    const std::vector<uint8_t> bytes = store->get(key);
    TORCH_CHECK_WITH(DistBackendError, bytes.size() == sizeof id.bytes,
                     "the store holds no valid id of the group: are all ranks of one torch_xhal?");
    std::copy(bytes.begin(), bytes.end(), id.bytes);
  }
  xcoll_config config{};
  config.struct_size = sizeof config;
  config.timeout_ns = nanoseconds(timeout);
  const auto joining = std::make_shared<Joining>();
  std::thread([=] { join(joining, id, rank, size, config); }).detach();
  {
    const GilReleased released;
    std::unique_lock lock(joining->mutex);
    const std::chrono::nanoseconds slice(kInterruptSliceNs);
    while (!joining->changed.wait_for(lock, slice, [&] { return joining->over; })) {
      lock.unlock();
      try {
        throw_if_interrupted();
      } catch (...) {
        lock.lock();
        joining->abandoned = true;
        if (joining->over && joining->status == XCOLL_OK) joining->destroy();
        throw;
      }
      lock.lock();
    }
  }
  throw_collective(joining->status, joining->text);
  device_comm_ = joining->device_comm;
  host_comm_ = joining->host_comm;
  std::lock_guard lock(alive().mutex);
  alive().groups.insert(this);
}

ProcessGroupXhal::~ProcessGroupXhal() { close(/*wait=*/true); }

void ProcessGroupXhal::close(bool wait) {
  {
    std::lock_guard lock(alive().mutex);
    if (!alive().groups.erase(this)) return;
  }
  // Callbacks of the futures that end here may need the GIL in the follower's thread.
  const GilReleased released;
  if (wait && !is_shut_down()) {
    for (const auto& [lane, stream] : streams_) {
      // Bounded by the deadlines of the operations; a failure has been reported to whoever
      // waited for it.
      xhal_stream* handle = stream_handle(lane.first, stream.id());
      while (xhal_stream_synchronize(handle, kInterruptSliceNs) == XHAL_ERR_TIMEOUT) {
        if (interrupted_for_later()) break;
      }
    }
  }
  xcoll_comm_destroy(device_comm_);
  xcoll_comm_destroy(host_comm_);
  follower_.stop();
}

void ProcessGroupXhal::abort() {
  xcoll_comm_abort(device_comm_, "aborted by the program");
  xcoll_comm_abort(host_comm_, "aborted by the program");
}

void ProcessGroupXhal::setTimeout(std::chrono::milliseconds timeout) {
  timeout_ = timeout;
  options_->timeout = timeout;
  for (xcoll_comm* comm : {device_comm_, host_comm_}) {
    check_collective(xcoll_comm_set_timeout(comm, nanoseconds(timeout)));
  }
}

c10::intrusive_ptr<c10d::Backend> make_process_group(const c10::intrusive_ptr<c10d::Store>& store,
                                                     int rank, int size,
                                                     std::chrono::milliseconds timeout) {
  return c10::make_intrusive<ProcessGroupXhal>(store, rank, size, timeout);
}

void close_process_groups(bool wait) {
  while (true) {
    ProcessGroupXhal* group = nullptr;
    {
      std::lock_guard lock(alive().mutex);
      if (alive().groups.empty()) return;
      group = *alive().groups.begin();
    }
    group->close(wait);
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
  if (timeout.count() > 0 && timeout != timeout_) made.op.timeout_ns = nanoseconds(timeout);
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
  check_place(place, tensor.device());
  place = tensor.device();
  plan.kept.push_back(tensor);
}

c10::Stream ProcessGroupXhal::stream_of(DeviceIndex device, const Submission& submission) {
  const OpType type = submission.plan.type;
  const std::pair<DeviceIndex, int> lane(device, submission.host_comm   ? 3
                                                 : type == OpType::SEND ? 1
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
  {
    std::lock_guard lock(mutex_);
    const auto coalescing = coalescing_.find(std::this_thread::get_id());
    if (coalescing != coalescing_.end()) {
      Submission& all = coalescing->second;
      if (submission.place) {
        check_place(all.place, *submission.place);
        all.place = submission.place;
      }
      std::move(submission.calls.begin(), submission.calls.end(), std::back_inserter(all.calls));
      const auto append = [](auto& to, auto& from) {
        to.insert(to.end(), from.begin(), from.end());
      };
      append(all.plan.outputs, submission.plan.outputs);
      append(all.plan.kept, submission.plan.kept);
      append(all.plan.after, submission.plan.after);
      return {};
    }
  }
  std::vector<xcoll_op> ops;
  for (Call& call : submission.calls) {
    if (!call.send_counts.empty()) call.op.send_counts = call.send_counts.data();
    if (!call.recv_counts.empty()) call.op.recv_counts = call.recv_counts.data();
    ops.push_back(call.op);
  }
  const bool on_device = submission.place && submission.place->type() == kXhal;
  return on_device ? submit_on_device(submission, ops) : submit_on_host(submission, ops);
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::submit_on_device(Submission& submission,
                                                             std::vector<xcoll_op>& ops) {
  const DeviceIndex device = submission.place->index();
  const c10::Stream stream = stream_of(device, submission);
  xcoll_comm* comm = submission.host_comm ? host_comm_ : device_comm_;
  xhal_stream* ours = stream_handle(device, stream.id());
  xhal_event ready{}, done{};
  check(xhal_event_record(current_stream(device), 0, &ready), "starting a collective");
  check(xhal_stream_wait_event(ours, &ready), "starting a collective");
  check_collective(xcoll_submit(comm, ops.data(), ops.size(), ours, nullptr));
  for (const Tensor& tensor : submission.plan.kept) {
    record_stream(tensor.storage().data_ptr(), device, stream.id());
  }
  {
    const c10::StreamGuard guard(stream);
    for (const auto& step : submission.plan.after) step();
  }
  submission.plan.after.clear();
  submission.plan.kept.clear();
  check(xhal_event_record(ours, 0, &done), "submitting a collective");
  return c10::make_intrusive<XhalWork>(getRank(), xcoll_comm_sequence(comm),
                                       std::move(submission.plan), device, stream, done);
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::submit_on_host(Submission& submission,
                                                           std::vector<xcoll_op>& ops) {
  xcoll_request* request = nullptr;
  check_collective(xcoll_submit(host_comm_, ops.data(), ops.size(), nullptr, &request));
  auto work = c10::make_intrusive<XhalWork>(getRank(), xcoll_comm_sequence(host_comm_),
                                            std::move(submission.plan), request, timeout_);
  follower_.add(work);
  return work;
}

// Calls of this thread until endCoalescing are one group. A start without an end (an exception came
// between) is given up here.
void ProcessGroupXhal::startCoalescing() {
  std::lock_guard lock(mutex_);
  Submission& all = coalescing_[std::this_thread::get_id()];
  if (!all.calls.empty()) {
    TORCH_WARN("the group was still coalescing ", all.calls.size(),
               " operation(s) whose end never came; they are dropped and were not communicated");
  }
  all = Submission(OpType::COALESCED, {});
}

ProcessGroupXhal::WorkPtr ProcessGroupXhal::endCoalescing() {
  Submission all;
  {
    std::lock_guard lock(mutex_);
    const auto coalescing = coalescing_.find(std::this_thread::get_id());
    TORCH_CHECK(coalescing != coalescing_.end(), "endCoalescing without startCoalescing");
    all = std::move(coalescing->second);
    coalescing_.erase(coalescing);
  }
  if (all.calls.empty()) return {};
  return submit(std::move(all));
}

}  // namespace xhal_torch
