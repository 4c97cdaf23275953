// SPDX-License-Identifier: Apache-2.0
// context_state.hpp: libxhal's part of a context: what was created in it, and its limits.
#pragma once

#include <atomic>
#include <set>

#include "core/device_record.hpp"
#include "core/object.hpp"

namespace xhal {

struct ContextMemory;  // memory/context_memory.hpp

struct ContextState {
  DeviceRecord* device = nullptr;
  xhal_context* handle = nullptr;
  uint32_t flags = 0;       // XHAL_CONTEXT_*
  bool is_default = false;  // given by xhal_device_open: shares memory with other default contexts
  uint64_t quota_bytes = 0;
  std::atomic<uint64_t> used_bytes{0};
  ContextMemory* memory = nullptr;

  // Of every context's lists of children.
  static Mutex& mutex();
  std::set<xhal_stream*> streams;
  std::set<xhal_pool*> pools;
};

inline ContextState* state_of(xhal_context* context) {
  return static_cast<ContextState*>(private_of(context)->state);
}

}  // namespace xhal
