// SPDX-License-Identifier: Apache-2.0
// supervisor.hpp: runs the tests in a child, so that a plugin that crashes, hangs or ends the
// process fails one test and not the suite.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "listener.hpp"

namespace xhal::cts {

using Names = std::vector<std::string>;

// Runs the given tests in this process, each within `limit`, and emits
//   {"doing": text}                     what runs outside of a test
//   {"started": name}, {"ended": ...}   as a Listener does
//   {"problem": text, "status": code}   why it could not begin
//   {"finished": true}                  last: nothing else of the plugin runs after it
using RunTests =
    std::function<void(const Names& tests, std::chrono::milliseconds limit, const Emit& emit)>;

// Runs `tests` in children until each has ended: the one that was running when a child died, or for
// longer than `limit`, has failed, and the next child goes on behind it. When some have hung, the
// others get less time, and after some more they are not run: a plugin that hangs everywhere costs
// minutes, not hours. Messages are handed to `receive` in this process, besides those above
//   {"not_run": names, "reason": text}  tests that no child came to; with "before" when it was the
//                                       plugin's start that ended the process
// and "abrupt" in what has "ended" with its process;
// so that after the call every test has ended, or was not run, or there was a problem.
void supervise(Names tests, std::chrono::milliseconds limit, const RunTests& run,
               const Emit& receive);

}  // namespace xhal::cts
