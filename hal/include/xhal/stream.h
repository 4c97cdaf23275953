/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/stream.h: an in-order queue of work on a device.
 *
 * Work of one stream runs in submission order, work of different streams in any order unless they
 * wait for each other. Submitting never waits for other work to finish. Every stream has a timeline
 * of its own that events are values of.
 *
 * When an operation fails, the stream fails: what was reached stays reached, everything behind it
 * is dropped, and every submission returns the failure until xhal_stream_recover (what submits
 * nothing, a wait for a reached value or a copy of 0 bytes, stays legal). A stream that waits for a
 * failed value fails with XHAL_ERR_DEPENDENCY and the origin as its cause.
 *
 * A submission behind a wait whose signal has not been submitted yet may be held back by libxhal:
 * handles and counts are checked at once, but what only the plugin can refuse then fails the stream
 * instead of the call. Held work keeps the objects it names.
 */
#ifndef XHAL_STREAM_H
#define XHAL_STREAM_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

typedef struct xhal_stream_info {
  uint32_t struct_size;
  uint32_t type; /* 0 */
  const xhal_chain* next;
  int32_t priority; /* 0 = normal, lower is more urgent, clamped to what the context allows */
  uint32_t flags;   /* 0, else UNKNOWN_FIELD */
  /* since 0.2: how error records call it ("gradients"); copied, at most 63 bytes count; empty =
   * only its number */
  xhal_string name;
} xhal_stream_info;

/* What a stream is and has before it. Since: 0.2 */
typedef struct xhal_stream_properties {
  uint32_t struct_size;
  int32_t priority; /* in effect: the requested one, clamped to the context's range */
  uint64_t pending; /* submissions the device has taken and not ended; a hint while others submit */
} xhal_stream_properties;

/* Makes a stream. `info` NULL = defaults. Errors: OUT_OF_MEMORY, LIMIT.
 * Thread: any.   Blocks: may.   Lifetime: until destroyed or its context is.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_create(xhal_context* context, const xhal_stream_info* info,
                                        xhal_stream** stream);

/* Destroys a stream after its submitted work has run (or been dropped, if it failed). Events of it
 * stay answerable. A wait that nobody signals is work, too: it ends when its timeline is failed or
 * destroyed, or the stream is aborted.
 * Thread: external sync.   Blocks: until its work has ended.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_destroy(xhal_stream* stream);

/* The stream's own timeline: owned by the stream, replaced by xhal_stream_recover.
 * Thread: any.   Blocks: no.   Lifetime: its memory for ever.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_timeline(xhal_stream* stream, xhal_timeline** timeline);

/* Waits until everything submitted so far has run: record + wait. On a captured stream: CAPTURE,
 * and xhal_stream_end_capture will say so too, for the graph would write to memory that the program
 * takes for done with. Thread: any. Blocks: up to timeout_ns. Since: 0.1 */
XHAL_API xhal_status xhal_stream_synchronize(xhal_stream* stream, uint64_t timeout_ns);

/* Copies `size_bytes` from `src` to `dst`; both are device addresses or host pointers in any
 * combination, also of other plugins' devices (then directly where the host can touch them, else
 * through a pinned bounce buffer). The ranges may not overlap, except exactly. Host memory that is
 * not pinned must stay valid until the copy has run.
 * Errors: INVALID_ARGUMENT (a range leaves its allocation), OVERLAP, PERMISSION (memory of another
 * context), CAPTURE (a captured copy of host memory that is neither pinned nor directly reachable:
 * its bounce buffer would not outlive the call), the stream's failure. Size 0 is legal.
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_copy(xhal_stream* stream, uint64_t dst, uint64_t src,
                                      uint64_t size_bytes);

/* Fills `size_bytes` at `dst`, memory of the stream's device, with the low `pattern_bytes` (1, 2, 4
 * or 8) of `pattern`; size and dst are multiples of it.
 * Errors: INVALID_ARGUMENT, PERMISSION (memory of another context), the stream's failure.
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_fill(xhal_stream* stream, uint64_t dst, uint64_t size_bytes,
                                      uint64_t pattern, uint32_t pattern_bytes);

typedef void (*xhal_host_fn)(void* user, xhal_status status);

enum {
  XHAL_HOST_CALL_NON_BLOCKING = 1u << 0 /* later work need not wait for the call to return */
};

/* Calls `callback` on a host thread in stream order, with XHAL_OK, or with the stream's failure
 * when it is dropped (dropped calls may come in any order): always exactly once for each accepted
 * call, and once a replay for one that was captured (never for the capture itself). A call that
 * returned an error is not called. It may signal timelines, record, submit, allocate from and free
 * into pools, and may not block on xHAL work.
 * Thread: any.   Blocks: no.   Lifetime: `user` until called.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_host_call(xhal_stream* stream, xhal_host_fn callback, void* user,
                                           uint32_t flags);

/* Later work of `stream` runs after `timeline` has reached `value`. The signal may be submitted
 * later, by any thread; it may be of another plugin or the host. Thread: any.   Blocks:
 * no.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_wait(xhal_stream* stream, xhal_timeline* timeline, uint64_t value);

/* Raises `timeline` to `value` when everything submitted before has run.
 * Errors: PERMISSION for an imported timeline or another stream's own. Thread: any.   Blocks:
 * no.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_signal(xhal_stream* stream, xhal_timeline* timeline,
                                        uint64_t value);

/* Makes a failed stream usable again: returns once the hardware no longer touches the failed work's
 * memory, drops what is queued, and gives the handle a fresh timeline; the old one keeps its
 * failure. On a healthy stream it does nothing.
 * Errors: DEVICE_LOST (a device-wide failure needs a reset and a new open).
 * Thread: external sync.   Blocks: until quiet.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_recover(xhal_stream* stream);

/* Stops what runs on a stream (a kernel that never ends), drops what is queued, and fails the
 * stream with XHAL_ERR_DEVICE; xhal_stream_recover makes it usable again. On a stream that has
 * nothing to do, or has failed, it does nothing.
 * Errors: UNSUPPORTED (without XHAL_CAP_ABORT), CAPTURE (end the capture instead), BUSY (from
 * inside a submission to the stream), DEVICE_LOST where only losing the device could stop it.
 * Thread: any.   Blocks: until the device has stopped it.   Since: 0.3 */
XHAL_API xhal_status xhal_stream_abort(xhal_stream* stream);

/* Tells a stream's priority and how much is before it, for schedulers and monitors. Also answered
 * by a failed stream.
 * Errors: UNSUPPORTED from a plugin older than 0.2 or without it.
 * Thread: any.   Blocks: no.   Since: 0.2 */
XHAL_API xhal_status xhal_stream_query(xhal_stream* stream, xhal_stream_properties* properties);

XHAL_EXTERN_C_END
#endif
