#include "log.hpp"

#include <atomic>
#include <cstdio>
#include <mutex>

#include "environment.hpp"

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

uint32_t level_from_environment() {
  const std::string text = environment("XHAL_LOG");
  if (text == "off") return 0;
  if (text == "error") return XHAL_LOG_ERROR;
  if (text == "info") return XHAL_LOG_INFO;
  if (text == "debug") return XHAL_LOG_DEBUG;
  return XHAL_LOG_WARN;
}

}  // namespace

bool log_enabled(uint32_t level) noexcept {
  static const uint32_t limit = level_from_environment();
  return level <= limit;
}

void log_line(uint32_t level, std::string_view text) noexcept {
  static constexpr const char* kNames[] = {"", "error", "warning", "info", "debug"};
  xhal_log_fn callback;
  void* user;
  {
    const std::lock_guard lock(sink().mutex);
    callback = sink().callback;
    user = sink().user;
  }
  if (callback != nullptr) return callback(user, level, {text.data(), text.size()});
  std::fprintf(stderr, "xhal %s: %.*s\n", kNames[level <= 4 ? level : 4],
               static_cast<int>(text.size()), text.data());
}

}  // namespace xhal

extern "C" xhal_status xhal_log_set(xhal_log_fn callback, void* user) {
  const std::lock_guard lock(xhal::sink().mutex);
  xhal::sink().callback = callback;
  xhal::sink().user = user;
  return XHAL_OK;
}
