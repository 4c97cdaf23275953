#include "core/log.hpp"

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

}  // namespace xhal

extern "C" xhal_status xhal_log_set(xhal_log_fn callback, void* user) {
  const std::lock_guard lock(xhal::sink().mutex);
  xhal::sink().callback = callback;
  xhal::sink().user = user;
  return XHAL_OK;
}
