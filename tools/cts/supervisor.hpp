// SPDX-License-Identifier: Apache-2.0
// supervisor.hpp: runs the tests in a child, so that a plugin that crashes or hangs fails one test
// and not the suite.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "listener.hpp"

namespace xhal::cts {

using Names = std::vector<std::string>;

// Runs the given tests in this process; ends early only with the process.
using RunTests = std::function<int(const Names& tests, const Emit& emit)>;

// Runs `tests` in children until each has ended: the one that was running when a child died has
// failed, and the next child goes on behind it. Messages are handed to `receive` in this process.
// The result is not 0 when a child could not even begin; it is then that child's exit status, and
// it has said why.
int supervise(Names tests, const RunTests& run, const Emit& receive);

}  // namespace xhal::cts
