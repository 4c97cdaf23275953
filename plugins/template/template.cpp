// SPDX-License-Identifier: Apache-2.0
// template.cpp: a complete small plugin. Copy it (`xhal plugins new NAME`), replace the
// parts marked VENDOR.
//
// The device is a piece of host memory that works synchronously: every submission has run when
// the call returns. That is the simplest device there can be, and still a whole one, because
// libxhal does the rest: waiting, wait-before-signal, events, failure of streams, pools,
// copies between devices.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "xhal/half.hpp"
#include "xhal/op_check.hpp"
#include "xhal/plugin.hpp"

namespace {

using namespace xhal::plugin;

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// ---- operators

// VENDOR: what your device computes with. Here: one element at a time, integers as i64 and floats
// as f64, which is more than the catalogue asks for.
struct Number {
  bool is_int;
  int64_t i;
  double f;
};
Number number(int64_t i) { return {true, i, static_cast<double>(i)}; }
Number number(double f) { return {false, xhal::to_integer(f), f}; }

struct Format {
  xhal::DType type;
  Number (*load)(const std::byte* from);
  void (*store)(std::byte* to, const Number& value);
};

template <class T>
constexpr Format format(xhal::DType type) {
  return {type,
          [](const std::byte* from) {
            T value;
            std::memcpy(&value, from, sizeof value);
            if constexpr (std::is_integral_v<T>) return number(static_cast<int64_t>(value));
            if constexpr (std::is_floating_point_v<T>) return number(static_cast<double>(value));
            if constexpr (std::is_class_v<T>) return number(double{xhal::to_float(value)});
          },
          [](std::byte* to, const Number& n) {
            T value;
            if constexpr (std::is_same_v<T, bool>) value = n.is_int ? n.i != 0 : n.f != 0;
            if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
              value = static_cast<T>(n.i);
            if constexpr (std::is_floating_point_v<T>)
              value = n.is_int ? static_cast<T>(n.i) : static_cast<T>(n.f);
            if constexpr (std::is_same_v<T, xhal::Bf16>)
              value = n.is_int ? xhal::to_bf16(n.i) : xhal::to_bf16(n.f);
            if constexpr (std::is_same_v<T, xhal::F16>)
              value = n.is_int ? xhal::to_f16(n.i) : xhal::to_f16(n.f);
            std::memcpy(to, &value, sizeof value);
          }};
}

using xhal::DType;
constexpr Format kFormats[] = {
    format<float>(DType::f32),    format<xhal::Bf16>(DType::bf16), format<xhal::F16>(DType::f16),
    format<double>(DType::f64),   format<int8_t>(DType::i8),       format<int16_t>(DType::i16),
    format<int32_t>(DType::i32),  format<int64_t>(DType::i64),     format<uint8_t>(DType::u8),
    format<uint32_t>(DType::u32), format<bool>(DType::boolean)};

const Format* format_of(uint8_t code, uint8_t bits) {
  for (const auto& f : kFormats) {
    if (f.type == xhal::dtype_of(code, bits)) return &f;
  }
  return nullptr;
}

struct Op : Object {
  Op(uint32_t op_id, std::vector<xhal_tensor_desc> op_operands)
      : id(op_id), operands(std::move(op_operands)) {}

  xhal_status query(xhal_op_properties* properties, xhal_operand_need* needs, uint32_t capacity) {
    properties->flags = XHAL_OP_IS_DETERMINISTIC;
    for (uint32_t i = 0; i < std::min<size_t>(capacity, operands.size()) && needs != nullptr; ++i) {
      needs[i] = {XHAL_NEED_AS_IS, operands[i].code, operands[i].bits, 0, operands[i].bits / 8u, 0};
    }
    return XHAL_OK;
  }
  xhal_status destroy() { return xhal::plugin::destroy(this); }

  // Calls body(offsets) for every element; offsets[i] is where operand i has it, in bytes.
  void for_each(auto&& body) const {
    const auto& out = operands.back();
    int64_t index[XHAL_MAX_DIMENSIONS] = {};
    int64_t count = 1;
    for (uint32_t d = 0; d < out.ndim; ++d) count *= out.sizes[d];
    std::vector<int64_t> offsets(operands.size());
    for (int64_t n = 0; n < count; ++n) {
      for (size_t i = 0; i < operands.size(); ++i) {
        int64_t elements = operands[i].offset_elements;
        for (uint32_t d = 0; d < out.ndim; ++d) elements += index[d] * operands[i].strides[d];
        offsets[i] = elements * operands[i].bits / 8;
      }
      body(offsets.data());
      for (uint32_t d = out.ndim; d-- > 0 && ++index[d] == out.sizes[d];) index[d] = 0;
    }
  }

  void run(const uint64_t* addresses, const Number* scalars) const {
    const size_t last = operands.size() - 1;
    std::vector<const Format*> formats;
    for (const auto& t : operands) formats.push_back(format_of(t.code, t.bits));
    for_each([&](const int64_t* offsets) {
      const auto at = [&](size_t i) {
        return reinterpret_cast<std::byte*>(addresses[i]) + offsets[i];
      };
      Number value = last == 0 ? scalars[0] : formats[0]->load(at(0));
      if (id == XHAL_OP_axpby) {
        const Number x = value, y = last == 2 ? formats[1]->load(at(1)) : number(int64_t{1});
        const auto wrapping = [](int64_t v) { return static_cast<uint64_t>(v); };
        value.i = static_cast<int64_t>(wrapping(scalars[0].i) * wrapping(x.i) +
                                       wrapping(scalars[1].i) * wrapping(y.i));
        value.f = scalars[0].f * x.f + scalars[1].f * y.f;
      }
      formats[last]->store(at(last), value);
    });
  }

  uint32_t id;
  std::vector<xhal_tensor_desc> operands;
};

// ---- memory

struct Context : Object {
  Context(const xhal_dispatch* device_table, xhal_device* device_handle)
      : table(device_table), device(device_handle) {}
  ~Context() {
    for (auto& [address, size] : allocations) std::free(reinterpret_cast<void*>(address));
  }

  // VENDOR: memory of your device. The address must be unique in the process: reserve it, or
  // use the driver's.
  xhal_status memory_alloc(const xhal_memory_info* info, uint64_t* address) {
    if (info->kind != XHAL_MEMORY_DEVICE || (info->flags & XHAL_MEMORY_EXPORTABLE) != 0) {
      return fail(XHAL_ERR_UNSUPPORTED,
                  "this device has plain device memory only, not shared and not exportable");
    }
    const uint64_t alignment = std::max<uint64_t>(info->alignment_bytes, 512);
    const uint64_t size = (info->size_bytes + alignment - 1) / alignment * alignment;
    void* memory = size > kMemoryBytes ? nullptr : std::aligned_alloc(alignment, size);
    if (memory == nullptr) {
      return fail(XHAL_ERR_OUT_OF_MEMORY,
                  "no " + std::to_string(size) + " bytes are free on the device");
    }
    const auto base = reinterpret_cast<uint64_t>(memory);
    const auto status =
        host().range_add(device, handle(), base, info->size_bytes, XHAL_MEMORY_DEVICE,
                         XHAL_MEMORY_HOST_VISIBLE | XHAL_MEMORY_COHERENT);
    if (status != XHAL_OK) {
      std::free(memory);
      return status;
    }
    const std::lock_guard lock(mutex);
    allocations[base] = size;
    *address = base;
    return XHAL_OK;
  }

  xhal_status memory_free(uint64_t address) {
    const std::lock_guard lock(mutex);
    if (allocations.erase(address) == 0)
      return fail(XHAL_ERR_INVALID_ARGUMENT, "not an allocation of this context");
    host().range_remove(address);
    std::free(reinterpret_cast<void*>(address));
    return XHAL_OK;
  }

  xhal_status stream_create(const xhal_stream_info* info, xhal_timeline* timeline,
                            xhal_stream** stream);
  xhal_status op_prepare(const xhal_op_info* info, xhal_op** op);
  xhal_status destroy() { return xhal::plugin::destroy(this); }
  xhal_context* handle() { return to_handle<xhal_context>(this); }

  static constexpr uint64_t kMemoryBytes = uint64_t{1} << 32;
  const xhal_dispatch* table;
  xhal_device* device;
  std::mutex mutex;
  std::unordered_map<uint64_t, uint64_t> allocations;
};

// VENDOR: refuse here, with the operand and the reason, what you cannot do. Frameworks fall back on
// what they are told.
xhal_status Context::op_prepare(const xhal_op_info* info, xhal_op** op) {
  // What contradicts the catalogue is refused by the catalogue; what this device lacks, here.
  if (const auto refusal = xhal::catalogue::check(*info))
    return fail(refusal.status, refusal.text, "op_prepare", refusal.operand);
  if (info->id != XHAL_OP_fill && info->id != XHAL_OP_strided_copy && info->id != XHAL_OP_axpby) {
    return fail(XHAL_ERR_UNSUPPORTED, "this plugin has no operator " + std::to_string(info->id),
                "op_prepare");
  }
  const auto& out = info->operands[info->operand_count - 1];
  for (uint32_t i = 0; i < info->operand_count; ++i) {
    if (!xhal::same_sizes(info->operands[i], out)) {
      return fail(XHAL_ERR_INVALID_ARGUMENT,
                  "operand " + std::to_string(i) + " does not have the output's sizes",
                  "op_prepare", i + 1);
    }
  }
  make<Op>(table, XHAL_KIND_OP, op, info->id,
           std::vector<xhal_tensor_desc>(info->operands, info->operands + info->operand_count));
  return XHAL_OK;
}

// ---- streams

// VENDOR: submit to your hardware instead of doing the work here, and call host().timeline_advance
// when it is done.
struct Stream : Object {
  explicit Stream(xhal_timeline* stream_timeline) : timeline(stream_timeline) {}

  xhal_status copy(uint64_t dst, uint64_t src, uint64_t size) {
    std::memcpy(reinterpret_cast<void*>(dst), reinterpret_cast<const void*>(src), size);
    return XHAL_OK;
  }

  xhal_status fill(uint64_t dst, uint64_t size, uint64_t pattern, uint32_t pattern_bytes) {
    for (uint64_t i = 0; i < size; i += pattern_bytes) {
      std::memcpy(reinterpret_cast<std::byte*>(dst) + i, &pattern,
                  pattern_bytes);  // little-endian: the low bytes
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
    const auto& op = from_handle<Op>(handle);
    if (address_count != op.operands.size() || addresses == nullptr ||
        scalar_count > xhal::catalogue::find(op.id)->scalar_count) {
      return fail(XHAL_ERR_INVALID_ARGUMENT,
                  "addresses or scalars are not as many as the operator has", "op_launch");
    }
    const auto defaults = xhal::catalogue::find(op.id)->scalars();
    Number values[2] = {};
    for (size_t i = 0; i < defaults.size(); ++i)
      values[i] = defaults[i].is_int ? number(defaults[i].i) : number(defaults[i].f);
    for (uint32_t i = 0; i < scalar_count; ++i) {
      const auto& s = scalars[i];
      const auto* format = format_of(s.code, s.bits);
      if (s.kind == XHAL_SCALAR_ADDRESS && format == nullptr) {
        return fail(XHAL_ERR_UNSUPPORTED, "a scalar has a dtype this plugin does not read",
                    "op_launch");
      }
      values[i] = s.kind == XHAL_SCALAR_ADDRESS
                      ? format->load(reinterpret_cast<const std::byte*>(s.value.address))
                  : s.kind == XHAL_SCALAR_INT ? number(s.value.i)
                                              : number(s.value.f);
    }
    op.run(addresses, values);
    return XHAL_OK;
  }

  xhal_status recover(xhal_timeline* fresh) {
    timeline = fresh;
    return XHAL_OK;
  }
  xhal_status destroy() { return xhal::plugin::destroy(this); }

  xhal_timeline* timeline;
};

xhal_status Context::stream_create(const xhal_stream_info*, xhal_timeline* timeline,
                                   xhal_stream** stream) {
  make<Stream>(table, XHAL_KIND_STREAM, stream, timeline);
  return XHAL_OK;
}

// ---- device

struct Device : Object {
  explicit Device(const xhal_dispatch* device_table) : table(device_table) {}

  xhal_status close() {
    if (context != nullptr) xhal::plugin::destroy(context);
    return xhal::plugin::destroy(this);
  }
  xhal_status context_create(const xhal_context_info*, xhal_context** result) {
    make<Context>(table, XHAL_KIND_CONTEXT, result, table, to_handle<xhal_device>(this));
    return XHAL_OK;
  }
  xhal_status clock(uint64_t* device_ns, uint64_t* host_ns) {
    *device_ns = *host_ns = now_ns();
    return XHAL_OK;
  }
  xhal_status limit(uint32_t key, uint64_t* value) {
    switch (key) {
      case XHAL_LIMIT_MEMORY_TOTAL_BYTES:
        *value = Context::kMemoryBytes;
        return XHAL_OK;
      case XHAL_LIMIT_ALLOCATION_ALIGNMENT_BYTES:
        *value = 512;
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
      samples[i] = {samples[i].id, XHAL_UNIT_BYTES, XHAL_SAMPLE_VALID, 0,
                    static_cast<double>(Context::kMemoryBytes)};
    }
    return XHAL_OK;
  }

  const xhal_dispatch* table;
  Context* context = nullptr;
};

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
    info.memory_bytes = Context::kMemoryBytes;
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
    if ((open.flags & XHAL_OPEN_OBSERVE) == 0) {
      device->context =
          make<Context>(open.table, XHAL_KIND_CONTEXT, default_context, open.table, *result);
    }
    return XHAL_OK;
  }
};

}  // namespace

extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                                      xhal_negotiate_reply* reply) {
  return negotiate<Template>(request, reply, "template 0.1.0");
}
