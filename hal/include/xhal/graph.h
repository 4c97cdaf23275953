/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/graph.h: recorded work, launched as one: the third door to compute.
 *
 * Capture belongs to a stream, not to a thread: between begin and end, work submitted to the stream
 * is recorded, not run. Another stream joins by waiting for an event recorded in the capture
 * (event.h) and must be joined back before the end. Other streams' eager work and allocations go on
 * untouched. Scalars given by address are read at each replay; scalars given by value are part of
 * the recording, and a host call is called once a replay.
 *
 * Blocks that a captured stream allocates from the capture's pool belong to the graph until it is
 * destroyed; two captures on one pool keep theirs apart.
 */
#ifndef XHAL_GRAPH_H
#define XHAL_GRAPH_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

/* Begins a capture. `pool` (may be NULL) is the pool that captured allocations come from: the graph
 * retains it, and blocks freed into it during the capture are not handed to others, until the graph
 * is destroyed.
 * Errors: CAPTURE (already capturing), UNSUPPORTED.
 * Thread: external sync on the stream.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_begin_capture(xhal_stream* stream, xhal_pool* pool);

/* Ends it. On any error during the capture (a refused submission, a stream not joined back) returns
 * CAPTURE with the reason, and the stream is out of capture and usable. Thread: as begin.   Blocks:
 * no.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_end_capture(xhal_stream* stream, xhal_graph** graph);

/* Whether the stream is being captured: `*capturing` = 1 or 0. Thread: any. Blocks: no. Since: 0.1
 */
XHAL_API xhal_status xhal_stream_capturing(xhal_stream* stream, uint32_t* capturing);

/* Submits a replay. Replays of one graph do not overlap in time: each waits for the one before.
 * Allocates nothing.
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_graph_launch(xhal_stream* stream, xhal_graph* graph);

/* Nodes in the graph, for tools. Thread: any. Blocks: no. Since: 0.1 */
XHAL_API xhal_status xhal_graph_size(xhal_graph* graph, uint64_t* node_count);

/* Destroys it once its replays have run. Thread: external sync.   Blocks: until then.   Since: 0.1
 */
XHAL_API xhal_status xhal_graph_destroy(xhal_graph* graph);

XHAL_EXTERN_C_END
#endif
