#include "core/log.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>

#include "core/environment.hpp"

namespace xhal {
namespace {

struct Sink {
  std::mutex mutex;
  xhal_log_fn callback = nullptr;
  void* user = nullptr;
};
Sink& sink() {
  static auto* s = new Sink;
  return *s;
}

constexpr const char* kNames[] = {"off", "error", "warn", "info", "debug"};

std::atomic<uint32_t>& limit() {
  static std::atomic<uint32_t> level{XHAL_LOG_WARN};
  return level;
}

}  // namespace

void read_log_level() noexcept {
  try {
    const std::string text = environment("XHAL_LOG");
    const auto* known = std::find(std::begin(kNames), std::end(kNames), text);
    limit() = known == std::end(kNames) ? static_cast<uint32_t>(XHAL_LOG_WARN)
                                        : static_cast<uint32_t>(known - kNames);
    if (known == std::end(kNames) && !text.empty()) {
      log(XHAL_LOG_WARN,
          "XHAL_LOG: there is no level \"{}\"; there are off, error, warn, info and debug", text);
    }
  } catch (...) {  // no memory to read it: the level stays
  }
}

bool log_enabled(uint32_t level) noexcept {
  return level <= limit().load(std::memory_order_relaxed);
}

void log_line(uint32_t level, std::string_view text) noexcept {
  xhal_log_fn callback;
  void* user;
  {
    const std::lock_guard lock(sink().mutex);
    callback = sink().callback;
    user = sink().user;
  }
  if (callback != nullptr) return callback(user, level, {text.data(), text.size()});
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
  const std::lock_guard lock(xhal::sink().mutex);
  xhal::sink().callback = callback;
  xhal::sink().user = user;
  return XHAL_OK;
}
