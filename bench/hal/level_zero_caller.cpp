// SPDX-License-Identifier: Apache-2.0
// level_zero_caller.cpp: a program linked with Level Zero's loader that takes samples of one call.
//
//   bench-hal-level-zero loader    zeCommandListAppendBarrier, as a program calls it
//   bench-hal-level-zero slot      the same function of the driver, called from its table
//
// The environment says which driver and which layers: level_zero.cpp sets it.
#include <dlfcn.h>
#include <fmt/format.h>
#include <level_zero/ze_api.h>
#include <level_zero/ze_ddi.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "measure/child.hpp"

namespace {

using namespace xhal::bench;

constexpr uint32_t kCalls = 20'000;

void check_ze(ze_result_t result, const char* call) {
  if (result != ZE_RESULT_SUCCESS) {
    throw std::runtime_error(fmt::format("{} failed with {:#x}; the driver is {}", call,
                                         static_cast<uint32_t>(result),
                                         std::getenv("ZE_ENABLE_ALT_DRIVERS")));
  }
}

bool is_on(const char* setting) {
  const char* value = std::getenv(setting);
  return value != nullptr && std::string(value) == "1";
}

// The loader goes on without a layer it does not find: then there is nothing to measure.
void check_layer(const char* setting, const char* library) {
  if (is_on(setting) && dlopen(library, RTLD_NOW | RTLD_NOLOAD) == nullptr)
    throw std::runtime_error(
        fmt::format("{} is not installed; run: apt-get install libze1", library));
}

ze_command_list_handle_t command_list() {
  check_ze(zeInit(0), "zeInit");
  check_layer("ZE_ENABLE_VALIDATION_LAYER", "libze_validation_layer.so.1");
  check_layer("ZE_ENABLE_TRACING_LAYER", "libze_tracing_layer.so.1");
  uint32_t count = 1;
  ze_driver_handle_t driver = nullptr;
  check_ze(zeDriverGet(&count, &driver), "zeDriverGet");
  count = 1;
  ze_device_handle_t device = nullptr;
  check_ze(zeDeviceGet(driver, &count, &device), "zeDeviceGet");
  ze_context_desc_t context_desc{};
  context_desc.stype = ZE_STRUCTURE_TYPE_CONTEXT_DESC;
  ze_context_handle_t context = nullptr;
  check_ze(zeContextCreate(driver, &context_desc, &context), "zeContextCreate");
  ze_command_list_desc_t list_desc{};
  list_desc.stype = ZE_STRUCTURE_TYPE_COMMAND_LIST_DESC;
  ze_command_list_handle_t list = nullptr;
  check_ze(zeCommandListCreate(context, device, &list_desc, &list), "zeCommandListCreate");
  check_ze(zeCommandListAppendBarrier(list, nullptr, 0, nullptr), "zeCommandListAppendBarrier");
  // The driver takes anything, its validation layer does not.
  const auto refused = zeCommandListAppendBarrier(nullptr, nullptr, 0, nullptr);
  if (is_on("ZE_ENABLE_PARAMETER_VALIDATION") != (refused == ZE_RESULT_ERROR_INVALID_NULL_HANDLE))
    throw std::runtime_error("the validation layer does not do what the environment says");
  return list;
}

ze_pfnCommandListAppendBarrier_t drivers_function() {
  void* library = dlopen(std::getenv("ZE_ENABLE_ALT_DRIVERS"), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(dlerror());
  const auto get_table = reinterpret_cast<ze_pfnGetCommandListProcAddrTable_t>(
      dlsym(library, "zeGetCommandListProcAddrTable"));
  if (get_table == nullptr) throw std::runtime_error(dlerror());
  ze_command_list_dditable_t table{};
  check_ze(get_table(ZE_API_VERSION_CURRENT, &table), "zeGetCommandListProcAddrTable");
  return table.pfnAppendBarrier;
}

int run(const std::string& way) {
  auto list = command_list();
  if (way == "loader") {
    return serve([list] {
      return ns_per_call(kCalls,
                         [&] { (void)zeCommandListAppendBarrier(list, nullptr, 0, nullptr); });
    });
  }
  if (way != "slot") throw std::runtime_error("usage: bench-hal-level-zero loader|slot");
  auto append = drivers_function();
  keep(append);
  return serve([list, append] {
    return ns_per_call(kCalls, [&] { (void)append(list, nullptr, 0, nullptr); });
  });
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc == 2 ? argv[1] : "");
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench-hal-level-zero: {}\n", error.what());
    return 1;
  }
}
