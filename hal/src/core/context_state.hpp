// context_state.hpp: libxhal's part of a context: its quota and what was created in it.
#pragma once

#include <atomic>
#include <mutex>
#include <set>

#include "core/object.hpp"
#include "xhal/context.h"

namespace xhal {

struct ContextMemory;

struct ContextState {
  DeviceRecord* device = nullptr;
  xhal_context* handle = nullptr;
  uint32_t flags = 0;       // XHAL_CONTEXT_*
  bool is_default = false;  // given by xhal_device_open: shares memory with other default contexts
  uint64_t quota_bytes = 0;
  std::atomic<uint64_t> used_bytes{0};
  std::mutex mutex;  // of what follows
  std::set<xhal_stream*> streams;
  std::set<xhal_pool*> pools;
  ContextMemory* memory = nullptr;  // memory/context_memory.hpp
};

inline ContextState* state_of(xhal_context* context) {
  return static_cast<ContextState*>(private_of(context)->state);
}

}  // namespace xhal
