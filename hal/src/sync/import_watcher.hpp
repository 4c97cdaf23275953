// SPDX-License-Identifier: Apache-2.0
// import_watcher.hpp: callbacks on imported timelines. Nobody in this process raises them, so one
// thread watches all that somebody wants to be called back for; it ends when there are none.
#pragma once

#include "sync/timeline.hpp"

namespace xhal {

// Watches it while it has notifications pending. Errors: std::system_error, std::bad_alloc.
void watch_import(Timeline& timeline);
// Joins the thread: shutdown, when every timeline has failed.
void stop_import_watcher() noexcept;

}  // namespace xhal
