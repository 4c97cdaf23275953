// device_record.hpp: what libxhal keeps of an opened device. One record per generation, never
// freed.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "sync/timestamps.hpp"
#include "xhal/plugin.h"

namespace xhal {

struct PluginRecord;
struct StreamState;
struct ContextState;

// Layers that wrap the table, innermost first in the chain of calls.
enum class Layer : uint32_t { validate, trace, count };

struct DeviceRecord {
  xhal_dispatch
      table;  // what heads point to: the outermost layer, or the plugin itself; changes when lost
  xhal_dispatch intercept;  // for streams whose submissions libxhal holds back (deferral.hpp)
  xhal_dispatch raw;        // the plugin's slots, holes filled
  xhal_dispatch next[static_cast<size_t>(Layer::count)];  // what each layer calls

  PluginRecord* plugin = nullptr;
  xhal_device_info info{};
  xhal_device* device = nullptr;
  xhal_context* context = nullptr;
  uint32_t open_count = 0;
  uint32_t open_flags = 0;
  bool closed = false;
  std::atomic<bool> lost{false};
  ErrorRecord lost_error;
  TimestampRing timestamps;

  std::mutex mutex;  // of what follows
  std::vector<int> event_pipes;
  std::set<xhal_context*> contexts;

  bool has(uint32_t capability) const {
    return (info.capabilities[capability / 64] >> (capability % 64) & 1) != 0;
  }
  std::string id() const { return info.id; }
  void post_event(uint32_t kind, uint32_t severity, std::string_view text);
};

inline DeviceRecord* record_of(const xhal_dispatch* table) {
  return static_cast<DeviceRecord*>(table->host);
}

}  // namespace xhal
