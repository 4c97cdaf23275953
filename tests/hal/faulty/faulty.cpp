// SPDX-License-Identifier: Apache-2.0
// faulty.cpp: a test plugin with two devices whose memory the host cannot touch and that take no
// unpinned host memory: what a card with a driver of its own looks like. It runs every submission
// before the call returns, refuses every address it was not told of, and does wrong what
// board.hpp asks for.
//
// Its module format is "faulty"; the kernel `fail` fails its stream, every other one does nothing.
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>

#include "board.hpp"
#include "device_memory.hpp"
#include "xhal/plugin.hpp"

namespace {

using namespace xhal::plugin;
using xhal::faulty::Board;
using xhal::faulty::Call;
using xhal::faulty::kDevices;
using xhal::faulty::Memory;
using xhal::faulty::memory_of;

Board& board() {
  static Board* const found = [] {
    void* const symbol = dlsym(RTLD_DEFAULT, "xhal_faulty_board");
    if (symbol == nullptr) return new Board;  // a tool that lists plugins has none
    return reinterpret_cast<Board* (*)()>(symbol)();
  }();
  return *found;
}

// Lets the board see the call first; throws what it answers.
void reach(Call call) {
  call.host = &host();
  call.correlation = host().correlation();
  if (const auto s = board().reached(call); s != XHAL_OK) {
    throw Error(s, std::string(call.slot) + " failed, as it was asked to");
  }
}

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

struct Device;

struct Context : Object {
  Context(Device* owner) : device(owner) {}
  Call call(std::string_view slot) const;

  xhal_status memory_alloc(const xhal_memory_info* info, uint64_t* address);
  xhal_status memory_free(uint64_t address);
  xhal_status scrub(uint64_t address, uint64_t size);
  xhal_status host_register(void* memory, uint64_t size, uint64_t* address);
  xhal_status host_unregister(void* memory);
  xhal_status stream_create(const xhal_stream_info*, xhal_timeline* timeline, xhal_stream** stream);
  xhal_status op_prepare(const xhal_op_info*, xhal_op** op);
  xhal_status module_load(const xhal_module_info* info, xhal_module** module);
  xhal_status destroy();

  // Where this context's device finds host memory: only what was registered with this context.
  static constexpr uint64_t kSeenAt = uint64_t{1} << 62;
  std::optional<char*> registered(uint64_t address, uint64_t size) {
    const uint64_t at = address & ~kSeenAt;
    const std::lock_guard lock(mutex);
    const auto it = host_ranges.upper_bound(at);
    if (address == at || it == host_ranges.begin()) return std::nullopt;
    const auto& [start, length] = *std::prev(it);
    if (at - start >= length || size > length - (at - start)) return std::nullopt;
    return reinterpret_cast<char*>(at);
  }

  Device* device;
  std::mutex mutex;  // of what follows
  std::map<uint64_t, uint64_t> allocations;
  std::map<uint64_t, uint64_t> host_ranges;
};

struct Op : Object {
  xhal_status query(xhal_op_properties*, xhal_operand_need*, uint32_t) { return XHAL_OK; }
  xhal_status destroy() { return xhal::plugin::destroy(this); }
};

struct Kernel : Object {
  bool fails;
  xhal_status query(xhal_kernel_properties*) { return XHAL_OK; }
};

struct Module : Object {
  Module(const xhal_dispatch* of) : table(of) {}
  const xhal_dispatch* table;
  std::vector<Kernel*> kernels;
  xhal_status kernel(xhal_string name, xhal_kernel** result) {
    auto* const made = make<Kernel>(table, XHAL_KIND_KERNEL, result);
    made->fails = view(name) == "fail";
    kernels.push_back(made);
    return XHAL_OK;
  }
  xhal_status destroy() {
    for (auto* const each : kernels) xhal::plugin::destroy(each);
    return xhal::plugin::destroy(this);
  }
};

struct Graph : Object {
  std::vector<std::function<void()>> nodes;
  xhal_status size(uint64_t* count) {
    *count = nodes.size();
    return XHAL_OK;
  }
  xhal_status destroy() { return xhal::plugin::destroy(this); }
};

struct Stream : Object {
  Stream(Context* owner, xhal_timeline* own) : context(owner), timeline(own) {}
  Call call(std::string_view slot) const {
    auto result = context->call(slot);
    result.stream = to_handle<xhal_stream>(const_cast<Stream*>(this));
    return result;
  }

  // Runs `work` now, or keeps it for the graph. After a failure nothing runs.
  xhal_status submit(std::function<void()> work) {
    if (capture != nullptr) {
      capture->push_back(std::move(work));
    } else if (!failed.load()) {
      work();
    }
    return XHAL_OK;
  }
  char* find(uint64_t address, uint64_t size);

  xhal_status copy(uint64_t dst, uint64_t src, uint64_t size) {
    auto seen = call("stream_copy");
    seen.dst = dst;
    seen.src = src;
    seen.size = size;
    reach(seen);
    char *const to = find(dst, size), *const from = find(src, size);
    return submit([=] { std::memcpy(to, from, size); });
  }
  xhal_status fill(uint64_t dst, uint64_t size, uint64_t pattern, uint32_t pattern_bytes) {
    auto seen = call("stream_fill");
    seen.dst = dst;
    seen.size = size;
    seen.value = pattern;
    reach(seen);
    char* const to = find(dst, size);
    return submit([=] {
      for (uint64_t i = 0; i < size; i += pattern_bytes)
        std::memcpy(to + i, &pattern, pattern_bytes);
    });
  }
  xhal_status host_call(xhal_host_fn callback, void* user, uint32_t) {
    reach(call("stream_host_call"));
    if (capture == nullptr && failed.load()) {
      callback(user, XHAL_ERR_DEVICE);
      return XHAL_OK;
    }
    return submit([=] { callback(user, XHAL_OK); });
  }
  xhal_status wait(xhal_timeline* other, uint64_t value) {
    auto seen = call("stream_wait");
    seen.timeline = other;
    seen.value = value;
    reach(seen);
    xhal_error error{};
    const auto state = host().timeline_poll(other, value, &error);
    if (state == XHAL_OK) return XHAL_OK;
    failed = true;
    return fail_dependent(timeline, "stream_wait", error);
  }
  xhal_status signal(xhal_timeline* target, uint64_t value, xhal_timestamp* timestamp) {
    auto seen = call("stream_signal");
    seen.timeline = target;
    seen.value = value;
    reach(seen);
    if (failed.load()) {
      xhal_error error{};
      if (host().timeline_poll(timeline, UINT64_MAX, &error) < 0 && target != timeline) {
        error.struct_size = sizeof error;
        error.status = XHAL_ERR_DEPENDENCY;
        host().timeline_fail(target, &error);
      }
      return XHAL_OK;
    }
    if (timestamp != nullptr) {
      timestamp->device_ns = now_ns();
      __atomic_store_n(&timestamp->slot, timestamp->pending, __ATOMIC_RELEASE);
    }
    host().timeline_advance(target, value);
    return XHAL_OK;
  }
  xhal_status op_launch(xhal_op* op, const uint64_t*, uint32_t, const xhal_scalar*, uint32_t,
                        uint64_t) {
    auto seen = call("op_launch");
    seen.object_kind = reinterpret_cast<const xhal_object_head*>(op)->kind;
    reach(seen);
    return submit([] {});
  }
  xhal_status kernel_launch(xhal_kernel* kernel, const xhal_grid*, const xhal_kernel_arg*,
                            uint32_t) {
    auto seen = call("kernel_launch");
    seen.object_kind = reinterpret_cast<const xhal_object_head*>(kernel)->kind;
    reach(seen);
    if (!from_handle<Kernel>(kernel).fails) return submit([] {});
    return submit([this] {
      failed = true;
      xhal_error error{};
      error.struct_size = sizeof error;
      error.status = XHAL_ERR_DEVICE;
      error.scope = XHAL_SCOPE_OPERATION;
      error.operation = str("fail");
      error.text = str("the kernel `fail` failed, as it was asked to");
      host().timeline_fail(timeline, &error);
    });
  }
  xhal_status begin_capture() {
    reach(call("stream_begin_capture"));
    capture = std::make_unique<std::vector<std::function<void()>>>();
    return XHAL_OK;
  }
  xhal_status end_capture(xhal_graph** graph);
  xhal_status graph_launch(xhal_graph* graph) {
    reach(call("graph_launch"));
    return submit([graph] {
      for (const auto& node : from_handle<Graph>(graph).nodes) node();
    });
  }
  xhal_status recover(xhal_timeline* fresh) {
    reach(call("stream_recover"));
    timeline = fresh;
    failed = false;
    return XHAL_OK;
  }
  xhal_status abort() {  // nothing of what it was given is left to be done
    reach(call("stream_abort"));
    return XHAL_OK;
  }
  xhal_status destroy() {
    reach(call("stream_destroy"));
    return xhal::plugin::destroy(this);
  }

  Context* context;
  xhal_timeline* timeline;
  std::atomic<bool> failed{false};
  std::unique_ptr<std::vector<std::function<void()>>> capture;
};

struct Device : Object {
  Device(const xhal_dispatch* of, uint32_t number) : table(of), ordinal(number) {}
  Call call(std::string_view slot) const {
    Call result;
    result.slot = slot;
    result.ordinal = ordinal;
    result.device = to_handle<xhal_device>(const_cast<Device*>(this));
    return result;
  }

  xhal_status close() {
    reach(call("device_close"));
    if (default_context != nullptr) default_context->destroy();
    return xhal::plugin::destroy(this);
  }
  xhal_status limit(uint32_t key, uint64_t* value) {
    if (key != XHAL_LIMIT_MEMORY_TOTAL_BYTES)
      return fail(XHAL_ERR_UNSUPPORTED, "this limit is not known to the device");
    *value = Memory::kBytes;
    return XHAL_OK;
  }
  xhal_status telemetry(xhal_sample*, uint32_t) { return XHAL_OK; }
  xhal_status clock(uint64_t* device_ns, uint64_t* host_ns) {
    *device_ns = *host_ns = now_ns();
    return XHAL_OK;
  }
  xhal_status control_table(const xhal_control_table** result) {
    static const xhal_control_table control = {
        sizeof control, 0,
        [](xhal_device* device) noexcept -> xhal_status {
          auto call = from_handle<Device>(device).call("reset");
          call.host = &host();
          call.lose("the card was reset");
          return XHAL_OK;
        },
        nullptr,
        [](xhal_device* device, xhal_string fault) noexcept -> xhal_status {
          if (view(fault) != "event") return XHAL_ERR_NOT_FOUND;
          host().device_event(device, XHAL_DEVICE_EVENT_HEALTH, XHAL_LOG_WARN, str("hot"));
          return XHAL_OK;
        }};
    *result = &control;
    return XHAL_OK;
  }
  xhal_status context_create(const xhal_context_info* info, xhal_context** result) {
    auto seen = call("context_create");
    seen.value = info->flags;
    reach(seen);
    make<Context>(table, XHAL_KIND_CONTEXT, result, this);
    return XHAL_OK;
  }

  const xhal_dispatch* table;
  uint32_t ordinal;
  Context* default_context = nullptr;
};

Call Context::call(std::string_view slot) const {
  auto result = device->call(slot);
  result.context = to_handle<xhal_context>(const_cast<Context*>(this));
  return result;
}

xhal_status Context::memory_alloc(const xhal_memory_info* info, uint64_t* address) {
  auto seen = call("memory_alloc");
  seen.size = info->size_bytes;
  seen.value = info->flags;
  reach(seen);
  if (info->kind != XHAL_MEMORY_DEVICE || (info->flags & XHAL_MEMORY_EXPORTABLE) != 0)
    return fail(XHAL_ERR_UNSUPPORTED, "the device has plain device memory only");
  auto& memory = memory_of(device->ordinal);
  const uint64_t size = Memory::rounded(info->size_bytes), base = memory.take(size);
  if (base == 0) return fail(XHAL_ERR_OUT_OF_MEMORY, "the device's memory is used up");
  const auto status =
      host().range_add(to_handle<xhal_device>(device), to_handle<xhal_context>(this), base, size,
                       XHAL_MEMORY_DEVICE, 0);
  if (status != XHAL_OK) {
    memory.give(base, size);
    return status;
  }
  const std::lock_guard lock(mutex);
  allocations[base] = size;
  *address = base;
  return XHAL_OK;
}

xhal_status Context::memory_free(uint64_t address) {
  auto seen = call("memory_free");
  seen.dst = address;
  reach(seen);
  uint64_t size = 0;
  {
    const std::lock_guard lock(mutex);
    const auto it = allocations.find(address);
    if (it == allocations.end())
      return fail(XHAL_ERR_INVALID_ARGUMENT, "not an allocation of this context");
    size = it->second;
    allocations.erase(it);
  }
  host().range_remove(address);
  memory_of(device->ordinal).give(address, size);
  return XHAL_OK;
}

xhal_status Context::scrub(uint64_t address, uint64_t size) {
  auto seen = call("context_scrub");
  seen.dst = address;
  seen.size = size;
  reach(seen);
  const auto& memory = memory_of(device->ordinal);
  if (!memory.has(address, size)) return fail(XHAL_ERR_INVALID_ARGUMENT, "not the device's memory");
  std::memset(memory.behind(address), 0, size);
  return XHAL_OK;
}

xhal_status Context::host_register(void* memory, uint64_t size, uint64_t* address) {
  auto seen = call("host_register");
  seen.src = reinterpret_cast<uint64_t>(memory);
  seen.size = size;
  reach(seen);
  const std::lock_guard lock(mutex);
  if (!host_ranges.emplace(seen.src, size).second)
    return fail(XHAL_ERR_INVALID_ARGUMENT, "this host memory is registered already");
  *address = seen.src | kSeenAt;
  return XHAL_OK;
}

xhal_status Context::host_unregister(void* memory) {
  auto seen = call("host_unregister");
  seen.src = reinterpret_cast<uint64_t>(memory);
  reach(seen);
  const std::lock_guard lock(mutex);
  if (host_ranges.erase(seen.src) == 0)
    return fail(XHAL_ERR_INVALID_ARGUMENT, "this host memory is not registered");
  return XHAL_OK;
}

xhal_status Context::stream_create(const xhal_stream_info*, xhal_timeline* timeline,
                                   xhal_stream** stream) {
  auto seen = call("stream_create");
  seen.timeline = timeline;
  reach(seen);
  make<Stream>(device->table, XHAL_KIND_STREAM, stream, this, timeline);
  return XHAL_OK;
}

xhal_status Context::op_prepare(const xhal_op_info*, xhal_op** op) {
  reach(call("op_prepare"));
  make<Op>(device->table, XHAL_KIND_OP, op);
  return XHAL_OK;
}

xhal_status Context::module_load(const xhal_module_info* info, xhal_module** module) {
  if (view(info->format) != "faulty")
    return fail(XHAL_ERR_UNSUPPORTED, "the only module format is \"faulty\"");
  make<Module>(device->table, XHAL_KIND_MODULE, module, device->table);
  return XHAL_OK;
}

xhal_status Context::destroy() {
  reach(call("context_destroy"));
  for (const auto& [address, size] : allocations) {
    host().range_remove(address);
    memory_of(device->ordinal).give(address, size);
  }
  return xhal::plugin::destroy(this);
}

// A device that is given what it was not told of stops; it never reads something else.
char* Stream::find(uint64_t address, uint64_t size) {
  for (uint32_t ordinal = 0; ordinal < kDevices; ++ordinal) {
    const auto& memory = memory_of(ordinal);
    if (!memory.has(address, size)) continue;
    if (ordinal == context->device->ordinal) return memory.behind(address);
    throw Error(XHAL_ERR_PLUGIN, "this address is the other device's");
  }
  if (const auto at = context->registered(address, size)) return *at;
  throw Error(XHAL_ERR_PLUGIN,
              "this is neither memory of the device nor host memory registered with the context");
}

xhal_status Stream::end_capture(xhal_graph** graph) {
  reach(call("stream_end_capture"));
  make<Graph>(context->device->table, XHAL_KIND_GRAPH, graph)->nodes = std::move(*capture);
  capture.reset();
  return XHAL_OK;
}

struct Faulty : Vendor {
  using device = Device;
  using context = Context;
  using stream = Stream;
  using op = Op;
  using module = Module;
  using kernel = Kernel;
  using graph = Graph;

  static void describe(xhal_device_info& info) {
    info.type = XHAL_DEVICE_EXTENSION;
    info.flags = XHAL_DEVICE_EMULATED;
    info.numa_node = -1;
    info.memory_bytes = Memory::kBytes;
    info.capabilities[0] = board().capabilities;
    std::strcpy(info.name, "Faulty device");
    std::strcpy(info.vendor, "xHAL tests");
  }
  static xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count) {
    *count = kDevices;
    for (uint32_t i = 0; i < std::min(capacity, kDevices); ++i) describe(devices[i]);
    return XHAL_OK;
  }
  static xhal_status device_open(const xhal_plugin_open& open, xhal_device_info& info,
                                 xhal_device** result, xhal_context** default_context) {
    Call call;
    call.slot = "device_open";
    call.ordinal = open.ordinal;
    call.value = open.context_flags;
    reach(call);
    describe(info);
    auto* const device =
        make<Device>(open.table, XHAL_KIND_DEVICE, result, open.table, open.ordinal);
    if ((open.flags & XHAL_OPEN_OBSERVE) == 0) {
      device->default_context =
          make<Context>(open.table, XHAL_KIND_CONTEXT, default_context, device);
    }
    return XHAL_OK;
  }
  static void shutdown() {
    Call call;
    call.slot = "shutdown";
    reach(call);
  }
};

}  // namespace

extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                                      xhal_negotiate_reply* reply) {
  return negotiate<Faulty>(request, reply, "faulty test plugin");
}
