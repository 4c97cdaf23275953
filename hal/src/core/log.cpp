// SPDX-License-Identifier: Apache-2.0
#include "core/log.hpp"

#include <atomic>
#include <cstdio>

#include "core/environment.hpp"
#include "core/error.hpp"
#include "core/locks.hpp"
#include "core/replaceable_callback.hpp"

namespace xhal {
namespace {

ReplaceableCallback<xhal_log_fn>& sink() {
  static auto* s = new ReplaceableCallback<xhal_log_fn>(*new Mutex(Rank::log));
  return *s;
}
const AtLoad sink_at_load(sink);

constexpr const char* kNames[] = {"off", "error", "warn", "info", "debug"};

std::atomic<uint32_t>& limit() {
  static std::atomic<uint32_t> level{XHAL_LOG_WARN};
  return level;
}

}  // namespace

void read_log_level() noexcept {
  try {
    const auto level = environment_choice("XHAL_LOG", {"off", "error", "warn", "info", "debug"});
    limit() =
        level.value ? static_cast<uint32_t>(*level.value) : static_cast<uint32_t>(XHAL_LOG_WARN);
    if (!level.problem.empty()) log(XHAL_LOG_WARN, "{}", level.problem);
  } catch (...) {  // no memory to read it: the level stays
  }
}

bool log_enabled(uint32_t level) noexcept {
  return level <= limit().load(std::memory_order_relaxed);
}

void log_line(uint32_t level, std::string_view text) noexcept {
  if (sink().call(level, xhal_string{text.data(), text.size()})) return;
  const char* name = level == XHAL_LOG_WARN ? "warning" : kNames[level <= 4 ? level : 4];
  std::fprintf(stderr, "xhal %s: %.*s\n", name, static_cast<int>(text.size()), text.data());
}

void log_formatted(uint32_t level, fmt::string_view format, fmt::format_args args) noexcept {
  try {
    log_line(level, fmt::vformat(format, args));
  } catch (...) {  // a line that cannot be made is not worth failing for
  }
}

}  // namespace xhal

extern "C" xhal_status xhal_log_set(xhal_log_fn callback, void* user) {
  constexpr const char* op = "xhal_log_set";
  return xhal::exported(op, [&]() -> xhal_status {
    if (xhal::sink().replace(callback, user)) return XHAL_OK;
    return xhal::fail(XHAL_ERR_BUSY, op, "{}: called from the log callback, which it waits for",
                      op);
  });
}
