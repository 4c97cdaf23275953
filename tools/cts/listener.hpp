// listener.hpp: turns GoogleTest's events into the report; tells what was running when the plugin
// crashed or hung.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "report.hpp"

namespace xhal::cts {

// "gelu/bf16/strided" for the training profile, "Memory.ZeroSizeIsRefused" for core.
std::string display_name(const testing::TestInfo& test);

class Listener : public testing::EmptyTestEventListener {
 public:
  Listener(Report& report, Waivers& waivers, bool colours)
      : report_(report), waivers_(waivers), colours_(colours) {}
  void OnTestStart(const testing::TestInfo& test) override;
  void OnTestEnd(const testing::TestInfo& test) override;

 private:
  Report& report_;
  Waivers& waivers_;
  const bool colours_;
};

// Fatal signals and a test that runs for minutes end the process with the name of the test.
void name_the_test_on_death();

}  // namespace xhal::cts
