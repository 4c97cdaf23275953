// SPDX-License-Identifier: Apache-2.0
#include "common/output.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace xhal::tools {
namespace {

// The errno of the write that failed; 0 when all went out.
int write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(descriptor, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    text.remove_prefix(static_cast<size_t>(count));
  }
  return 0;
}

}  // namespace

void prepare_output() {
  signal(SIGXFSZ, SIG_IGN);
  // open() gives the lowest free number. Read-only: a write to it is refused, as to a closed one.
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) (void)!open("/dev/null", O_RDONLY);
  }
}

bool write_output(std::string_view program, std::string_view text) {
  const int error = write_all(STDOUT_FILENO, text);
  if (error == 0) return true;
  const auto why = error == EBADF ? "it is closed" : std::strerror(error);
  write_note(program, fmt::format("the answer could not be written to standard output: {}", why));
  return false;
}

void write_note(std::string_view program, std::string_view text) {
  (void)write_all(STDERR_FILENO, fmt::format("{}: {}\n", program, text));
}

}  // namespace xhal::tools
