// SPDX-License-Identifier: Apache-2.0
#include "device.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

namespace xhal::cpu {
namespace {

// A wake across cores costs 20 to 35 us, so shorter work is done before another thread has begun.
// On one core handing over gains nothing at all.
constexpr uint32_t kInlineNs = 50'000;
constexpr int32_t kMostUrgent = -1, kLeastUrgent = 1;

std::string thread_name(uint32_t ordinal) { return fmt::format("xhal-cpu{}-", ordinal); }

}  // namespace

// A limit of 0 is one only when the flag says so.
int32_t most_urgent(uint32_t flags, int32_t limit) {
  const bool limited = limit != 0 || (flags & XHAL_CONTEXT_PRIORITY_LIMIT) != 0;
  return limited ? std::clamp(limit, kMostUrgent, kLeastUrgent) : kMostUrgent;
}

Device::Device(const xhal_plugin_open& open, const Site& site)
    : table_(open.table),
      site_(site),
      ordinal_(open.ordinal),
      observes_((open.flags & XHAL_OPEN_OBSERVE) != 0),
      inline_limit_ns_(site.cores > 1 ? kInlineNs : UINT32_MAX),
      memory_(std::make_unique<Memory>(site, guard_asked_for())),
      workers_(std::make_unique<Workers>(site, site.cores - 1, thread_name(open.ordinal))),
      executors_(std::make_unique<Executors>(site, thread_name(open.ordinal))) {
  (void)ns_per_tick();
  usage_ = read_cpu_usage(site.processors).value_or(CpuUsage{});
}

xhal_status Device::close() {
  stop_work();
  executors_->stop();
  workers_->stop();
  memory_->free_all(nullptr);
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [object, let_go] : owned_) let_go(object);
    owned_.clear();
    retired_.clear();
  }
  return plugin::destroy(this);
}

void Device::stop_work() {
  for (uint64_t next = 0;;) {
    Stream* stream = nullptr;
    {
      const std::lock_guard lock(mutex_);
      const auto found = streams_.lower_bound(next);
      if (found == streams_.end()) return;
      next = found->first + 1;
      stream = found->second;
      cancelling_.push_back(stream);  // until it is removed from here, its destroy waits
    }
    stream->cancel();
    const std::lock_guard lock(mutex_);
    cancelling_.erase(std::find(cancelling_.begin(), cancelling_.end(), stream));
    cancelled_.notify_all();
  }
}

xhal_status Device::limit(uint32_t key, uint64_t* value) {
  if (value == nullptr)
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "the result pointer is NULL");
  switch (key) {
    case XHAL_LIMIT_MEMORY_TOTAL_BYTES:
      *value = memory_->total_bytes();
      break;
    case XHAL_LIMIT_MEMORY_FREE_BYTES:
      *value = std::min({memory_->total_bytes() - memory_->used_bytes(),
                         available_memory_bytes().value_or(UINT64_MAX),
                         read_cgroup_limits().memory_left_bytes.value_or(UINT64_MAX)});
      break;
    case XHAL_LIMIT_ALLOCATION_ALIGNMENT_BYTES:
      *value = kPageBytes;
      break;
    case XHAL_LIMIT_COMPUTE_UNITS:
      *value = site_.cores;
      break;
    case XHAL_LIMIT_STREAM_PRIORITIES:
      *value = kLeastUrgent - kMostUrgent + 1;
      break;
    case XHAL_LIMIT_STREAMS:
      *value = 0;
      break;
    case XHAL_LIMIT_VIRTUAL_GRANULARITY_BYTES:
      *value = kHugePageBytes;
      break;
    case XHAL_LIMIT_CLOCK_HZ:
      *value = 1'000'000'000;
      break;
    default:
      throw plugin::Error(XHAL_ERR_UNSUPPORTED,
                          fmt::format("the cpu plugin knows no limit {}", key));
  }
  return XHAL_OK;
}

// The device's clock is the host's.
xhal_status Device::clock(uint64_t* device_ns, uint64_t* host_ns) {
  if (device_ns == nullptr || host_ns == nullptr) {
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "a result pointer is NULL");
  }
  *device_ns = *host_ns = now_ns();
  return XHAL_OK;
}

xhal_status Device::activity_enable(xhal_activity_fn callback, void* user) {
  activity_.enable(callback, user);
  return XHAL_OK;
}

xhal_status Device::activity_flush() {
  activity_.flush();
  return XHAL_OK;
}

xhal_status Device::context_create(const xhal_context_info* info, xhal_context** context) {
  plugin::make<Context>(table_, XHAL_KIND_CONTEXT, context, *this,
                        most_urgent(info->flags, info->priority_limit));
  return XHAL_OK;
}

void Device::add(Stream& stream) {
  const std::lock_guard lock(mutex_);
  streams_.emplace(stream.serial(), &stream);
}

void Device::remove(Stream& stream) {
  std::unique_lock lock(mutex_);
  streams_.erase(stream.serial());
  cancelled_.wait(lock, [&] {
    return std::find(cancelling_.begin(), cancelling_.end(), &stream) == cancelling_.end();
  });
  past_.add(stream.counters());
  sweep();
}

void Device::disown(plugin::Object* object) {
  const std::lock_guard lock(mutex_);
  owned_.erase(object);
}

Capture& Device::begin_capture(Stream& origin) {
  const std::lock_guard lock(mutex_);
  while (++last_capture_ == 0 || captures_.contains(last_capture_)) {
  }
  return *captures_.emplace(last_capture_, std::make_unique<Capture>(origin, last_capture_))
              .first->second;
}

Capture& Device::find_capture(uint32_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = captures_.find(id);
  if (it == captures_.end())
    throw plugin::Error(XHAL_ERR_CAPTURE, "the capture that the event belongs to has ended");
  return *it->second;
}

std::unique_ptr<Graph> Device::end_capture(uint32_t id) {
  std::unique_ptr<Capture> capture;
  {
    const std::lock_guard lock(mutex_);
    capture = std::move(captures_.extract(id).mapped());
  }
  return capture->end();
}

void Device::retire(std::shared_ptr<const void> thing) {
  const std::lock_guard lock(mutex_);
  sweep();
  Retired retired{std::move(thing), {}};
  for (const auto& [serial, stream] : streams_) {
    if (stream->consumed() != stream->produced())
      retired.until.emplace_back(serial, stream->produced());
  }
  if (!retired.until.empty()) retired_.push_back(std::move(retired));
}

void Device::sweep() {
  std::erase_if(retired_, [&](Retired& r) {
    std::erase_if(r.until, [&](const auto& point) {
      const auto it = streams_.find(point.first);
      return it == streams_.end() || it->second->consumed() >= point.second;
    });
    return r.until.empty();
  });
}

xhal_status Context::destroy() {
  device_.memory().free_all(handle());
  return plugin::destroy(this);
}

xhal_status Context::memory_alloc(const xhal_memory_info* info, uint64_t* address) {
  *address = device_.memory().alloc(device_.handle(), handle(), *info);
  return XHAL_OK;
}

xhal_status Context::memory_free(uint64_t address) {
  device_.memory().free(address);
  return XHAL_OK;
}

xhal_status Context::scrub(uint64_t address, uint64_t size_bytes) {
  device_.memory().scrub(address, size_bytes);
  return XHAL_OK;
}

xhal_status Context::memory_export(uint64_t address, uint32_t handle_type,
                                   xhal_external* external) {
  if (external == nullptr)
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "the result pointer is NULL");
  *external = device_.memory().export_slab(address, handle_type);
  return XHAL_OK;
}

xhal_status Context::memory_import(const xhal_external* external, uint64_t* address) {
  if (external == nullptr || address == nullptr)
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "a pointer is NULL");
  *address = device_.memory().import_slab(device_.handle(), handle(), *external);
  return XHAL_OK;
}

xhal_status Context::host_register(void* host, uint64_t size_bytes, uint64_t* device_address) {
  if (device_address == nullptr)
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "the result pointer is NULL");
  *device_address = device_.memory().host_register(handle(), host, size_bytes);
  return XHAL_OK;
}

xhal_status Context::host_unregister(void* host) {
  device_.memory().host_unregister(host);
  return XHAL_OK;
}

xhal_status Context::virtual_reserve(uint64_t size_bytes, uint64_t* address) {
  if (address == nullptr)
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "the result pointer is NULL");
  *address = device_.memory().reserve(device_.handle(), handle(), size_bytes);
  return XHAL_OK;
}

xhal_status Context::virtual_release(uint64_t address) {
  device_.memory().release(address);
  return XHAL_OK;
}

xhal_status Context::virtual_map(uint64_t address, uint64_t size_bytes) {
  device_.memory().map(address, size_bytes);
  return XHAL_OK;
}

xhal_status Context::virtual_unmap(uint64_t address, uint64_t size_bytes) {
  device_.memory().unmap(address, size_bytes);
  return XHAL_OK;
}

xhal_status Context::virtual_protect(uint64_t address, uint64_t size_bytes, uint32_t protection) {
  device_.memory().protect(address, size_bytes, protection);
  return XHAL_OK;
}

xhal_status Context::stream_create(const xhal_stream_info* info, xhal_timeline* timeline,
                                   xhal_stream** stream) {
  const int32_t priority = std::clamp(info->priority, most_urgent_, kLeastUrgent);
  auto* made =
      plugin::make<Stream>(device_.table(), XHAL_KIND_STREAM, stream, *this, timeline, priority);
  device_.add(*made);
  return XHAL_OK;
}

xhal_status Context::op_prepare(const xhal_op_info* info, xhal_op** op) {
  if (info == nullptr || op == nullptr)
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "a pointer is NULL");
  prepare_operator(device_, *info, op);
  return XHAL_OK;
}

xhal_status Context::module_load(const xhal_module_info* info, xhal_module** module) {
  if (info == nullptr || module == nullptr)
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "a pointer is NULL");
  load_module(device_, modules_, *info, module);
  return XHAL_OK;
}

}  // namespace xhal::cpu
