// SPDX-License-Identifier: Apache-2.0
#include "core/tables.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <string_view>

#include "core/object.hpp"
#include "core/plugin_record.hpp"
#include "core/state.hpp"

namespace xhal {
namespace {

// Slots that give something back. They reach the plugin of a lost device, too, and succeed after
// shutdown and fork.
constexpr bool gives_back(std::string_view slot) {
  return slot.ends_with("_destroy") || slot == "device_close" || slot == "memory_free" ||
         slot == "host_unregister" || slot == "virtual_release";
}

template <size_t N>
struct Name {
  char text[N];
  constexpr Name(const char (&t)[N]) { std::copy_n(t, N, text); }
};

template <Name kName, class Handle, class... Rest>
xhal_status unsupported(Handle* handle, Rest...) noexcept {
  const auto* record = private_of(handle)->device;
  return fail(XHAL_ERR_UNSUPPORTED, kName.text, "{} does not support {} (plugin {}, ABI {}.{})",
              record->id(), kName.text, record->plugin->name, record->plugin->abi_used >> 16,
              record->plugin->abi_used & 0xffff);
}

template <class Handle, class... Rest>
xhal_status lost(Handle* handle, Rest...) noexcept {
  const auto& record = *private_of(handle)->device;
  wait_until_lost(record);  // slots are read without order
  return set_error(*record.lost_error);
}

template <Name kName, class Handle, class... Rest>
xhal_status stopped(Handle*, Rest...) noexcept {
  return gives_back(kName.text) ? XHAL_OK : fail_state(kName.text);
}

template <class Slot>
void store(Slot& slot, Slot function) {
  std::atomic_ref(slot).store(function, std::memory_order_relaxed);
}

// Which stub fits a slot's type is deduced from the slot itself.
template <Name kName, class Handle, class... Rest>
void set_unsupported(xhal_status (*&slot)(Handle*, Rest...)) {
  slot = &unsupported<kName, Handle, Rest...>;
}
template <class Handle, class... Rest>
void set_lost(xhal_status (*&slot)(Handle*, Rest...)) {
  store(slot, &lost<Handle, Rest...>);
}
template <Name kName, class Handle, class... Rest>
void set_stopped(xhal_status (*&slot)(Handle*, Rest...)) {
  store(slot, &stopped<kName, Handle, Rest...>);
}

}  // namespace

void fill_table(xhal_dispatch& table, const xhal_dispatch& from, DeviceRecord* record) {
  table = {};
#define XHAL_SLOT_HOSTED(object, method, name, since, params, args)         \
  if (offsetof(xhal_dispatch, name) + sizeof from.name <= from.struct_size) \
    table.name = from.name;                                                 \
  if (table.name == nullptr) set_unsupported<Name("xhal_" #name)>(table.name);
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second) \
  XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#include "xhal/slots.inc"
#undef XHAL_SLOT
#undef XHAL_SLOT_HOSTED
  table.struct_size = sizeof table;
  table.minor = XHAL_VERSION_MINOR;
  table.host = record;
}

void switch_to_lost(xhal_dispatch& table) {
#define XHAL_SLOT_HOSTED(object, method, name, since, params, args) \
  if constexpr (!gives_back(#name)) set_lost(table.name);
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second) \
  XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#include "xhal/slots.inc"
#undef XHAL_SLOT
#undef XHAL_SLOT_HOSTED
}

void switch_to_stopped(xhal_dispatch& table) {
#define XHAL_SLOT_HOSTED(object, method, name, since, params, args) \
  set_stopped<Name(#name)>(table.name);
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second) \
  XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#include "xhal/slots.inc"
#undef XHAL_SLOT
#undef XHAL_SLOT_HOSTED
}

void wait_until_lost(const DeviceRecord& record) noexcept {
  while (!record.lost.load(std::memory_order_acquire)) sched_yield();
}

xhal_status annotate(xhal_status status, const void* object, const char* operation) noexcept {
  try {
    ErrorRecord record = last_error();
    const bool fresh = record.status == status && !record.reported;
    if (!fresh) {
      record = ErrorRecord{};
      record.status = status;
      record.text = fmt::format("{}: {}", operation, xhal_status_text(status));
    }
    if (record.operation.empty()) record.operation = operation;
    const auto* const device = private_of(object)->device;
    if (device != nullptr) {
      if (record.plugin.empty()) record.plugin = device->plugin->name;
      if (record.device.empty()) record.device = device->id();
      if (head_of(object)->kind == XHAL_KIND_STREAM && record.stream == 0) {
        record.stream = private_of(object)->number;
        record.stream_name = stream_name(private_of(object)->state);
      }
      if (head_of(object)->kind == XHAL_KIND_CONTEXT && record.context == 0)
        record.context = private_of(object)->number;
    }
    (void)set_error(record);
    // Not that of another device, which a stream of this one has waited for.
    if (status == XHAL_ERR_DEVICE_LOST && device != nullptr && !device->lost &&
        record.device == device->id()) {
      taken_at_its_word(object);
      (void)set_error(std::move(record));  // callbacks may have had errors of their own
    }
    error_is_reported(status);
    return status;
  } catch (...) {
    return set_error(ErrorRecord::plain(status));
  }
}

xhal_status foreign_handle(const void* first, const void* second, const char* operation) noexcept {
  const auto name = [](const void* o) {
    auto* d = private_of(o)->device;
    return d == nullptr ? std::string("libxhal") : d->id();
  };
  return fail(XHAL_ERR_FOREIGN_HANDLE, operation,
              "{}: the {} is of {} and the {} of {}; only waits and copies may cross plugins.\n"
              "  Prepare or load it in a context of the same device.",
              operation, kind_name(head_of(second)->kind), name(second),
              kind_name(head_of(first)->kind), name(first));
}

}  // namespace xhal
