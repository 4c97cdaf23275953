/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/host.h: what libxhal does for plugins: the host services table. Frameworks do not
 * need this header.
 *
 * The table is handed over at negotiation and lives for ever. It may be longer or shorter than this
 * header's: copy it as far as `struct_size` reaches. plugin.hpp does, and puts stubs that answer
 * XHAL_ERR_UNSUPPORTED where an older library has nothing.
 */
#ifndef XHAL_HOST_H
#define XHAL_HOST_H

#include "xhal/memory.h"
#include "xhal/status.h"
#include "xhal/telemetry.h"
#include "xhal/timeline.h"

XHAL_EXTERN_C_BEGIN

struct xhal_dispatch;

/* The head of every object: written by object_alloc before the object escapes, read on every call.
 */
typedef struct xhal_object_head {
  const struct xhal_dispatch*
      dispatch;    /* the table of its device; libxhal's own for timelines and pools */
  uint32_t kind;   /* XHAL_KIND_* */
  uint32_t plugin; /* number of its plugin in this process; 0 = libxhal */
} xhal_object_head;

/* Where a timeline's value lives: 64 bytes of shared memory that is never unmapped. A device in
 * another process raises it itself: store the larger of old and new value in `value` (release);
 * then, after a full fence, if `waiters` is not 0, increment `wake` and FUTEX_WAKE (shared, all) on
 * it. When `notify` is not 0 the plugin's client side must also call host->timeline_advance, so
 * that callbacks, descriptors and exported views are served. A device that cannot wake (it claims
 * XHAL_CAP_HOST_WAIT) only raises the value; waiting threads then enter device_host_wait.
 *
 * Only libxhal writes `failed`: a device reads it, and fails a timeline through
 * host->timeline_fail. What a device raises after its timeline has failed does not count. Frozen.
 */
typedef struct xhal_timeline_cell {
  uint64_t value;
  uint64_t failed;  /* not 0: the timeline has failed; values above `value` are never reached */
  uint32_t wake;    /* futex word */
  uint32_t waiters; /* threads asleep, of any process */
  uint32_t notify;  /* callbacks registered in the owning process */
  uint32_t owner_pid;
  uint64_t generation;
  uint64_t reserved[3];
} xhal_timeline_cell;

/* Where the time of a timed event is put: the plugin writes `device_ns`, then `slot` (release),
 * before it raises the timeline. Lives in the same shared memory as the cells. Frozen. */
typedef struct xhal_timestamp {
  uint32_t slot;    /* the slot number whose time this is; compared with the event's */
  uint32_t pending; /* the slot number to write there: set by libxhal at record */
  uint64_t device_ns;
} xhal_timestamp;

typedef struct xhal_host_services {
  uint32_t struct_size;
  uint32_t minor; /* the library's; what both sides know is the negotiated one */

  /* Allocates an object of `kind` and writes its head. `table` is the one given at device_open. The
   * memory is zeroed, aligned to 64 bytes and never unmapped. Errors: OUT_OF_MEMORY. */
  xhal_status (*object_alloc)(const struct xhal_dispatch* table, uint32_t kind, uint64_t size_bytes,
                              void** object);
  /* Marks it dead and gives the memory back to libxhal. */
  void (*object_free)(void* object);

  /* Sets the calling thread's error record (copied). The plugin's and device's names are filled
   * in by libxhal. */
  xhal_status (*error_set)(
      const xhal_error* error); /* returns error->status, for `return host->error_set(&e);` */
  void (*log)(uint32_t level, xhal_string text);

  /* Tells libxhal of an address range that belongs to a device, once per
   * slab. Errors: ADDRESS_CONFLICT. */
  xhal_status (*range_add)(xhal_device* device, xhal_context* context, uint64_t base,
                           uint64_t size_bytes, uint32_t kind, uint32_t flags);
  xhal_status (*range_remove)(uint64_t base);
  xhal_status (*pointer_query)(uint64_t address, xhal_pointer_info* info);

  /* The cell of a timeline. */
  xhal_timeline_cell* (*timeline_cell)(xhal_timeline* timeline);
  /* Where a cell, a timestamp or an address of xhal_host_alloc lies in shared memory, for a device
   * in another process: the descriptor is libxhal's (do not close it; dup it or send it),
   * `size_bytes` is that of the whole piece. */
  xhal_status (*shared_memory)(const void* address, int32_t* fd, uint64_t* offset,
                               uint64_t* size_bytes);
  /* Raises a timeline from this process and runs what waits for it: callbacks may run inside, and
   * they may submit to any stream, so the plugin holds no lock of its own here, nor in
   * timeline_fail and device_lost. A value below the present one changes nothing. */
  void (*timeline_advance)(xhal_timeline* timeline, uint64_t value);
  /* Fails a timeline: the record is kept with it and copied into every waiter's thread. Only the
   * first failure counts. What libxhal holds back behind a stream is dropped inside, so the plugin
   * stops what runs and touches memory before it calls this. */
  void (*timeline_fail)(xhal_timeline* timeline, const xhal_error* error);
  /* XHAL_OK, XHAL_NOT_READY, or the status of its failure (then *error, if not NULL, receives the
   * record as far as 0.1 had it; its strings live as long as the timeline). */
  xhal_status (*timeline_poll)(xhal_timeline* timeline, uint64_t value, xhal_error* error);
  /* As xhal_timeline_notify. It cannot be taken back: `user` lives until the call, which comes
   * once, when the value is reached or the timeline fails or ends. A worker that must not wait for
   * ever looks with timeline_poll, and sleeps on something of its own that the callback wakes. */
  xhal_status (*timeline_notify)(xhal_timeline* timeline, uint64_t value, xhal_timeline_fn callback,
                                 void* user);

  /* The calling thread's correlation id. */
  uint64_t (*correlation)(void);
  /* The small number of a stream, context or kernel, for error records and activity. */
  uint64_t (*object_number)(const void* object);

  /* Declares a device lost: its slots answer DEVICE_LOST from now on, its streams' timelines fail
   * with `error`. Callable from any plugin thread, also inside a slot. Destroy and error queries
   * keep reaching the plugin. */
  void (*device_lost)(xhal_device* device, const xhal_error* error);
  /* Delivers a message to the device's events descriptors. */
  void (*device_event)(xhal_device* device, uint32_t kind, uint32_t severity, xhal_string text);
} xhal_host_services;

XHAL_EXTERN_C_END
#endif
