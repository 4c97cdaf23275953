// SPDX-License-Identifier: Apache-2.0
// hostile_plugin.cpp: a plugin that breaks its side of the contract in the ways of its seed.
#include <cstdlib>

#include "hostile.hpp"

namespace xhal::fuzz {
namespace {

const xhal_host_services* host = nullptr;

Hostile now() {
  const char* seed = std::getenv(kSeedVariable);
  return Hostile(seed == nullptr ? 0 : std::strtoull(seed, nullptr, 10));
}

xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count) {
  const auto plan = now();
  *count = capacity == 0 ? plan.device_count : plan.second_count;
  for (uint32_t i = 0; i < capacity; ++i)
    std::memset(&devices[i], 0xff, sizeof devices[i]);  // no text ends, no number is right
  return plan.listed;
}

xhal_status device_open(const xhal_plugin_open* open, xhal_device_info* info, xhal_device** device,
                        xhal_context** context) {
  const auto make = [&](uint32_t kind) {
    void* object = nullptr;
    host->object_alloc(open->table, kind, 128, &object);
    return object;
  };
  std::memset(info, 0xff, sizeof *info);
  switch (now().open) {
    case Hostile::Open::error:
      return -77;
    case Hostile::Open::positive:
      return 77;
    case Hostile::Open::nothing:
      return XHAL_OK;
    case Hostile::Open::device_only:
      *device = static_cast<xhal_device*>(make(XHAL_KIND_DEVICE));
      return XHAL_OK;
    case Hostile::Open::wrong_kinds:
      *device = static_cast<xhal_device*>(make(XHAL_KIND_STREAM));
      *context = static_cast<xhal_context*>(make(XHAL_KIND_GRAPH));
      return XHAL_OK;
    case Hostile::Open::good:
      break;
  }
  *device = static_cast<xhal_device*>(make(XHAL_KIND_DEVICE));
  if ((open->flags & XHAL_OPEN_OBSERVE) == 0)
    *context = static_cast<xhal_context*>(make(XHAL_KIND_CONTEXT));
  return XHAL_OK;
}

}  // namespace
}  // namespace xhal::fuzz

extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                                      xhal_negotiate_reply* reply) {
  static xhal_dispatch slots;
  static xhal_plugin_table table;
  const auto plan = xhal::fuzz::now();
  xhal::fuzz::host = request->host;
  slots = {};
  slots.struct_size = plan.slots_bytes;
  table = {};
  table.struct_size = plan.table_bytes;
  table.slots = plan.no_slots ? nullptr : &slots;
  table.enumerate = plan.no_enumerate ? nullptr : xhal::fuzz::enumerate;
  table.device_open = plan.no_open ? nullptr : xhal::fuzz::device_open;
  reply->abi_min = plan.abi_min;
  reply->abi_max = plan.abi_max;
  reply->table = plan.no_table ? nullptr : &table;
  std::memset(reply->build, 'x', sizeof reply->build);
  return plan.negotiated;
}
