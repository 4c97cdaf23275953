/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/comm.h: collectives a vendor has of its own. Slots only: frameworks call xcoll_*, libxcoll
 * fetches this table.
 *
 * libxcoll uses it only when the bootstrap finds that every rank offers the same plugin and
 * the same comm version. All calls are non-blocking; progress is polled; abort may come
 * from any thread.
 */
#ifndef XHAL_COMM_H
#define XHAL_COMM_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

enum {
  XHAL_COMM_ALL_REDUCE = 1,
  XHAL_COMM_REDUCE_SCATTER = 2,
  XHAL_COMM_ALL_GATHER = 3,
  XHAL_COMM_BROADCAST = 4,
  XHAL_COMM_REDUCE = 5,
  XHAL_COMM_ALL_TO_ALL = 6,
  XHAL_COMM_SEND = 7,
  XHAL_COMM_RECV = 8,
  XHAL_COMM_BARRIER = 9
};
/* The numbers of xcoll_reduction and, for `code` and `bits`, of DLPack: one numbering everywhere.
 */
enum {
  XHAL_REDUCE_SUM = 0,
  XHAL_REDUCE_AVG = 1,
  XHAL_REDUCE_MIN = 2,
  XHAL_REDUCE_MAX = 3,
  XHAL_REDUCE_PROD = 4,
  XHAL_REDUCE_BAND = 5,
  XHAL_REDUCE_BOR = 6,
  XHAL_REDUCE_BXOR = 7
};

/* One operation of a group. Frozen. */
typedef struct xhal_comm_op {
  uint32_t kind;
  uint32_t reduction;
  uint8_t code, bits;
  uint16_t reserved0;
  uint32_t peer; /* root or peer rank */
  uint64_t send_address, recv_address, count;
  /* one entry a rank, in elements, for operations with different counts; NULL = `count` for all */
  const uint64_t* send_counts;
  const uint64_t* recv_counts;
  uint64_t window; /* registered memory the operation goes through; 0 = none */
  uint64_t reserved[4];
} xhal_comm_op;

typedef struct xhal_comm_init_info {
  uint32_t struct_size;
  uint32_t rank_count;
  uint32_t local_count; /* ranks of this process, opened in one call */
  uint32_t reserved0;
  const uint32_t* local_ranks;
  xhal_context* const* contexts;
  const void* unique_id;
  uint64_t unique_id_bytes;
  uint64_t deadline_ns;
} xhal_comm_init_info;

/* The table; NULL members are unsupported. Append only. */
typedef struct xhal_comm_table {
  uint32_t struct_size;
  uint32_t version;
  xhal_status (*unique_id)(xhal_device* device, void* bytes, uint64_t capacity,
                           uint64_t* size_bytes);
  xhal_status (*init)(const xhal_comm_init_info* info,
                      xhal_comm** comms); /* begins; poll until not NOT_READY */
  xhal_status (*poll)(xhal_comm* comm);
  xhal_status (*submit)(xhal_comm* comm, xhal_stream* stream, const xhal_comm_op* ops,
                        uint32_t count); /* a group */
  xhal_status (*async_error)(xhal_comm* comm);
  xhal_status (*abort)(xhal_comm* comm);
  xhal_status (*split)(xhal_comm* comm, int32_t color, int32_t key, xhal_comm** child);
  xhal_status (*register_buffer)(xhal_comm* comm, uint64_t address, uint64_t size_bytes);
  xhal_status (*unregister_buffer)(xhal_comm* comm, uint64_t address);
  xhal_status (*destroy)(xhal_comm* comm);
} xhal_comm_table;

XHAL_EXTERN_C_END
#endif
