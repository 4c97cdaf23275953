// SPDX-License-Identifier: Apache-2.0
// listing.cpp: a plugin that does, and lists, what a test wrote into the file XHAL_TEST_LISTING. A
// line is `device UUID GENERATION` (the last byte of the uuid; 0 = none), `print` (words on
// standard output), `reenter` (calls libxhal while it lists), `wait FILE` (counts its devices when
// the pipe FILE has been opened and closed) or `fail`. Each record says in memory_bytes how often
// the plugin has negotiated, and an open fails with the ordinal it was asked for.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "xhal/plugin.hpp"

namespace {

const xhal_host_services* host = nullptr;
uint64_t negotiations = 0;

struct Script {
  std::vector<xhal_device_info> devices;
  std::string pipe;
  bool print = false, reenter = false, fail = false;
};

Script read_script() {
  Script script;
  const char* path = std::getenv("XHAL_TEST_LISTING");
  std::ifstream file(path == nullptr ? "" : path);
  for (std::string word; file >> word;) {
    script.print |= word == "print";
    script.reenter |= word == "reenter";
    script.fail |= word == "fail";
    if (word == "wait") file >> script.pipe;
    if (word != "device") continue;
    int uuid = 0;
    xhal_device_info info{};
    file >> uuid >> info.generation;
    info.uuid[15] = static_cast<uint8_t>(uuid);
    info.type = XHAL_DEVICE_CPU;
    info.memory_bytes = negotiations;
    script.devices.push_back(info);
  }
  return script;
}

xhal_status refuse(const std::string& text) {
  xhal_error error{};
  error.struct_size = sizeof error;
  error.status = XHAL_ERR_UNSUPPORTED;
  error.text = {text.data(), text.size()};
  return host->error_set(&error);
}

xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count) {
  const auto script = read_script();
  if (!script.pipe.empty() && capacity == 0) {
    std::ifstream pipe(script.pipe);
    std::string all;
    std::getline(pipe, all);
  }
  if (script.reenter) {
    uint32_t others = 0;
    const auto again =
        reinterpret_cast<decltype(&xhal_enumerate)>(dlsym(RTLD_DEFAULT, "xhal_enumerate"));
    if (const auto status = again(0, nullptr, 0, &others); status != XHAL_OK) return status;
  }
  if (script.fail) return refuse("the bus is down");
  *count = static_cast<uint32_t>(script.devices.size());
  for (uint32_t i = 0; i < *count && i < capacity; ++i) devices[i] = script.devices[i];
  return XHAL_OK;
}

xhal_status open_device(const xhal_plugin_open* open, xhal_device_info*, xhal_device**,
                        xhal_context**) {
  return refuse("asked for ordinal " + std::to_string(open->ordinal));
}

}  // namespace

extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                                      xhal_negotiate_reply* reply) {
  static const xhal_dispatch slots = [] {
    xhal_dispatch none{};
    none.struct_size = sizeof none;
    return none;
  }();
  static const xhal_plugin_table table = {sizeof table, 0, &slots, enumerate, open_device, nullptr};
  host = request->host;
  ++negotiations;
  if (read_script().print) {
    std::puts("{\"verdict\": \"hello\"}");
    std::fflush(stdout);
  }
  reply->abi_min = xhal::plugin::kOldest;
  reply->abi_max = xhal::plugin::kNewest;
  reply->table = &table;
  return XHAL_OK;
}
