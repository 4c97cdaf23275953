// SPDX-License-Identifier: Apache-2.0
// problem.hpp: why something cannot be used.
#pragma once

#include <string>

#include "xhal/status.h"

namespace xhal {

struct Problem {
  xhal_status status = XHAL_OK;
  std::string text;

  explicit operator bool() const { return status != XHAL_OK; }
};

}  // namespace xhal
