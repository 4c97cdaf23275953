/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/module.h: the vendor's own kernels: the second door to compute.
 *
 * A module is bytes in a format the plugin's documentation names; a kernel is an entry of it.
 * Kernels hold no argument state: every launch brings all arguments.
 */
#ifndef XHAL_MODULE_H
#define XHAL_MODULE_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

typedef struct xhal_module_info {
  uint32_t struct_size;
  uint32_t type; /* 0 */
  const xhal_chain* next;
  xhal_string format; /* "elf-so" (cpu), "spirv" (gpu), "xbin" (npu) */
  xhal_string name;   /* unique in the context; used in errors and traces */
  xhal_string options;
  const void* bytes;
  uint64_t size_bytes;
} xhal_module_info;

/* Loads a module. Errors: UNSUPPORTED (format), CORRUPT, BUSY (name taken); a compiler's log is in
 * the error text.
 * Thread: any.   Blocks: may compile.   Lifetime: until destroyed; the bytes for the call.   Since:
 * 0.1 */
XHAL_API xhal_status xhal_module_load(xhal_context* context, const xhal_module_info* info,
                                      xhal_module** module);
/* Destroys a module and its kernels; submitted work still runs. Thread: external sync. Blocks:
 * no. Since: 0.1 */
XHAL_API xhal_status xhal_module_destroy(xhal_module* module);

enum { XHAL_MODULE_LOG = 1, XHAL_MODULE_BINARY = 2 };
/* Reads the build log or the native binary: up to `capacity` bytes, the whole size in
 * `*size_bytes`.
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_module_query(xhal_module* module, uint32_t what, void* data,
                                       uint64_t capacity, uint64_t* size_bytes);

/* Finds an entry. Errors: NOT_FOUND (the text lists the entries). Lifetime: that of the module.
 * Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_module_kernel(xhal_module* module, xhal_string name,
                                        xhal_kernel** kernel);

/* Resource figures of a kernel; a figure the plugin does not know is zero. */
typedef struct xhal_kernel_properties {
  uint32_t struct_size;
  uint32_t argument_count; /* UINT32_MAX = unknown */
  uint64_t code_bytes, local_bytes, spill_bytes;
  uint32_t registers, max_group_size;
  /* since 0.3: a good group size (0 = no opinion), and the kernel's number in activity records */
  uint32_t suggested_group_size, reserved0;
  uint64_t number;
} xhal_kernel_properties;
/* Thread: any.   Blocks: no.   Errors: STRUCT_SIZE, UNSUPPORTED.   Since: 0.1 */
XHAL_API xhal_status xhal_kernel_query(xhal_kernel* kernel, xhal_kernel_properties* properties);

enum { XHAL_ARG_ADDRESS = 1, XHAL_ARG_VALUE = 2, XHAL_ARG_LOCAL = 3 };
/* One argument: a device address, a value (`size_bytes` at `pointer` when > 8, else in `bits`), or
 * local memory of `size_bytes`. Frozen. */
typedef struct xhal_kernel_arg {
  uint32_t kind;
  uint32_t size_bytes;
  union {
    uint64_t bits;
    const void* pointer;
  } value;
} xhal_kernel_arg;

typedef struct xhal_grid {
  uint32_t struct_size;
  uint32_t reserved0;
  uint32_t groups[3];
  uint32_t group_size[3];
} xhal_grid;

/* Submits one run of `kernel`. Thread: any.   Blocks: no.   Lifetime: arrays and values for the
 * call.   Since: 0.1 */
XHAL_API xhal_status xhal_kernel_launch(xhal_stream* stream, xhal_kernel* kernel,
                                        const xhal_grid* grid, const xhal_kernel_arg* args,
                                        uint32_t arg_count);

XHAL_EXTERN_C_END
#endif
