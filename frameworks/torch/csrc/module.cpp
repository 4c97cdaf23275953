// SPDX-License-Identifier: Apache-2.0
// The Python side of the device: torch_xhal._C. torch/extension.h would add the whole C++ front
// end, and 18 s of compiling, to the bindings that are used here.
#include <torch/csrc/Generator.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/utils/device_lazy_init.h>
#include <torch/csrc/utils/pybind.h>

#include <pybind11/chrono.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

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

// Whether a thread with torch's name for those of its autograd engine is alive.
bool has_autograd_thread() {
  std::error_code error;
  for (std::filesystem::directory_iterator task("/proc/self/task", error), end; task != end;
       task.increment(error)) {
    if (error) return false;
    std::ifstream file(task->path() / "comm");
    std::string name;
    if (std::getline(file, name) && name.starts_with("pt_autograd_")) return true;
  }
  return false;
}

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
  const MemoryCounts counts = memory_counts(index);
  py::dict out;
  const auto put = [&out](const std::string& name, const MemoryCount& count) {
    out[py::str(name + ".current")] = count.current;
    out[py::str(name + ".peak")] = count.peak;
    out[py::str(name + ".allocated")] = count.allocated;
    out[py::str(name + ".freed")] = count.freed;
  };
  put("allocation", counts.blocks);
  put("allocated_bytes", counts.bytes);
  put("requested_bytes", counts.requested);
  put("reserved_bytes", {stats.reserved_bytes, stats.reserved_peak_bytes, 0, 0});
  put("segment", {stats.slab_count, stats.slab_count, stats.slab_allocation_count,
                  stats.slab_allocation_count - stats.slab_count});
  out["pending_bytes.current"] = stats.pending_bytes;
  out["num_alloc_retries"] = stats.retry_count;
  out["num_ooms"] = stats.out_of_memory_count;
  return out;
}

// Ends the threads that run torch's backward passes, and waits until they are gone: torch tells
// them to end when the process exits, and whichever of them asks for Python's lock while the
// interpreter is taken apart is ended by it inside a destructor, which aborts the process. A
// backward pass of another thread that is still running keeps them; then nothing asks for the lock.
void stop_autograd_threads() {
  torch::autograd::Engine::get_default_engine().stop();
  constexpr auto kDeadline = std::chrono::seconds(5);
  const auto start = std::chrono::steady_clock::now();
  while (has_autograd_thread() && std::chrono::steady_clock::now() - start < kDeadline)
    std::this_thread::sleep_for(std::chrono::microseconds(200));
}

void follow_interpreter() {
  on_first_open([] { torch::utils::register_fork_handler_for_device_init(kXhal); });
  on_stop_for_ever([] {
    if (PyGILState_Check()) PyEval_SaveThread();
  });
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
  m.def("stop_autograd_threads", &stop_autograd_threads, py::call_guard<py::gil_scoped_release>());
  m.def("shutdown", &shutdown, py::call_guard<py::gil_scoped_release>());
  m.def("default_generator", &default_generator_object);
  m.def("is_in_bad_fork", [] { return torch::utils::is_device_in_bad_fork(kXhal); });
  m.def("memory_info", &memory_info);
  m.def("memory_counters", &counters);
  m.def("reset_peak_memory_stats", &reset_peaks);
  m.def("reset_accumulated_memory_stats", &reset_accumulated);
  m.def("empty_cache", &empty_caches, py::call_guard<py::gil_scoped_release>());
  m.def("fallbacks", &fallback_counts);
  m.def("reset_fallbacks", &reset_fallback_counts);
#if XHAL_TORCH_COLLECTIVES
  // torch's own classes are the bases: its bindings know what to do with the result.
  py::module_::import("torch._C._distributed_c10d");
  m.def("make_process_group", &make_process_group, py::call_guard<py::gil_scoped_release>());
  m.def("close_process_groups", &close_process_groups, py::call_guard<py::gil_scoped_release>());
#endif
  m.def("register_graphs", &register_graphs);
  follow_interpreter();
}

}  // namespace xhal_torch
