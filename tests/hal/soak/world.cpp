// SPDX-License-Identifier: Apache-2.0
#include "world.hpp"

#include <chrono>
#include <cstdio>

namespace xhal::soak {

void Place::enter(const char* function) {
  call.store(function, std::memory_order_relaxed);
  since_ns.store(static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()),
                 std::memory_order_relaxed);
}

namespace {
std::atomic<uint64_t> complaints{0};
}

void complain(const std::string& text) {
  if (complaints++ > 20) return;
  std::fprintf(stderr, "soak: thread %u, step `%s`, call %s: %s\n", me->number,
               me->place->step.load(), me->place->call.load(), text.c_str());
  std::fflush(stderr);
}
bool anything_wrong() { return complaints > 0; }

std::string describe(const char* what, xhal_status status) {
  return std::string(what) + " returned " + xhal_status_name(status) +
         (status < 0 ? ": " + last_error_info().text : "");
}

std::vector<std::string>& device_ids() {
  static std::vector<std::string> ids = {"cpu:0", "remote:0", "faulty:0", "faulty:1"};
  return ids;
}

Lease::Lease(const std::string& id) : id_(id), plugin_(id.substr(0, id.find(':'))) {
  uint32_t index = UINT32_MAX;
  for (const auto& d : devices()) {
    if (d.id == id) index = d.index;
  }
  xhal_device_open_info info{};
  info.struct_size = sizeof info;
  info.index = index;
  if (plugin_ == "faulty") info.flags = XHAL_OPEN_CONTROL;
  if (!ok("xhal_device_open", CALL(xhal_device_open, &info, &device_, &context_))) {
    device_ = nullptr;
    return;
  }
  ++totals.opens;
}

Lease::~Lease() {
  if (device_ == nullptr) return;
  const bool before = lost_;
  const auto ends = [&](const char* what, xhal_status status) { ok(what, status, {}); };
  for (auto* stream : streams_) ends("xhal_stream_destroy", CALL(xhal_stream_destroy, stream));
  if (pool_ != nullptr) ends("xhal_pool_destroy", CALL(xhal_pool_destroy, pool_));
  for (const auto address : memory_)
    ends("xhal_memory_free", CALL(xhal_memory_free, context_, address));
  if (lost_ || before) totals.lost_streams += streams_.size() + lost_streams_;
  ends("xhal_device_close", CALL(xhal_device_close, device_));
}

bool Lease::ok(const char* what, xhal_status status, std::initializer_list<xhal_status> also) {
  if (status == XHAL_OK) return true;
  if (status == XHAL_ERR_DEVICE_LOST && may_be_lost()) {
    lost_ = true;
    return false;
  }
  // The remote card gives memory out once and never again.
  if (status == XHAL_ERR_OUT_OF_MEMORY && plugin_ == "remote") return false;
  if (std::find(also.begin(), also.end(), status) != also.end()) return false;
  complain(describe((id_ + ": " + what).c_str(), status));
  return false;
}

xhal_stream* Lease::stream() {
  if (!streams_.empty() && !me->chance(3)) return streams_[me->upto(streams_.size() - 1)];
  if (streams_.size() > 4) return streams_[me->upto(streams_.size() - 1)];
  xhal_stream* made = nullptr;
  if (!ok("xhal_stream_create", CALL(xhal_stream_create, context_, nullptr, &made))) return nullptr;
  streams_.push_back(made);
  return made;
}

xhal_pool* Lease::pool() {
  if (pool_ != nullptr) return pool_;
  xhal_pool_info info{};
  info.struct_size = sizeof info;
  info.limit_bytes = 6 << 20;
  if (!ok("xhal_pool_create", CALL(xhal_pool_create, context_, &info, &pool_))) pool_ = nullptr;
  return pool_;
}

std::optional<uint64_t> Lease::memory(uint64_t size) {
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = size;
  uint64_t address = 0;
  if (!ok("xhal_memory_alloc", CALL(xhal_memory_alloc, context_, &info, &address)))
    return std::nullopt;
  memory_.push_back(address);
  return address;
}

}  // namespace xhal::soak
