// SPDX-License-Identifier: Apache-2.0
// plugin.cpp: the cpu plugin's one exported symbol: host cores as devices.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "device.hpp"

namespace xhal::cpu {
namespace {

// A number that stays the same across reboots: the machine's id, and which share of it
// this device is.
void make_uuid(uint32_t ordinal, size_t count, uint8_t (&uuid)[16]) {
  std::string text;
  std::ifstream("/etc/machine-id") >> text;
  if (text.empty()) return;
  text += "/cpu/" + std::to_string(ordinal) + "/" + std::to_string(count);
  for (uint32_t half = 0; half < 2; ++half) {
    uint64_t hash = 0xcbf29ce484222325u + half;  // FNV-1a, twice
    for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    std::memcpy(uuid + 8 * half, &hash, 8);
  }
  uuid[6] =
      static_cast<uint8_t>((uuid[6] & 0x0f) | 0x80);  // RFC 9562, version 8: made by our own rule
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3f) | 0x80);
}

template <size_t N>
void put(char (&field)[N], const std::string& text) {
  const size_t length = std::min(text.size(), N - 1);
  std::memcpy(field, text.data(), length);
  field[length] = 0;
}

void describe(uint32_t ordinal, xhal_device_info& info) {
  const auto& topology = Topology::get();
  const Site& site = topology.sites()[ordinal];
  info.ordinal = ordinal;
  info.type = XHAL_DEVICE_CPU;
  info.flags = 0;
  info.numa_node = site.numa_node;
  info.memory_bytes = site.memory_bytes;
  const uint32_t able[] = {XHAL_CAP_PAGEABLE_COPY,
                           XHAL_CAP_WAIT_BEFORE_SIGNAL,
                           XHAL_CAP_FOREIGN_TIMELINE,
                           XHAL_CAP_GRAPH,
                           XHAL_CAP_MODULE,
                           XHAL_CAP_VIRTUAL_MEMORY,
                           XHAL_CAP_EXPORT_FD,
                           XHAL_CAP_HOST_REGISTER,
                           XHAL_CAP_ACTIVITY,
                           XHAL_CAP_CONTROL,
                           XHAL_CAP_TIMESTAMP,
                           XHAL_CAP_SCRUB,
                           XHAL_CAP_ABORT};
  for (const uint32_t bit : able) info.capabilities[bit / 64] |= uint64_t{1} << bit % 64;
  if (!guard_asked_for()) info.capabilities[0] |= uint64_t{1} << XHAL_CAP_HOST_VISIBLE;
  make_uuid(ordinal, topology.sites().size(), info.uuid);
  const std::string cores =
      ", " + std::to_string(site.cores) + (site.cores == 1 ? " core" : " cores");
  put(info.name, topology.processor_name().substr(0, sizeof info.name - 1 - cores.size()) + cores);
  put(info.vendor, "xHAL");
}

struct Vendor : plugin::Vendor {
  using device = Device;
  using context = Context;
  using stream = Stream;
  using op = OpHandle;
  using module = ModuleHandle;
  using kernel = KernelHandle;
  using graph = GraphHandle;

  static xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count) {
    const auto sites = static_cast<uint32_t>(Topology::get().sites().size());
    for (uint32_t i = 0; i < std::min(capacity, sites); ++i) describe(i, devices[i]);
    *count = sites;
    return XHAL_OK;
  }

  static xhal_status device_open(const xhal_plugin_open& open, xhal_device_info& info,
                                 xhal_device** device, xhal_context** context) {
    const auto& sites = Topology::get().sites();
    if (open.ordinal >= sites.size())
      throw plugin::Error(XHAL_ERR_NOT_FOUND, "there is no such device");
    describe(open.ordinal, info);
    auto* made =
        plugin::make<Device>(open.table, XHAL_KIND_DEVICE, device, open, sites[open.ordinal]);
    if ((open.flags & XHAL_OPEN_OBSERVE) == 0) {
      try {
        plugin::make<Context>(open.table, XHAL_KIND_CONTEXT, context, *made,
                              most_urgent(open.context_flags, open.priority_limit));
      } catch (...) {
        plugin::destroy(made);
        throw;
      }
    }
    return XHAL_OK;
  }
};

}  // namespace
}  // namespace xhal::cpu

extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                                      xhal_negotiate_reply* reply) {
  return xhal::plugin::negotiate<xhal::cpu::Vendor>(request, reply, "cpu " XHAL_BUILD_ID);
}
