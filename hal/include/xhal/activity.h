/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/activity.h: what ran when: the profiler's source.
 *
 * Every submission carries the calling thread's correlation id. While activity is enabled on a
 * device, each finished operation is delivered as one record, in device time
 * (xhal_device_clock converts it).
 */
#ifndef XHAL_ACTIVITY_H
#define XHAL_ACTIVITY_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

enum {
  XHAL_ACTIVITY_OPERATOR = 1,
  XHAL_ACTIVITY_COPY = 2,
  XHAL_ACTIVITY_FILL = 3,
  XHAL_ACTIVITY_KERNEL = 4,
  XHAL_ACTIVITY_HOST_CALL = 5,
  XHAL_ACTIVITY_GRAPH = 6
};

/* One finished operation. Frozen. */
typedef struct xhal_activity {
  uint64_t correlation;
  uint64_t stream;    /* as in error records */
  uint32_t kind;      /* XHAL_ACTIVITY_* */
  uint32_t operation; /* OPERATOR: its catalogue id; since 0.3 KERNEL: xhal_kernel_properties.number
                         (0 = plugin older than 0.3); else 0 */
  uint64_t start_ns, end_ns;
  uint64_t bytes;
} xhal_activity;

typedef void (*xhal_activity_fn)(void* user, const xhal_activity* records, uint32_t count);

/* Sends finished operations to `callback` (NULL: stop) in batches, from a plugin thread. One
 * receiver a device.
 * Errors: UNSUPPORTED, BUSY. Thread: any.   Blocks: no.   Lifetime: `user` until disabled.   Since:
 * 0.1 */
XHAL_API xhal_status xhal_activity_enable(xhal_device* device, xhal_activity_fn callback,
                                          void* user);

/* Delivers what has finished before the call; the callback runs on this thread. Thread: any.
 * Blocks: short. Since: 0.1 */
XHAL_API xhal_status xhal_activity_flush(xhal_device* device);

/* The thread's correlation id: submissions take the innermost one pushed; 0 = none. Pop writes it
 * to
 * `*id` (may be NULL); of an empty stack it is INVALID_ARGUMENT. Served by libxhal. Thread: own
 * state.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_correlation_push(uint64_t id);
XHAL_API xhal_status xhal_correlation_pop(uint64_t* id);

XHAL_EXTERN_C_END
#endif
