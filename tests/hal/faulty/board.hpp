// SPDX-License-Identifier: Apache-2.0
// board.hpp: how a test tells the plugin "faulty" what to do wrong, and asks it what it was given.
//
// The board belongs to the test program, which exports it; the plugin finds it by its name when it
// is loaded. So a test can misbehave in a plugin's place before any device is open, on any thread
// and in a forked child, and the misbehaviour stands in the test itself:
//
//   board().before("stream_create", [](const Call& call) {
//     call.lose();
//     return XHAL_ERR_DEVICE_LOST;
//   });
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "xhal/plugin.h"

namespace xhal::faulty {

inline constexpr uint32_t kDevices = 2;

// One call of a slot. What a slot has no use for is zero.
struct Call {
  std::string_view slot;
  const xhal_host_services* host = nullptr;
  uint32_t ordinal = 0;
  xhal_device* device = nullptr;
  xhal_context* context = nullptr;
  xhal_stream* stream = nullptr;
  xhal_timeline* timeline = nullptr;
  // src is also the host address of a registration, value also the flags of what is created.
  uint64_t dst = 0, src = 0, size = 0, value = 0;
  uint64_t correlation = 0;
  uint32_t object_kind = 0;  // of the operator or kernel of a launch, as it stands now

  // What a driver does when its card is gone.
  void lose(std::string_view text = "the card died, as it was asked to") const {
    xhal_error error{};
    error.struct_size = sizeof error;
    error.status = XHAL_ERR_DEVICE_LOST;
    error.scope = XHAL_SCOPE_DEVICE;
    error.text = {text.data(), text.size()};
    host->device_lost(device, &error);
  }
};

using Hook = std::function<xhal_status(const Call&)>;

constexpr uint64_t cap(uint32_t number) { return uint64_t{1} << number; }

class Board {
 public:
  static constexpr uint64_t kUsualCapabilities =
      cap(XHAL_CAP_GRAPH) | cap(XHAL_CAP_MODULE) | cap(XHAL_CAP_HOST_REGISTER) |
      cap(XHAL_CAP_CONTROL) | cap(XHAL_CAP_TIMESTAMP) | cap(XHAL_CAP_SCRUB);

  // What both devices claim.
  std::atomic<uint64_t> capabilities{kUsualCapabilities};

  // Calls `hook` before the work of each call of `slot`, on the plugin's thread and without a lock;
  // what it returns instead of XHAL_OK is the slot's answer. device_open's call has no handles yet,
  // `shutdown` is the plugin's own.
  void before(std::string_view slot, Hook hook) {
    const std::lock_guard lock(mutex_);
    hooks_[std::string(slot)] = std::make_shared<Hook>(std::move(hook));
    watching_ = true;
  }
  void forget(std::string_view slot) {
    const std::lock_guard lock(mutex_);
    hooks_.erase(std::string(slot));
  }

  void clear() {
    const std::lock_guard lock(mutex_);
    watching_ = recording_ = false;
    hooks_.clear();
    calls_.clear();
    capabilities = kUsualCapabilities;
  }

  // From now on every call is remembered.
  void record() {
    const std::lock_guard lock(mutex_);
    recording_ = watching_ = true;
    calls_.clear();
  }
  std::vector<Call> calls(std::string_view slot) const {
    const std::lock_guard lock(mutex_);
    std::vector<Call> found;
    for (const auto& call : calls_) {
      if (call.slot == slot) found.push_back(call);
    }
    return found;
  }

  // The plugin's side.
  xhal_status reached(const Call& call) {
    if (!watching_.load(std::memory_order_relaxed)) return XHAL_OK;
    std::shared_ptr<Hook> hook;
    {
      const std::lock_guard lock(mutex_);
      if (recording_) calls_.push_back(call);
      const auto it = hooks_.find(call.slot);
      if (it != hooks_.end()) hook = it->second;
    }
    return hook == nullptr ? XHAL_OK : (*hook)(call);
  }

 private:
  std::atomic<bool> watching_{false};
  mutable std::mutex mutex_;  // of what follows
  bool recording_ = false;
  std::map<std::string, std::shared_ptr<Hook>, std::less<>> hooks_;
  std::vector<Call> calls_;
};

}  // namespace xhal::faulty

// Defined by the test program.
extern "C" __attribute__((visibility("default"))) xhal::faulty::Board* xhal_faulty_board();
