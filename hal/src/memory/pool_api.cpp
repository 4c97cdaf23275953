// SPDX-License-Identifier: Apache-2.0
// pool_api.cpp: the exported functions of pool.h.
#include "core/argument_check.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "memory/pool_state.hpp"
#include "sync/stream_state.hpp"
#include "xhal/struct_check.hpp"

using xhal::fail;
using xhal::is_live;
using xhal::Pool;

#define CHECK_POOL(pool, op)                                 \
  if (__builtin_expect(!is_live(pool, XHAL_KIND_POOL), 0)) { \
    return xhal::process_state() == xhal::State::stopped     \
               ? xhal::fail_state(op)                        \
               : xhal::bad_handle(pool, XHAL_KIND_POOL, op); \
  }                                                          \
  if (__builtin_expect(!xhal::is_running(), 0)) return xhal::fail_state(op);

extern "C" {

xhal_status xhal_pool_create(xhal_context* context, const xhal_pool_info* info, xhal_pool** pool) {
  constexpr const char* op = "xhal_pool_create";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  if (const auto s = xhal::required(op, {{"pool", pool}}); s != XHAL_OK) return s;
  if (!xhal::is_running()) return xhal::fail_state(op);
  return xhal::exported(op, [&]() -> xhal_status {
    xhal_pool_info local{};
    if (const auto s = xhal::structs::read(info, local); s != XHAL_OK) {
      return xhal::annotate(fail(s, op, "{}: bad info structure of {} bytes: {}", op,
                                 info->struct_size, xhal_status_text(s)),
                            context, op);
    }
    if (local.kind == 0) local.kind = XHAL_MEMORY_DEVICE;
    if ((local.flags & ~static_cast<uint32_t>(XHAL_MEMORY_EXPORTABLE | XHAL_MEMORY_ANY_CONTEXT)) !=
        0) {
      return xhal::annotate(
          fail(XHAL_ERR_UNKNOWN_FIELD, op, "{}: flags {:#x} are not all known", op, local.flags),
          context, op);
    }
    if (local.kind > XHAL_MEMORY_SHARED) {
      return xhal::annotate(
          fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: kind {} is unknown", op, local.kind), context,
          op);
    }
    auto* side = xhal::state_of(context);
    void* memory = nullptr;
    if (const auto s = xhal::object_alloc(xhal::libxhal_table(), side->device, 0, XHAL_KIND_POOL,
                                          sizeof(Pool), &memory);
        s != XHAL_OK) {
      return s;
    }
    auto* p = static_cast<Pool*>(memory);
    p->part = xhal::begin_pool();
    p->part->context = side;
    p->part->handle = reinterpret_cast<xhal_pool*>(p);
    p->part->info = local;
    *pool = p->part->handle;
    const std::lock_guard lock(xhal::ContextState::mutex());
    side->pools.insert(*pool);
    return XHAL_OK;
  });
}

xhal_status xhal_pool_destroy(xhal_pool* pool) {
  constexpr const char* op = "xhal_pool_destroy";
  if (xhal::process_state() != xhal::State::running) return XHAL_OK;
  CHECK_POOL(pool, op)
  return xhal::exported(op, [&]() -> xhal_status {
    if (const auto s = Pool::of(pool)->part->destroy(); s != XHAL_OK) return s;
    auto* const context = Pool::of(pool)->part->context->handle;
    const xhal_status status = xhal::end_pool(pool);
    return status < 0 ? xhal::annotate(status, context, op) : status;
  });
}

xhal_status xhal_pool_alloc(xhal_pool* pool, xhal_stream* stream, uint64_t size_bytes,
                            xhal_string tag, uint64_t* address) {
  constexpr const char* op = "xhal_pool_alloc";
  CHECK_POOL(pool, op)
  if (stream != nullptr && !is_live(stream, XHAL_KIND_STREAM))
    return xhal::bad_handle(stream, XHAL_KIND_STREAM, op);
  if (const auto s = xhal::required(op, {{"address", address}}); s != XHAL_OK) return s;
  if (xhal::is_missing(tag)) return xhal::refuse_null(op, "tag");
  auto& p = *Pool::of(pool)->part;
  if (stream != nullptr && p.info.kind == XHAL_MEMORY_DEVICE &&
      xhal::state_of(stream)->device != p.context->device) {
    return xhal::foreign_handle(pool, stream, op);
  }
  // Also a block that lies ready: handles of a lost device stay lost.
  if (const auto* const device = p.context->device; device->lost)
    return xhal::annotate(xhal::set_error(*device->lost_error), pool, op);
  if (size_bytes == 0) {
    *address = 0;
    return XHAL_OK;
  }
  return xhal::exported(op, [&] {
    if (size_bytes >= uint64_t{1} << 47)
      return p.out_of_memory(size_bytes, "it is more than an address space has");
    return p.alloc(stream, size_bytes, tag, address);
  });
}

xhal_status xhal_pool_free(xhal_pool* pool, uint64_t address, const xhal_event* events,
                           uint32_t event_count) {
  constexpr const char* op = "xhal_pool_free";
  CHECK_POOL(pool, op)
  if (xhal::is_missing(events, event_count)) return xhal::refuse_null(op, "events");
  if (address == 0) return XHAL_OK;
  return xhal::exported(op,
                        [&] { return Pool::of(pool)->part->free(address, events, event_count); });
}

xhal_status xhal_pool_trim(xhal_pool* pool, uint64_t keep_bytes) {
  constexpr const char* op = "xhal_pool_trim";
  CHECK_POOL(pool, op)
  return xhal::exported(op, [&] { return Pool::of(pool)->part->trim(keep_bytes); });
}

xhal_status xhal_pool_query(xhal_pool* pool, xhal_pool_stats* stats) {
  constexpr const char* op = "xhal_pool_query";
  CHECK_POOL(pool, op)
  if (const auto s = xhal::required(op, {{"stats", stats}}); s != XHAL_OK) return s;
  if (!xhal::structs::is_size<xhal_pool_stats>(stats->struct_size)) {
    return xhal::annotate(fail(XHAL_ERR_STRUCT_SIZE, op, "{}: no xhal_pool_stats has {} bytes", op,
                               stats->struct_size),
                          Pool::of(pool)->part->context->handle, op);
  }
  return xhal::exported(op, [&] {
    auto& p = *Pool::of(pool)->part;
    p.collect_all();
    const std::lock_guard lock(p.mutex);
    p.stats.largest_free_bytes = p.blocks.largest_joined();
    xhal::structs::write(p.stats, stats);
    return XHAL_OK;
  });
}

xhal_status xhal_pool_observe(xhal_pool* pool, xhal_pool_fn callback, void* user) {
  constexpr const char* op = "xhal_pool_observe";
  CHECK_POOL(pool, op)
  return xhal::exported(op, [&]() -> xhal_status {
    auto& p = *Pool::of(pool)->part;
    if (p.observer.replace(callback, user)) return XHAL_OK;
    return xhal::annotate(
        fail(XHAL_ERR_BUSY, op,
             "{}: called from the pool's own observer; replace it from outside its calls", op),
        p.context->handle, op);
  });
}

xhal_status xhal_pool_reset_peaks(xhal_pool* pool) {
  constexpr const char* op = "xhal_pool_reset_peaks";
  CHECK_POOL(pool, op)
  auto& p = *Pool::of(pool)->part;
  const std::lock_guard lock(p.mutex);
  p.stats.used_peak_bytes = p.stats.used_bytes;
  p.stats.reserved_peak_bytes = p.stats.reserved_bytes;
  return XHAL_OK;
}

}  // extern "C"
