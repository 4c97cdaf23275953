/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/plugin.h: what a plugin is: one exported symbol, two tables. Vendors in C++ use plugin.hpp
 * and rarely look here.
 *
 * The loader opens the library, calls xhal_plugin_negotiate once, copies both tables, fills
 * holes with stubs that return XHAL_ERR_UNSUPPORTED, and never unloads it. A plugin starts
 * no thread, opens no driver and does no work in static constructors; `enumerate` is
 * passive; `device_open` initialises. It never ends the process, and writes nothing to standard
 * output, which is the program's: host->log is for messages.
 *
 * A slot is called with what libxhal has checked: the handles are live and of this plugin, no
 * pointer is NULL that may not be, structures have a legal size and are given at libxhal's own size
 * (which may be larger or smaller than the plugin's: plugin.hpp adapts them, C does it by
 * struct_size), no flag is unknown to libxhal, and a stream whose timeline has failed gets no
 * submission until it is recovered. What only the plugin can know it checks itself:
 * `next` chains, flags and kinds it does not know, what it has of the catalogue.
 */
#ifndef XHAL_PLUGIN_H
#define XHAL_PLUGIN_H

#include "xhal/host.h"
#include "xhal/xhal.h"

XHAL_EXTERN_C_BEGIN

/* The dispatch table of a device: one function a slot, in the order of slots.inc. `host` is
 * libxhal's; plugins give NULL. What the slot of a hosted call must do, where it differs
 * from the export:
 *   device_close        stops all work and frees everything of the device: its streams are
 *                       destroyed by then, so that what was queued on them has run or been dropped.
 *                       Contexts, what was allocated from them, and operators, modules and graphs
 *                       that nobody destroyed end here; their ranges are out of libxhal's map
 *                       already, so range_remove is not called. The program sees XHAL_OK either
 *                       way. After XHAL_OK nothing of the device writes to a timeline, a timestamp
 *                       or host memory any more, also of a lost device. A plugin that cannot
 *                       promise that returns an error: what the device could still reach is then
 *                       kept for ever.
 *   context_create      `info` is never NULL here. The default context is made by device_open.
 *   context_destroy     frees what is left of the context's memory and operators. Its streams are
 *                       destroyed, and its ranges are out of libxhal's map already.
 *   memory_alloc        calls host->range_add; libxhal has checked sizes and quota. OUT_OF_MEMORY
 *                       when the device has no more (LIMIT is the quota, libxhal's); UNSUPPORTED
 *                       for a kind or property that the device has not.
 *   memory_free         calls host->range_remove; the address is a live allocation's start.
 *   host_register       libxhal keeps the list of what is registered (no range_add) and gives
 *                       copies the address that is returned here. Memory of xhal_host_alloc comes
 *                       as the whole slab; host->shared_memory may be called, also from inside.
 *   stream_create       `info` is never NULL here. `timeline` is libxhal's, owned by the stream; it
 *                       must outlive nothing.
 *   stream_destroy      returns when the stream's work has run.
 *   stream_abort        only with XHAL_CAP_ABORT. Returns once nothing of the stream runs and its
 *                       queue is dropped; calls timeline_fail with XHAL_ERR_DEVICE if there was
 *                       anything. What libxhal holds back it drops itself.
 *   stream_copy         both ranges are of this device, registered host memory, or, with
 *                       XHAL_CAP_PAGEABLE_COPY, any host memory; bounds are checked.
 *   stream_fill         pattern, alignment and bounds are checked.
 *   stream_host_call    a call that the plugin refuses it does not call; libxhal does where it had
 *                       accepted the call and held it back.
 *   stream_wait         the timeline may belong to anything if XHAL_CAP_FOREIGN_TIMELINE, else to a
 *                       stream of this device; without XHAL_CAP_WAIT_BEFORE_SIGNAL its signal has
 *                       been submitted. It may have failed, also without either: then the stream
 *                       fails with DEPENDENCY and the origin as its cause, when it comes to the
 *                       wait or at once (and the call returns the failure).
 *   stream_signal       raise (or, if the stream has failed before, fail with DEPENDENCY and the
 *                       origin as its cause) the timeline; `timestamp` may be NULL. Its `pending`
 *                       is best read here, at the submission: before the work runs the ring may
 *                       come round and the slot be another event's. When several threads record on
 *                       one stream at once, a value may come behind a larger one: it then changes
 *                       nothing, but its timestamp is still written.
 *   stream_recover      as the export; from now on the stream's own timeline is `fresh`.
 *   context_scrub       (0.3) overwrites an allocation of the context and returns when it is done;
 *                       libxhal calls it before the memory is freed. An error keeps the memory.
 *   device_host_wait    (0.3) blocks until `timeline`, of a stream of this device, has reached
 *                       `value` or `timeout_ns` has passed (NOT_READY); never longer.
 *   op_destroy, module_destroy, graph_destroy   come when nothing that libxhal holds back names
 *                       the object any more.
 *   begin/end_capture, capture_record (*token names this point of this capture), capture_wait (the
 *   stream joins it). graph_destroy       as the export.
 */
typedef struct xhal_dispatch {
  uint32_t struct_size;
  uint32_t minor;
  void* host;
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second) \
  xhal_status(*name) params;
#define XHAL_SLOT_HOSTED(object, method, name, since, params, args) xhal_status(*name) params;
#include "xhal/slots.inc"
#undef XHAL_SLOT
#undef XHAL_SLOT_HOSTED
} xhal_dispatch;

/* What a plugin gets to open a device. */
typedef struct xhal_plugin_open {
  uint32_t struct_size;
  uint32_t ordinal;
  uint32_t flags; /* XHAL_OPEN_* */
  uint32_t reserved0;
  const xhal_dispatch* table; /* for host->object_alloc of everything under this device */
  uint64_t quota_bytes;
  /* since 0.3: of the default context, and the chain of xhal_device_open_info */
  const xhal_chain* next;
  uint32_t context_flags;
  int32_t priority_limit;
} xhal_plugin_open;

typedef struct xhal_plugin_table {
  uint32_t struct_size;
  uint32_t reserved0;
  const xhal_dispatch* slots; /* of all its devices; may have NULL holes */

  /* Lists the plugin's devices passively, with no thread, descriptor or driver left behind, also by
   * the first call. Only type, flags, numa_node, generation (0 = libxhal
   * counts), memory_bytes, capabilities, uuid, name, vendor and pci are the plugin's to fill, into
   * zeroed records. `capacity` 0 only counts. Called again for XHAL_ENUMERATE_REFRESH. */
  xhal_status (*enumerate)(xhal_device_info* devices, uint32_t capacity, uint32_t* count);
  /* Opens a device; with XHAL_OPEN_OBSERVE `context` is NULL. Also fills `info` with what
   * is now known. */
  xhal_status (*device_open)(const xhal_plugin_open* open, xhal_device_info* info,
                             xhal_device** device, xhal_context** context);
  /* The last xhal_shutdown: join every thread. Devices have been closed. May be NULL. */
  void (*shutdown)(void);
} xhal_plugin_table;

enum { XHAL_SANITIZER_NONE = 0, XHAL_SANITIZER_ADDRESS = 1, XHAL_SANITIZER_THREAD = 2 };

typedef struct xhal_negotiate_request {
  uint32_t struct_size;
  uint32_t abi_min, abi_max; /* the library's range, major << 16 | minor */
  uint32_t sanitizer;        /* what the library was built with */
  const xhal_host_services* host;
  xhal_string library_build;
} xhal_negotiate_request;

typedef struct xhal_negotiate_reply {
  uint32_t struct_size;      /* set by the library */
  uint32_t abi_min, abi_max; /* the plugin's range: always filled, also on XHAL_ERR_VERSION */
  uint32_t sanitizer;
  const xhal_plugin_table* table;
  char build[64]; /* the plugin's build id, zero-terminated */
} xhal_negotiate_reply;

/* The one exported symbol. Both sides pick the highest common minor of the highest common major;
 * without one, returns XHAL_ERR_VERSION with its range filled in. No side passes the other an
 * enumerator newer than that.
 * Thread: called once.   Blocks: no.   Since: 0.1 */
typedef xhal_status (*xhal_plugin_negotiate_fn)(const xhal_negotiate_request* request,
                                                xhal_negotiate_reply* reply);
XHAL_API xhal_status xhal_plugin_negotiate(const xhal_negotiate_request* request,
                                           xhal_negotiate_reply* reply);

XHAL_EXTERN_C_END
#endif
