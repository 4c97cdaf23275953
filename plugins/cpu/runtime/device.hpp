// SPDX-License-Identifier: Apache-2.0
// device.hpp: an opened device and its contexts: who owns what.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "activity.hpp"
#include "cpu_usage.hpp"
#include "executors.hpp"
#include "graph.hpp"
#include "memory.hpp"
#include "module.hpp"
#include "stream.hpp"
#include "topology.hpp"
#include "worker_pool.hpp"
#include "xhal/plugin.hpp"

namespace xhal::cpu {

class Device;

// The most urgent priority that a context's flags and limit leave its streams.
int32_t most_urgent(uint32_t flags, int32_t limit);

class Context : public plugin::Object {
 public:
  // `most_urgent`: of its streams.
  Context(Device& device, int32_t most_urgent) : device_(device), most_urgent_(most_urgent) {}

  xhal_status destroy();
  xhal_status memory_alloc(const xhal_memory_info* info, uint64_t* address);
  xhal_status memory_free(uint64_t address);
  xhal_status scrub(uint64_t address, uint64_t size_bytes);
  xhal_status memory_export(uint64_t address, uint32_t handle_type, xhal_external* external);
  xhal_status memory_import(const xhal_external* external, uint64_t* address);
  xhal_status host_register(void* host, uint64_t size_bytes, uint64_t* device_address);
  xhal_status host_unregister(void* host);
  xhal_status virtual_reserve(uint64_t size_bytes, uint64_t* address);
  xhal_status virtual_release(uint64_t address);
  xhal_status virtual_map(uint64_t address, uint64_t size_bytes);
  xhal_status virtual_unmap(uint64_t address, uint64_t size_bytes);
  xhal_status virtual_protect(uint64_t address, uint64_t size_bytes, uint32_t protection);
  xhal_status stream_create(const xhal_stream_info* info, xhal_timeline* timeline,
                            xhal_stream** stream);
  xhal_status op_prepare(const xhal_op_info* info, xhal_op** op);
  xhal_status module_load(const xhal_module_info* info, xhal_module** module);

  Device& device() { return device_; }
  xhal_context* handle() { return plugin::to_handle<xhal_context>(this); }

 private:
  Device& device_;
  const int32_t most_urgent_;
  std::shared_ptr<ModuleNames> modules_ = std::make_shared<ModuleNames>();
};

class Device : public plugin::Object {
 public:
  Device(const xhal_plugin_open& open, const Site& site);

  xhal_status close();
  xhal_status limit(uint32_t key, uint64_t* value);
  xhal_status clock(uint64_t* device_ns, uint64_t* host_ns);
  xhal_status telemetry(xhal_sample* samples, uint32_t count);
  xhal_status control_table(const xhal_control_table** table);
  xhal_status activity_enable(xhal_activity_fn callback, void* user);
  xhal_status activity_flush();
  xhal_status context_create(const xhal_context_info* info, xhal_context** context);

  xhal_device* handle() { return plugin::to_handle<xhal_device>(this); }
  const xhal_dispatch* table() const { return table_; }
  uint32_t ordinal() const { return ordinal_; }
  // Opened with XHAL_OPEN_OBSERVE: it has no context and never gets one.
  bool observes() const { return observes_; }
  Memory& memory() { return *memory_; }
  Workers& workers() { return *workers_; }
  Executors& executors() { return *executors_; }
  ActivityLog& activity() { return activity_; }
  // Work that costs at most this is run by the thread that submits it.
  uint32_t inline_limit_ns() const { return inline_limit_ns_; }
  uint64_t correlation() const { return activity_.on() ? plugin::host().correlation() : 0; }

  void add(Stream& stream);
  void remove(Stream& stream);
  // Keeps `thing` until everything that is queued now has run.
  void retire(std::shared_ptr<const void> thing);
  // Objects that may still be there when the device closes: they then let go of what they hold.
  template <class T>
  void own(T* object) {
    const std::lock_guard lock(mutex_);
    owned_.emplace(object, [](plugin::Object* o) { static_cast<T*>(o)->let_go(); });
  }
  void disown(plugin::Object* object);

  Capture& begin_capture(Stream& origin);
  Capture& find_capture(uint32_t id);  // throws CAPTURE
  std::unique_ptr<Graph> end_capture(uint32_t id);

  // Drops what is queued and returns when nothing runs any more.
  void stop_work();

  // Fault injection: the next operator fails.
  void fail_next_operation() { fail_next_.store(true); }
  bool take_injected_failure() {
    return fail_next_.load(std::memory_order_relaxed) && fail_next_.exchange(false);
  }

 private:
  struct Retired {
    std::shared_ptr<const void> thing;
    std::vector<std::pair<uint64_t, uint64_t>> until;  // serial of a stream, number of a command
  };
  struct Totals {
    uint64_t operations = 0, copied_bytes = 0, busy_ticks = 0, streams = 0;
    void add(const StreamCounters& c) {
      operations += c.operations.load(std::memory_order_relaxed);
      copied_bytes += c.copied_bytes.load(std::memory_order_relaxed);
      busy_ticks += c.busy_ticks.load(std::memory_order_relaxed);
    }
  };
  void sweep();  // call with the lock held
  Totals totals();
  std::optional<double> utilization();
  std::optional<double> used_memory_bytes();

  const xhal_dispatch* const table_;
  const Site& site_;
  const uint32_t ordinal_;
  const bool observes_;
  const uint32_t inline_limit_ns_;
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<Workers> workers_;
  std::unique_ptr<Executors> executors_;
  ActivityLog activity_;

  std::mutex mutex_;  // of what follows
  std::map<uint64_t, Stream*> streams_;
  std::vector<Stream*> cancelling_;
  std::condition_variable cancelled_;  // one of them is not any more
  std::map<plugin::Object*, void (*)(plugin::Object*)> owned_;
  std::map<uint32_t, std::unique_ptr<Capture>> captures_;
  uint32_t last_capture_ = 0;
  std::vector<Retired> retired_;
  Totals past_;     // of streams that are gone
  CpuUsage usage_;  // of the device's processors, at the last look
  std::atomic<bool> fail_next_{false};
};

// How often the control table has reset device `ordinal`.
uint64_t resets(uint32_t ordinal);

}  // namespace xhal::cpu
