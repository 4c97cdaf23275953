// SPDX-License-Identifier: Apache-2.0
// state.hpp: whether this process may use xHAL now.
#pragma once

#include <atomic>

#include "xhal/status.h"

struct xhal_dispatch;

namespace xhal {

enum class State : uint32_t { fresh, running, stopping, stopped, forked };

State process_state() noexcept;
void set_process_state(State state) noexcept;
inline bool is_running() noexcept { return process_state() == State::running; }
inline bool is_forked() noexcept { return process_state() == State::forked; }

// The error of a call that came in the wrong state.
xhal_status fail_state(const char* operation) noexcept;

// The table in the head of libxhal's own objects (timelines, pools): no slot is
// reachable through it.
const xhal_dispatch* libxhal_table() noexcept;

}  // namespace xhal
