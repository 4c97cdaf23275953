// SPDX-License-Identifier: Apache-2.0
#include "process_group_work.h"

#include <c10/core/StreamGuard.h>

namespace xhal_torch {
namespace {

using Future = c10::ivalue::Future;

c10::intrusive_ptr<Future> make_future(std::vector<c10::Device> devices) {
  return c10::make_intrusive<Future>(c10::ListType::create(c10::TensorType::get()),
                                     std::move(devices));
}

}  // namespace

void check_collective(xcoll_status status) {
  if (status >= 0) return;
  const std::string text = xcoll_last_error();
  switch (status) {
    case XCOLL_ERR_UNSUPPORTED:
      TORCH_CHECK_NOT_IMPLEMENTED(false, text);
    case XCOLL_ERR_INVALID_ARGUMENT:
      TORCH_CHECK_VALUE(false, text);
    default:
      TORCH_CHECK_WITH(DistBackendError, false, text);
  }
}

XhalWork::XhalWork(int rank, uint64_t sequence, WorkPlan plan, DeviceIndex device,
                   c10::Stream stream, xhal_event done)
    : c10d::Work(rank, plan.type),
      plan_(std::move(plan)),
      sequence_(sequence),
      device_(device),
      done_(done),
      future_(make_future({c10::Device(kXhal, device)})) {
  // Completed in the group's stream: who uses the value waits for that stream on the device.
  const c10::StreamGuard guard(stream);
  future_->markCompleted(c10::IValue(plan_.outputs));
}

XhalWork::XhalWork(int rank, uint64_t sequence, WorkPlan plan, xcoll_request* request,
                   std::chrono::milliseconds timeout)
    : c10d::Work(rank, plan.type),
      plan_(std::move(plan)),
      sequence_(sequence),
      request_(request),
      timeout_(timeout),
      future_(make_future({})) {}

XhalWork::~XhalWork() {
  if (request_) xcoll_request_free(request_);
}

bool XhalWork::isCompleted() {
  if (!request_) return xhal_event_query(&done_) != XHAL_NOT_READY;
  return follow(0);
}

bool XhalWork::isSuccess() const {
  if (!request_) return xhal_event_query(&done_) == XHAL_OK;
  std::lock_guard lock(ending_);
  return ended_ && !failure_;
}

std::exception_ptr XhalWork::exception() const {
  std::lock_guard lock(ending_);
  return failure_;
}

void XhalWork::end(xcoll_status status) {
  std::lock_guard lock(ending_);
  if (ended_) return;
  try {
    check_collective(status);
    for (const auto& step : plan_.after) step();
  } catch (...) {
    failure_ = std::current_exception();
  }
  ended_ = true;
  plan_.kept.clear();
  plan_.after.clear();
  if (failure_) {
    future_->setErrorIfNeeded(failure_);
  } else if (!future_->completed()) {
    future_->markCompleted(c10::IValue(plan_.outputs));
  }
}

bool XhalWork::follow(uint64_t timeout_ns) {
  {
    std::lock_guard lock(ending_);
    if (ended_) return true;
  }
  const xcoll_status status =
      timeout_ns ? xcoll_request_wait(request_, timeout_ns) : xcoll_request_test(request_);
  if (status == XCOLL_NOT_READY) return false;
  end(status);
  return true;
}

bool XhalWork::wait(std::chrono::milliseconds timeout) {
  if (!request_) {
    check(xhal_stream_wait_event(current_stream(device_), &done_), "waiting for a collective");
    if (plan_.block_host) check(xhal_event_wait(&done_, XHAL_FOREVER), "waiting for a collective");
    return true;
  }
  const uint64_t limit_ns =
      timeout == kNoTimeout ? UINT64_MAX : static_cast<uint64_t>(timeout.count()) * 1000000u;
  TORCH_CHECK_WITH(DistBackendError, follow(limit_ns ? limit_ns : 1),
                   "the collective is not complete after ", timeout.count(), " ms; it goes on");
  std::exception_ptr failure;
  {
    std::lock_guard lock(ending_);
    failure = failure_;
  }
  if (failure) std::rethrow_exception(failure);
  return true;
}

// ---- follower

Follower::~Follower() { stop(); }

void Follower::add(c10::intrusive_ptr<XhalWork> work) {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  open_.push_back(std::move(work));
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_one();
}

void Follower::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
  open_.clear();
}

void Follower::run() {
  constexpr uint64_t kTurnNs =
      2'000'000;  // a later receive may end before the first: look at all this often
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !open_.empty(); });
    if (stopping_) return;
    std::vector<c10::intrusive_ptr<XhalWork>> now(open_.begin(), open_.end());
    lock.unlock();
    now.front()->follow(kTurnNs);
    std::vector<c10::intrusive_ptr<XhalWork>> ended;
    for (auto& work : now) {
      if (work->follow(0)) ended.push_back(work);
    }
    now.clear();
    lock.lock();
    for (const auto& work : ended) std::erase(open_, work);
    lock.unlock();
    ended.clear();  // may run destructors of tensors and callbacks: not under the lock
    lock.lock();
  }
}

}  // namespace xhal_torch
