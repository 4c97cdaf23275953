// SPDX-License-Identifier: Apache-2.0
// capture_api.cpp: the exported functions of graph.h that are more than a slot: a capture, and then
// its graph, keeps the blocks that its streams have allocated from its pool.
#include <memory>

#include "core/argument_check.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "memory/pool.hpp"
#include "sync/capture.hpp"
#include "xhal/graph.h"

namespace xhal {
namespace {

// Set in a graph whose capture had a pool.
struct GraphState {
  xhal_pool* pool;
  uint64_t capture;
};

// The graph's replays have run, and nothing that is held back names it any more.
xhal_status destroy_graph(void* graph) {
  auto* state = static_cast<GraphState*>(private_of(graph)->state);
  const auto slot = load_slot(dispatch_of(graph)->graph_destroy);
  const xhal_status status = slot(static_cast<xhal_graph*>(graph));
  if (status < 0 || state == nullptr) return status;
  pool_capture_over(state->pool, state->capture);
  delete state;
  return status;
}

}  // namespace
}  // namespace xhal

using xhal::is_live;

extern "C" {

xhal_status xhal_stream_begin_capture(xhal_stream* stream, xhal_pool* pool) {
  constexpr const char* op = "xhal_stream_begin_capture";
  if (!is_live(stream, XHAL_KIND_STREAM)) return xhal::bad_handle(stream, XHAL_KIND_STREAM, op);
  if (pool != nullptr && !is_live(pool, XHAL_KIND_POOL))
    return xhal::bad_handle(pool, XHAL_KIND_POOL, op);
  return xhal::exported(op, [&]() -> xhal_status {
    if (xhal::is_forked()) return xhal::fail_state(op);
    const uint64_t capture = xhal::next_capture();
    if (pool != nullptr) xhal::pool_capture_begins(pool, capture);
    const auto status = xhal::begin_capture(*xhal::state_of(stream), pool, capture);
    if (status != XHAL_OK && pool != nullptr) xhal::pool_capture_over(pool, capture);
    return status >= 0 ? status : xhal::annotate(status, stream, op);
  });
}

xhal_status xhal_stream_end_capture(xhal_stream* stream, xhal_graph** graph) {
  constexpr const char* op = "xhal_stream_end_capture";
  if (!is_live(stream, XHAL_KIND_STREAM)) return xhal::bad_handle(stream, XHAL_KIND_STREAM, op);
  if (const auto s = xhal::required(op, {{"graph", graph}}); s != XHAL_OK) return s;
  return xhal::exported(op, [&]() -> xhal_status {
    auto state = std::make_unique<xhal::GraphState>();
    const auto status =
        xhal::end_capture(*xhal::state_of(stream), graph, &state->capture, &state->pool);
    if (state->pool == nullptr) return status;
    if (status == XHAL_OK)
      xhal::private_of(*graph)->state = state.release();
    else
      xhal::pool_capture_over(state->pool, state->capture);
    return status;
  });
}

xhal_status xhal_stream_capturing(xhal_stream* stream, uint32_t* capturing) {
  constexpr const char* op = "xhal_stream_capturing";
  if (!is_live(stream, XHAL_KIND_STREAM)) return xhal::bad_handle(stream, XHAL_KIND_STREAM, op);
  if (const auto s = xhal::required(op, {{"capturing", capturing}}); s != XHAL_OK) return s;
  *capturing = xhal::is_captured(*xhal::state_of(stream)) ? 1 : 0;
  return XHAL_OK;
}

xhal_status xhal_graph_destroy(xhal_graph* graph) {
  constexpr const char* op = "xhal_graph_destroy";
  if (!is_live(graph, XHAL_KIND_GRAPH)) return xhal::bad_handle(graph, XHAL_KIND_GRAPH, op);
  return xhal::exported(op, [&] {
    const auto status = xhal::destroy_unpinned(graph, xhal::destroy_graph);
    return status < 0 ? xhal::annotate(status, graph, op) : status;
  });
}

}  // extern "C"
