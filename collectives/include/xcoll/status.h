/* SPDX-License-Identifier: Apache-2.0 */
/* xcoll/status.h: what a call of libxcoll returns, and where its text is.
 *
 * Every call returns an xcoll_status. When it is not XCOLL_OK, xcoll_last_error() gives the text of
 * the last failure in the calling thread: what failed, where, why, and what to do next.
 *
 * Two families. Refusals (INVALID_ARGUMENT, UNSUPPORTED, OUT_OF_MEMORY, ...) leave the communicator
 * as it was: the call did not take place. Those marked "sticky" are the communicator's:
 * it stays broken with that first error on every rank, each later call returns it at once, and
 * only xcoll_comm_destroy is left to do. xcoll_comm_failure() tells who is to blame.
 */
#ifndef XCOLL_STATUS_H_
#define XCOLL_STATUS_H_

#include <stdint.h>

#if defined(XCOLL_BUILD)
#define XCOLL_API __attribute__((visibility("default")))
#else
#define XCOLL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t xcoll_status;

/* X(name, value, meaning). Append only. A number that xHAL has too means the same there. */
#define XCOLL_STATUS_LIST(X)                                                   \
  X(OK, 0, "success")                                                          \
  X(NOT_READY, 1, "the request is not complete yet")                           \
  X(ERR_INVALID_ARGUMENT, -1, "invalid argument")                              \
  X(ERR_STRUCT_SIZE, -4, "structure smaller than its first released size")     \
  X(ERR_UNKNOWN_FIELD, -5, "a field newer than this library is not zero")      \
  X(ERR_UNSUPPORTED, -7, "not supported")                                      \
  X(ERR_OUT_OF_MEMORY, -8, "out of memory")                                    \
  X(ERR_TIMEOUT, -9, "sticky: a rank did not do its part before the deadline") \
  X(ERR_DEVICE, -10, "sticky: a stream or device failed under an operation")   \
  X(ERR_RANK_FAILED, -14, "sticky: a rank died, left or cannot go on")         \
  X(ERR_FORKED, -17, "the communicator belongs to the parent process")         \
  X(ERR_SYSTEM, -30, "a system call failed")                                   \
  X(ERR_INTERNAL, -31, "internal error: please report it")                     \
  X(ERR_MISMATCH, -101, "sticky: ranks called different operations")           \
  X(ERR_ABORTED, -102, "sticky: a rank aborted the communicator")

enum {
#define XCOLL_STATUS_ENUM(name, value, meaning) XCOLL_##name = value,
  XCOLL_STATUS_LIST(XCOLL_STATUS_ENUM)
#undef XCOLL_STATUS_ENUM
};

/* The name of a status ("XCOLL_ERR_TIMEOUT") and its meaning; "XCOLL_?" for an unknown one.
 * Thread: any. Blocks: no. Lifetime: static. Since: 0.1 */
XCOLL_API const char* xcoll_status_name(xcoll_status status);
XCOLL_API const char* xcoll_status_text(xcoll_status status);

/* The text of the last call that failed in this thread; "" when none did.
 * Thread: any. Blocks: no. Lifetime: until the next failure in this thread. Since: 0.1 */
XCOLL_API const char* xcoll_last_error(void);

#ifdef __cplusplus
}
#endif

#endif /* XCOLL_STATUS_H_ */
