/* SPDX-License-Identifier: Apache-2.0 */
/* xcoll/collective.h: the operations.
 *
 * Collectives are matched between ranks by the order in which each rank calls them on a
 * communicator. Each one is checked: operation, type, count, reduction, root and sequence travel
 * as a fingerprint, and a rank returns only after it has seen that of every rank. So a collective
 * also tells that everybody has entered it, and a mismatch is XCOLL_ERR_MISMATCH on every rank,
 * never a wrong result.
 *
 * `count` is always a number of elements of one rank's share; where a buffer holds the shares of
 * all ranks they lie one after the other in rank order. A count of 0 still synchronises. A buffer
 * that a rank's role does not use (recv of reduce on ranks that are not the root) is ignored and
 * may be NULL. Buffers must be disjoint, or exactly in place as stated; else INVALID_ARGUMENT.
 *
 * `stream` NULL: host memory; the call returns when it is done.
 *
 * `stream` given: the operation is ordered on it. It starts when earlier work of the stream is
 * done, and later work of the stream sees its result. The call returns at once; buffers stay as
 * they are until the stream has passed. Pointers may be host memory or memory of the stream's
 * device. A failure is the communicator's sticky error; the call returns it when it is found before
 * the call returns, and else the stream fails (xhal_stream_recover).
 *
 * Threads: any thread may call at any time; the order of calls on one communicator is what counts,
 * so a program that calls from several threads must itself make that order the same on all ranks.
 * Operations of a communicator run one after the other, send and recv beside them. Nothing here may
 * be called from a host callback of a stream.
 *
 * The deadline of an operation counts from its call, whatever is queued before it: older operations
 * that wait for other ranks, or a stream that does not come to it.
 *
 * All return: OK; INVALID_ARGUMENT, UNSUPPORTED, OUT_OF_MEMORY, SYSTEM, FORKED (not started); or
 * the communicator's sticky error. Blocks: with stream NULL up to the deadline, else no. Since: 0.1
 */
#ifndef XCOLL_COLLECTIVE_H_
#define XCOLL_COLLECTIVE_H_

#include <stdint.h>

#include "xcoll/comm.h"
#include "xcoll/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct xhal_stream xhal_stream;

/* recv = reduction over all ranks' send; count elements. In place: send == recv. */
XCOLL_API xcoll_status xcoll_all_reduce(xcoll_comm* comm, const void* send, void* recv,
                                        uint64_t count, xcoll_dtype dtype,
                                        xcoll_reduction reduction, xhal_stream* stream);

/* The root's send becomes everybody's recv; count elements. In place: send == recv. */
XCOLL_API xcoll_status xcoll_broadcast(xcoll_comm* comm, const void* send, void* recv,
                                       uint64_t count, xcoll_dtype dtype, int32_t root,
                                       xhal_stream* stream);

/* As all_reduce, but only the root has a recv. */
XCOLL_API xcoll_status xcoll_reduce(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                                    xcoll_dtype dtype, xcoll_reduction reduction, int32_t root,
                                    xhal_stream* stream);

/* recv (ranks * count) = everybody's send (count). In place: send == recv + rank * count. */
XCOLL_API xcoll_status xcoll_all_gather(xcoll_comm* comm, const void* send, void* recv,
                                        uint64_t count, xcoll_dtype dtype, xhal_stream* stream);

/* As all_gather, rank r giving counts[r] elements; counts is the same on all ranks. */
XCOLL_API xcoll_status xcoll_all_gather_v(xcoll_comm* comm, const void* send, void* recv,
                                          const uint64_t* counts, xcoll_dtype dtype,
                                          xhal_stream* stream);

/* recv (count) = this rank's share of the reduction of send (ranks * count).
 * In place: recv == send + rank * count. */
XCOLL_API xcoll_status xcoll_reduce_scatter(xcoll_comm* comm, const void* send, void* recv,
                                            uint64_t count, xcoll_dtype dtype,
                                            xcoll_reduction reduction, xhal_stream* stream);

/* As reduce_scatter, rank r getting counts[r] elements; counts is the same on all ranks. */
XCOLL_API xcoll_status xcoll_reduce_scatter_v(xcoll_comm* comm, const void* send, void* recv,
                                              const uint64_t* counts, xcoll_dtype dtype,
                                              xcoll_reduction reduction, xhal_stream* stream);

/* The root's recv (ranks * count) = everybody's send (count). In place at the root as all_gather.
 */
XCOLL_API xcoll_status xcoll_gather(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                                    xcoll_dtype dtype, int32_t root, xhal_stream* stream);

/* recv (count) = this rank's share of the root's send (ranks * count). In place at the root:
 * recv == send + rank * count. */
XCOLL_API xcoll_status xcoll_scatter(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                                     xcoll_dtype dtype, int32_t root, xhal_stream* stream);

/* Share j of send goes to rank j; share j of recv comes from rank j; count elements each.
 * In place: send == recv. */
XCOLL_API xcoll_status xcoll_all_to_all(xcoll_comm* comm, const void* send, void* recv,
                                        uint64_t count, xcoll_dtype dtype, xhal_stream* stream);

/* As all_to_all with a size for each pair: send_counts[j] here must equal recv_counts[<this rank>]
 * on rank j; all ranks check all pairs. Not in place. */
XCOLL_API xcoll_status xcoll_all_to_all_v(xcoll_comm* comm, const void* send,
                                          const uint64_t* send_counts, void* recv,
                                          const uint64_t* recv_counts, xcoll_dtype dtype,
                                          xhal_stream* stream);

/* Returns (or lets the stream go on) when every rank has entered. */
XCOLL_API xcoll_status xcoll_barrier(xcoll_comm* comm, xhal_stream* stream);

/* Point to point. The n-th send from a to b matches the n-th recv at b from a (of those with one
 * tag: xcoll_op.tag, 0 here), with the same count and type, else MISMATCH. A send may return before
 * its recv was called when the data fits the transport's buffer; then a mismatch reaches the sender
 * as the communicator's sticky error. With stream NULL a recv blocks for its send: to exchange, put
 * both into one group, in any order. */
XCOLL_API xcoll_status xcoll_send(xcoll_comm* comm, const void* send, uint64_t count,
                                  xcoll_dtype dtype, int32_t peer, xhal_stream* stream);
XCOLL_API xcoll_status xcoll_recv(xcoll_comm* comm, void* recv, uint64_t count, xcoll_dtype dtype,
                                  int32_t peer, xhal_stream* stream);

#ifdef __cplusplus
}
#endif

#endif /* XCOLL_COLLECTIVE_H_ */
