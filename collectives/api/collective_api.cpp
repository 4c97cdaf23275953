// SPDX-License-Identifier: Apache-2.0
// collective_api.cpp: the exported functions of collective.h and group.h. All of them
// end in submit().
#include <utility>

#include "api/handles.hpp"

using xcoll::Failure;
using xcoll::guarded;
using xcoll::api::need;
using xcoll::api::usable;
using xcoll::engine::Batch;
using xcoll::engine::Comm;
using xcoll::engine::Operation;

namespace {

xcoll_status submit(Comm& comm, std::vector<Operation> operations, xhal_stream* stream,
                    xcoll_request** request) {
  if (request) *request = nullptr;
  std::unique_ptr<xcoll_request> made(request ? new xcoll_request : nullptr);
  std::shared_ptr<Batch> batch;
  if (operations.empty()) {
    batch = std::make_shared<Batch>(std::move(operations));
    batch->complete();
  } else if (const xcoll_status error = comm.engine().sticky_error(); error != XCOLL_OK) {
    return error;
  } else if (!stream && !request) {
    return comm.engine().run(std::make_shared<Batch>(std::move(operations)));
  } else {
    batch = comm.submit(std::move(operations), stream);
  }
  if (!request) return XCOLL_OK;
  made->batch = std::move(batch);
  *request = made.release();
  return XCOLL_OK;
}

xcoll_status run_one(xcoll_comm* handle, const xcoll_op& op, xhal_stream* stream) {
  return guarded([&] {
    Comm& comm = usable(handle);
    Operation operation = comm.check(op);
    if (!stream) return comm.engine().run(std::move(operation));
    std::vector<Operation> operations;
    operations.push_back(std::move(operation));
    return submit(comm, std::move(operations), stream, nullptr);
  });
}

xcoll_op make_op(xcoll_kind kind, const void* send, void* recv, uint64_t count, xcoll_dtype dtype) {
  xcoll_op op{};
  op.struct_size = sizeof(op);
  op.kind = kind;
  op.send = send;
  op.recv = recv;
  op.count = count;
  op.dtype = dtype;
  return op;
}

xcoll_op with_reduction(xcoll_op op, xcoll_reduction reduction) {
  op.reduction = reduction;
  return op;
}
xcoll_op with_peer(xcoll_op op, int32_t peer) {
  op.peer = peer;
  return op;
}
xcoll_op with_counts(xcoll_op op, const uint64_t* send_counts,
                     const uint64_t* recv_counts = nullptr) {
  op.send_counts = send_counts;
  op.recv_counts = recv_counts;
  return op;
}

}  // namespace

xcoll_status xcoll_all_reduce(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                              xcoll_dtype dtype, xcoll_reduction reduction, xhal_stream* stream) {
  return run_one(
      comm, with_reduction(make_op(XCOLL_ALL_REDUCE, send, recv, count, dtype), reduction), stream);
}

xcoll_status xcoll_broadcast(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                             xcoll_dtype dtype, int32_t root, xhal_stream* stream) {
  return run_one(comm, with_peer(make_op(XCOLL_BROADCAST, send, recv, count, dtype), root), stream);
}

xcoll_status xcoll_reduce(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                          xcoll_dtype dtype, xcoll_reduction reduction, int32_t root,
                          xhal_stream* stream) {
  const xcoll_op op = make_op(XCOLL_REDUCE, send, recv, count, dtype);
  return run_one(comm, with_peer(with_reduction(op, reduction), root), stream);
}

xcoll_status xcoll_all_gather(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                              xcoll_dtype dtype, xhal_stream* stream) {
  return run_one(comm, make_op(XCOLL_ALL_GATHER, send, recv, count, dtype), stream);
}

xcoll_status xcoll_all_gather_v(xcoll_comm* comm, const void* send, void* recv,
                                const uint64_t* counts, xcoll_dtype dtype, xhal_stream* stream) {
  return run_one(comm, with_counts(make_op(XCOLL_ALL_GATHER_V, send, recv, 0, dtype), counts),
                 stream);
}

xcoll_status xcoll_reduce_scatter(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                                  xcoll_dtype dtype, xcoll_reduction reduction,
                                  xhal_stream* stream) {
  return run_one(comm,
                 with_reduction(make_op(XCOLL_REDUCE_SCATTER, send, recv, count, dtype), reduction),
                 stream);
}

xcoll_status xcoll_reduce_scatter_v(xcoll_comm* comm, const void* send, void* recv,
                                    const uint64_t* counts, xcoll_dtype dtype,
                                    xcoll_reduction reduction, xhal_stream* stream) {
  const xcoll_op op = make_op(XCOLL_REDUCE_SCATTER_V, send, recv, 0, dtype);
  return run_one(comm, with_counts(with_reduction(op, reduction), counts), stream);
}

xcoll_status xcoll_gather(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                          xcoll_dtype dtype, int32_t root, xhal_stream* stream) {
  return run_one(comm, with_peer(make_op(XCOLL_GATHER, send, recv, count, dtype), root), stream);
}

xcoll_status xcoll_scatter(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                           xcoll_dtype dtype, int32_t root, xhal_stream* stream) {
  return run_one(comm, with_peer(make_op(XCOLL_SCATTER, send, recv, count, dtype), root), stream);
}

xcoll_status xcoll_all_to_all(xcoll_comm* comm, const void* send, void* recv, uint64_t count,
                              xcoll_dtype dtype, xhal_stream* stream) {
  return run_one(comm, make_op(XCOLL_ALL_TO_ALL, send, recv, count, dtype), stream);
}

xcoll_status xcoll_all_to_all_v(xcoll_comm* comm, const void* send, const uint64_t* send_counts,
                                void* recv, const uint64_t* recv_counts, xcoll_dtype dtype,
                                xhal_stream* stream) {
  const xcoll_op op = make_op(XCOLL_ALL_TO_ALL_V, send, recv, 0, dtype);
  return run_one(comm, with_counts(op, send_counts, recv_counts), stream);
}

xcoll_status xcoll_barrier(xcoll_comm* comm, xhal_stream* stream) {
  return run_one(comm, make_op(XCOLL_BARRIER, nullptr, nullptr, 0, XCOLL_U8), stream);
}

xcoll_status xcoll_send(xcoll_comm* comm, const void* send, uint64_t count, xcoll_dtype dtype,
                        int32_t peer, xhal_stream* stream) {
  return run_one(comm, with_peer(make_op(XCOLL_SEND, send, nullptr, count, dtype), peer), stream);
}

xcoll_status xcoll_recv(xcoll_comm* comm, void* recv, uint64_t count, xcoll_dtype dtype,
                        int32_t peer, xhal_stream* stream) {
  return run_one(comm, with_peer(make_op(XCOLL_RECV, nullptr, recv, count, dtype), peer), stream);
}

xcoll_status xcoll_submit(xcoll_comm* handle, const xcoll_op* ops, uint64_t n, xhal_stream* stream,
                          xcoll_request** request) {
  return guarded([&] {
    Comm& comm = usable(handle);
    if (n > 0) need(ops, "ops");
    std::vector<Operation> operations;
    operations.reserve(n);
    const uint64_t stride = n > 0 ? ops->struct_size : 0;  // the caller's structure may be longer
    for (uint64_t i = 0; i < n; ++i) {
      try {
        const auto* op =
            reinterpret_cast<const xcoll_op*>(reinterpret_cast<const std::byte*>(ops) + i * stride);
        if (op->struct_size != stride) {
          throw Failure(XCOLL_ERR_STRUCT_SIZE,
                        "it has struct_size {}, the first of the array has {}: all must be equal",
                        op->struct_size, stride);
        }
        operations.push_back(comm.check(*op));
      } catch (const Failure& failure) {
        throw Failure(failure.status(), "operation {} of the group: {}", i, failure.text());
      }
    }
    return submit(comm, std::move(operations), stream, request);
  });
}

xcoll_status xcoll_request_test(xcoll_request* request) { return xcoll_request_wait(request, 0); }

xcoll_status xcoll_request_wait(xcoll_request* request, uint64_t timeout_ns) {
  return guarded([&]() -> xcoll_status {
    need(request, "request");
    if (request->forked()) {
      throw Failure(
          XCOLL_ERR_FORKED,
          "this request belongs to the parent of this forked process, where it completes");
    }
    const Batch& batch = *request->batch;
    if (!batch.done() && !batch.wait(timeout_ns)) return XCOLL_NOT_READY;
    if (batch.status == XCOLL_OK) return XCOLL_OK;
    return xcoll::set_last_error(batch.status, batch.text);
  });
}

void xcoll_request_free(xcoll_request* request) {
  // In a forked child its memory is the parent's, maybe in the middle of a change.
  if (request && !request->forked()) delete request;
}

xcoll_status xcoll_group_begin(xcoll_comm* comm, xcoll_group** group) {
  return guarded([&] {
    need(group, "group");
    usable(comm);
    *group = new xcoll_group{comm, {}};
    return XCOLL_OK;
  });
}

xcoll_status xcoll_group_add(xcoll_group* group, const xcoll_op* op) {
  return guarded([&] {
    need(group, "group");
    need(op, "op");
    group->operations.push_back(usable(group->comm).check(*op));
    return XCOLL_OK;
  });
}

xcoll_status xcoll_group_end(xcoll_group* group, xhal_stream* stream, xcoll_request** request) {
  return guarded([&] {
    need(group, "group");
    const std::unique_ptr<xcoll_group> ended(group);
    return submit(usable(group->comm), std::move(group->operations), stream, request);
  });
}

void xcoll_group_discard(xcoll_group* group) { delete group; }
