/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/device.h: finding devices, opening them, asking about them.
 *
 * Enumeration is passive: it reads manifests, sysfs and hwloc's PCI list, calls no driver and
 * leaves no thread or descriptor behind. A record that could only be confirmed by opening the
 * device carries XHAL_DEVICE_UNVERIFIED. XHAL_VISIBLE_DEVICES (`npu:0,1`, `cpu`, UUIDs) selects and
 * orders what is seen; index = position in that list.
 *
 * A device has a generation. After loss or reset, handles of the old generation return
 * XHAL_ERR_DEVICE_LOST for ever; work goes on with a new xhal_device_open.
 */
#ifndef XHAL_DEVICE_H
#define XHAL_DEVICE_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

enum {
  /* the record is what the manifest promises; only an open will tell */
  XHAL_DEVICE_UNVERIFIED = 1u << 0,
  /* software stands in for the hardware; telemetry may be modelled */
  XHAL_DEVICE_EMULATED = 1u << 1,
  XHAL_DEVICE_DEGRADED = 1u << 2,
  XHAL_DEVICE_GONE = 1u << 3
};

/* What a device can do, bit numbers into xhal_device_info.capabilities. An unclaimed feature fails
 * before side effects. */
enum {
  XHAL_CAP_HOST_VISIBLE = 0,  /* the host may read and write device memory at its address */
  XHAL_CAP_PAGEABLE_COPY = 1, /* xhal_stream_copy takes unregistered host memory directly */
  /* a stream may be given a wait whose signal is not submitted yet */
  XHAL_CAP_WAIT_BEFORE_SIGNAL = 2,
  /* streams can wait for timelines of other devices and the host themselves */
  XHAL_CAP_FOREIGN_TIMELINE = 3,
  XHAL_CAP_GRAPH = 4,
  XHAL_CAP_MODULE = 5,
  XHAL_CAP_VIRTUAL_MEMORY = 6,
  XHAL_CAP_EXPORT_FD = 7,
  XHAL_CAP_EXPORT_DMABUF = 8,
  XHAL_CAP_HOST_REGISTER = 9,
  XHAL_CAP_COMM = 10,
  XHAL_CAP_ACTIVITY = 11,
  XHAL_CAP_CONTROL = 12,
  XHAL_CAP_TIMESTAMP = 13,
  /* since 0.3: a stream copies directly between this device and peers
   * that xhal_device_peer_query allows */
  XHAL_CAP_PEER_COPY = 14,
  XHAL_CAP_SCRUB = 15,     /* since 0.3: XHAL_CONTEXT_SCRUB */
  XHAL_CAP_HOST_WAIT = 16, /* since 0.3: raises cells without waking; slot device_host_wait */
  XHAL_CAP_ABORT = 17      /* since 0.3: xhal_stream_abort */
};

/* One device, as enumerated. Frozen for the major; used in arrays. Texts are zero-terminated UTF-8.
 */
typedef struct xhal_device_info {
  uint32_t index;      /* position in the visible list: what xhal_device_open takes */
  uint32_t ordinal;    /* position among the plugin's devices: "npu:1" is ordinal 1 */
  uint32_t type;       /* XHAL_DEVICE_*, DLPack's numbers */
  uint32_t flags;      /* XHAL_DEVICE_UNVERIFIED, ... */
  int32_t numa_node;   /* -1 = unknown */
  uint32_t generation; /* grows when the device is reset or found again, in any process if the
                          plugin can tell */
  int32_t priority; /* of its plugin's manifest; frameworks take the devices of the highest only */
  uint32_t reserved0;
  uint64_t memory_bytes; /* 0 = unknown until opened */
  uint64_t capabilities[4];
  uint8_t uuid[16]; /* stable across reboots where the hardware allows; all zero = none */
  char id[32];      /* "npu:1" */
  char plugin[32];  /* "npu" */
  char name[64];    /* "Starfire emulated" */
  char vendor[64];
  char pci[16]; /* "0000:3b:00.0"; empty = not a PCI device */
  uint64_t reserved[4];
} xhal_device_info;

enum {
  /* ignore XHAL_VISIBLE_DEVICES; such records have index UINT32_MAX if hidden */
  XHAL_ENUMERATE_ALL = 1u << 0,
  /* since 0.3: asks the loaded plugins again (hot plug). Known devices keep their ids, one that is
   * gone keeps its record with XHAL_DEVICE_GONE, new ones are appended. */
  XHAL_ENUMERATE_REFRESH = 1u << 1
};

/* Lists the visible devices, in order.
 *
 * Writes up to `capacity` records and the total to `*count`; `devices` may be NULL when `capacity`
 * is 0.
 * Returns XHAL_OK, XHAL_ERR_NOT_INITIALIZED, XHAL_ERR_NOT_FOUND when XHAL_VISIBLE_DEVICES names a
 * device that is not there (the text lists what is).
 * Thread: any.   Blocks: file reads.   Since: 0.1
 */
XHAL_API xhal_status xhal_enumerate(uint32_t flags, xhal_device_info* devices, uint32_t capacity,
                                    uint32_t* count);

enum {
  XHAL_PLUGIN_LOADED = 0, /* negotiated and ready */
  /* manifest read; the library is loaded by the first open or enumeration that needs it */
  XHAL_PLUGIN_DEFERRED = 1,
  XHAL_PLUGIN_SKIPPED = 2, /* `status` and `text` tell why */
  XHAL_PLUGIN_DISABLED = 3 /* by XHAL_PLUGIN_SELECT or XHAL_PLUGIN_DISABLE */
};

/* One manifest found on the search path and what became of it. Frozen; strings live until
 * the last xhal_shutdown. */
typedef struct xhal_plugin_info {
  uint32_t state;
  xhal_status status;        /* why it was skipped */
  uint32_t abi_min, abi_max; /* the plugin's range, major << 16 | minor; 0 = unknown */
  uint32_t abi_used;         /* 0 until negotiated */
  int32_t priority;
  uint32_t device_count;
  uint32_t reserved0;
  xhal_string name, vendor, manifest_path, library_path, build_id, text;
  uint64_t reserved[2];
} xhal_plugin_info;

/* Lists every manifest found, good or bad, in search order; as xhal_enumerate. Loads the plugins
 * that are not excluded.
 * Thread: any.   Blocks: file reads, library loading.   Lifetime: strings until the last
 * xhal_shutdown.   Since: 0.1 */
XHAL_API xhal_status xhal_plugin_report(xhal_plugin_info* plugins, uint32_t capacity,
                                        uint32_t* count);

enum {
  /* identity, topology and telemetry only; creates nothing, disturbs no running job */
  XHAL_OPEN_OBSERVE = 1u << 0,
  /* also allow xhal_device_control_table: power cap, reset, fault injection */
  XHAL_OPEN_CONTROL = 1u << 1
};

typedef struct xhal_device_open_info {
  uint32_t struct_size;
  uint32_t type; /* 0 */
  const xhal_chain* next;
  uint32_t index; /* xhal_device_info.index */
  uint32_t flags;
  uint64_t quota_bytes; /* most device memory the default context may hold; 0 = no limit */
  /* since 0.3: of the default context, as in xhal_context_info. A launcher sets XHAL_CONTEXT_SCRUB
   * for an unchanged program with the variable XHAL_CONTEXT=scrub. */
  uint32_t context_flags;
  int32_t priority_limit;
  /* since 0.3: timed events whose times are kept; a power of two up to 2^20; 0 = 4096 */
  uint32_t timestamp_ring;
  uint32_t reserved0; /* 0 */
} xhal_device_open_info;

/* Opens a device and gives its default context. Opening the same device again with the same
 * flags gives the same handles, counted; then quota, context flags and limits are those of
 * the first open.
 *
 * With XHAL_OPEN_OBSERVE `*context` is NULL (and `context` may be NULL).
 * Returns XHAL_OK, XHAL_ERR_NOT_FOUND (no such index), XHAL_ERR_ADDRESS_CONFLICT (its address range
 * overlaps another device's; it stays closed), XHAL_ERR_DEVICE_LOST, XHAL_ERR_FORKED, or the
 * plugin's own error.
 * Thread: any.   Blocks: driver start.   Lifetime: until closed as often as opened.   Since: 0.1
 */
XHAL_API xhal_status xhal_device_open(const xhal_device_open_info* info, xhal_device** device,
                                      xhal_context** context);

/* Gives one open back; the last one destroys the default context and everything created under it.
 * Thread: external sync with every use of the device.   Blocks: as xhal_stream_destroy for each of
 * its streams; a lost device's are dropped.   Since: 0.1 */
XHAL_API xhal_status xhal_device_close(xhal_device* device);

/* The enumeration record of an open device, now verified. Thread: any. Blocks: no. Since: 0.1 */
XHAL_API xhal_status xhal_device_query(xhal_device* device, xhal_device_info* info);

/* Limits by key, not by structure, so that new ones need no new layout. */
enum {
  XHAL_LIMIT_MEMORY_TOTAL_BYTES = 1,
  XHAL_LIMIT_MEMORY_FREE_BYTES = 2,
  XHAL_LIMIT_ALLOCATION_ALIGNMENT_BYTES = 3,
  XHAL_LIMIT_COMPUTE_UNITS = 4,
  XHAL_LIMIT_STREAM_PRIORITIES = 5, /* 1 = no priorities */
  XHAL_LIMIT_STREAMS = 6,           /* 0 = no limit but memory */
  XHAL_LIMIT_VIRTUAL_GRANULARITY_BYTES = 7,
  XHAL_LIMIT_TIMESTAMP_RING = 8,
  XHAL_LIMIT_CLOCK_HZ = 9
};

/* Reads one limit. XHAL_ERR_UNSUPPORTED for a key this device does not know. Thread: any. Blocks:
 * no. Since: 0.1 */
XHAL_API xhal_status xhal_device_limit(xhal_device* device, uint32_t key, uint64_t* value);

/* A pair of readings of the device's clock and CLOCK_MONOTONIC, taken together, for converting
 * timestamps.
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_device_clock(xhal_device* device, uint64_t* device_ns, uint64_t* host_ns);

/* What work of `device` may do with memory of `peer`, a device of the same plugin. */
enum {
  XHAL_PEER_COPY = 1u << 0,  /* xhal_stream_copy goes directly */
  XHAL_PEER_ACCESS = 1u << 1 /* operators and kernels may be given its addresses */
};

/* Tells what is possible between two devices, and makes it so. xhal_stream_copy enables by itself
 * what it needs; enable is for XHAL_PEER_ACCESS. Enabling twice is legal.
 * Errors: FOREIGN_HANDLE (another plugin), UNSUPPORTED (without XHAL_CAP_PEER_COPY).
 * Thread: any.   Blocks: may call the driver.   Lifetime: until one of the two is closed.   Since:
 * 0.3 */
XHAL_API xhal_status xhal_device_peer_query(xhal_device* device, xhal_device* peer,
                                            uint32_t* access);
XHAL_API xhal_status xhal_device_peer_enable(xhal_device* device, xhal_device* peer);

/* The plugin's own table for collectives (comm.h), or XHAL_ERR_UNSUPPORTED. It is libxhal's copy:
 * no member is NULL (what the plugin lacks answers UNSUPPORTED), and its functions answer FORKED,
 * SHUTDOWN and DEVICE_LOST as every other call does.
 * Thread: any.   Blocks: no.   Lifetime: for ever.   Since: 0.1 */
struct xhal_comm_table;
XHAL_API xhal_status xhal_device_comm_table(xhal_device* device,
                                            const struct xhal_comm_table** table);

XHAL_EXTERN_C_END
#endif
