/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/status.h: what a call can return, and the record that explains a failure.
 *
 * A status is an int32: 0 is success, positive values are answers that are not failures
 * (XHAL_NOT_READY), negative values are errors. The thread that got an error reads its record with
 * xhal_last_error: plugin, device, stream, operation, the vendor's own code, a text a person can
 * act on, and the error that caused it, if another one did.
 */
#ifndef XHAL_STATUS_H
#define XHAL_STATUS_H

#include "xhal/base.h"

XHAL_EXTERN_C_BEGIN

typedef int32_t xhal_status;

/* X(name, value, text). Append only. Values are frozen. */
#define XHAL_STATUS_LIST(X)                                                         \
  X(OK, 0, "success")                                                               \
  X(NOT_READY, 1, "the value has not been reached yet")                             \
  X(ERR_INVALID_ARGUMENT, -1, "invalid argument")                                   \
  X(ERR_INVALID_HANDLE, -2, "not a live object of the expected kind")               \
  X(ERR_FOREIGN_HANDLE, -3, "the object belongs to another plugin")                 \
  X(ERR_STRUCT_SIZE, -4, "structure smaller than its first released size")          \
  X(ERR_UNKNOWN_FIELD, -5, "a field newer than this library or plugin is not zero") \
  X(ERR_UNKNOWN_STRUCT, -6, "unknown structure in a next chain")                    \
  X(ERR_UNSUPPORTED, -7, "not supported")                                           \
  X(ERR_OUT_OF_MEMORY, -8, "out of memory")                                         \
  X(ERR_TIMEOUT, -9, "timed out")                                                   \
  X(ERR_DEVICE, -10, "an operation failed on the device")                           \
  X(ERR_DEVICE_LOST, -11, "device lost")                                            \
  X(ERR_DEPENDENCY, -12, "not run because work it depends on failed")               \
  X(ERR_ABANDONED, -13, "the timeline was destroyed below the awaited value")       \
  X(ERR_PEER_LOST, -14, "the process that signals this timeline is gone")           \
  X(ERR_EXPIRED, -15, "overwritten, no longer available")                           \
  X(ERR_SHUTDOWN, -16, "xHAL has been shut down")                                   \
  X(ERR_FORKED, -17, "not usable in a forked child")                                \
  X(ERR_NOT_INITIALIZED, -18, "xhal_init has not been called")                      \
  X(ERR_NOT_FOUND, -19, "not found")                                                \
  X(ERR_BUSY, -20, "in use")                                                        \
  X(ERR_ADDRESS_CONFLICT, -21, "address range overlaps another device's")           \
  X(ERR_VERSION, -22, "no common ABI version")                                      \
  X(ERR_INSECURE, -23, "refused: file or directory is not trustworthy")             \
  X(ERR_CORRUPT, -24, "file is damaged or not what it claims to be")                \
  X(ERR_PLUGIN, -25, "the plugin misbehaved")                                       \
  X(ERR_CAPTURE, -26, "not legal while the stream is being captured")               \
  X(ERR_OVERLAP, -27, "operands overlap in a way the operator does not allow")      \
  X(ERR_LIMIT, -28, "a limit or quota was exceeded")                                \
  X(ERR_PERMISSION, -29, "permission denied")                                       \
  X(ERR_IO, -30, "input/output error")                                              \
  X(ERR_INTERNAL, -31, "internal error: please report it")

enum {
#define XHAL_STATUS_ENUM(name, value, text) XHAL_##name = value,
  XHAL_STATUS_LIST(XHAL_STATUS_ENUM)
#undef XHAL_STATUS_ENUM
};

/* What a failure has taken with it. */
enum {
  XHAL_SCOPE_CALL = 0,      /* only this call; nothing changed */
  XHAL_SCOPE_OPERATION = 1, /* one submitted operation and the work after it on its stream */
  XHAL_SCOPE_CONTEXT = 2,   /* every stream of the context */
  /* the device: handles of this generation stay lost, open it again after a reset */
  XHAL_SCOPE_DEVICE = 3
};

/* The record of a failure. Strings live in the thread that asked, until its next failing xHAL call.
 */
typedef struct xhal_error {
  uint32_t struct_size;
  xhal_status status;
  uint32_t scope;
  int32_t vendor_code;    /* the plugin's own number; 0 when it has none */
  xhal_string plugin;     /* "npu"; empty when libxhal itself failed the call */
  xhal_string device;     /* "npu:1"; empty when no device was involved */
  uint64_t context;       /* small number, unique in the process; 0 = none */
  uint64_t stream;        /* small number, unique in the process; 0 = none */
  xhal_string operation;  /* "gemm", "xhal_pool_alloc", ... */
  xhal_string text;       /* what, where, why, what to do next; may have several lines */
  xhal_status cause;      /* the status that caused this one; XHAL_OK when this is the origin */
  uint32_t operand;       /* 1 + index of the operand or attribute an operator refused; 0 = none */
  xhal_string cause_text; /* text of the cause */
  /* since 0.2: the name the stream was created with; empty = none */
  xhal_string stream_name;
} xhal_error;

/* Copies the record of the last failing xHAL call of this thread into `error`.
 *
 * Returns XHAL_OK, or XHAL_ERR_NOT_FOUND when no call of this thread has failed. Does not itself
 * change the record.
 * Thread: any.   Blocks: no.   Lifetime: strings until the thread's next failing call.   Since: 0.1
 */
XHAL_API xhal_status xhal_last_error(xhal_error* error);

/* The name of a status ("XHAL_ERR_DEVICE_LOST") and its one-line meaning; "XHAL_?" for an unknown
 * one. Static strings.
 * Thread: any.   Blocks: no.   Lifetime: for ever.   Errors: none.   Since: 0.1
 */
XHAL_API const char* xhal_status_name(xhal_status status);
XHAL_API const char* xhal_status_text(xhal_status status);

XHAL_EXTERN_C_END
#endif
