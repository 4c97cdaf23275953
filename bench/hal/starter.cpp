// SPDX-License-Identifier: Apache-2.0
// starter.cpp: a small program that is linked with neither side and times a first meeting: it loads
// the library, lists the devices and prints the nanoseconds this took.
//
//   bench-hal-starter xhal      libxhal: init, all plugins loaded, devices enumerated
//   bench-hal-starter opencl    the OpenCL loader: platforms and devices enumerated
#include <dlfcn.h>
#include <time.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "xhal/xhal.h"

namespace {

uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

template <class Function>
Function* symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

int fail(const char* what, const std::string& why) {
  std::fprintf(stderr, "bench-hal-starter: %s: %s\n", what, why.c_str());
  return 1;
}

int start_xhal() {
  const uint64_t begin = now_ns();
  void* library = dlopen(XHAL_BENCH_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return fail("libxhal", dlerror());
  xhal_init_info info{};
  info.struct_size = sizeof info;
  info.version_major = XHAL_VERSION_MAJOR;
  info.version_minor = XHAL_VERSION_MINOR;
  info.plugin_path = {XHAL_BENCH_PLUGINS, std::strlen(XHAL_BENCH_PLUGINS)};
  if (symbol<decltype(xhal_init)>(library, "xhal_init")(&info) != XHAL_OK)
    return fail("xhal_init", "failed");
  uint32_t plugins = 0, devices = 0, loaded = 0;
  std::vector<xhal_plugin_info> list(64);
  symbol<decltype(xhal_plugin_report)>(library, "xhal_plugin_report")(list.data(), 64, &plugins);
  symbol<decltype(xhal_enumerate)>(library, "xhal_enumerate")(0, nullptr, 0, &devices);
  const uint64_t end = now_ns();
  for (uint32_t i = 0; i < plugins && i < list.size(); ++i)
    loaded += list[i].state == XHAL_PLUGIN_LOADED;
  if (loaded < 3 || devices < 3)
    return fail("xhal_enumerate", "fewer than 3 plugins or devices are there");
  std::printf("%llu\n", static_cast<unsigned long long>(end - begin));
  return 0;
}

int start_opencl() {
  const uint64_t begin = now_ns();
  void* library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return fail("libOpenCL", dlerror());
  cl_platform_id platform = nullptr;
  cl_uint devices = 0;
  if (symbol<decltype(clGetPlatformIDs)>(library, "clGetPlatformIDs")(1, &platform, nullptr) !=
          CL_SUCCESS ||
      symbol<decltype(clGetDeviceIDs)>(library, "clGetDeviceIDs")(
          platform, CL_DEVICE_TYPE_ALL, 0, nullptr, &devices) != CL_SUCCESS) {
    return fail("OpenCL", "no platform: apt-get install pocl-opencl-icd");
  }
  std::printf("%llu\n", static_cast<unsigned long long>(now_ns() - begin));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc == 2 ? argv[1] : "";
  if (what == "xhal") return start_xhal();
  if (what == "opencl") return start_opencl();
  return fail("usage", "bench-hal-starter xhal|opencl");
}
