// registry.hpp: the process-wide list of devices. Made on first use, never destroyed.
#pragma once

#include <mutex>
#include <vector>

#include "core/device_record.hpp"

namespace xhal {

struct Registry {
  std::recursive_mutex mutex;  // plugins may ask back while they are being opened
  uint32_t init_count = 0;
  std::vector<DeviceRecord*> devices;  // open and closed, of all generations
};
Registry& registry();

}  // namespace xhal
