/* SPDX-License-Identifier: Apache-2.0 */
/* xcoll/comm.h: the communicator.
 *
 * A communicator is a fixed set of ranks, 0 to n-1, that call the same collective operations in the
 * same order. A rank is a process or a thread; one process may hold several ranks of one
 * communicator, and any number of communicators. In this version all ranks run on one host.
 *
 * Failure: no call outlives its deadline, and no mismatch gives a wrong result. The first rank
 * that sees a failure publishes an error that names the culprit; every rank then gets this same
 * error from the call it is in and from every later one. A communicator never recovers: destroy it
 * and make another.
 *
 * Fork: a communicator belongs to the process that made it. In a forked child every call on it
 * returns XCOLL_ERR_FORKED and xcoll_comm_destroy only frees memory; the parent is not disturbed.
 */
#ifndef XCOLL_COMM_H_
#define XCOLL_COMM_H_

#include <stdint.h>

#include "xcoll/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct xcoll_comm xcoll_comm;

/* Where the ranks of one communicator meet. Opaque bytes; send them to the other ranks as they
 * are, over whatever the program has (a store, a file, MPI). They carry a secret: who knows
 * them may join. */
typedef struct xcoll_unique_id {
  uint8_t bytes[128];
} xcoll_unique_id;

/* Fill it with zeros and set struct_size; zero in a field means its default. */
typedef struct xcoll_config {
  uint32_t struct_size;      /* sizeof(xcoll_config) */
  uint32_t recorder_entries; /* length of the flight recorder; default 4096 */
  uint64_t timeout_ns; /* deadline of each call, also of init; default $XCOLL_TIMEOUT_S or 30 s */
  char name[32];       /* used in texts, not matched between ranks; default "comm" */
} xcoll_config;

/* What a rank was doing when a failure was found. */
typedef int32_t xcoll_rank_state;
enum {
  XCOLL_RANK_UNKNOWN = 0,
  XCOLL_RANK_NOT_ENTERED = 1, /* alive, but has not called the operation */
  XCOLL_RANK_WAITING = 2,     /* in the operation, waiting for another rank */
  XCOLL_RANK_WORKING = 3,     /* in the operation, not waiting for anybody */
  XCOLL_RANK_STOPPED = 4,     /* its process is stopped (SIGSTOP or a debugger) */
  XCOLL_RANK_DEAD = 5,        /* its process has ended */
  XCOLL_RANK_LEFT = 6         /* it has destroyed its communicator */
};

/* The sticky error on a communicator, the same on every rank. */
typedef struct xcoll_failure {
  uint32_t struct_size; /* in: sizeof(xcoll_failure) */
  xcoll_status status;  /* XCOLL_OK: nothing has failed */
  int32_t culprit;      /* rank, or -1 when nobody in particular */
  int32_t reporter;     /* the rank that found it */
  int64_t culprit_pid;
  uint64_t sequence;         /* the collective in which it was found, 0 outside of one */
  uint64_t culprit_finished; /* the last collective that the culprit has finished, 0 for none */
  xcoll_rank_state culprit_state;
  uint32_t reserved;
  char culprit_host[64];
  char text[1024];
} xcoll_failure;

/* Makes an id. Call it on one rank (any: the id may be made by a launcher that is no rank) and
 * give the bytes to all. An id serves one communicator. Thread: any. Blocks: no. Errors:
 * SYSTEM. Since: 0.1 */
XCOLL_API xcoll_status xcoll_unique_id_create(xcoll_unique_id* id);

/* Joins the communicator of `id` as rank `rank` of `ranks`. `config` may be NULL.
 *
 * Returns when all ranks have joined. Errors on every rank that joined: TIMEOUT names the ranks
 * that did not come, RANK_FAILED one that died meanwhile, INVALID_ARGUMENT when ranks disagree on
 * the number of ranks or two have the same number, UNSUPPORTED when they are not on one host or
 * speak another version. Thread: any; ranks in one process need a thread each. Blocks: up to the
 * deadline. Since: 0.1 */
XCOLL_API xcoll_status xcoll_comm_init(const xcoll_unique_id* id, int32_t ranks, int32_t rank,
                                       const xcoll_config* config, xcoll_comm** comm);

/* Frees a communicator. Work that was submitted and has not run ends with ABORTED on this rank; a
 * rank that still waits for this one gets RANK_FAILED ("has left"). NULL is allowed. Thread: any,
 * but no other call on `comm` may be running or follow. Blocks: until a running step notices, at
 * most milliseconds; never for another rank. Since: 0.1 */
XCOLL_API void xcoll_comm_destroy(xcoll_comm* comm);

/* Breaks the communicator on all ranks: what runs or waits, here and elsewhere, ends with ABORTED.
 * `reason` (may be NULL) becomes part of the text. A communicator that failed earlier keeps its
 * sticky error. Thread: any, at any time between init and destroy. Blocks: no. Since: 0.1 */
XCOLL_API xcoll_status xcoll_comm_abort(xcoll_comm* comm, const char* reason);

/* Splits a communicator: collective over `comm`. Ranks with the same `color` form a new
 * communicator, ordered by `key`, then by rank in `comm`; a negative color takes part and gets
 * NULL. The deadline, recorder and name are those of `comm`. Thread: as a collective. Blocks: up to
 * the deadline. Since: 0.1 */
XCOLL_API xcoll_status xcoll_comm_split(xcoll_comm* comm, int32_t color, int32_t key,
                                        xcoll_comm** child);

/* OK, or the sticky error on this communicator. Looks actively: a rank that died since is found
 * here although nobody waits for it. Thread: any. Blocks: no. Since: 0.1 */
XCOLL_API xcoll_status xcoll_comm_async_error(xcoll_comm* comm);

/* The same, in full. Out: `failure`, whose struct_size the caller has set.
 * Thread: any. Blocks: no. Since: 0.1 */
XCOLL_API xcoll_status xcoll_comm_failure(xcoll_comm* comm, xcoll_failure* failure);

/* Sets the deadline of calls that start from now on, on this rank only. 0 is not allowed.
 * Thread: any. Blocks: no. Since: 0.1 */
XCOLL_API xcoll_status xcoll_comm_set_timeout(xcoll_comm* comm, uint64_t timeout_ns);

/* Own rank, number of ranks, and the number of collectives that were submitted here: ranks
 * that agree on the order of calls agree on this number. -1 (0) for NULL. Thread: any. Blocks:
 * no. Since: 0.1 */
XCOLL_API int32_t xcoll_comm_rank(const xcoll_comm* comm);
XCOLL_API int32_t xcoll_comm_size(const xcoll_comm* comm);
XCOLL_API uint64_t xcoll_comm_sequence(const xcoll_comm* comm);

/* Writes the flight recorder as one JSON object to the file descriptor `fd`: the last operations of
 * this rank with their times, and what every rank was doing at this moment. It is always recording.
 * With XCOLL_RECORDER_DIR=<dir>, each rank also writes it to <dir>/<name>.<pid>.<rank>.json when
 * the communicator fails. Thread: any. Blocks: for the write. Since: 0.1 */
XCOLL_API xcoll_status xcoll_comm_dump(xcoll_comm* comm, int fd);

#ifdef __cplusplus
}
#endif

#endif /* XCOLL_COMM_H_ */
