// SPDX-License-Identifier: Apache-2.0
// correlation.hpp: the thread's correlation id, and that of work which libxhal submits for others.
#pragma once

#include <cstdint>

namespace xhal {

uint64_t current_correlation() noexcept;

// While it lives, this thread's submissions carry the id of the call that libxhal held back.
class CorrelationScope {
 public:
  explicit CorrelationScope(uint64_t id) noexcept;
  ~CorrelationScope();
  CorrelationScope(const CorrelationScope&) = delete;
  CorrelationScope& operator=(const CorrelationScope&) = delete;

 private:
  bool set_ = false;
  bool outer_active_ = false;
  uint64_t outer_ = 0;
};

}  // namespace xhal
