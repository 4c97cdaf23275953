// SPDX-License-Identifier: Apache-2.0
// object.hpp: memory for objects: zeroed, never unmapped, with a part in front that
// only libxhal sees.
#pragma once

#include <cstdint>

#include "xhal/host.h"

namespace xhal {

struct DeviceRecord;
struct StreamState;

// In front of every object, in a cache line of its own.
struct ObjectPrivate {
  DeviceRecord* device;  // nullptr for timelines and pools
  uint64_t number;       // small, unique in the process for its kind
  uint32_t size_class;
  uint32_t kind;
  void* state;  // libxhal's own part: StreamState for streams, ContextState for contexts,
                // GraphState for graphs; of a kernel: its module
  xhal_status (*destroy)(void* object);  // set while a destroy waits for the last pin
  uint32_t pins;                         // held-back submissions that name it; kDestroyWanted
  uint32_t operand_count;                // of an operator
  uint32_t scalar_limit;  // of an operator: how many scalars a launch may give at most
  uint32_t reserved0;
  uint64_t reserved;
};
static_assert(sizeof(ObjectPrivate) == 64);

inline ObjectPrivate* private_of(const void* object) {
  return reinterpret_cast<ObjectPrivate*>(reinterpret_cast<uintptr_t>(object) -
                                          sizeof(ObjectPrivate));
}
inline xhal_object_head* head_of(const void* object) {
  return reinterpret_cast<xhal_object_head*>(reinterpret_cast<uintptr_t>(object));
}

// The table of an object. A stream's changes while others call: libxhal puts its own in between.
// A slot of a table that another thread may be switching, because its device is lost or closed.
template <class Slot>
inline Slot load_slot(const Slot& slot) noexcept {
  return __atomic_load_n(&slot, __ATOMIC_RELAXED);
}

inline const xhal_dispatch* dispatch_of(const void* object) {
  return __atomic_load_n(&head_of(object)->dispatch, __ATOMIC_ACQUIRE);
}

// Destroyed objects are not handed out again while this is set: then every stale handle is
// caught (layer `validate`).
void quarantine_objects(bool on);
bool objects_quarantined() noexcept;

xhal_status object_alloc(const xhal_dispatch* table, DeviceRecord* device, uint32_t plugin,
                         uint32_t kind, uint64_t size_bytes, void** object) noexcept;
void object_free(void* object) noexcept;

// Keeps what libxhal had beside an object when the object ended without its owner's doing
// (shutdown, a closed device): a call of another thread may still be on its way out of it.
void keep_for_ever(const void* part) noexcept;

// Held-back work names objects that their owner may destroy meanwhile: it pins them, and the
// plugin's destroy comes with the last unpin. A kernel stands for its module.
void pin(void* object) noexcept;
void unpin(void* object) noexcept;
// Calls `destroy` now and returns its status, or XHAL_OK: then the last unpin will call it.
xhal_status destroy_unpinned(void* object, xhal_status (*destroy)(void* object)) noexcept;

// "stream", "context", ...
const char* kind_name(uint32_t kind);

// Explains a handle that failed the check, in the thread's error record.
xhal_status bad_handle(const void* object, uint32_t expected_kind, const char* operation) noexcept;

inline bool is_live(const void* object, uint32_t kind) {
  return object != nullptr && __atomic_load_n(&head_of(object)->kind, __ATOMIC_RELAXED) == kind;
}

}  // namespace xhal
