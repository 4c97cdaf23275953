// SPDX-License-Identifier: Apache-2.0
// fake_plugin.cpp: a plugin for the tests of the tools. XHAL_TEST_FAKE says what it is like;
// "NAME:MANNER" means the copy libNAME.so only:
//   healthy (default)   one device, all readings
//   mixed               healthy, degraded and broken devices, on two NUMA nodes
//   none                no device
//   control             can be reset, and takes the fault "lost"
//   old                 speaks another ABI major
//   refuse              refuses to start
//   prints              writes to standard output wherever it is called
//   crash               crashes when it is mapped
//   hang, abort, exit   in negotiation: never returns, crashes, ends the process with status 0
//   enumerate-hang, enumerate-abort, enumerate-exit    the same when it lists its devices
//   open-hang, open-abort, open-exit                   when its first device is opened; it has two
//   shutdown-abort      crashes when it is shut down
//   fatal               its device crashes in memory_alloc
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "xhal/plugin.hpp"

namespace {

using namespace xhal::plugin;

// Of the file this copy was loaded from: "fake" of libfake.so.
std::string_view own_name() {
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&own_name), &self) == 0) return {};
  std::string_view name = self.dli_fname;
  name.remove_prefix(name.rfind('/') + 1 + std::strlen("lib"));
  return name.substr(0, name.rfind('.'));
}

std::string_view manner() {
  const char* text = std::getenv("XHAL_TEST_FAKE");
  if (text == nullptr) return "healthy";
  const std::string_view all = text;
  const auto colon = all.find(':');
  if (colon == all.npos) return all;
  return all.substr(0, colon) == own_name() ? all.substr(colon + 1) : "healthy";
}

// What a plugin must not do, in the place the manner names.
void misbehave(std::string_view place) {
  const auto how = manner();
  if (how == "prints") std::printf("the fake plugin talks {\n"), std::fflush(stdout);
  if (!how.starts_with(place)) return;
  const auto what = how.substr(place.size());
  if (what == "hang") pause();
  if (what == "abort") std::abort();
  if (what == "exit") std::exit(0);
}

struct CrashesWhenItIsLoaded {
  CrashesWhenItIsLoaded() {
    if (manner() == "crash") std::abort();
  }
} crashes_when_it_is_loaded;

struct Stream : Object {
  explicit Stream(xhal_timeline* t) : timeline(t) {}
  xhal_status signal(xhal_timeline* target, uint64_t value, xhal_timestamp*) {
    host().timeline_advance(target, value);
    return XHAL_OK;
  }
  xhal_status destroy() { return xhal::plugin::destroy(this); }
  xhal_timeline* timeline;
};

struct Context : Object {
  explicit Context(const xhal_dispatch* t) : table(t) {}
  xhal_status memory_alloc(const xhal_memory_info*, uint64_t*) {
    if (manner() == "fatal") std::abort();
    return fail(XHAL_ERR_OUT_OF_MEMORY, "the fake device has no memory");
  }
  xhal_status stream_create(const xhal_stream_info*, xhal_timeline* timeline,
                            xhal_stream** stream) {
    make<Stream>(table, XHAL_KIND_STREAM, stream, timeline);
    return XHAL_OK;
  }
  xhal_status destroy() { return xhal::plugin::destroy(this); }
  const xhal_dispatch* table;
};

void read(xhal_sample& s, uint32_t unit, double value, bool modelled = false) {
  s.unit = unit;
  s.value = value;
  s.flags = static_cast<uint32_t>(XHAL_SAMPLE_VALID | (modelled ? int{XHAL_SAMPLE_MODELLED} : 0));
}

struct Device : Object {
  Device(const xhal_dispatch* t, uint32_t o) : table(t), ordinal(o) {}

  static xhal_status reset(xhal_device*) noexcept { return XHAL_OK; }
  static xhal_status inject(xhal_device*, xhal_string fault) noexcept {
    if (view(fault) == "lost") return XHAL_OK;
    return fail(XHAL_ERR_NOT_FOUND, "the fake device injects `lost`");
  }
  xhal_status control_table(const xhal_control_table** control) {
    static constexpr xhal_control_table kAll = {sizeof kAll, 0, reset, nullptr, inject};
    static constexpr xhal_control_table kNone = {sizeof kNone, 0, nullptr, nullptr, nullptr};
    *control = manner() == "control" ? &kAll : &kNone;
    return XHAL_OK;
  }
  xhal_status telemetry(xhal_sample* samples, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) tell(samples[i]);
    return XHAL_OK;
  }
  void tell(xhal_sample& s) const {
    constexpr double kGiB = 1024.0 * 1024 * 1024;
    const bool degraded = ordinal == 1;
    switch (s.id) {
      case XHAL_TELEMETRY_MEMORY_TOTAL_BYTES:
        return read(s, XHAL_UNIT_BYTES, 32 * kGiB);
      case XHAL_TELEMETRY_MEMORY_USED_BYTES:
        return read(s, XHAL_UNIT_BYTES, degraded ? 0 : 1.25 * kGiB);
      case XHAL_TELEMETRY_UTILIZATION:
        return read(s, XHAL_UNIT_RATIO, degraded ? 0 : 0.71);
      case XHAL_TELEMETRY_HEALTH:
        return read(s, XHAL_UNIT_STATE, degraded ? 1 : 0);
      case XHAL_TELEMETRY_ERRORS_CORRECTED:
        return read(s, XHAL_UNIT_COUNT, degraded ? 3 : 0);
      default:
        break;
    }
    if (degraded) return;  // cannot tell
    if (s.id == XHAL_TELEMETRY_TEMPERATURE) read(s, XHAL_UNIT_CELSIUS, 61, true);
    if (s.id == XHAL_TELEMETRY_POWER) read(s, XHAL_UNIT_WATTS, 212, true);
    if (s.id == XHAL_TELEMETRY_POWER_CAP) read(s, XHAL_UNIT_WATTS, 310, true);
  }
  xhal_status close() {
    if (context != nullptr) xhal::plugin::destroy(context);
    return xhal::plugin::destroy(this);
  }
  const xhal_dispatch* table;
  uint32_t ordinal;
  Context* context = nullptr;
};

struct Fake : Vendor {
  using device = Device;
  using context = Context;
  using stream = Stream;

  static void shutdown() { misbehave("shutdown-"); }
  static uint32_t count_of_devices() {
    if (manner().starts_with("open-")) return 2;
    return manner() == "mixed" ? 4 : manner() == "none" ? 0 : 1;
  }
  static void describe(uint32_t ordinal, xhal_device_info& info) {
    info.type = XHAL_DEVICE_EXTENSION;
    info.flags = XHAL_DEVICE_EMULATED;
    info.numa_node = ordinal == 3 ? -1 : ordinal < 2 ? 0 : 1;
    info.memory_bytes = uint64_t{32} << 30;
    std::strcpy(info.name, "Fake accelerator");
    std::strcpy(info.vendor, "xHAL tests");
    info.uuid[15] = static_cast<uint8_t>(ordinal + 1);
  }
  static xhal_status enumerate(xhal_device_info* devices, uint32_t capacity, uint32_t* count) {
    misbehave("enumerate-");
    *count = count_of_devices();
    for (uint32_t i = 0; i < std::min(capacity, *count); ++i) describe(i, devices[i]);
    return XHAL_OK;
  }
  static xhal_status device_open(const xhal_plugin_open& open, xhal_device_info& info,
                                 xhal_device** result, xhal_context** default_context) {
    if (open.ordinal == 0) misbehave("open-");
    if (open.ordinal == 2)
      return fail(XHAL_ERR_IO, "the driver of this device does not answer; reload it");
    describe(open.ordinal, info);
    auto* device = make<Device>(open.table, XHAL_KIND_DEVICE, result, open.table, open.ordinal);
    if ((open.flags & XHAL_OPEN_OBSERVE) != 0) return XHAL_OK;
    device->context = make<Context>(open.table, XHAL_KIND_CONTEXT, default_context, open.table);
    return XHAL_OK;
  }
};

}  // namespace

extern "C" XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                                      xhal_negotiate_reply* reply) {
  misbehave("");
  if (manner() == "refuse") {
    reply->abi_min = reply->abi_max = 1;
    return XHAL_ERR_PERMISSION;
  }
  if (manner() == "old") {
    reply->abi_min = reply->abi_max = 7u << 16;
    return XHAL_ERR_VERSION;
  }
  return negotiate<Fake>(request, reply, "fake 1.0");
}
