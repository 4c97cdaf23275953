// SPDX-License-Identifier: Apache-2.0
#include "harness/surroundings.hpp"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <cfenv>
#include <cfloat>
#include <clocale>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

namespace xhal::cts {
namespace {

std::string action_of(int number) {
  struct sigaction action {};
  if (sigaction(number, nullptr, &action) != 0) return "not the program's";
  if (action.sa_handler == SIG_DFL) return "default";
  if (action.sa_handler == SIG_IGN) return "ignored";
  return fmt::format("a handler at {:#x}", reinterpret_cast<uintptr_t>(action.sa_sigaction));
}

std::string blocked_signals() {
  sigset_t set;
  pthread_sigmask(SIG_SETMASK, nullptr, &set);
  std::string numbers;
  for (int number = 1; number <= SIGRTMAX; ++number) {
    if (sigismember(&set, number) == 1)
      numbers += fmt::format("{}{}", numbers.empty() ? "" : ", ", number);
  }
  return numbers.empty() ? "none" : numbers;
}

// Not by umask(), which changes it for a moment.
std::string file_mode_mask() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Umask:")) return line.substr(std::strlen("Umask:\t"));
  }
  return "unknown";
}

// By what arithmetic does, whatever the register is called. The values are volatile, so that it is
// this thread that computes and not the compiler.
std::string subnormal_mode() {
  volatile float smallest_normal = FLT_MIN, subnormal = FLT_TRUE_MIN;
  const volatile float result = smallest_normal / 2, scaled = subnormal * 0x1p24f;
  return fmt::format("{} as results, {} as operands", result != 0 ? "kept" : "flushed to zero",
                     scaled != 0 ? "kept" : "taken for zero");
}

}  // namespace

Surroundings surroundings() {
  Surroundings now;
  for (int number = 1; number <= SIGRTMAX; ++number)
    now[fmt::format("signal {} ({})", number, strsignal(number))] = action_of(number);
  std::error_code error;
  now["working directory"] = std::filesystem::current_path(error).string();
  now["umask"] = file_mode_mask();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const auto end = text.find('=');
    now["environment variable " + text.substr(0, end)] =
        end == text.npos ? "" : text.substr(end + 1);
  }
  now["locale"] = std::setlocale(LC_ALL, nullptr);
  now["blocked signals of the calling thread"] = blocked_signals();
  now["rounding mode of the calling thread"] = fmt::format("{:#x}", std::fegetround());
  now["floating-point traps of the calling thread"] = fmt::format("{:#x}", fegetexcept());
  now["subnormal floats of the calling thread"] = subnormal_mode();
  return now;
}

testing::AssertionResult unchanged(const Surroundings& before, const Surroundings& after) {
  std::set<std::string> names;
  for (const auto& list : {before, after}) {
    for (const auto& [name, value] : list) names.insert(name);
  }
  const auto value_in = [](const Surroundings& list, const std::string& name) {
    const auto found = list.find(name);
    return found == list.end() ? std::string("not there") : found->second;
  };
  std::string differences;
  for (const auto& name : names) {
    const auto was = value_in(before, name), is = value_in(after, name);
    if (was != is) differences += fmt::format("\n  {}: {} before, {} after", name, was, is);
  }
  if (differences.empty()) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "changed:" << differences;
}

}  // namespace xhal::cts
