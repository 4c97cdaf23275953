// SPDX-License-Identifier: Apache-2.0
// handles.hpp: what the opaque types of the C API are.
#pragma once

#include <memory>
#include <vector>

#include "base/failure.hpp"
#include "engine/comm.hpp"
#include "xcoll/group.h"

struct xcoll_comm {
  std::unique_ptr<xcoll::engine::Comm> comm;
};

struct xcoll_request {
  std::shared_ptr<xcoll::engine::Batch> batch;
  uint32_t forks = xcoll::engine::fork_generation();

  bool forked() const { return forks != xcoll::engine::fork_generation(); }
};

struct xcoll_group {
  xcoll_comm* comm;
  std::vector<xcoll::engine::Operation> operations;
};

namespace xcoll::api {

// Throws INVALID_ARGUMENT for NULL and FORKED in a child.
inline engine::Comm& usable(xcoll_comm* handle) {
  if (!handle) throw Failure(XCOLL_ERR_INVALID_ARGUMENT, "the communicator is NULL");
  handle->comm->check_process();
  return *handle->comm;
}

inline void need(const void* out, const char* name) {
  if (!out) throw Failure(XCOLL_ERR_INVALID_ARGUMENT, "{} is NULL", name);
}

}  // namespace xcoll::api
