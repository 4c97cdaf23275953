/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/memory.h: device, pinned and shared memory; addresses; moving whole slabs between processes.
 *
 * A device pointer is a raw 64-bit address, unique in the process across all devices; address +
 * offset is legal anywhere a device address is taken. Whether the host may touch it is a property
 * of the memory, never assumed. These calls are slow (they reach the driver): frameworks allocate
 * from a pool (pool.h).
 */
#ifndef XHAL_MEMORY_H
#define XHAL_MEMORY_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

enum {
  XHAL_MEMORY_DEVICE = 1, /* on the device */
  XHAL_MEMORY_HOST = 2,   /* host memory the devices reach without a bounce (pinned) */
  XHAL_MEMORY_SHARED = 3  /* one address, reachable by host and device */
};

/* Properties of memory, as asked for and as found. */
enum {
  XHAL_MEMORY_HOST_VISIBLE = 1u << 0,
  /* host and device see each other's writes at stream synchronisation */
  XHAL_MEMORY_COHERENT = 1u << 1,
  XHAL_MEMORY_CACHED = 1u << 2,
  XHAL_MEMORY_EXPORTABLE = 1u << 3,
  /* since 0.3: streams of other contexts may use it, too; libxhal's word, plugins do not see it */
  XHAL_MEMORY_ANY_CONTEXT = 1u << 4
};

typedef struct xhal_memory_info {
  uint32_t struct_size;
  uint32_t type; /* 0 */
  const xhal_chain* next;
  uint32_t kind;
  uint32_t flags;           /* properties that are required; more may be given */
  uint64_t size_bytes;      /* > 0 */
  uint64_t alignment_bytes; /* power of two; 0 = the device's default */
} xhal_memory_info;

/* Allocates device or shared memory. Its content is undefined.
 * Errors: INVALID_ARGUMENT (size 0, alignment not a power of two), UNKNOWN_FIELD (flags),
 * UNSUPPORTED (kind or property), OUT_OF_MEMORY, LIMIT (the context's quota, which counts
 * size_bytes). Thread: any.   Blocks: driver call.   Lifetime: until
 * freed or its context destroyed. Since: 0.1 */
XHAL_API xhal_status xhal_memory_alloc(xhal_context* context, const xhal_memory_info* info,
                                       uint64_t* address);

/* Frees an allocation by its first address. The caller guarantees that no submitted work uses it.
 * Errors: INVALID_ARGUMENT when `address` is not the start of an allocation of this context, BUSY
 * when it is a pool's slab; what scrubbing returned (nothing is freed).
 * Thread: any.   Blocks: driver call.   Since: 0.1 */
XHAL_API xhal_status xhal_memory_free(xhal_context* context, uint64_t address);

/* Pinned host memory, allocated by libxhal and registered with each device that first uses it; a
 * device that refuses the registration is served through a bounce buffer. Small blocks share a
 * descriptor. `address` is a host pointer, aligned to 64 bytes. No slot.
 * Thread: any.   Blocks: may.   Lifetime: until freed; not tied to a device.   Since: 0.1 */
XHAL_API xhal_status xhal_host_alloc(uint64_t size_bytes, void** address);
XHAL_API xhal_status xhal_host_free(void* address);

/* Makes existing host memory known to one device, so that it reaches it without a bounce.
 * `device_address` is where the device sees it; on most devices the same number. Errors:
 * UNSUPPORTED, INVALID_ARGUMENT (NULL, zero size, registered twice).
 * Thread: any.   Blocks: driver call.   Lifetime: until unregistered; the caller keeps the memory
 * mapped.   Since: 0.1 */
XHAL_API xhal_status xhal_host_register(xhal_context* context, void* host, uint64_t size_bytes,
                                        uint64_t* device_address);
XHAL_API xhal_status xhal_host_unregister(xhal_context* context, void* host);

/* What an address is. Frozen. */
typedef struct xhal_pointer_info {
  uint32_t kind;  /* XHAL_MEMORY_*; 0 = not known to xHAL: ordinary host memory or nothing */
  uint32_t flags; /* properties */
  uint64_t base;  /* start of the allocation or registered range it lies in */
  uint64_t size_bytes;
  xhal_device* device;   /* NULL for host memory */
  xhal_context* context; /* NULL for host memory and imported slabs of libxhal */
  xhal_pool* pool;       /* the pool the range belongs to; NULL = none */
  /* since 0.3: of the allocation (a pool's slab counts as one); never used again in this process,
   * so that a cache keyed by it cannot mistake a new allocation at an old address. 0 = unknown */
  uint64_t allocation_id;
} xhal_pointer_info;

/* Finds the allocation an address lies in, by libxhal's own map; no slot, no driver. XHAL_OK with
 * kind 0 when unknown.
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_pointer_query(uint64_t address, xhal_pointer_info* info);

enum { XHAL_EXTERNAL_FD = 1, XHAL_EXTERNAL_DMABUF = 2, XHAL_EXTERNAL_IPC = 3 };

/* A slab on its way to another process. `fd` is owned by whoever holds the structure and closed by
 * it. For XHAL_EXTERNAL_IPC `blob` carries everything and `fd` is -1; a vendor that needs more than
 * 64 bytes gives a sealed memfd with the rest. Frozen. */
typedef struct xhal_external {
  uint32_t handle_type;
  int32_t fd;
  uint64_t size_bytes;
  uint64_t offset_bytes; /* of the exported address inside the slab */
  uint8_t blob[64];
} xhal_external;

/* Exports the whole slab `address` lies in (allocated with XHAL_MEMORY_EXPORTABLE). The slab stays
 * until every importer has freed it. Errors: UNSUPPORTED (handle type), INVALID_ARGUMENT (not
 * exportable).
 * Thread: any.   Blocks: may.   Since: 0.1 */
XHAL_API xhal_status xhal_memory_export(xhal_context* context, uint64_t address,
                                        uint32_t handle_type, xhal_external* external);

/* Maps an exported slab; `address` is where it begins here. Freed with xhal_memory_free. The fd
 * stays the caller's.
 * Thread: any.   Blocks: may.   Since: 0.1 */
XHAL_API xhal_status xhal_memory_import(xhal_context* context, const xhal_external* external,
                                        uint64_t* address);

enum { XHAL_PROTECT_NONE = 0, XHAL_PROTECT_READ = 1, XHAL_PROTECT_READ_WRITE = 3 };

/* Address space without memory, and memory put into it in pieces (optional:
 * XHAL_CAP_VIRTUAL_MEMORY). Sizes and addresses are multiples of
 * XHAL_LIMIT_VIRTUAL_GRANULARITY_BYTES, else INVALID_ARGUMENT and nothing changes. `release` needs
 * an empty range. Mapped pieces are read-write until protected.
 * Thread: any for different ranges.   Blocks: driver call.   Since: 0.1 */
XHAL_API xhal_status xhal_virtual_reserve(xhal_context* context, uint64_t size_bytes,
                                          uint64_t* address);
XHAL_API xhal_status xhal_virtual_release(xhal_context* context, uint64_t address);
XHAL_API xhal_status xhal_virtual_map(xhal_context* context, uint64_t address, uint64_t size_bytes);
XHAL_API xhal_status xhal_virtual_unmap(xhal_context* context, uint64_t address,
                                        uint64_t size_bytes);
XHAL_API xhal_status xhal_virtual_protect(xhal_context* context, uint64_t address,
                                          uint64_t size_bytes, uint32_t protection);

XHAL_EXTERN_C_END
#endif
