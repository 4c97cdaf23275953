// SPDX-License-Identifier: Apache-2.0
#include "level_zero.hpp"

#include "measure/child.hpp"

namespace xhal::bench {
namespace {

const char* name_of(LevelZero way) {
  switch (way) {
    case LevelZero::slot:
      return "Level Zero driver's slot";
    case LevelZero::loader:
      return "Level Zero loader";
    case LevelZero::validation:
      return "Level Zero validation layer";
    case LevelZero::tracing:
      return "Level Zero tracing layer";
  }
  return "";
}

// What somebody has set in his shell must not decide what is measured.
std::vector<std::string> environment_of(LevelZero way) {
  const bool validate = way == LevelZero::validation, trace = way == LevelZero::tracing;
  return {"ZE_ENABLE_ALT_DRIVERS=" XHAL_BENCH_LEVEL_ZERO_DRIVER,
          std::string("ZE_ENABLE_VALIDATION_LAYER=") + (validate ? "1" : "0"),
          std::string("ZE_ENABLE_PARAMETER_VALIDATION=") + (validate ? "1" : "0"),
          "ZE_ENABLE_HANDLE_LIFETIME=0",
          "ZE_ENABLE_THREADING_VALIDATION=0",
          std::string("ZE_ENABLE_TRACING_LAYER=") + (trace ? "1" : "0"),
          "ZE_ENABLE_LOADER_INTERCEPT=0",
          "ZE_ENABLE_NULL_DRIVER=0"};
}

}  // namespace

Peer level_zero(LevelZero way, Goals goal) {
  Peer peer{.name = name_of(way), .goal = std::move(goal)};
  const std::string caller = XHAL_BENCH_LEVEL_ZERO_CALLER;
  if (caller.empty()) {
    peer.why_not =
        "this benchmark was built without Level Zero's headers; run: apt-get install libze-dev, "
        "then build again";
    return peer;
  }
  try {
    const auto sample =
        Child::side(caller, {way == LevelZero::slot ? "slot" : "loader"}, environment_of(way));
    (void)sample();  // a child that cannot measure says so now
    peer.sample = sample;
  } catch (const std::exception& error) {
    peer.why_not = error.what();
  }
  return peer;
}

}  // namespace xhal::bench
