/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/pool.h: the caching allocator. Lives in libxhal, is the only cache, has no slot.
 *
 * A pool takes slabs from xhal_memory_alloc and cuts blocks from them. A block is allocated for use
 * on a stream and may be freed while work on it is still queued: it is handed out again in the
 * order of that stream, or, to another stream, after the pool has made that stream wait. Uses on
 * other streams are told by events at the free.
 */
#ifndef XHAL_POOL_H
#define XHAL_POOL_H

#include "xhal/event.h"

XHAL_EXTERN_C_BEGIN

typedef struct xhal_pool_info {
  uint32_t struct_size;
  uint32_t type; /* 0 */
  const xhal_chain* next;
  uint32_t kind;  /* XHAL_MEMORY_DEVICE (0 means this), _HOST or _SHARED */
  uint32_t flags; /* XHAL_MEMORY_EXPORTABLE: slabs may be exported and are kept until every importer
                     has closed */
  uint64_t limit_bytes; /* most it may hold in slabs; 0 = no limit */
} xhal_pool_info;

/* Counters of a pool, in bytes unless the name says otherwise. Out-structure. */
typedef struct xhal_pool_stats {
  uint32_t struct_size;
  uint32_t reserved0;
  uint64_t used_bytes, used_peak_bytes; /* in blocks handed out, rounded as the pool rounds */
  uint64_t requested_bytes;             /* as asked for */
  uint64_t reserved_bytes, reserved_peak_bytes; /* in slabs */
  uint64_t largest_free_bytes;
  uint64_t pending_bytes; /* freed, waiting for events */
  uint64_t allocation_count, free_count, slab_count, slab_allocation_count, retry_count,
      out_of_memory_count;
} xhal_pool_stats;

/* Makes a pool. `info` NULL = device memory, no limit. Errors: UNSUPPORTED (kind),
 * INVALID_ARGUMENT.
 * Thread: any.   Blocks: no.   Lifetime: until destroyed or its context is.   Since: 0.1 */
XHAL_API xhal_status xhal_pool_create(xhal_context* context, const xhal_pool_info* info,
                                      xhal_pool** pool);

/* Destroys a pool once all blocks are freed; with blocks still out it is XHAL_ERR_BUSY and nothing
 * changes.
 * Thread: external sync.   Blocks: until pending events are reached.   Since: 0.1 */
XHAL_API xhal_status xhal_pool_destroy(xhal_pool* pool);

/* Allocates a block for use on `stream` (NULL: on no stream; the block may be touched at once by
 * anyone). Aligned to 512 bytes. `tag` (may be empty) is remembered for the out-of-memory record.
 * Size 0 gives address 0.
 * Errors: OUT_OF_MEMORY: the text names the largest holders by tag, what is free and the largest
 * free block.
 * Thread: any, also from callbacks.   Blocks: in the driver when a new slab is needed; with
 * `stream` NULL, when only a block in use by queued work is left, until that work has run: not
 * from a host call of that work.
 * Lifetime: until freed.   Since: 0.1 */
XHAL_API xhal_status xhal_pool_alloc(xhal_pool* pool, xhal_stream* stream, uint64_t size_bytes,
                                     xhal_string tag, uint64_t* address);

/* Gives a block back. It is reused when all `events` are reached, in the order of the stream it was
 * allocated for; a block allocated without a stream, as soon as the events are reached. Address 0
 * is legal and does nothing.
 * Errors: INVALID_ARGUMENT when `address` is not a block of this pool that is out (nothing
 * changes).
 * Thread: any.   Blocks: no.   Lifetime: `events` for the call.   Since: 0.1 */
XHAL_API xhal_status xhal_pool_free(xhal_pool* pool, uint64_t address, const xhal_event* events,
                                    uint32_t event_count);

/* Gives free slabs back to the device until at most `keep_bytes` are held; waits for no work.
 * Thread: any.   Blocks: driver calls, and a moment for streams about to be idle.   Since: 0.1 */
XHAL_API xhal_status xhal_pool_trim(xhal_pool* pool, uint64_t keep_bytes);

/* Reads the counters; xhal_pool_reset_peaks sets the peaks to the present values. Thread: any.
 * Blocks: no. Since: 0.1 */
XHAL_API xhal_status xhal_pool_query(xhal_pool* pool, xhal_pool_stats* stats);
XHAL_API xhal_status xhal_pool_reset_peaks(xhal_pool* pool);

enum {
  XHAL_POOL_ALLOC = 1,      /* a block was handed out */
  XHAL_POOL_FREE = 2,       /* a block was given back, perhaps with work still on it */
  XHAL_POOL_SLAB_ALLOC = 3, /* a slab was taken from the device */
  XHAL_POOL_SLAB_FREE = 4,  /* and given back */
  XHAL_POOL_OUT_OF_MEMORY = 5
};
/* What happened in a pool: what a framework's memory snapshot is made of. */
typedef struct xhal_pool_record {
  uint32_t kind; /* XHAL_POOL_* */
  uint32_t reserved0;
  uint64_t address, size_bytes; /* of the block (as rounded) or slab; asked for, if out of memory */
  xhal_stream* stream;          /* it was allocated for; may be NULL */
  xhal_string tag;              /* for the call */
} xhal_pool_record;
typedef void (*xhal_pool_fn)(void* user, const xhal_pool_record* record);

/* Calls `callback` (NULL: stop) after each of them, in the thread that caused it, without a lock.
 * One observer a pool. When this returns, no call of the one it replaced is running.
 * Thread: any, not from the callback.   Blocks: until running calls have returned.   Lifetime:
 * `user` until replaced or the pool is destroyed.   Since: 0.3 */
XHAL_API xhal_status xhal_pool_observe(xhal_pool* pool, xhal_pool_fn callback, void* user);

XHAL_EXTERN_C_END
#endif
