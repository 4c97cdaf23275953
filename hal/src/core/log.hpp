// SPDX-License-Identifier: Apache-2.0
// log.hpp: libxhal has no logger: lines go to the callback, else to stderr, above the
// level of XHAL_LOG.
#pragma once

#include <fmt/core.h>

#include <string_view>

#include "xhal/init.h"

namespace xhal {

// Takes the level from XHAL_LOG: xhal_init does, before the first line.
void read_log_level() noexcept;
bool log_enabled(uint32_t level) noexcept;
void log_line(uint32_t level, std::string_view text) noexcept;
void log_formatted(uint32_t level, fmt::string_view format, fmt::format_args args) noexcept;

template <class... Args>
void log(uint32_t level, fmt::format_string<Args...> format, Args&&... args) noexcept {
  if (log_enabled(level)) log_formatted(level, format, fmt::make_format_args(args...));
}

}  // namespace xhal
