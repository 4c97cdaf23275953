// SPDX-License-Identifier: Apache-2.0
// template.cpp: a complete small plugin. Copy it (`xhal plugins new NAME`), replace the parts
// marked VENDOR, here and in operators.hpp.
//
// The device is a piece of host memory that works synchronously: every submission has run when
// the call returns. That is the simplest device there can be, and still a whole one, because
// libxhal does the rest: waiting, wait-before-signal, events, failure of streams, pools,
// copies between devices.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "operators.hpp"
#include "xhal/plugin.hpp"

namespace vendor {

using namespace xhal::plugin;

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// ---- the device and what it owns

struct Context;

struct Device : Object {
  explicit Device(const xhal_dispatch* device_table) : table(device_table) {}

  // Stops all work, which is none here, and frees everything of the device.
  xhal_status close() {
    for (auto* object : objects) host().object_free(object);
    for (const auto& [address, block] : blocks) std::free(memory_at(address));
    return xhal::plugin::destroy(this);
  }
  // Objects own nothing themselves, so that a device can be closed above them.
  template <class T, class Handle>
  T* add(uint32_t kind, Handle** handle) {
    static_assert(std::is_trivially_destructible_v<T>);
    auto* object = make<T>(table, kind, handle);
    object->device = this;
    const std::lock_guard lock(mutex);
    objects.insert(object);
    return object;
  }
  xhal_status remove(Object* object) {
    const std::lock_guard lock(mutex);
    objects.erase(object);
    host().object_free(object);
    return XHAL_OK;
  }

  xhal_status context_create(const xhal_context_info* info, xhal_context** context);
  xhal_status clock(uint64_t* device_ns, uint64_t* host_ns) {
    *device_ns = *host_ns = now_ns();
    return XHAL_OK;
  }
  xhal_status limit(uint32_t key, uint64_t* value) {
    switch (key) {
      case XHAL_LIMIT_MEMORY_TOTAL_BYTES:
        *value = kMemoryBytes;
        return XHAL_OK;
      case XHAL_LIMIT_ALLOCATION_ALIGNMENT_BYTES:
        *value = kAlignment;
        return XHAL_OK;
      case XHAL_LIMIT_STREAM_PRIORITIES:
      case XHAL_LIMIT_COMPUTE_UNITS:
        *value = 1;
        return XHAL_OK;
    }
    return fail(XHAL_ERR_UNSUPPORTED,
                "limit " + std::to_string(key) + " is not known to this device");
  }
  // Says only what it knows: a sample left alone is "this device cannot tell".
  xhal_status telemetry(xhal_sample* samples, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      if (samples[i].id != XHAL_TELEMETRY_MEMORY_TOTAL_BYTES) continue;
      samples[i] = {samples[i].id, XHAL_UNIT_BYTES, XHAL_SAMPLE_VALID, 0, double{kMemoryBytes}};
    }
    return XHAL_OK;
  }

  struct Block {
    Context* context;
    uint64_t size;
  };
  void release(uint64_t address, const Block& block) {
    std::free(memory_at(address));
    used_bytes -= block.size;
  }

  static constexpr uint64_t kMemoryBytes = uint64_t{1} << 32, kAlignment = 512;
  const xhal_dispatch* table;
  std::mutex mutex;  // of what follows
  std::unordered_set<Object*> objects;
  std::unordered_map<uint64_t, Block> blocks;  // by address
  uint64_t used_bytes = 0;
};

struct Op : Object {
  xhal_status query(xhal_op_properties* properties, xhal_operand_need* needs, uint32_t capacity) {
    properties->flags = XHAL_OP_IS_DETERMINISTIC;
    program.cost(properties);
    for (uint32_t i = 0; i < std::min(capacity, program.last + 1); ++i) {
      const auto& t = program.operands[i];
      needs[i] = {XHAL_NEED_AS_IS, t.code, t.bits, 0, t.bits / 8u, 0};
    }
    return XHAL_OK;
  }
  xhal_status destroy() { return device->remove(this); }

  Device* device;
  Program program;
};

// ---- contexts and their memory

struct Context : Object {
  // VENDOR: memory of your device. The address must be unique in the process: reserve it, or
  // use the driver's.
  xhal_status memory_alloc(const xhal_memory_info* info, uint64_t* address) {
    constexpr uint32_t kProperties = XHAL_MEMORY_HOST_VISIBLE | XHAL_MEMORY_COHERENT;
    if (info->kind != XHAL_MEMORY_DEVICE || (info->flags & ~kProperties) != 0) {
      return fail(XHAL_ERR_UNSUPPORTED,
                  "this device has plain device memory only, neither shared nor exportable");
    }
    const uint64_t alignment = std::max(info->alignment_bytes, Device::kAlignment);
    const uint64_t size = (info->size_bytes + alignment - 1) / alignment * alignment;
    const std::lock_guard lock(device->mutex);
    void* memory = size <= Device::kMemoryBytes - device->used_bytes
                       ? std::aligned_alloc(alignment, size)
                       : nullptr;
    if (memory == nullptr) {
      return fail(XHAL_ERR_OUT_OF_MEMORY,
                  "no " + std::to_string(size) + " bytes are free on the device");
    }
    const auto base = reinterpret_cast<uint64_t>(memory);
    const auto status =
        host().range_add(to_handle<xhal_device>(device), to_handle<xhal_context>(this), base,
                         info->size_bytes, XHAL_MEMORY_DEVICE, kProperties);
    if (status != XHAL_OK) {
      std::free(memory);
      return status;
    }
    device->used_bytes += size;
    device->blocks[base] = {this, size};
    *address = base;
    return XHAL_OK;
  }

  xhal_status memory_free(uint64_t address) {
    const std::lock_guard lock(device->mutex);
    const auto found = device->blocks.find(address);
    if (found == device->blocks.end())
      return fail(XHAL_ERR_INVALID_ARGUMENT, "not an allocation of this context");
    host().range_remove(address);
    device->release(address, found->second);
    device->blocks.erase(found);
    return XHAL_OK;
  }

  xhal_status stream_create(const xhal_stream_info* info, xhal_timeline* timeline,
                            xhal_stream** stream);
  xhal_status op_prepare(const xhal_op_info* info, xhal_op** op) {
    Program program{};
    if (const auto status = prepare(info, program); status != XHAL_OK) return status;
    device->add<Op>(XHAL_KIND_OP, op)->program = program;
    return XHAL_OK;
  }
  // What was allocated in it ends with it; libxhal has taken the ranges out of its map.
  xhal_status destroy() {
    {
      const std::lock_guard lock(device->mutex);
      std::erase_if(device->blocks, [&](const auto& entry) {
        if (entry.second.context != this) return false;
        device->release(entry.first, entry.second);
        return true;
      });
    }
    return device->remove(this);
  }

  Device* device;
};

xhal_status Device::context_create(const xhal_context_info*, xhal_context** context) {
  add<Context>(XHAL_KIND_CONTEXT, context);
  return XHAL_OK;
}

// ---- streams

// VENDOR: submit to your hardware instead of doing the work here, and call host().timeline_advance
// when it is done.
struct Stream : Object {
  xhal_status copy(uint64_t dst, uint64_t src, uint64_t size) {
    std::memcpy(memory_at(dst), memory_at(src), size);
    return XHAL_OK;
  }

  xhal_status fill(uint64_t dst, uint64_t size, uint64_t pattern, uint32_t pattern_bytes) {
    for (uint64_t i = 0; i < size; i += pattern_bytes) {
      std::memcpy(memory_at(dst) + i, &pattern, pattern_bytes);  // little-endian: the low bytes
    }
    return XHAL_OK;
  }

  xhal_status host_call(xhal_host_fn callback, void* user, uint32_t) {
    callback(user, XHAL_OK);
    return XHAL_OK;
  }

  // libxhal only passes on waits for timelines of this device whose signal has been submitted, and
  // here that means run.
  xhal_status wait(xhal_timeline* other, uint64_t value) {
    xhal_error error{};
    const xhal_status state = host().timeline_poll(other, value, &error);
    if (state == XHAL_OK) return XHAL_OK;
    return fail_dependent(timeline, "stream_wait", error);
  }

  xhal_status signal(xhal_timeline* target, uint64_t value, xhal_timestamp* timestamp) {
    if (timestamp != nullptr) {
      timestamp->device_ns = now_ns();
      __atomic_store_n(&timestamp->slot, timestamp->pending, __ATOMIC_RELEASE);
    }
    host().timeline_advance(target, value);
    return XHAL_OK;
  }

  xhal_status op_launch(xhal_op* handle, const uint64_t* addresses, uint32_t address_count,
                        const xhal_scalar* scalars, uint32_t scalar_count, uint64_t) {
    const auto& program = from_handle<Op>(handle).program;
    if (address_count != program.last + 1 || scalar_count > program.scalar_count()) {
      return fail(XHAL_ERR_INVALID_ARGUMENT,
                  "addresses or scalars are not as many as the operator has");
    }
    Number values[2] = {program.default_scalar(), program.default_scalar()};
    for (uint32_t i = 0; i < scalar_count; ++i) {
      const auto& s = scalars[i];
      const auto* format = format_of(xhal::dtype_of(s.code, s.bits));
      if (s.kind == XHAL_SCALAR_ADDRESS && format == nullptr)
        return fail(XHAL_ERR_UNSUPPORTED, "a scalar has a dtype this plugin does not read");
      values[i] = s.kind == XHAL_SCALAR_INT     ? whole(s.value.i)
                  : s.kind == XHAL_SCALAR_FLOAT ? Number{false, 0, s.value.f}
                                                : format->load(memory_at(s.value.address));
    }
    program.run(addresses, values);
    return XHAL_OK;
  }

  xhal_status recover(xhal_timeline* fresh) {
    timeline = fresh;
    return XHAL_OK;
  }
  xhal_status destroy() { return device->remove(this); }

  Device* device;
  xhal_timeline* timeline;
};

xhal_status Context::stream_create(const xhal_stream_info*, xhal_timeline* timeline,
                                   xhal_stream** stream) {
  device->add<Stream>(XHAL_KIND_STREAM, stream)->timeline = timeline;
  return XHAL_OK;
}

// ---- the plugin

struct Template : Vendor {
  using device = Device;
  using context = Context;
  using stream = Stream;
  using op = Op;

  // VENDOR: look, do not touch: no driver call, no thread, no descriptor left open.
  static void describe(xhal_device_info& info) {
    info.type = XHAL_DEVICE_EXTENSION;
    info.flags = XHAL_DEVICE_EMULATED;
    info.numa_node = -1;
    info.memory_bytes = Device::kMemoryBytes;
    info.capabilities[0] =
        1u << XHAL_CAP_HOST_VISIBLE | 1u << XHAL_CAP_PAGEABLE_COPY | 1u << XHAL_CAP_TIMESTAMP;
    std::strcpy(info.name, "Template device");
    std::strcpy(info.vendor, "xHAL");
    std::memcpy(info.uuid, "xhal-template-00", sizeof info.uuid);
  }
  static xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count) {
    *count = 1;
    if (capacity > 0) describe(devices[0]);
    return XHAL_OK;
  }
  static xhal_status device_open(const xhal_plugin_open& open, xhal_device_info& info,
                                 xhal_device** result, xhal_context** default_context) {
    describe(info);
    auto* device = make<Device>(open.table, XHAL_KIND_DEVICE, result, open.table);
    if ((open.flags & XHAL_OPEN_OBSERVE) == 0)
      return device->context_create(nullptr, default_context);
    return XHAL_OK;
  }
};

}  // namespace vendor

extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                                      xhal_negotiate_reply* reply) {
  return xhal::plugin::negotiate<vendor::Template>(request, reply, "template 0.1.0");
}
