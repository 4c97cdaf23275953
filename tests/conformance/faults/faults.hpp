// SPDX-License-Identifier: Apache-2.0
// faults.hpp: how a fault gets between a request and the cpu plugin that serves it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "xhal/plugin.h"

namespace xhal::faults {

// A request to op_prepare, as the plugin behind will see it. `operands` may be
// changed, not dropped.
struct Request {
  uint32_t id = 0;
  std::vector<xhal_attribute> attributes;
  std::vector<uint32_t> groups;
  std::vector<xhal_tensor_desc> operands;

  xhal_tensor_desc& last() { return operands.back(); }
  // Replaces an attribute that was given.
  void set(uint32_t index, int64_t value);
  void set(uint32_t index, double value);
};

// One launch. `asked` holds the operands as they were asked for, before the fault.
struct Launch {
  uint32_t id = 0;
  const std::vector<xhal_tensor_desc>& asked;
  std::vector<uint64_t> addresses;
  std::vector<xhal_scalar> scalars;
  uint64_t number = 0;  // of this operator's launches, from 1

  // Run on the host in stream order, before and after the operator. Memory of the cpu plugin
  // is host memory.
  std::function<void()> before, after;
};

struct Fault {
  const char* name;
  void (*prepare)(Request& request);  // may be nullptr
  void (*launch)(Launch& launch);     // may be nullptr
};

// The fault that XHAL_TEST_FAULT names; nullptr when it is not set. Ends the process when
// it names none.
const Fault* chosen();

}  // namespace xhal::faults
