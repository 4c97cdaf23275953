// SPDX-License-Identifier: Apache-2.0
// telemetry.cpp: what a device tells about itself: only what is measured.
//
// Utilisation and used memory are the machine's, whoever causes them, so that an observer beside a
// running job sees them; operations, copied bytes and busy time are this process's own.
#include <algorithm>
#include <optional>

#include "device.hpp"

namespace xhal::cpu {

Device::Totals Device::totals() {
  const std::lock_guard lock(mutex_);
  Totals t = past_;
  for (const auto& [serial, stream] : streams_) t.add(stream->counters());
  t.streams = streams_.size();
  return t;
}

// Share of the device's processors that was busy since the last reading; none while less than two
// kernel ticks have passed.
std::optional<double> Device::utilization() {
  const std::lock_guard lock(mutex_);
  const auto now = read_cpu_usage(site_.processors);
  if (!now || now->all < usage_.all + 2) return std::nullopt;
  const double busy = static_cast<double>(now->busy - std::min(now->busy, usage_.busy));
  const double all = static_cast<double>(now->all - usage_.all);
  usage_ = *now;
  return std::min(busy / all, 1.0);
}

xhal_status Device::telemetry(xhal_sample* samples, uint32_t count) {
  if (samples == nullptr && count != 0)
    throw plugin::Error(XHAL_ERR_INVALID_ARGUMENT, "the samples are NULL");
  const Totals t = totals();
  for (uint32_t i = 0; i < count; ++i) {
    xhal_sample& s = samples[i];
    s.unit = s.flags = 0;
    s.value = 0;
    if (s.instance != 0) continue;  // there is one of each
    const auto set = [&](uint32_t unit, std::optional<double> value) {
      s.unit = unit;
      if (!value) return;
      s.value = *value;
      s.flags = XHAL_SAMPLE_VALID;
    };
    switch (s.id) {
      case XHAL_TELEMETRY_MEMORY_TOTAL_BYTES:
        set(XHAL_UNIT_BYTES, static_cast<double>(memory_->total_bytes()));
        break;
      case XHAL_TELEMETRY_MEMORY_USED_BYTES:
        set(XHAL_UNIT_BYTES, used_memory_bytes());
        break;
      case XHAL_TELEMETRY_UTILIZATION:
        set(XHAL_UNIT_RATIO, utilization());
        break;
      case XHAL_TELEMETRY_HEALTH:
        set(XHAL_UNIT_STATE, 0);
        break;
      case XHAL_TELEMETRY_OPERATIONS:
        set(XHAL_UNIT_COUNT, static_cast<double>(t.operations));
        break;
      case XHAL_TELEMETRY_COPY_BYTES:
        set(XHAL_UNIT_BYTES, static_cast<double>(t.copied_bytes));
        break;
      case XHAL_TELEMETRY_BUSY_NS:
        set(XHAL_UNIT_NANOSECONDS, static_cast<double>(ns_of(t.busy_ticks)));
        break;
      case XHAL_TELEMETRY_STREAMS:
        set(XHAL_UNIT_COUNT, static_cast<double>(t.streams));
        break;
      case XHAL_TELEMETRY_RESETS:
        set(XHAL_UNIT_COUNT, static_cast<double>(resets(ordinal_)));
        break;
      default:
        break;  // power, temperature and the like: the kernel does not tell them for a set of cores
    }
  }
  return XHAL_OK;
}

// Of the machine when the device is all of it; else of this process, which is what can be told.
std::optional<double> Device::used_memory_bytes() {
  const auto all = all_memory_bytes(), available = available_memory_bytes();
  const bool whole_machine =
      all && available && memory_->total_bytes() + (memory_->total_bytes() >> 4) >= *all;
  if (whole_machine) return static_cast<double>(*all - *available);
  return static_cast<double>(memory_->used_bytes());
}

}  // namespace xhal::cpu
