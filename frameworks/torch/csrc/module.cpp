// SPDX-License-Identifier: Apache-2.0
// The Python side of the device: torch_xhal._C. torch/extension.h would add the whole C++ front
// end, and 18 s of compiling, to the bindings that are used here.
#include <torch/csrc/Generator.h>
#include <torch/csrc/utils/device_lazy_init.h>
#include <torch/csrc/utils/pybind.h>

#include <pybind11/chrono.h>

#include "allocator.h"
#include "compat.h"
#include "fallback.h"
#include "generator.h"
#include "graph.h"
#include "runtime.h"
#if XHAL_TORCH_COLLECTIVES
#include "process_group.h"
#endif

namespace xhal_torch {
namespace {

namespace py = pybind11;

py::dict describe(DeviceIndex index) {
  const xhal_device_info& info = device_info(index);
  py::dict out;
  out["id"] = std::string(info.id);
  out["name"] = std::string(info.name);
  out["plugin"] = std::string(info.plugin);
  out["vendor"] = std::string(info.vendor);
  out["type"] = info.type;
  out["emulated"] = (info.flags & XHAL_DEVICE_EMULATED) != 0;
  out["total_memory"] = info.memory_bytes;
  out["numa_node"] = info.numa_node;
  out["uuid"] = py::bytes(reinterpret_cast<const char*>(info.uuid), sizeof info.uuid);
  return out;
}

// Limits that only an open device tells.
py::dict describe_open(DeviceIndex index) {
  py::dict out = describe(index);
  Device& found = device(index);
  uint64_t value = 0;
  if (xhal_device_limit(found.handle, XHAL_LIMIT_MEMORY_TOTAL_BYTES, &value) == XHAL_OK)
    out["total_memory"] = value;
  if (xhal_device_limit(found.handle, XHAL_LIMIT_COMPUTE_UNITS, &value) == XHAL_OK)
    out["compute_units"] = value;
  return out;
}

py::object default_generator_object(DeviceIndex index) {
  // One Python object for each device; torch keeps it in the generator.
  return py::reinterpret_steal<py::object>(
      THPGenerator_initDefaultGenerator(default_generator(index)));
}

void recover(DeviceIndex index) {
  Device& found = device(index);
  for (auto& slot : found.streams) {
    if (xhal_stream* stream = slot.load(std::memory_order_acquire)) {
      check(xhal_stream_recover(stream), "making a stream usable again");
    }
  }
}

py::dict counters(DeviceIndex index) {
  const xhal_pool_stats stats = pool_stats(index);
  py::dict out;
  out["allocated_bytes"] = stats.used_bytes;
  out["allocated_peak_bytes"] = stats.used_peak_bytes;
  out["requested_bytes"] = stats.requested_bytes;
  out["reserved_bytes"] = stats.reserved_bytes;
  out["reserved_peak_bytes"] = stats.reserved_peak_bytes;
  out["pending_bytes"] = stats.pending_bytes;
  out["allocations"] = stats.allocation_count;
  out["frees"] = stats.free_count;
  out["slabs"] = stats.slab_count;
  out["slab_allocations"] = stats.slab_allocation_count;
  out["out_of_memory"] = stats.out_of_memory_count;
  return out;
}

void guard_forks() {
  on_first_open([] { torch::utils::register_fork_handler_for_device_init(kXhal); });
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "PyTorch on xHAL devices";
  m.attr("built_for_torch") = TORCH_VERSION;
  m.def("device_count", &device_count);
  m.def("why_no_devices", &why_no_devices);
  m.def("describe", &describe);
  m.def("describe_open", &describe_open);
  m.def("device_is_open", &device_is_open);
  m.def("current_device", &current_device);
  m.def("set_device", &set_current_device);
  m.def("exchange_device", [](DeviceIndex index) {
    const DeviceIndex before = current_device();
    if (index >= 0) set_current_device(index);
    return before;
  });
  m.def(
      "open_device", [](DeviceIndex index) { open_device(index); },
      py::call_guard<py::gil_scoped_release>());
  m.def("synchronize", &synchronize_device, py::call_guard<py::gil_scoped_release>());
  m.def("recover", &recover, py::call_guard<py::gil_scoped_release>());
  m.def("shutdown", &shutdown, py::call_guard<py::gil_scoped_release>());
  m.def("default_generator", &default_generator_object);
  m.def("is_in_bad_fork", [] { return torch::utils::is_device_in_bad_fork(kXhal); });
  m.def("memory_info", &memory_info);
  m.def("memory_counters", &counters);
  m.def("reset_peak_memory_stats", &reset_peaks);
  m.def("empty_cache", &trim_pools);
  m.def("fallbacks", &fallback_counts);
  m.def("reset_fallbacks", &reset_fallback_counts);
#if XHAL_TORCH_COLLECTIVES
  // torch's own classes are the bases: its bindings know what to do with the result.
  py::module_::import("torch._C._distributed_c10d");
  m.def("make_process_group", &make_process_group, py::call_guard<py::gil_scoped_release>());
  m.def("close_process_groups", &close_process_groups, py::call_guard<py::gil_scoped_release>());
#endif
  m.def("register_graphs", &register_graphs);
  guard_forks();
}

}  // namespace xhal_torch
