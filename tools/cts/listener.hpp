// SPDX-License-Identifier: Apache-2.0
// listener.hpp: turns GoogleTest's events into messages, which may go to another process.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "common/envelope.hpp"

namespace xhal::cts {

// "gelu/bf16/strided" for the training profile, "Memory.SizeZeroIsRefused" for core.
std::string display_name(const testing::TestInfo& test);

// {"started": name}, then {"ended": name, "how":
// passed|failed|skipped|refused, "reason", "seconds"}.
using Emit = std::function<void(const tools::Json& message)>;

class Listener : public testing::EmptyTestEventListener {
 public:
  explicit Listener(Emit emit) : emit_(std::move(emit)) {}
  void OnTestStart(const testing::TestInfo& test) override;
  void OnTestEnd(const testing::TestInfo& test) override;

 private:
  Emit emit_;
};

}  // namespace xhal::cts
