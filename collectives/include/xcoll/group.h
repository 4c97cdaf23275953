/* SPDX-License-Identifier: Apache-2.0 */
/* xcoll/group.h: several operations as one, and operations that complete later.
 *
 * A group is an array of operations that is submitted at once and completes as a whole. Its sends
 * and receives make progress together, whatever their order in the array, so "receive, then send"
 * on both sides does not deadlock; its collectives run in the order of the array. There is no
 * thread-local group state: the group is an object, and an error or an exception between begin and
 * end concerns nobody else.
 *
 * A request is the completion of a submission. It is how host memory is communicated without a
 * stream and without blocking the caller.
 *
 * For the author of a framework's process group:
 *   - device tensors: pass the stream; no request is needed, the order is the stream's.
 *   - host tensors: xcoll_submit with stream NULL and a request; wait where the framework waits.
 *   - coalescing: xcoll_group_begin, xcoll_group_add for each call, xcoll_group_end. After an
 *     exception in between: xcoll_group_discard, and nothing was communicated.
 *   - lists of unequal tensors (all_gather of a list): a group of one broadcast for each rank.
 *   - a watchdog thread may call xcoll_comm_async_error, xcoll_comm_failure, xcoll_comm_dump and
 *     xcoll_comm_abort at any time; it needs no deadline of its own.
 *   - destroy a communicator when its requests and streams are done with it, or abort it first.
 */
#ifndef XCOLL_GROUP_H_
#define XCOLL_GROUP_H_

#include <stdint.h>

#include "xcoll/collective.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t xcoll_kind;
enum {
  XCOLL_ALL_REDUCE = 0,
  XCOLL_BROADCAST = 1,
  XCOLL_REDUCE = 2,
  XCOLL_ALL_GATHER = 3,
  XCOLL_ALL_GATHER_V = 4,
  XCOLL_REDUCE_SCATTER = 5,
  XCOLL_REDUCE_SCATTER_V = 6,
  XCOLL_GATHER = 7,
  XCOLL_SCATTER = 8,
  XCOLL_ALL_TO_ALL = 9,
  XCOLL_ALL_TO_ALL_V = 10,
  XCOLL_BARRIER = 11,
  XCOLL_SEND = 12,
  XCOLL_RECV = 13
};

/* One operation, with the meaning of the function of the same name. Fill it with zeros first;
 * fields that a kind does not have are ignored. */
typedef struct xcoll_op {
  uint32_t struct_size; /* sizeof(xcoll_op) */
  xcoll_kind kind;
  const void* send;
  void* recv;
  uint64_t count;
  xcoll_dtype dtype;
  xcoll_reduction reduction;
  int32_t peer; /* root of a rooted collective, or the other side of send and recv */
  int32_t tag;  /* of send and recv: a recv takes the oldest message with its tag; messages that
                   come before it are put aside in the receiver's memory */
  const uint64_t*
      send_counts; /* the _v kinds; counts of all_gather_v and reduce_scatter_v are here. */
  const uint64_t* recv_counts; /* Both are copied by the call that takes the operation. */
  uint64_t timeout_ns;         /* deadline of this operation; 0: the communicator's */
} xcoll_op;

typedef struct xcoll_group xcoll_group;
typedef struct xcoll_request xcoll_request;

/* Submits `n` operations as one group.
 *
 * `request` NULL and `stream` NULL: returns when all are done. `request` given: returns at once,
 * and the request must be freed. `stream` given: stream-ordered as in collective.h, `request`
 * optional. Errors: as in collective.h; when one operation is refused none is started, and the text
 * says which. All `ops` have the struct_size of the first, which is the distance between them.
 * Thread: any. Blocks: only without request and stream, up to the deadline. Lifetime:
 * buffers until completion; `ops` until return. Since: 0.1 */
XCOLL_API xcoll_status xcoll_submit(xcoll_comm* comm, const xcoll_op* ops, uint64_t n,
                                    xhal_stream* stream, xcoll_request** request);

/* OK when complete, NOT_READY when not, or the status that failed it; FORKED in a forked child.
 * Thread: any. Blocks: no. Since: 0.1 */
XCOLL_API xcoll_status xcoll_request_test(xcoll_request* request);

/* As test, after waiting up to `timeout_ns` for completion (UINT64_MAX: as long as it takes, which
 * is bounded by the deadlines of the operations). NOT_READY: not yet, nothing has changed. Thread:
 * any, several at once. Blocks: up to timeout_ns. Since: 0.1 */
XCOLL_API xcoll_status xcoll_request_wait(xcoll_request* request, uint64_t timeout_ns);

/* Frees the request; operations that are not complete go on. NULL is allowed.
 * Thread: any, no other call on `request` may be running or follow. Blocks: no. Since: 0.1 */
XCOLL_API void xcoll_request_free(xcoll_request* request);

/* A group that is filled step by step. `end` submits it as xcoll_submit does and frees it, also
 * when it returns an error; `discard` frees it and communicates nothing. Thread: any, one at a
 * time. Blocks: end as xcoll_submit, the others no. Since: 0.1 */
XCOLL_API xcoll_status xcoll_group_begin(xcoll_comm* comm, xcoll_group** group);
XCOLL_API xcoll_status xcoll_group_add(xcoll_group* group, const xcoll_op* op);
XCOLL_API xcoll_status xcoll_group_end(xcoll_group* group, xhal_stream* stream,
                                       xcoll_request** request);
XCOLL_API void xcoll_group_discard(xcoll_group* group);

#ifdef __cplusplus
}
#endif

#endif /* XCOLL_GROUP_H_ */
