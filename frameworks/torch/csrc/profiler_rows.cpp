// SPDX-License-Identifier: Apache-2.0
// Rows of the device for torch.profiler: what xHAL's activity records say, tied to the torch
// operators that submitted the work. Kineto is part of torch; its headers need fmt.
#include "compat.h"

#if XHAL_TORCH_AT_LEAST(2, 15) && __has_include(<fmt/format.h>) && \
    __has_include(<kineto/libkineto.h>)
#define FMT_HEADER_ONLY 1
#include <c10/util/ApproximateClock.h>
#include <kineto/libkineto.h>
#include <kineto/output_base.h>

#include <ctime>
#include <mutex>

#include "op_cache.h"
#include "runtime.h"

namespace xhal_torch {
namespace {

using libkineto::ActivityType;

struct Record {
  DeviceIndex device;
  xhal_activity activity;
};

std::string name_of(const xhal_activity& activity) {
  switch (activity.kind) {
    case XHAL_ACTIVITY_OPERATOR:
      return std::string("xhal::") + op_name(activity.operation);
    case XHAL_ACTIVITY_COPY:
      return "xhal::copy_bytes";
    case XHAL_ACTIVITY_FILL:
      return "xhal::fill_bytes";
    case XHAL_ACTIVITY_HOST_CALL:
      return "xhal::host_call";
    case XHAL_ACTIVITY_GRAPH:
      return "xhal::graph";
    default:
      return "xhal::kernel";
  }
}

// Nanoseconds from a device's clock to the clock kineto's rows are in.
int64_t clock_offset(DeviceIndex index) {
  uint64_t device_ns = 0, host_ns = 0;
  check(xhal_device_clock(device(index).handle, &device_ns, &host_ns), "reading a device's clock");
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t monotonic = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  return c10::getTime() - monotonic + static_cast<int64_t>(host_ns) -
         static_cast<int64_t>(device_ns);
}

class Session final : public libkineto::IActivityProfilerSession {
 public:
  void start() override {
    open_current();
    for (DeviceIndex index = 0; index < device_count(); ++index) {
      if (!device_is_open(index)) continue;
      auto& source = sources_.emplace_back(std::make_unique<Source>(Source{this, index}));
      const xhal_status status = xhal_activity_enable(device(index).handle, &receive, source.get());
      note(index, status);
      if (status != XHAL_OK) sources_.pop_back();
    }
    status_ = libkineto::TraceStatus::RECORDING;
  }

  void stop() override {
    for (const auto& source : sources_) {
      xhal_device* handle = device(source->device).handle;
      note(source->device, xhal_activity_flush(handle));
      note(source->device, xhal_activity_enable(handle, nullptr, nullptr));
    }
    if (no_memory_) errors_.push_back("xhal: rows are missing, the host had no memory for them");
    status_ = libkineto::TraceStatus::PROCESSING;
  }

  std::vector<std::string> errors() override { return errors_; }
  void processTrace(libkineto::ActivityLogger&) override {}

  void processTrace(libkineto::ActivityLogger& logger, libkineto::getLinkedActivityCallback linked,
                    int64_t begin, int64_t end) override {
    buffer_ = std::make_unique<libkineto::CpuTraceBuffer>();
    buffer_->span = libkineto::TraceSpan(begin, end, "xHAL");
    buffer_->gpuOpCount = 0;
    std::lock_guard lock(mutex_);
    int64_t offsets[kMaxDevices] = {};
    for (const auto& source : sources_) offsets[source->device] = clock_offset(source->device);
    for (const Record& record : records_) {
      const xhal_activity& from = record.activity;
      buffer_->emplace_activity(buffer_->span, ActivityType::CONCURRENT_KERNEL, name_of(from));
      libkineto::GenericTraceActivity& row = *buffer_->activities.back();
      row.startTime = static_cast<int64_t>(from.start_ns) + offsets[record.device];
      row.endTime = static_cast<int64_t>(from.end_ns) + offsets[record.device];
      row.device = record.device;
      row.resource = static_cast<int32_t>(from.stream);
      row.id = static_cast<int32_t>(from.correlation);
      row.linked = linked(static_cast<int32_t>(from.correlation));
      row.flow.id = static_cast<uint32_t>(from.correlation);
      row.flow.type = libkineto::kLinkAsyncCpuGpu;
      logger.handleGenericActivity(row);
      ++buffer_->gpuOpCount;
    }
  }

  std::unique_ptr<libkineto::DeviceInfo> getDeviceInfo() override { return nullptr; }
  std::vector<libkineto::ResourceInfo> getResourceInfos() override { return {}; }
  std::unique_ptr<libkineto::CpuTraceBuffer> getTraceBuffer() override {
    return std::move(buffer_);
  }
  void pushCorrelationId(uint64_t id) override { xhal_correlation_push(id); }
  void popCorrelationId() override {
    uint64_t id = 0;
    xhal_correlation_pop(&id);
  }

 private:
  struct Source {
    Session* session;
    DeviceIndex device;
  };
  // A profile may be the first thing a process does; what it measures will open the device.
  void open_current() {
    try {
      if (device_count() > 0) device(current_device());
    } catch (const std::exception& error) {
      errors_.push_back(error.what());
    }
  }
  void note(DeviceIndex index, xhal_status status) {
    if (status == XHAL_OK) return;
    errors_.push_back("xhal:" + std::to_string(index) + ": " + last_error_text(status));
  }
  // Called by libxhal: nothing may be thrown through it.
  static void receive(void* user, const xhal_activity* records, uint32_t count) noexcept {
    const auto* source = static_cast<Source*>(user);
    auto& session = *source->session;
    std::lock_guard lock(session.mutex_);
    try {
      for (uint32_t i = 0; i < count; ++i) session.records_.push_back({source->device, records[i]});
    } catch (const std::bad_alloc&) {
      session.no_memory_ = true;
    }
  }

  std::mutex mutex_;
  std::vector<Record> records_;
  bool no_memory_ = false;
  std::vector<std::unique_ptr<Source>> sources_;
  std::vector<std::string> errors_;
  std::unique_ptr<libkineto::CpuTraceBuffer> buffer_;
};

class Profiler final : public libkineto::IActivityProfiler {
 public:
  const std::string& name() const override { return name_; }
  const std::set<ActivityType>& availableActivities() const override { return types_; }
  std::unique_ptr<libkineto::IActivityProfilerSession> configure(
      const std::set<ActivityType>& wanted, const libkineto::Config&) override {
    if (!wanted.count(ActivityType::CONCURRENT_KERNEL)) return nullptr;
    return std::make_unique<Session>();
  }
  std::unique_ptr<libkineto::IActivityProfilerSession> configure(
      int64_t, int64_t, const std::set<ActivityType>& wanted,
      const libkineto::Config& config) override {
    return configure(wanted, config);
  }

 private:
  std::string name_ = "xHAL";
  std::set<ActivityType> types_{ActivityType::CONCURRENT_KERNEL};
};

const bool registered = [] {
  libkineto::api().registerProfilerFactory([] { return std::make_unique<Profiler>(); });
  return true;
}();

}  // namespace
}  // namespace xhal_torch
#endif
