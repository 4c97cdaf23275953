// SPDX-License-Identifier: Apache-2.0
// module.hpp: modules of format "elf-so": a shared object for this machine, given as bytes.
//
// A kernel is an exported C function
//
//   void name(const uint64_t* args, const uint32_t group[3], const uint32_t groups[3]);
//
// called once for each group of the grid, from several threads at a time and in any order. args has
// one word an argument:
//   XHAL_ARG_ADDRESS   the address, as a pointer that the kernel may use
//   XHAL_ARG_VALUE     the value, zero-extended, when it has up to 8 bytes; else a pointer to a
//                      copy of it
//   XHAL_ARG_LOCAL     a pointer to memory of that size which belongs to this group while it runs;
//                      aligned to 64 bytes
// The loader resolves the object's own dependencies; its symbols are seen by nobody else. It stays
// loaded as long as work that uses it is queued or recorded.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "worker_pool.hpp"
#include "xhal/plugin.hpp"

namespace xhal::cpu {

class Device;
struct KernelCommand;

using KernelFn = void (*)(const uint64_t* args, const uint32_t* group, const uint32_t* groups);

class LoadedModule;  // the mapped library, its name and its bytes

struct Kernel {
  KernelFn function = nullptr;
  std::string name;
};

// Runs every group of a launch on the pool.
void run_kernel(WorkerPool& pool, KernelCommand& command);

struct KernelHandle : plugin::Object {
  KernelHandle(std::shared_ptr<const LoadedModule> m, const Kernel& k)
      : module(std::move(m)), kernel(k) {}
  xhal_status query(xhal_kernel_properties* properties);

  std::shared_ptr<const LoadedModule> module;
  const Kernel& kernel;  // lives in the module
};

// Names of the modules of a context.
class ModuleNames {
 public:
  void claim(const std::string& name);  // throws BUSY
  void release(const std::string& name);

 private:
  std::mutex mutex_;
  std::set<std::string> names_;
};

struct ModuleHandle : plugin::Object {
  ModuleHandle(Device& d, std::shared_ptr<ModuleNames> n, std::shared_ptr<LoadedModule> m);
  ~ModuleHandle();
  xhal_status destroy();
  xhal_status query(uint32_t what, void* data, uint64_t capacity, uint64_t* size_bytes);
  xhal_status kernel(xhal_string name, xhal_kernel** kernel);
  void let_go();

  Device& device;
  std::shared_ptr<ModuleNames> names;
  std::shared_ptr<LoadedModule> module;
  std::mutex mutex;
  std::map<std::string, KernelHandle*, std::less<>> kernels;
};

// Loads; throws plugin::Error.
void load_module(Device& device, std::shared_ptr<ModuleNames> names, const xhal_module_info& info,
                 xhal_module** handle);

}  // namespace xhal::cpu
