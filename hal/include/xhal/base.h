/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/base.h: the words every other header uses: export marks, versions,
 * strings, handles, structures.
 *
 * Rules of this ABI, stated once:
 *  - Every function returns an xhal_status (status.h); results go through pointers and are written
 *    only on XHAL_OK.
 *  - No pointer may be NULL, except an array without elements, the `user` of a callback, and what a
 *    header says: it is XHAL_ERR_INVALID_ARGUMENT, for handles XHAL_ERR_INVALID_HANDLE.
 *  - Fixed-width scalars only. Sizes are in bytes, times in nanoseconds, unless the name says
 *    otherwise.
 *  - Input structures begin with `uint32_t struct_size` = sizeof the structure the caller was
 *    compiled with. A smaller one than the first released size, or one of more than 4096 bytes, is
 *    XHAL_ERR_STRUCT_SIZE; a larger one is accepted if all bytes unknown to the callee are zero,
 *    else XHAL_ERR_UNKNOWN_FIELD. Zero in a field added later always means the behaviour before it
 *    existed.
 *  - Output structures carry the caller's `struct_size` too, within the same bounds: the callee
 *    writes at most that much and zeroes the rest.
 *  - Unknown bits of a `flags` field are XHAL_ERR_UNKNOWN_FIELD: a flag that protects is never
 *    silently ignored.
 *  - Structures used in arrays (xhal_device_info, xhal_tensor_desc, xhal_event, ...) are frozen for
 *    the major version.
 *  - Strings are {pointer, length}, need no terminating zero, and are borrowed for the call unless
 *    stated otherwise.
 *  - Nothing allocated on one side of the boundary is freed on the other.
 *  - No exception, abort or exit crosses a function of this ABI, in either direction.
 */
#ifndef XHAL_BASE_H
#define XHAL_BASE_H

#include <stdint.h>

#define XHAL_VERSION_MAJOR 0u
#define XHAL_VERSION_MINOR 3u

#if defined(__GNUC__)
#define XHAL_API __attribute__((visibility("default")))
#else
#define XHAL_API
#endif

#ifdef __cplusplus
#define XHAL_EXTERN_C_BEGIN extern "C" {
#define XHAL_EXTERN_C_END }
#else
#define XHAL_EXTERN_C_BEGIN
#define XHAL_EXTERN_C_END
#endif

XHAL_EXTERN_C_BEGIN

/* A timeout that never expires. The wait still ends at shutdown, on device loss and when the
 * signaller is gone. */
#define XHAL_FOREVER UINT64_MAX

/* A borrowed string. `data` may be NULL when `size` is 0. */
typedef struct xhal_string {
  const char* data;
  uint64_t size;
} xhal_string;

/* Objects. Handles are pointers to memory that libxhal never unmaps, so that a stale one can be
 * told from a live one. */
typedef struct xhal_device xhal_device;
typedef struct xhal_context xhal_context;
typedef struct xhal_stream xhal_stream;
typedef struct xhal_timeline xhal_timeline;
typedef struct xhal_op xhal_op;
typedef struct xhal_module xhal_module;
typedef struct xhal_kernel xhal_kernel;
typedef struct xhal_graph xhal_graph;
typedef struct xhal_comm xhal_comm;
typedef struct xhal_pool xhal_pool;

/* The kind of an object, as stored in its head. Values are arbitrary bit patterns so that random
 * memory rarely matches. */
enum {
  /* destroyed; the memory may be used again for an object of the same kind */
  XHAL_KIND_DEAD = 0x0DEADDEAu,
  XHAL_KIND_DEVICE = 0x58480001u,
  XHAL_KIND_CONTEXT = 0x58480002u,
  XHAL_KIND_STREAM = 0x58480003u,
  XHAL_KIND_TIMELINE = 0x58480004u,
  XHAL_KIND_OP = 0x58480005u,
  XHAL_KIND_MODULE = 0x58480006u,
  XHAL_KIND_KERNEL = 0x58480007u,
  XHAL_KIND_GRAPH = 0x58480008u,
  XHAL_KIND_COMM = 0x58480009u,
  XHAL_KIND_POOL = 0x5848000Au
};

/* A structure in a `next` chain begins like this. libxhal passes chains on to the plugin; whoever
 * reads a structure last (the plugin, or libxhal for what has no slot) refuses a `type` it does
 * not know with XHAL_ERR_UNKNOWN_STRUCT unless XHAL_STRUCT_IGNORABLE is set in it. A chain of more
 * than 64 is a circle and XHAL_ERR_UNKNOWN_STRUCT, too. No chained structure of xHAL's own is
 * defined in this version. */
typedef struct xhal_chain {
  uint32_t struct_size;
  uint32_t type;
  const struct xhal_chain* next;
} xhal_chain;

#define XHAL_STRUCT_IGNORABLE 0x80000000u
/* The types of a vendor's own structures: by its PCI vendor id (16 bits), 4096 each. Types below
 * 0x40000000 are xHAL's. Since: 0.3 */
#define XHAL_STRUCT_VENDOR(pci_vendor_id, number) \
  (0x40000000u | (uint32_t)(pci_vendor_id) << 12 | ((uint32_t)(number)&0xfffu))

/* Number formats, DLPack's codes (dlpack.h, DLDataTypeCode); width and lanes are separate. */
enum {
  XHAL_CODE_INT = 0,
  XHAL_CODE_UINT = 1,
  XHAL_CODE_FLOAT = 2,
  XHAL_CODE_BFLOAT = 4,
  XHAL_CODE_COMPLEX = 5,
  XHAL_CODE_BOOL = 6,
  XHAL_CODE_FLOAT8_E4M3FN = 10,
  XHAL_CODE_FLOAT8_E5M2 = 12
};

/* Device types, DLPack's numbers (DLDeviceType). */
enum {
  XHAL_DEVICE_CPU = 1,
  XHAL_DEVICE_CUDA_HOST = 3,
  XHAL_DEVICE_EXTENSION = 12,
  XHAL_DEVICE_ONEAPI = 14
};

XHAL_EXTERN_C_END
#endif
