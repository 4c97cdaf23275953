/* xhal/context.h: the owner of addresses and streams on a device, and the scope of faults.
 *
 * A context owns what is allocated and created in it, has a quota and a priority limit, and takes
 * everything with it when it is destroyed; with XHAL_CONTEXT_SCRUB its memory is overwritten before
 * it is given back. A fault of one context does not touch another one.
 */
#ifndef XHAL_CONTEXT_H
#define XHAL_CONTEXT_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

enum { XHAL_CONTEXT_SCRUB = 1u << 0 };

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
 * Errors: UNSUPPORTED where a device has one context only, OUT_OF_MEMORY, LIMIT.
 * Thread: any.   Blocks: may.   Lifetime: until destroyed, or its device is closed.   Since: 0.1 */
XHAL_API xhal_status xhal_context_create(xhal_device* device, const xhal_context_info* info,
                                         xhal_context** context);

/* Destroys a context and all it owns. The default context cannot be destroyed (INVALID_ARGUMENT).
 * Thread: external sync with every use of it.   Blocks: until its work has stopped.   Since: 0.1 */
XHAL_API xhal_status xhal_context_destroy(xhal_context* context);

XHAL_EXTERN_C_END
#endif
