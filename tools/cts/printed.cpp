// SPDX-License-Identifier: Apache-2.0
#include "printed.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>

namespace xhal::cts {
namespace {

int output = -1;
off_t taken = 0;  // bytes of it

std::string text_from(int file, off_t begin) {
  std::string text;
  char buffer[16384];
  for (ssize_t count;
       (count = pread(file, buffer, sizeof buffer, begin + static_cast<off_t>(text.size()))) > 0;)
    text.append(buffer, static_cast<size_t>(count));
  return text;
}

}  // namespace

int make_output_file() { return memfd_create("xhal-cts-output", MFD_CLOEXEC); }

void move_output_to(int file) {
  fflush(stdout);
  dup2(file, STDOUT_FILENO);
  output = file;
}

std::string take_printed() {
  if (output < 0) return {};
  fflush(stdout);
  auto text = text_from(output, taken);
  taken += static_cast<off_t>(text.size());
  return text;
}

void pass_on_printed(int file) {
  const auto text = text_from(file, 0);
  fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace xhal::cts
