// SPDX-License-Identifier: Apache-2.0
// failure.hpp: how libxcoll reports errors inside. Cold paths throw Failure; the C border
// turns it into a status and keeps its text for the calling thread. Hot paths return statuses
// and never throw.
#pragma once

#include <fmt/core.h>

#include <cerrno>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "xcoll/status.h"

namespace xcoll {

class Failure : public std::exception {
 public:
  Failure(xcoll_status status, std::string text) : status_(status), text_(std::move(text)) {}
  template <typename... Args>
  Failure(xcoll_status status, fmt::format_string<Args...> format, Args&&... args)
      : Failure(status, fmt::format(format, std::forward<Args>(args)...)) {}

  xcoll_status status() const { return status_; }
  const std::string& text() const { return text_; }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  xcoll_status status_;
  std::string text_;
};

// A failed system call, with errno as it is now: system_failure("memfd_create").
Failure system_failure(const char* call, const std::string& while_doing = {});

// Keeps `text` as the calling thread's last error and hands `status` back.
xcoll_status set_last_error(xcoll_status status, std::string_view text) noexcept;
const char* last_error() noexcept;

// Runs the body of an exported function; no exception passes.
template <typename Body>
xcoll_status guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (const Failure& failure) {
    return set_last_error(failure.status(), failure.text());
  } catch (const std::bad_alloc&) {
    return set_last_error(XCOLL_ERR_OUT_OF_MEMORY, "out of host memory");
  } catch (const std::exception& error) {
    return set_last_error(XCOLL_ERR_INTERNAL, error.what());
  } catch (...) {
    return set_last_error(XCOLL_ERR_INTERNAL, "an exception of unknown type");
  }
}

}  // namespace xcoll
