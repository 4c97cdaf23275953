// SPDX-License-Identifier: Apache-2.0
#include "probe/host_stubs.hpp"

#include <cstdio>

namespace xhal::probe {
namespace {

std::string& reported_text() {
  static std::string text;
  return text;
}

xhal_status keep_error(const xhal_error* error) {
  reported_text().assign(error->text.data == nullptr ? "" : error->text.data, error->text.size);
  return error->status;
}

xhal_host_services make_table() {
  xhal_host_services t{};
  t.struct_size = sizeof t;
  t.minor = XHAL_VERSION_MINOR;
  t.object_alloc = [](const xhal_dispatch*, uint32_t, uint64_t, void**) {
    return xhal_status{XHAL_ERR_OUT_OF_MEMORY};
  };
  t.object_free = [](void*) {};
  t.error_set = keep_error;
  t.log = [](uint32_t, xhal_string text) {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size), text.data);
  };
  t.range_add = [](xhal_device*, xhal_context*, uint64_t, uint64_t, uint32_t, uint32_t) {
    return xhal_status{XHAL_OK};
  };
  t.range_remove = [](uint64_t) { return xhal_status{XHAL_OK}; };
  t.pointer_query = [](uint64_t, xhal_pointer_info* info) {
    *info = {};
    return xhal_status{XHAL_OK};
  };
  t.timeline_cell = [](xhal_timeline*) -> xhal_timeline_cell* { return nullptr; };
  t.shared_memory = [](const void*, int32_t*, uint64_t*, uint64_t*) {
    return xhal_status{XHAL_ERR_UNSUPPORTED};
  };
  t.timeline_advance = [](xhal_timeline*, uint64_t) {};
  t.timeline_fail = [](xhal_timeline*, const xhal_error*) {};
  t.timeline_poll = [](xhal_timeline*, uint64_t, xhal_error*) {
    return xhal_status{XHAL_NOT_READY};
  };
  t.timeline_notify = [](xhal_timeline*, uint64_t, xhal_timeline_fn, void*) {
    return xhal_status{XHAL_ERR_UNSUPPORTED};
  };
  t.correlation = []() -> uint64_t { return 0; };
  t.object_number = [](const void*) -> uint64_t { return 0; };
  t.device_lost = [](xhal_device*, const xhal_error*) {};
  t.device_event = [](xhal_device*, uint32_t, uint32_t, xhal_string) {};
  return t;
}

}  // namespace

const xhal_host_services* host_stubs() {
  static const xhal_host_services table = make_table();
  return &table;
}

const std::string& last_reported_text() { return reported_text(); }

}  // namespace xhal::probe
