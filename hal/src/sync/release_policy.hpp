// SPDX-License-Identifier: Apache-2.0
// release_policy.hpp: who decides when held-back submissions go on to the plugin. Without a policy
// they go as soon as their gates are open; the chaos layer sets one that delays everything.
#pragma once

#include <atomic>

namespace xhal {

struct StreamState;

struct ReleasePolicy {
  virtual ~ReleasePolicy() = default;
  virtual void stream_begins(StreamState& stream) = 0;
  virtual void stream_ends(StreamState& stream) noexcept = 0;
  virtual void something_held(StreamState& stream) noexcept = 0;
  virtual void host_waits(bool begins) noexcept = 0;  // a thread waits for a timeline, or stops
};

inline std::atomic<ReleasePolicy*> release_policy{nullptr};
inline ReleasePolicy* policy() noexcept { return release_policy.load(std::memory_order_acquire); }

// A thread waits for a result.
class HostWaits {
 public:
  HostWaits() noexcept : policy_(policy()) {
    if (policy_ != nullptr) policy_->host_waits(true);
  }
  ~HostWaits() {
    if (policy_ != nullptr) policy_->host_waits(false);
  }
  HostWaits(const HostWaits&) = delete;
  HostWaits& operator=(const HostWaits&) = delete;

 private:
  ReleasePolicy* policy_;
};

}  // namespace xhal
