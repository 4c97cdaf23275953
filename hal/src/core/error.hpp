// SPDX-License-Identifier: Apache-2.0
// error.hpp: the error record of the calling thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>

#include "xhal/status.h"

namespace xhal {

struct ErrorRecord {
  xhal_status status = XHAL_OK;
  uint32_t scope = XHAL_SCOPE_CALL;
  int32_t vendor_code = 0;
  std::string plugin, device, operation, text;
  uint64_t context = 0, stream = 0;
  xhal_status cause = XHAL_OK;
  uint32_t operand = 0;
  std::string cause_text, stream_name;
  bool reported = false;  // a function has already returned it: a later failure without a record
                          // needs a new one

  static ErrorRecord from(const xhal_error& error);
  static ErrorRecord plain(xhal_status status) {
    ErrorRecord record;
    record.status = status;
    return record;
  }
  // A view whose strings live as long as this record.
  xhal_error view() const;
  // The record of work that was not run because of this failure; only its status without
  // memory for more.
  ErrorRecord dependent(std::string_view operation) const noexcept;
};

// Replaces the thread's record and returns its status. Without memory for a copy the record has
// the status only.
xhal_status set_error(ErrorRecord&& record) noexcept;
xhal_status set_error(const ErrorRecord& record) noexcept;
const ErrorRecord& last_error() noexcept;

// The text is made out of line: only core/error.cpp and xhal_fmt are compiled with fmt's machinery.
xhal_status fail_formatted(xhal_status status, std::string_view operation, fmt::string_view format,
                           fmt::format_args args) noexcept;

template <class... Args>
xhal_status fail(xhal_status status, std::string_view operation, fmt::format_string<Args...> format,
                 Args&&... args) noexcept {
  return fail_formatted(status, operation, format, fmt::make_format_args(args...));
}

// To be called while an exception is handled: the failure of `operation` that it stands for.
xhal_status fail_with_exception(std::string_view operation) noexcept;

// Runs `body`: every exception becomes the failure of `operation`.
template <class Body>
xhal_status guarded(std::string_view operation, Body&& body) noexcept {
  try {
    return body();
  } catch (...) {
    return fail_with_exception(operation);
  }
}

// The thread's record is of `status` and has been returned: a later failure that comes without a
// record of its own is not taken for this one.
void error_is_reported(xhal_status status) noexcept;

// As guarded(), for the whole of an exported function.
template <class Body>
xhal_status exported(std::string_view operation, Body&& body) noexcept {
  const xhal_status status = guarded(operation, std::forward<Body>(body));
  if (__builtin_expect(status < 0, 0)) error_is_reported(status);
  return status;
}

}  // namespace xhal
