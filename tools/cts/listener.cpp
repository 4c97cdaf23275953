// SPDX-License-Identifier: Apache-2.0
#include "listener.hpp"

#include <fmt/core.h>

#include <cstring>
#include <string_view>

#include "harness/cts.hpp"
#include "printed.hpp"

namespace xhal::cts {
namespace {

std::string reason_of(const testing::TestResult& result) {
  std::string reason;
  for (int i = 0; i < result.total_part_count(); ++i) {
    const auto& part = result.GetTestPartResult(i);
    if (part.passed()) continue;
    if (!reason.empty()) reason += "\n";
    if (part.file_name() != nullptr && !part.skipped()) {
      const std::string_view file = part.file_name();
      reason += fmt::format("{}:{}: ", file.substr(file.rfind('/') + 1), part.line_number());
    }
    reason += part.message();
  }
  while (!reason.empty() && reason.back() == '\n') reason.pop_back();
  return reason;
}

}  // namespace

std::string display_name(const testing::TestInfo& test) {
  const std::string suite = test.test_suite_name();
  return suite == "training" ? test.name() : suite + "." + test.name();
}

void Listener::OnTestStart(const testing::TestInfo& test) {
  emit_({{"started", display_name(test)}});
}

void Listener::OnTestEnd(const testing::TestInfo& test) {
  const auto& result = *test.result();
  tools::Json message = {{"ended", display_name(test)},
                         {"how", result.Failed()    ? "failed"
                                 : result.Skipped() ? "skipped"
                                                    : "passed"},
                         {"reason", reason_of(result)},
                         {"seconds", static_cast<double>(result.elapsed_time()) / 1000}};
  for (int i = 0; i < result.test_property_count() && message["how"] == "skipped"; ++i) {
    if (std::strcmp(result.GetTestProperty(i).key(), "refused") != 0) continue;
    message["how"] = "refused";
    message["reason"] = result.GetTestProperty(i).value();
  }
  if (const auto printed = take_printed(); !printed.empty()) {
    std::string reason = message["reason"];
    if (!reason.empty()) reason += "\n";
    message["how"] = "failed";
    message["reason"] = reason + printed_text(printed);
  }
  emit_(message);
}

}  // namespace xhal::cts
