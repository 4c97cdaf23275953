// SPDX-License-Identifier: Apache-2.0
// control_api.cpp: the control and the comm table as programs get them: libxhal's copies, without
// holes, which answer for a device that is lost and a process that was forked or shut down.
#include <algorithm>
#include <cstring>

#include "core/argument_check.hpp"
#include "core/object.hpp"
#include "core/plugin_record.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "xhal/comm.h"

namespace xhal {
namespace {

inline DeviceRecord& device_of(const void* object) { return *private_of(object)->device; }

// The checks that every call has, then the plugin's function.
template <class Function, class... Args>
xhal_status call(const char* operation, DeviceRecord& record, const void* object, Function function,
                 Args... args) noexcept {
  if (!is_running()) return fail_state(operation);
  if (record.lost.load(std::memory_order_acquire)) return set_error(*record.lost_error);
  if (function == nullptr) {
    return fail(XHAL_ERR_UNSUPPORTED, operation, "{} does not support {} (plugin {})", record.id(),
                operation, record.plugin->name);
  }
  const xhal_status status = function(args...);
  return status >= 0 ? status : annotate(status, object, operation);
}

// ---- control: the first argument is the device

template <auto kMember, class... Args>
xhal_status control_call(const char* operation, xhal_device* device, Args... args) noexcept {
  if (!is_live(device, XHAL_KIND_DEVICE)) return bad_handle(device, XHAL_KIND_DEVICE, operation);
  auto& record = device_of(device);
  return call(operation, record, device, record.control.*kMember, device, args...);
}

constexpr xhal_control_table kControl = {
    sizeof(xhal_control_table), 0,
    [](xhal_device* d) noexcept { return control_call<&xhal_control_table::reset>("reset", d); },
    [](xhal_device* d, double watts) noexcept {
      return control_call<&xhal_control_table::set_power_cap>("set_power_cap", d, watts);
    },
    [](xhal_device* d, xhal_string fault) noexcept -> xhal_status {
      if (is_missing(fault)) return refuse_null("inject", "fault");
      return control_call<&xhal_control_table::inject>("inject", d, fault);
    }};

// ---- comm: the first argument is a communicator, but for the two that make one

template <auto kMember, class... Args>
xhal_status comm_call(const char* operation, xhal_comm* comm, Args... args) noexcept {
  if (!is_live(comm, XHAL_KIND_COMM)) return bad_handle(comm, XHAL_KIND_COMM, operation);
  auto& record = device_of(comm);
  return call(operation, record, comm, record.comm.*kMember, comm, args...);
}

xhal_status comm_unique_id(xhal_device* device, void* bytes, uint64_t capacity,
                           uint64_t* size) noexcept {
  constexpr const char* op = "comm unique_id";
  if (!is_live(device, XHAL_KIND_DEVICE)) return bad_handle(device, XHAL_KIND_DEVICE, op);
  auto& record = device_of(device);
  return call(op, record, device, record.comm.unique_id, device, bytes, capacity, size);
}

xhal_status comm_init(const xhal_comm_init_info* info, xhal_comm** comms) noexcept {
  constexpr const char* op = "comm init";
  if (info == nullptr || comms == nullptr || info->contexts == nullptr || info->local_count == 0)
    return refuse_null(op, "info, its contexts, or comms");
  if (!is_live(info->contexts[0], XHAL_KIND_CONTEXT))
    return bad_handle(info->contexts[0], XHAL_KIND_CONTEXT, op);
  auto& record = device_of(info->contexts[0]);
  return call(op, record, info->contexts[0], record.comm.init, info, comms);
}

constexpr xhal_comm_table kComm = {
    sizeof(xhal_comm_table),
    0,  // the plugin's
    comm_unique_id,
    comm_init,
    [](xhal_comm* c) noexcept { return comm_call<&xhal_comm_table::poll>("comm poll", c); },
    [](xhal_comm* c, xhal_stream* stream, const xhal_comm_op* ops, uint32_t count) noexcept {
      return comm_call<&xhal_comm_table::submit>("comm submit", c, stream, ops, count);
    },
    [](xhal_comm* c) noexcept {
      return comm_call<&xhal_comm_table::async_error>("comm async_error", c);
    },
    [](xhal_comm* c) noexcept { return comm_call<&xhal_comm_table::abort>("comm abort", c); },
    [](xhal_comm* c, int32_t color, int32_t key, xhal_comm** child) noexcept {
      return comm_call<&xhal_comm_table::split>("comm split", c, color, key, child);
    },
    [](xhal_comm* c, uint64_t address, uint64_t size) noexcept {
      return comm_call<&xhal_comm_table::register_buffer>("comm register_buffer", c, address, size);
    },
    [](xhal_comm* c, uint64_t address) noexcept {
      return comm_call<&xhal_comm_table::unregister_buffer>("comm unregister_buffer", c, address);
    },
    [](xhal_comm* c) noexcept { return comm_call<&xhal_comm_table::destroy>("comm destroy", c); }};

// Keeps what the plugin gave, as far as both sides know it.
template <class Table>
void keep(Table& kept, const Table* given) {
  Table copy{};
  std::memcpy(&copy, given, std::min<size_t>(given->struct_size, sizeof copy));
  const std::lock_guard lock(DeviceRecord::mutex());
  kept = copy;
}

}  // namespace
}  // namespace xhal

using xhal::fail;
using xhal::is_live;

extern "C" {

xhal_status xhal_device_control_table(xhal_device* device, const xhal_control_table** table) {
  constexpr const char* op = "xhal_device_control_table";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  if (const auto s = xhal::required(op, {{"table", table}}); s != XHAL_OK) return s;
  auto& record = *xhal::private_of(device)->device;
  if ((record.open_flags & XHAL_OPEN_CONTROL) == 0) {
    return fail(XHAL_ERR_PERMISSION, op, "{}: {} was opened without XHAL_OPEN_CONTROL", op,
                record.id());
  }
  const xhal_control_table* given = nullptr;
  const xhal_status status =
      xhal::load_slot(xhal::dispatch_of(device)->device_control_table)(device, &given);
  if (status < 0) return xhal::annotate(status, device, op);
  if (given == nullptr)
    return fail(XHAL_ERR_PLUGIN, op, "{}: {} gave no table", op, record.plugin->name);
  xhal::keep(record.control, given);
  *table = &xhal::kControl;
  return XHAL_OK;
}

xhal_status xhal_device_comm_table(xhal_device* device, const struct xhal_comm_table** table) {
  constexpr const char* op = "xhal_device_comm_table";
  if (!is_live(device, XHAL_KIND_DEVICE)) return xhal::bad_handle(device, XHAL_KIND_DEVICE, op);
  if (const auto s = xhal::required(op, {{"table", table}}); s != XHAL_OK) return s;
  auto& record = *xhal::private_of(device)->device;
  if (!record.plugin->speaks(3)) {
    return fail(XHAL_ERR_UNSUPPORTED, op,
                "{}: the operations of collectives changed with ABI 0.3, plugin {} speaks 0.{}", op,
                record.plugin->name, record.plugin->abi_used & 0xffff);
  }
  const xhal_comm_table* given = nullptr;
  const xhal_status status =
      xhal::load_slot(xhal::dispatch_of(device)->device_comm_table)(device, &given);
  if (status < 0) return xhal::annotate(status, device, op);
  if (given == nullptr)
    return fail(XHAL_ERR_PLUGIN, op, "{}: {} gave no table", op, record.plugin->name);
  xhal::keep(record.comm, given);
  const std::lock_guard lock(xhal::DeviceRecord::mutex());
  record.comm_given = xhal::kComm;
  record.comm_given.version = record.comm.version;
  *table = &record.comm_given;
  return XHAL_OK;
}

}  // extern "C"
