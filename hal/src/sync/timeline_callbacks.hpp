// SPDX-License-Identifier: Apache-2.0
// timeline_callbacks.hpp: the callbacks a timeline keeps, under its lock.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <utility>

#include "sync/timeline.hpp"

namespace xhal {

struct Timeline::Callbacks {
  // By value, then by number: what comes due first is first, in the order of registration.
  std::map<std::pair<uint64_t, uint64_t>, Notified> waiting;
  struct Submitting {
    uint64_t value;
    std::function<void()> callback;
  };
  std::list<Submitting> submitting;
};

}  // namespace xhal
