#include "core/log.hpp"
#include "core/locks.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <utility>

#include "core/environment.hpp"
#include "core/error.hpp"

namespace xhal {
namespace {

struct Sink {
  Mutex mutex{Rank::log};
  xhal_log_fn callback = nullptr;
  void* user = nullptr;
  uint32_t running = 0;  // calls of the callback
  std::condition_variable idle;
};

constinit thread_local bool inside_callback = false;

Sink& sink() {
  static auto* s = new Sink;
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
  xhal_log_fn callback;
  void* user;
  {
    const std::lock_guard lock(sink().mutex);
    callback = sink().callback;
    user = sink().user;
    if (callback != nullptr) ++sink().running;
  }
  if (callback != nullptr) {
    const bool outer = std::exchange(inside_callback, true);
    callback(user, level, {text.data(), text.size()});
    inside_callback = outer;
    const std::lock_guard lock(sink().mutex);
    if (--sink().running == 0) sink().idle.notify_all();
    return;
  }
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
  if (xhal::inside_callback)
    return xhal::fail(XHAL_ERR_BUSY, op, "{}: called from the log callback, which it waits for",
                      op);
  auto& s = xhal::sink();
  std::unique_lock<std::mutex> lock(s.mutex);
  s.callback = callback;
  s.user = user;
  s.idle.wait(lock, [&] { return s.running == 0; });
  return XHAL_OK;
}
