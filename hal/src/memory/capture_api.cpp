// capture_api.cpp: the exported functions of graph.h that are more than a slot: captures own the
// memory that is allocated in them.
#include "sync/capture.hpp"

#include "core/argument_check.hpp"
#include "core/tables.hpp"
#include "memory/pool.hpp"
#include "xhal/graph.h"

namespace xhal {
namespace {

// Set in every graph: the pool it keeps alive.
struct GraphState {
  xhal_pool* pool;
  uint64_t capture;
};

}  // namespace
}  // namespace xhal

using xhal::fail;
using xhal::is_live;

#define CHECK_STREAM(stream, op)                               \
  if (__builtin_expect(!is_live(stream, XHAL_KIND_STREAM), 0)) \
    return xhal::bad_handle(stream, XHAL_KIND_STREAM, op);

extern "C" {

xhal_status xhal_stream_begin_capture(xhal_stream* stream, xhal_pool* pool) {
  constexpr const char* op = "xhal_stream_begin_capture";
  CHECK_STREAM(stream, op)
  if (pool != nullptr && !is_live(pool, XHAL_KIND_POOL))
    return xhal::bad_handle(pool, XHAL_KIND_POOL, op);
  return xhal::exported(op, [&]() -> xhal_status {
    uint64_t id = 0;
    const xhal_status status = xhal::begin_capture(*xhal::state_of(stream), pool, &id);
    if (status == XHAL_OK && pool != nullptr) xhal::pool_begin_capture(pool, id);
    return status;
  });
}

xhal_status xhal_stream_end_capture(xhal_stream* stream, xhal_graph** graph) {
  constexpr const char* op = "xhal_stream_end_capture";
  CHECK_STREAM(stream, op)
  if (const auto s = xhal::required(op, {{"graph", graph}}); s != XHAL_OK) return s;
  return xhal::exported(op, [&]() -> xhal_status {
    auto state = std::make_unique<xhal::GraphState>();
    uint64_t id = 0;
    xhal_pool* pool = nullptr;
    const xhal_status status = xhal::end_capture(*xhal::state_of(stream), graph, &id, &pool);
    if (pool != nullptr) xhal::pool_end_capture(pool, id, status == XHAL_OK);
    if (status != XHAL_OK) return status;
    *state = {pool, id};
    xhal::private_of(*graph)->state = state.release();
    return XHAL_OK;
  });
}

xhal_status xhal_stream_capturing(xhal_stream* stream, uint32_t* capturing) {
  constexpr const char* op = "xhal_stream_capturing";
  CHECK_STREAM(stream, op)
  if (const auto s = xhal::required(op, {{"capturing", capturing}}); s != XHAL_OK) return s;
  *capturing = xhal::state_of(stream)->capture.load(std::memory_order_relaxed) != nullptr ? 1 : 0;
  return XHAL_OK;
}

xhal_status xhal_graph_destroy(xhal_graph* graph) {
  constexpr const char* op = "xhal_graph_destroy";
  if (!is_live(graph, XHAL_KIND_GRAPH)) return xhal::bad_handle(graph, XHAL_KIND_GRAPH, op);
  return xhal::exported(op, [&]() -> xhal_status {
    const xhal_status status = xhal::destroy_unpinned(graph, [](void* object) -> xhal_status {
      auto* const state = static_cast<xhal::GraphState*>(xhal::private_of(object)->state);
      const auto slot =
          __atomic_load_n(&xhal::dispatch_of(object)->graph_destroy, __ATOMIC_RELAXED);
      const xhal_status ended = slot(static_cast<xhal_graph*>(object));
      if (ended == XHAL_OK && state != nullptr) {
        if (state->pool != nullptr && is_live(state->pool, XHAL_KIND_POOL))
          xhal::pool_graph_gone(state->pool, state->capture);
        delete state;
      }
      return ended;
    });
    return status >= 0 ? status : xhal::annotate(status, graph, op);
  });
}

}  // extern "C"
