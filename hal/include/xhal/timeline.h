/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/timeline.h: completion of asynchronous work.
 *
 * A timeline is a 64-bit counter that only grows. Work signals it ("reach 7 when done"), anyone
 * waits for a value ("until 7"). Waiting for a value that nobody has submitted yet is legal: the
 * wait ends when somebody does. One owner signals.
 *
 * Failure is a state of the timeline, not of a call: when work fails, the value stops, waits for
 * values that were not reached return the status of the first failed operation, and what was
 * reached before stays reached for ever.
 *
 * Timelines belong to libxhal, not to a plugin: the counter lives in a 64-byte cell of shared
 * memory (host.h) that a device in another process can write, so waiting, failing, exporting and
 * epoll are written once for all vendors. Importers and forked children see a copy of it: nothing
 * they do reaches the owner.
 *
 * Callbacks (notify, host calls) run without a lock of libxhal: they may signal, record, submit,
 * allocate from and free into pools, create and destroy timelines. They may not block on xHAL work.
 */
#ifndef XHAL_TIMELINE_H
#define XHAL_TIMELINE_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

/* Makes a timeline that stands at `initial`.
 * Errors: OUT_OF_MEMORY. Thread: any.   Blocks: no.   Lifetime: until destroyed; its memory
 * stays.   Since: 0.1 */
XHAL_API xhal_status xhal_timeline_create(uint64_t initial, xhal_timeline** timeline);

/* Destroys it; waiters for values not reached return XHAL_ERR_ABANDONED, importers
 * XHAL_ERR_PEER_LOST. A stream's own timeline cannot be destroyed (INVALID_ARGUMENT).
 * Thread: external sync with other uses of the handle, not with waits under way.   Blocks:
 * no.   Since: 0.1 */
XHAL_API xhal_status xhal_timeline_destroy(xhal_timeline* timeline);

/* Raises the value from the host. Lower or equal values change nothing.
 * Errors: the failure of a failed timeline; INVALID_ARGUMENT for a value 2^63 or more above its
 * first one; PERMISSION on an imported (wait-only) one.
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_timeline_signal(xhal_timeline* timeline, uint64_t value);

/* Fails a timeline the host signals: values above where it stands are never reached, waiters get
 * `error`'s status and text, streams that wait for it fail with DEPENDENCY and `error` as the
 * cause. Only the first failure counts. `error` is copied; its status, one of XHAL_ERR_*, is
 * required, its text else that of the status.
 * Errors: INVALID_ARGUMENT; PERMISSION on an imported one or a stream's own. Thread: any.
 * Blocks: no.   Since: 0.2 */
XHAL_API xhal_status xhal_timeline_fail(xhal_timeline* timeline, const xhal_error* error);

/* Tells whether `value` has been reached: XHAL_OK, XHAL_NOT_READY, or the status that failed the
 * timeline. `*current` (may be NULL) receives the value it stands at.
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_timeline_query(xhal_timeline* timeline, uint64_t value,
                                         uint64_t* current);

/* Waits until `timeline` has reached `value` or `timeout_ns` has passed.
 *
 * Returns XHAL_OK, XHAL_ERR_TIMEOUT (nothing changed, call again), or the status that
 * failed the timeline;
 *         xhal_last_error then names the device, the stream and the operation.
 * Thread: any.   Blocks: up to timeout_ns; 0 only looks; XHAL_FOREVER ends at shutdown or when the
 * signaller is destroyed, dies or loses its device.
 * Lifetime: the caller keeps `timeline` alive until return.   Since: 0.1 */
XHAL_API xhal_status xhal_timeline_wait(xhal_timeline* timeline, uint64_t value,
                                        uint64_t timeout_ns);

/* Waits until all (or, with `any`, one) of `count` pairs are reached. With `any`, `*which` (may be
 * NULL) tells the first found. A failed timeline ends the wait with its failure.
 * Thread: any.   Blocks: as xhal_timeline_wait.   Since: 0.1 */
XHAL_API xhal_status xhal_timeline_wait_many(xhal_timeline* const* timelines,
                                             const uint64_t* values, uint32_t count, uint32_t any,
                                             uint64_t timeout_ns, uint32_t* which);

typedef void (*xhal_timeline_fn)(void* user, xhal_status status);

/* Calls `callback` once when `value` is reached or the timeline fails; at once, in this thread,
 * when that is so already. The callback runs on the signalling thread and may not block or wait for
 * xHAL work.
 * Thread: any.   Blocks: no.   Lifetime: `user` until called.   Since: 0.1 */
XHAL_API xhal_status xhal_timeline_notify(xhal_timeline* timeline, uint64_t value,
                                          xhal_timeline_fn callback, void* user);

/* Gives a descriptor that becomes readable (epoll, asyncio) when `value` is reached or the timeline
 * fails; 8 bytes can then be read. The caller closes it, at any time. Errors: OUT_OF_MEMORY (no
 * descriptor left). Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_timeline_eventfd(xhal_timeline* timeline, uint64_t value, int32_t* fd);

/* Sends a timeline to another process: `fd` (owned by the caller) travels by SCM_RIGHTS, `offset`
 * tells where in it. The importer gets a wait-only view that fails with XHAL_ERR_PEER_LOST when
 * this process dies or destroys the timeline below an awaited value. The descriptor cannot be
 * written through, reopened or not, and shows nothing but this timeline. Errors: UNSUPPORTED for an
 * imported timeline, or without /proc; INVALID_ARGUMENT for what is no exported timeline. Thread:
 * any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_timeline_export(xhal_timeline* timeline, int32_t* fd, uint64_t* offset);
XHAL_API xhal_status xhal_timeline_import(int32_t fd, uint64_t offset, xhal_timeline** timeline);

XHAL_EXTERN_C_END
#endif
