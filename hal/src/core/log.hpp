// log.hpp: libxhal has no logger: lines go to the callback, else to stderr, above the level of
// XHAL_LOG.
#pragma once

#include <fmt/format.h>

#include <string_view>

#include "xhal/init.h"

namespace xhal {

// Takes the level from XHAL_LOG: xhal_init does, before the first line.
void read_log_level() noexcept;
bool log_enabled(uint32_t level) noexcept;
void log_line(uint32_t level, std::string_view text) noexcept;

template <class... Args>
void log(uint32_t level, fmt::format_string<Args...> format, Args&&... args) noexcept {
  if (!log_enabled(level)) return;
  try {
    log_line(level, fmt::format(format, std::forward<Args>(args)...));
  } catch (...) {  // a line that cannot be made is not worth failing for
  }
}

}  // namespace xhal
