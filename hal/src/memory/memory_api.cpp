// SPDX-License-Identifier: Apache-2.0
// memory_api.cpp: allocation with quota and scrubbing, export and import, and what an address is.

#include "core/argument_check.hpp"
#include "core/device_record.hpp"
#include "core/object.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "memory/context_memory.hpp"
#include "memory/host_registration.hpp"
#include "memory/pinned.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

constexpr uint64_t kAbsurdBytes = uint64_t{1} << 47;  // more than an address space has
constexpr uint32_t kKnownFlags = XHAL_MEMORY_HOST_VISIBLE | XHAL_MEMORY_COHERENT |
                                 XHAL_MEMORY_CACHED | XHAL_MEMORY_EXPORTABLE |
                                 XHAL_MEMORY_ANY_CONTEXT;

// What is wrong with a request, before any device is asked.
xhal_status check_request(const ContextState& context, const xhal_memory_info& info,
                          const char* op) {
  if (info.size_bytes == 0) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: size 0; allocate at least one byte", op);
  }
  if ((info.alignment_bytes & (info.alignment_bytes - 1)) != 0) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: alignment {} is not a power of two", op,
                info.alignment_bytes);
  }
  if ((info.flags & ~kKnownFlags) != 0) {
    return fail(XHAL_ERR_UNKNOWN_FIELD, op, "{}: unknown flags {:#x}", op,
                info.flags & ~kKnownFlags);
  }
  if (info.kind != XHAL_MEMORY_DEVICE && info.kind != XHAL_MEMORY_SHARED) {
    return fail(XHAL_ERR_UNSUPPORTED, op,
                "{}: kind {} is neither XHAL_MEMORY_DEVICE nor _SHARED; pinned host memory comes "
                "from xhal_host_alloc",
                op, info.kind);
  }
  if (info.size_bytes >= kAbsurdBytes || info.alignment_bytes >= kAbsurdBytes) {
    return fail(XHAL_ERR_OUT_OF_MEMORY, op,
                "{}: {} bytes (aligned to {}) on {} are more than any device has", op,
                info.size_bytes, info.alignment_bytes, context.device->id());
  }
  return XHAL_OK;
}

// The quota counts what was asked for; only a context that has one counts.
xhal_status take_quota(ContextState& context, uint64_t size, const char* op) {
  if (context.quota_bytes == 0) return XHAL_OK;
  uint64_t used = context.used_bytes.load(std::memory_order_relaxed);
  do {
    if (size > context.quota_bytes - used) {
      return fail(XHAL_ERR_LIMIT, op,
                  "{}: {} bytes on {} would exceed the context's quota of {}; {} are in use", op,
                  size, context.device->id(), context.quota_bytes, used);
    }
  } while (!context.used_bytes.compare_exchange_weak(used, used + size));
  return XHAL_OK;
}
void give_quota(ContextState& context, uint64_t size) {
  if (context.quota_bytes != 0) context.used_bytes.fetch_sub(size);
}

xhal_status allocate(ContextState& context, xhal_memory_info info, uint64_t* address,
                     const char* op) {
  if (const auto s = check_request(context, info, op); s != XHAL_OK) return s;
  if (const auto s = take_quota(context, info.size_bytes, op); s != XHAL_OK) return s;
  const uint32_t shared = info.flags & XHAL_MEMORY_ANY_CONTEXT;
  info.flags &= ~uint32_t{XHAL_MEMORY_ANY_CONTEXT};  // libxhal's word
  const auto* table = dispatch_of(context.handle);
  uint64_t base = 0;
  xhal_status status = load_slot(table->memory_alloc)(context.handle, &info, &base);
  if (status == XHAL_OK) {
    const auto range = address_map().find(base);
    if (!range || range->base != base || range->context != context.handle) {
      status = fail(XHAL_ERR_PLUGIN, op,
                    "{}: plugin returned {:#x} without telling libxhal of it (host->range_add)", op,
                    base);
    }
  }
  if (status != XHAL_OK) {
    give_quota(context, info.size_bytes);
    return status;
  }
  {
    const std::lock_guard lock(context.memory->lock());
    context.memory->own.insert(base);
  }
  address_map().set_allocation(base, info.size_bytes, shared);
  *address = base;
  return XHAL_OK;
}

// Imports and reserved space are no allocations of the context: they are neither
// overwritten nor counted.
xhal_status release(ContextState& context, const AddressRange& range, const char* op) {
  auto& memory = *context.memory;
  const bool own = range.requested_bytes > 0;
  if (own) {
    const std::lock_guard lock(memory.lock());
    if (memory.own.erase(range.base) == 0) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: {:#x} is being freed already", op,
                  range.base);
    }
  }
  xhal_status status = own ? scrub(context, range) : XHAL_OK;
  if (status >= 0)
    status = load_slot(dispatch_of(context.handle)->memory_free)(context.handle, range.base);
  if (!own) return status;
  if (status >= 0) {
    give_quota(context, range.requested_bytes);
    return status;
  }
  const std::lock_guard lock(memory.lock());
  memory.own.insert(range.base);
  return status;
}

xhal_status finish(xhal_status status, xhal_context* context, const char* op) {
  return status >= 0 ? status : annotate(status, context, op);
}

bool is_handle_type(uint32_t type) { return type >= XHAL_EXTERNAL_FD && type <= XHAL_EXTERNAL_IPC; }

}  // namespace
}  // namespace xhal

using xhal::fail;
using xhal::is_live;

extern "C" {

xhal_status xhal_memory_alloc(xhal_context* context, const xhal_memory_info* info,
                              uint64_t* address) {
  constexpr const char* op = "xhal_memory_alloc";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  return xhal::exported(op, [&]() -> xhal_status {
    xhal_memory_info local{};
    if (const auto s = xhal::required(op, {{"info", info}, {"address", address}}); s != XHAL_OK)
      return s;
    // The plugin reads the chain.
    if (const auto s = xhal::structs::read(info, local, xhal::structs::Chains::pass);
        s != XHAL_OK) {
      return xhal::finish(fail(s, op, "{}: bad info structure of {} bytes: {}", op,
                               info->struct_size, xhal_status_text(s)),
                          context, op);
    }
    if (!xhal::is_running()) return xhal::fail_state(op);
    return xhal::finish(xhal::allocate(*xhal::state_of(context), local, address, op), context, op);
  });
}

xhal_status xhal_memory_free(xhal_context* context, uint64_t address) {
  constexpr const char* op = "xhal_memory_free";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  return xhal::exported(op, [&]() -> xhal_status {
    if (!xhal::is_running()) return XHAL_OK;  // it is given back with the process, or its parent's
    const auto range = xhal::address_map().find(address);
    xhal_status status = XHAL_OK;
    if (!range || range->base != address || range->context != context) {
      status = fail(XHAL_ERR_INVALID_ARGUMENT, op,
                    "{}: {:#x} is not the start of an allocation of this context on {}{}", op,
                    address, xhal::private_of(context)->device->id(),
                    range ? fmt::format("; it lies {} bytes into one at {:#x}",
                                        address - range->base, range->base)
                          : "");
    } else if (range->pool != nullptr) {
      status = fail(XHAL_ERR_BUSY, op,
                    "{}: {:#x} is a slab of a pool.\n  Free its blocks with xhal_pool_free; the "
                    "slab goes with xhal_pool_trim or the pool.",
                    op, address);
    } else {
      status = xhal::release(*xhal::state_of(context), *range, op);
    }
    return xhal::finish(status, context, op);
  });
}

xhal_status xhal_memory_export(xhal_context* context, uint64_t address, uint32_t handle_type,
                               xhal_external* external) {
  constexpr const char* op = "xhal_memory_export";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  if (const auto s = xhal::required(op, {{"external", external}}); s != XHAL_OK) return s;
  return xhal::exported(op, [&]() -> xhal_status {
    if (!xhal::is_running()) return xhal::fail_state(op);
    const auto range = xhal::address_map().find(address);
    xhal_status status = XHAL_OK;
    if (!xhal::is_handle_type(handle_type)) {
      status = fail(XHAL_ERR_UNSUPPORTED, op, "{}: there is no handle type {}", op, handle_type);
    } else if (!range || range->context != context || range->kind == XHAL_MEMORY_HOST) {
      status = fail(XHAL_ERR_INVALID_ARGUMENT, op,
                    "{}: {:#x} lies in no allocation of this context on {}", op, address,
                    xhal::private_of(context)->device->id());
    } else {
      status = xhal::load_slot(xhal::dispatch_of(context)->memory_export)(context, address,
                                                                          handle_type, external);
    }
    return xhal::finish(status, context, op);
  });
}

xhal_status xhal_memory_import(xhal_context* context, const xhal_external* external,
                               uint64_t* address) {
  constexpr const char* op = "xhal_memory_import";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  if (const auto s = xhal::required(op, {{"external", external}, {"address", address}});
      s != XHAL_OK)
    return s;
  return xhal::exported(op, [&]() -> xhal_status {
    if (!xhal::is_running()) return xhal::fail_state(op);
    xhal_status status = XHAL_OK;
    if (!xhal::is_handle_type(external->handle_type)) {
      status = fail(XHAL_ERR_UNSUPPORTED, op, "{}: there is no handle type {}", op,
                    external->handle_type);
    } else if (external->size_bytes == 0) {
      status = fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: the slab has no size", op);
    } else if (external->handle_type != XHAL_EXTERNAL_IPC && external->fd < 0) {
      status = fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: {} is no descriptor", op, external->fd);
    } else {
      status =
          xhal::load_slot(xhal::dispatch_of(context)->memory_import)(context, external, address);
    }
    return xhal::finish(status, context, op);
  });
}

xhal_status xhal_host_alloc(uint64_t size_bytes, void** address) {
  constexpr const char* op = "xhal_host_alloc";
  return xhal::exported(op, [&]() -> xhal_status {
    if (const auto s = xhal::required(op, {{"address", address}}); s != XHAL_OK) return s;
    if (size_bytes == 0) return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: size 0", op);
    if (!xhal::is_running()) return xhal::fail_state(op);
    if (size_bytes >= xhal::kAbsurdBytes) {
      return fail(XHAL_ERR_OUT_OF_MEMORY, op, "{}: {} bytes are more than a machine has", op,
                  size_bytes);
    }
    return xhal::alloc_pinned(size_bytes, address, op);
  });
}

xhal_status xhal_host_free(void* address) {
  constexpr const char* op = "xhal_host_free";
  return xhal::exported(op, [&]() -> xhal_status {
    return address == nullptr ? XHAL_OK : xhal::free_pinned(address, op);
  });
}

xhal_status xhal_pointer_query(uint64_t address, xhal_pointer_info* info) {
  constexpr const char* op = "xhal_pointer_query";
  if (const auto s = xhal::required(op, {{"info", info}}); s != XHAL_OK) return s;
  *info = {};
  auto range = xhal::address_map().find(address);
  if (!range) range = xhal::registered_anywhere(address);
  if (!range) return XHAL_OK;
  const bool host = range->kind == XHAL_MEMORY_HOST;
  info->kind = range->kind;
  info->flags = range->flags;
  info->base = range->base;
  info->size_bytes = range->size_bytes;
  info->device = host ? nullptr : range->device;
  info->context = host ? nullptr : range->context;
  info->pool = range->pool;
  info->allocation_id = range->allocation_id;
  return XHAL_OK;
}

}  // extern "C"
