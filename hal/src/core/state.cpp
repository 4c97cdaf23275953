// SPDX-License-Identifier: Apache-2.0
#include "core/state.hpp"

#include <unistd.h>

#include "core/error.hpp"
#include "xhal/plugin.h"

namespace xhal {
namespace {
std::atomic<State> current{State::fresh};
}

State process_state() noexcept { return current.load(std::memory_order_relaxed); }
void set_process_state(State state) noexcept { current.store(state, std::memory_order_release); }

xhal_status fail_state(const char* operation) noexcept {
  switch (process_state()) {
    case State::fresh:
      return fail(XHAL_ERR_NOT_INITIALIZED, operation, "{}: call xhal_init first", operation);
    case State::forked:
      return fail(
          XHAL_ERR_FORKED, operation,
          "{}: process {} was forked from one that had opened devices, and devices do not survive "
          "a fork.\n"
          "  Open them after the fork, or start workers with exec (multiprocessing: 'spawn').",
          operation, getpid());
    case State::stopping:
    case State::stopped:
      return fail(XHAL_ERR_SHUTDOWN, operation, "{}: xhal_shutdown has been called", operation);
    case State::running:
      break;
  }
  return fail(XHAL_ERR_INVALID_HANDLE, operation,
              "{}: what the handle belongs to has been closed or destroyed meanwhile", operation);
}

const xhal_dispatch* libxhal_table() noexcept {
  static const xhal_dispatch table = {};
  return &table;
}

}  // namespace xhal
