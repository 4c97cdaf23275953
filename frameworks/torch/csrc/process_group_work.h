// SPDX-License-Identifier: Apache-2.0
// process_group_work.h: one submission to a communicator, as torch waits for it.
//
// Device tensors: the submission is on the group's own stream; wait() makes the caller's current
// stream wait and returns. Host tensors: a request of libxcoll; wait() blocks. A follower thread of
// the group completes the futures of host submissions, because libxcoll calls nobody back. A future
// is completed with no lock held and after its work has ended: its callbacks may ask the work
// anything.
#pragma once

#include <xcoll/xcoll.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime.h"

namespace xhal_torch {

// Throws libxcoll's text for a status that is a failure.
void check_collective(xcoll_status status);
void throw_collective(xcoll_status status, const std::string& text);

struct WorkPlan {
  c10d::OpType type = c10d::OpType::UNKNOWN;
  std::vector<at::Tensor> outputs;  // what result() and the future give
  std::vector<at::Tensor> kept;     // alive until the work is done
  std::vector<std::function<void()>>
      after;                // copies out of staging, when the communication is done
  bool block_host = false;  // wait() waits for the device too (barrier)
};

class XhalWork final : public c10d::Work {
 public:
  // On a device: `done` is recorded on the group's stream. On the host: `request` is owned.
  XhalWork(int rank, uint64_t sequence, WorkPlan plan, DeviceIndex device, c10::Stream stream,
           xhal_event done);
  XhalWork(int rank, uint64_t sequence, WorkPlan plan, xcoll_request* request,
           std::chrono::milliseconds timeout);
  ~XhalWork() override;

  bool isCompleted() override;
  bool isSuccess() const override;
  std::exception_ptr exception() const override;
  std::vector<at::Tensor> result() override { return plan_.outputs; }
  void synchronize() override { wait(kNoTimeout); }
  bool wait(std::chrono::milliseconds timeout) override;
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }
  uint64_t getSequencenumber() const override { return sequence_; }
  std::chrono::milliseconds getTimeout() const override { return timeout_; }

  // Whether a host submission has ended; waits up to `timeout_ns` for it. Any thread.
  bool follow(uint64_t timeout_ns);

 private:
  enum class State { kOpen, kEnding, kEnded };

  void end(xcoll_status status);  // of a host submission, once
  State state() const;

  WorkPlan plan_;
  uint64_t sequence_;
  DeviceIndex device_ = -1;
  xhal_event done_{};
  xcoll_request* request_ = nullptr;
  std::chrono::milliseconds timeout_{};
  mutable std::mutex mutex_;  // of the next three; held for nothing that may take the GIL
  std::condition_variable ended_;
  State state_ = State::kOpen;
  std::exception_ptr failure_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

// Watches the host submissions of one group. stop() comes after the communicators are destroyed: it
// completes the futures of what they left open.
class Follower {
 public:
  ~Follower();
  void add(c10::intrusive_ptr<XhalWork> work);
  void stop();

 private:
  void run();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<c10::intrusive_ptr<XhalWork>> open_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace xhal_torch
