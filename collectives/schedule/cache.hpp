// SPDX-License-Identifier: Apache-2.0
// cache.hpp: the schedules of one rank, each built on first use.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "schedule/schedule.hpp"

namespace xcoll::schedule {

class Cache {
 public:
  Cache(uint16_t ranks, uint16_t rank, uint8_t ring_depth)
      : ranks_(ranks), rank_(rank), ring_depth_(ring_depth) {}

  // Not thread-safe: whoever runs the engine asks. Lifetime: the cache's.
  const Schedule& get(xcoll_kind kind, Algorithm algorithm, int32_t root) {
    auto& by_root = entries_[static_cast<size_t>(kind) * 2 + static_cast<size_t>(algorithm)];
    const auto index = static_cast<size_t>(root + 1);
    if (by_root.size() <= index) by_root.resize(index + 1);
    if (!by_root[index]) {
      by_root[index] =
          std::make_unique<Schedule>(build({kind, algorithm, root, ranks_, rank_, ring_depth_}));
    }
    return *by_root[index];
  }

 private:
  static constexpr size_t kKinds = XCOLL_RECV + 1;
  std::array<std::vector<std::unique_ptr<Schedule>>, kKinds * 2> entries_;
  uint16_t ranks_;
  uint16_t rank_;
  uint8_t ring_depth_;
};

}  // namespace xcoll::schedule
