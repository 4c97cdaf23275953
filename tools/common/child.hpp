// SPDX-License-Identifier: Apache-2.0
// child.hpp: plugin code in a process of its own, so that a plugin that crashes, hangs or calls
// exit() is something to report and not the end of the tool.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "common/envelope.hpp"

namespace xhal::tools {

struct ChildEnd {
  enum class How { finished, exited, signalled, silent, not_started };
  How how = How::finished;
  int code = 0;  // exit status, signal number, or errno of the start
  std::chrono::milliseconds patience{};
  bool ok() const { return how == How::finished; }
  // "crashed: signal 11 (Segmentation fault)", "did not answer within 10 s", ...
  std::string text() const;
};

using Emit = std::function<void(const Json&)>;

// Runs `work` in a fork of this process. What `work` emits reaches `receive` here, message by
// message, so that what came before a crash is known. The child is killed when it sends nothing
// for `silence`, and dies with this process. What it prints goes to standard error.
//
// Failure thrown by `work` is thrown here again; of other exceptions the text arrives as a Failure.
// To be called while this process has one thread and has not started libxhal.
ChildEnd run_in_child(std::chrono::milliseconds silence,
                      const std::function<void(const Emit&)>& work, const Emit& receive);

}  // namespace xhal::tools
