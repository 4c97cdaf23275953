// SPDX-License-Identifier: Apache-2.0
#include "process_group_work.h"

#include <c10/core/StreamGuard.h>

#include "interrupt.h"

namespace xhal_torch {
namespace {

using Future = c10::ivalue::Future;

c10::intrusive_ptr<Future> make_future(std::vector<c10::Device> devices) {
  return c10::make_intrusive<Future>(c10::ListType::create(c10::TensorType::get()),
                                     std::move(devices));
}

}  // namespace

void check_collective(xcoll_status status) {
  if (status < 0) throw_collective(status, xcoll_last_error());
}

void throw_collective(xcoll_status status, const std::string& text) {
  if (status >= 0) return;
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

XhalWork::State XhalWork::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

bool XhalWork::isSuccess() const {
  if (!request_) return xhal_event_query(&done_) == XHAL_OK;
  std::lock_guard lock(mutex_);
  return state_ == State::kEnded && !failure_;
}

std::exception_ptr XhalWork::exception() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

void XhalWork::end(xcoll_status status) {
  {
    std::lock_guard lock(mutex_);
    if (state_ != State::kOpen) return;  // another thread is at it
    state_ = State::kEnding;
  }
  std::exception_ptr failure;
  {
    // Dropped here, with no lock held: the last owner of a tensor may need the GIL.
    const auto kept = std::move(plan_.kept);
    const auto after = std::move(plan_.after);
    try {
      check_collective(status);
      for (const auto& step : after) step();
    } catch (...) {
      failure = std::current_exception();
    }
  }
  {
    std::lock_guard lock(mutex_);
    failure_ = failure;
    state_ = State::kEnded;
    ended_.notify_all();
  }
  if (failure) {
    future_->setErrorIfNeeded(failure);
  } else if (!future_->completed()) {
    future_->markCompleted(c10::IValue(plan_.outputs));
  }
}

bool XhalWork::follow(uint64_t timeout_ns) {
  if (state() == State::kEnded) return true;
  const xcoll_status status =
      timeout_ns ? xcoll_request_wait(request_, timeout_ns) : xcoll_request_test(request_);
  if (status == XCOLL_NOT_READY) return false;
  end(status);
  // Where another thread is ending it, its copies may still be under way.
  std::unique_lock lock(mutex_);
  return ended_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                         [this] { return state_ == State::kEnded; });
}

bool XhalWork::wait(std::chrono::milliseconds timeout) {
  if (!request_) {
    check(xhal_stream_wait_event(current_stream(device_), &done_), "waiting for a collective");
    if (!plan_.block_host) return true;
    while (true) {
      const xhal_status status = xhal_event_wait(&done_, kInterruptSliceNs);
      if (status != XHAL_ERR_TIMEOUT) {
        check(status, "waiting for a collective");
        return true;
      }
      throw_if_interrupted();
    }
  }
  const auto begin = std::chrono::steady_clock::now();
  uint64_t slice_ns = kInterruptSliceNs;
  while (true) {
    if (timeout != kNoTimeout) {
      const auto left = timeout - (std::chrono::steady_clock::now() - begin);
      const auto left_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(left).count();
      slice_ns = std::min(slice_ns, static_cast<uint64_t>(std::max<int64_t>(left_ns, 0)));
    }
    if (follow(slice_ns)) break;
    TORCH_CHECK_WITH(DistBackendError, slice_ns > 0, "the collective is not complete after ",
                     timeout.count(), " ms; it goes on");
    throw_if_interrupted();
  }
  if (const std::exception_ptr failure = exception()) std::rethrow_exception(failure);
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
  const auto left = std::move(open_);
  open_.clear();
  for (const auto& work : left) work->follow(kInterruptSliceNs);
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
