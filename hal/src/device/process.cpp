// SPDX-License-Identifier: Apache-2.0
// process.cpp: the library in its process: xhal_init, xhal_shutdown, fork.
#include <mutex>
#include <vector>

#include "core/argument_check.hpp"
#include "core/locks.hpp"
#include "core/log.hpp"
#include "core/state.hpp"
#include "device/host_services.hpp"
#include "device/open_devices.hpp"
#include "layers/layers.hpp"
#include "loader/plugins.hpp"
#include "sync/import_watcher.hpp"
#include "sync/timeline.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

// A child of a process that has opened devices can use none of this: its threads and rings stayed
// behind. A child of a process that only looked at the list may go on.
void in_forked_child() {
  plugins_after_fork();
  const bool had_devices = stop_devices_after_fork();
  // The thread that shuts down is the parent's, and does not go on here.
  if (had_devices || process_state() == State::stopping) set_process_state(State::forked);
}

struct Process {
  Process() { run_in_forked_child(in_forked_child); }
  Mutex turn{Rank::process};  // xhal_init and xhal_shutdown, one after the other
  uint32_t init_count = 0;
};
Process& process() {
  static auto* p = new Process;
  return *p;
}
const AtLoad process_at_load(process);

}  // namespace
}  // namespace xhal

using xhal::fail;

extern "C" {

uint32_t xhal_version(void) { return XHAL_VERSION_MAJOR << 16 | XHAL_VERSION_MINOR; }
const char* xhal_build_id(void) { return XHAL_BUILD_ID; }

xhal_status xhal_init(const xhal_init_info* info) {
  constexpr const char* op = "xhal_init";
  return xhal::exported(op, [&]() -> xhal_status {
    xhal_init_info local{};
    if (const auto s = xhal::structs::read(info, local); s != XHAL_OK) {
      return fail(s, op, "{}: the info structure has size {}: {}", op, info->struct_size,
                  xhal_status_text(s));
    }
    if (const char* field = xhal::null_field(local); field != nullptr)
      return xhal::refuse_null(op, field);
    if (info != nullptr && local.version_major != XHAL_VERSION_MAJOR) {
      return fail(XHAL_ERR_VERSION, op,
                  "{}: the program was built for xHAL {}.{}, this library is {}.{} (build {})", op,
                  local.version_major, local.version_minor, XHAL_VERSION_MAJOR, XHAL_VERSION_MINOR,
                  xhal_build_id());
    }
    if (local.flags != 0) return xhal::refuse_flags(op, local.flags);
    auto& p = xhal::process();
    std::vector<xhal::Notice> notices;
    {
      const std::lock_guard lock(p.turn);
      if (xhal::is_forked()) return xhal::fail_state(op);
      if (xhal::process_state() == xhal::State::stopping) return xhal::fail_state(op);
      if (p.init_count == 0) {
        xhal::read_log_level();
        notices = xhal::find_plugins({local.plugin_path.data, local.plugin_path.size},
                                     xhal::host_services());
        xhal::read_layers();
        xhal::set_process_state(xhal::State::running);
      }
      ++p.init_count;
    }
    for (const auto& [level, text] : notices) xhal::log(level, "{}", text);
    return XHAL_OK;
  });
}

xhal_status xhal_shutdown(void) {
  constexpr const char* op = "xhal_shutdown";
  return xhal::exported(op, [&]() -> xhal_status {
    {
      auto& p = xhal::process();
      const std::lock_guard lock(p.turn);
      if (xhal::is_forked()) return XHAL_OK;
      if (p.init_count == 0)
        return fail(XHAL_ERR_NOT_INITIALIZED, op, "{}: there was no matching xhal_init", op);
      if (--p.init_count > 0) return XHAL_OK;
      xhal::set_process_state(xhal::State::stopping);
    }
    // From here on nothing begins: what had begun is ended, without a lock.
    xhal::ErrorRecord record;
    record.status = XHAL_ERR_SHUTDOWN;
    record.operation = op;
    record.text = "xhal_shutdown was called while this was waiting";
    xhal::fail_all_timelines(xhal::make_failure(std::move(record)));
    xhal::stop_import_watcher();
    const xhal_status closed = xhal::close_all_devices();
    xhal::shutdown_plugins();
    xhal::finish_layers();
    xhal::set_process_state(xhal::State::stopped);
    return closed;
  });
}

}  // extern "C"
