// SPDX-License-Identifier: Apache-2.0
// device_record.hpp: what libxhal keeps of an opened device. Never freed, for handles lead to its
// table; used again by a later open of the same device once nothing lives under it.
#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/locks.hpp"
#include "xhal/comm.h"
#include "xhal/plugin.h"

namespace xhal {

struct PluginRecord;
struct StreamState;
struct ContextState;
struct Timeline;
class TimestampRing;

// The timelines of a device's streams, by what they are doing (sync/timeline_life.cpp).
struct TimelineLists {
  Timeline* live = nullptr;
  Timeline* spare = nullptr;  // ended, to be used again
  Timeline* limbo = nullptr;  // ended, but a lost device may still write to their cells
};

// Layers that wrap the table, innermost first in the chain of calls.
enum class Layer : uint32_t { validate, trace, count };

struct DeviceRecord {
  xhal_dispatch
      table;  // what heads point to: the outermost layer, or the plugin itself; changes when lost
  xhal_dispatch intercept;  // for streams whose submissions libxhal holds back (deferral.hpp)
  xhal_dispatch raw;        // the plugin's slots, holes filled
  xhal_dispatch next[static_cast<size_t>(Layer::count)];  // what each layer calls

  PluginRecord* plugin = nullptr;
  // Which device it is: fixed, so that anybody may read it while `info` is written by an open.
  std::string name;  // "npu:1"
  uint32_t ordinal = 0;
  xhal_device_info info{};
  xhal_device* device = nullptr;
  xhal_context* context = nullptr;

  // Under the lock of the devices (device/open_devices.hpp).
  enum class Phase : uint32_t { opening, open, closing, closed } phase = Phase::closed;
  uint32_t open_count = 0;
  uint32_t open_flags = 0;

  std::atomic<bool> lost{false};
  std::shared_ptr<const ErrorRecord> lost_error;  // written before `losing`
  std::atomic<uint64_t> objects{0};               // that live under its table

  // Copies at work in the program's own memory (memory/bounce.cpp). Who is told of a loss may free
  // that memory, so a loss waits for those under way, and keeps later ones away.
  std::atomic<uint32_t> at_host_memory{0};
  std::atomic<bool> losing{false};

  TimestampRing* timestamps = nullptr;  // sync/timestamps.hpp
  TimelineLists timelines;              // under the lock of sync/timeline_life.cpp

  // The plugin's tables as far as it has them, and what programs get (device/control_api.cpp).
  xhal_control_table control{};
  xhal_comm_table comm{}, comm_given{};

  // Of every device's lists below.
  static Mutex& mutex();
  std::vector<int> event_outlets;
  std::set<xhal_context*> contexts;

  bool has(uint32_t capability) const {
    return (info.capabilities[capability / 64] >> (capability % 64) & 1) != 0;
  }
  const std::string& id() const noexcept { return name; }
};

inline DeviceRecord* record_of(const xhal_dispatch* table) {
  return static_cast<DeviceRecord*>(table->host);
}

}  // namespace xhal
