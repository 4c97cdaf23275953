/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/context.h: the owner of addresses and streams on a device, and the scope of faults.
 *
 * A context owns what is allocated and created in it, has a quota and a priority limit, and takes
 * everything with it when it is destroyed; with XHAL_CONTEXT_SCRUB its memory is overwritten before
 * it is given back. A fault of one context does not touch another one.
 *
 * Memory of one context is refused to another context's streams (PERMISSION), unless it was
 * allocated with XHAL_MEMORY_ANY_CONTEXT. The default contexts that xhal_device_open gives belong
 * to the program as a whole and share with each other.
 */
#ifndef XHAL_CONTEXT_H
#define XHAL_CONTEXT_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

enum {
  /* What the context allocated is overwritten before its memory is given back, by the plugin
   * (XHAL_CAP_SCRUB, else UNSUPPORTED). Fails closed: memory that could not be overwritten is not
   * given back, and the call that would have freed it returns the error. Imported memory is its
   * exporter's and is left alone. */
  XHAL_CONTEXT_SCRUB = 1u << 0,
  /* since 0.3: priority_limit counts also when it is 0 ("not above normal") */
  XHAL_CONTEXT_PRIORITY_LIMIT = 1u << 1
};

typedef struct xhal_context_info {
  uint32_t struct_size;
  uint32_t type; /* 0 */
  const xhal_chain* next;
  uint64_t quota_bytes; /* most device memory it may hold; 0 = no limit */
  int32_t
      priority_limit; /* streams may not be more urgent than this; 0 = the device's default range */
  uint32_t flags;
} xhal_context_info;

/* Makes a further context. `info` NULL = defaults.
 * Errors: UNSUPPORTED where a device has one context only or cannot scrub, UNKNOWN_FIELD (flags),
 * OUT_OF_MEMORY, LIMIT.
 * Thread: any.   Blocks: may.   Lifetime: until destroyed, or its device is closed.   Since: 0.1 */
XHAL_API xhal_status xhal_context_create(xhal_device* device, const xhal_context_info* info,
                                         xhal_context** context);

/* Destroys a context and all it owns. The default context cannot be destroyed (INVALID_ARGUMENT).
 * When memory cannot be scrubbed the error is returned, the context stays with that memory, and the
 * call may be repeated.
 * Thread: external sync with every use of it.   Blocks: as xhal_stream_destroy for each of its
 * streams.   Since: 0.1 */
XHAL_API xhal_status xhal_context_destroy(xhal_context* context);

/* After a failure whose scope is the context (a fault that stopped all its streams): returns once
 * the hardware has dropped the context's work and the context takes work again; its streams are
 * then recovered one by one (xhal_stream_recover). On a healthy context it does nothing.
 * Errors: UNSUPPORTED, DEVICE_LOST (the failure was the device's).
 * Thread: external sync with its streams.   Blocks: until quiet.   Since: 0.3 */
XHAL_API xhal_status xhal_context_recover(xhal_context* context);

XHAL_EXTERN_C_END
#endif
