// SPDX-License-Identifier: Apache-2.0
// layer_tables.hpp: what a layer is: a function per slot that calls the same slot of
// the next table.
#pragma once

#include <algorithm>
#include <cstddef>
#include <tuple>

#include "core/device_record.hpp"
#include "core/object.hpp"

namespace xhal {

void wrap_validate(xhal_dispatch& table);
void wrap_trace(xhal_dispatch& table);
void trace_start();
void trace_finish() noexcept;
void chaos_start(bool on);

template <size_t N>
struct SlotName {
  char text[N];
  constexpr SlotName(const char (&t)[N]) { std::copy_n(t, N, text); }
};

// Puts around every slot of `table` a function that calls Hooks::around<name>(next, arguments...).
template <class Hooks, Layer kLayer, SlotName kName, auto kSlot, class Handle, class... Rest>
void wrap_slot(xhal_status (*&slot)(Handle*, Rest...)) {
  slot = [](Handle* handle, Rest... rest) noexcept -> xhal_status {
    auto* record = private_of(handle)->device;
    const auto next = record->next[static_cast<size_t>(kLayer)].*kSlot;
    return Hooks::template around<kName>(*record, next, handle, rest...);
  };
}

template <class Hooks, Layer kLayer>
void wrap_table(xhal_dispatch& table) {
#define XHAL_SLOT_HOSTED(object, method, name, since, params, args) \
  wrap_slot<Hooks, kLayer, SlotName("xhal_" #name), &xhal_dispatch::name>(table.name);
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second) \
  XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#include "xhal/slots.inc"
#undef XHAL_SLOT
#undef XHAL_SLOT_HOSTED
}

}  // namespace xhal
