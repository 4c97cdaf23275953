// SPDX-License-Identifier: Apache-2.0
// process.hpp: running another program with a deadline.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace xhal::tools {

struct ProcessResult {
  enum class End { exited, signalled, deadline, not_started };
  End end = End::exited;
  int code = 0;  // exit status, signal number, or errno of the start
  std::string out, err;
  bool ok() const { return end == End::exited && code == 0; }
  // "exit status 1", "killed by signal 11 (Segmentation fault)", ...
  std::string text() const;
};

// Runs `argv` (argv[0] is a path) to its end, with `environment` on top of this process's. At the
// deadline it is killed. Both outputs are collected; standard input is empty.
ProcessResult run_process(const std::vector<std::string>& argv, std::chrono::milliseconds deadline,
                          const std::vector<std::pair<std::string, std::string>>& environment = {});

// The file this program was started from.
std::filesystem::path own_executable();
// A program installed beside this one.
std::filesystem::path sibling_program(const std::string& name);

}  // namespace xhal::tools
