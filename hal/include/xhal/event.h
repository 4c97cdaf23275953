/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/event.h: a point in a stream, by value.
 *
 * An event is a timeline and a value, plus an optional timestamp slot. It is copied freely and
 * never freed. Slot 0 means untimed; timed events take a slot of the device's ring, and when the
 * ring has come round the time is EXPIRED while the completion stays answerable. An event recorded
 * during a capture is flagged and valid only inside that capture.
 */
#ifndef XHAL_EVENT_H
#define XHAL_EVENT_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

enum { XHAL_EVENT_TIMED = 1u << 0, XHAL_EVENT_CAPTURED = 1u << 1 };

/* Frozen. All zero = an event that was never recorded and counts as reached. */
typedef struct xhal_event {
  xhal_timeline* timeline;
  uint64_t value;
  uint32_t timestamp_slot;
  uint32_t flags;
} xhal_event;

/* Records the end of everything submitted to `stream` so far; `flags` 0 or XHAL_EVENT_TIMED.
 * Errors: the stream's failure (after which nothing is recorded), INVALID_HANDLE, UNKNOWN_FIELD
 * (flags). UNSUPPORTED for TIMED without XHAL_CAP_TIMESTAMP.   Thread: any.   Blocks: no.   Since:
 * 0.1 */
XHAL_API xhal_status xhal_event_record(xhal_stream* stream, uint32_t flags, xhal_event* event);

/* As xhal_timeline_query and xhal_timeline_wait on the event's pair; CAPTURE for a captured event,
 * and waiting for one is as xhal_stream_synchronize there: the capture cannot become a graph.
 * A reached event stays reached for ever, also when its stream and its device are gone.
 * Thread: any.   Blocks: query no, wait up to timeout_ns.   Since: 0.1 */
XHAL_API xhal_status xhal_event_query(const xhal_event* event);
XHAL_API xhal_status xhal_event_wait(const xhal_event* event, uint64_t timeout_ns);

/* Makes later work of `stream` wait for `event`, which may be of another stream, device or plugin.
 * A captured event makes `stream` join that capture. Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_stream_wait_event(xhal_stream* stream, const xhal_event* event);

/* Nanoseconds between two timed, reached events of one device.
 * Errors: NOT_READY, EXPIRED, INVALID_ARGUMENT (untimed, or of different devices).
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_event_elapsed(const xhal_event* start, const xhal_event* end,
                                        int64_t* elapsed_ns);

XHAL_EXTERN_C_END
#endif
