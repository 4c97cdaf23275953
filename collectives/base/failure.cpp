// SPDX-License-Identifier: Apache-2.0
#include "base/failure.hpp"

namespace xcoll {
namespace {

std::string& text_of_this_thread() {
  thread_local std::string text;
  return text;
}

}  // namespace

Failure system_failure(const char* call, const std::string& while_doing) {
  const int error = errno;
  return Failure(XCOLL_ERR_SYSTEM, "{} failed{}{}: {} (errno {})", call,
                 while_doing.empty() ? "" : " while ", while_doing,
                 std::generic_category().message(error), error);
}

xcoll_status set_last_error(xcoll_status status, std::string_view text) noexcept {
  try {
    text_of_this_thread() = text;
  } catch (const std::bad_alloc&) {
    text_of_this_thread() = "out of memory";  // fits into the string itself
  }
  return status;
}

const char* last_error() noexcept { return text_of_this_thread().c_str(); }

}  // namespace xcoll
