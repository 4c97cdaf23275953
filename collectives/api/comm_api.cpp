// SPDX-License-Identifier: Apache-2.0
// comm_api.cpp: the exported functions of comm.h and status.h.
#include <cstring>

#include "api/handles.hpp"

using xcoll::Failure;
using xcoll::guarded;
using xcoll::api::need;
using xcoll::api::usable;
using xcoll::engine::Comm;
using xcoll::engine::Config;

const char* xcoll_status_name(xcoll_status status) {
  switch (status) {
#define XCOLL_NAME_CASE(name, value, meaning) \
  case value:                                 \
    return "XCOLL_" #name;
    XCOLL_STATUS_LIST(XCOLL_NAME_CASE)
#undef XCOLL_NAME_CASE
    default:
      return "XCOLL_?";
  }
}

const char* xcoll_status_text(xcoll_status status) {
  switch (status) {
#define XCOLL_TEXT_CASE(name, value, meaning) \
  case value:                                 \
    return meaning;
    XCOLL_STATUS_LIST(XCOLL_TEXT_CASE)
#undef XCOLL_TEXT_CASE
    default:
      return "XCOLL_?";
  }
}

const char* xcoll_last_error(void) { return xcoll::last_error(); }

xcoll_status xcoll_unique_id_create(xcoll_unique_id* id) {
  return guarded([&] {
    need(id, "id");
    const xcoll::bootstrap::IdBody body = xcoll::bootstrap::make_id();
    std::memcpy(id->bytes, &body, sizeof(body));
    return XCOLL_OK;
  });
}

xcoll_status xcoll_comm_init(const xcoll_unique_id* id, int32_t ranks, int32_t rank,
                             const xcoll_config* config, xcoll_comm** comm) {
  return guarded([&] {
    need(id, "id");
    need(comm, "comm");
    *comm = new xcoll_comm{Comm::join(*id, ranks, rank, Config::of(config))};
    return XCOLL_OK;
  });
}

void xcoll_comm_destroy(xcoll_comm* comm) {
  if (!comm) return;
  // In a forked child the memory is the parent's and its threads are not here:
  // leave everything alone.
  if (comm->comm->forked()) (void)comm->comm.release();
  delete comm;
}

xcoll_status xcoll_comm_abort(xcoll_comm* comm, const char* reason) {
  return guarded([&] { return usable(comm).abort(reason); });
}

xcoll_status xcoll_comm_split(xcoll_comm* comm, int32_t color, int32_t key, xcoll_comm** child) {
  return guarded([&] {
    need(child, "child");
    std::unique_ptr<Comm> made = usable(comm).split(color, key);
    *child = made ? new xcoll_comm{std::move(made)} : nullptr;
    return XCOLL_OK;
  });
}

xcoll_status xcoll_comm_async_error(xcoll_comm* comm) {
  return guarded([&] { return usable(comm).async_error(); });
}

xcoll_status xcoll_comm_failure(xcoll_comm* comm, xcoll_failure* failure) {
  return guarded([&] {
    need(failure, "failure");
    const uint32_t size = failure->struct_size;
    if (size < sizeof(xcoll_failure)) {
      throw Failure(XCOLL_ERR_STRUCT_SIZE,
                    "xcoll_failure has struct_size {}, the first release has {}: set it to "
                    "sizeof(xcoll_failure)",
                    size, sizeof(xcoll_failure));
    }
    const xcoll_failure found = usable(comm).failure();
    std::memset(failure, 0, size);
    std::memcpy(failure, &found, sizeof(found));
    failure->struct_size = size;
    return XCOLL_OK;
  });
}

xcoll_status xcoll_comm_set_timeout(xcoll_comm* comm, uint64_t timeout_ns) {
  return guarded([&] {
    usable(comm).set_timeout(timeout_ns);
    return XCOLL_OK;
  });
}

int32_t xcoll_comm_rank(const xcoll_comm* comm) { return comm ? comm->comm->rank() : -1; }
int32_t xcoll_comm_size(const xcoll_comm* comm) { return comm ? comm->comm->size() : -1; }
uint64_t xcoll_comm_sequence(const xcoll_comm* comm) {
  return comm ? comm->comm->engine().sequence() : 0;
}

xcoll_status xcoll_comm_dump(xcoll_comm* comm, int fd) {
  return guarded([&] {
    usable(comm).dump(fd);
    return XCOLL_OK;
  });
}
