// SPDX-License-Identifier: Apache-2.0
// deny.hpp: makes system calls fail in this process from now on, as an old kernel, a container's
// seccomp profile or a limit does.
#pragma once

#include <initializer_list>

namespace xcoll::testing {

// Every later call of one of `numbers` (SYS_*), in this thread and those it makes, fails with
// `error`. For ranks that are processes: it cannot be undone.
void deny_system_calls(std::initializer_list<int> numbers, int error);

}  // namespace xcoll::testing
