// SPDX-License-Identifier: Apache-2.0
// device_events.cpp: messages of devices to whoever asked for a descriptor.
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/locks.hpp"
#include "core/outlets.hpp"
#include "device/open_devices.hpp"
#include "sync/timeline.hpp"

namespace xhal {

Mutex& DeviceRecord::mutex() {
  static auto* m = new Mutex(Rank::record);
  return *m;
}
const AtLoad mutex_at_load(&DeviceRecord::mutex);

void post_device_event(DeviceRecord& record, uint32_t kind, uint32_t severity,
                       std::string_view text) noexcept {
  xhal_device_event event{};
  event.kind = kind;
  event.severity = severity;
  event.time_ns = now_ns();
  std::memcpy(event.text, text.data(), std::min(text.size(), sizeof event.text - 1));
  const std::lock_guard lock(DeviceRecord::mutex());
  std::erase_if(record.event_outlets, [&](int fd) {
    if (write_outlet(fd, &event, sizeof event)) return false;
    close(fd);
    return true;
  });
}

int open_device_events(DeviceRecord& record) {
  Outlet outlet;
  if (!open_outlet(&outlet)) return -1;
  const std::lock_guard lock(DeviceRecord::mutex());
  std::erase_if(record.event_outlets, [](int fd) {
    if (!reader_gone(fd)) return false;
    close(fd);
    return true;
  });
  try {
    record.event_outlets.push_back(outlet.ours);
  } catch (...) {
    close(outlet.ours);
    close(outlet.theirs);
    throw;
  }
  return outlet.theirs;
}

}  // namespace xhal
