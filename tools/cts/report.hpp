// SPDX-License-Identifier: Apache-2.0
// report.hpp: what became of each test, and the verdict.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/envelope.hpp"
#include "waivers.hpp"

namespace xhal::cts {

enum class Status { passed, failed, waived, skipped };
const char* name_of(Status status);

struct TestResult {
  std::string name;
  Status status = Status::passed;
  std::string reason;    // failures, why it was skipped or waived
  std::string contract;  // of a failed one: what was asked for, and where it is written
  double seconds = 0;
};

struct Report {
  std::string plugin, device, build, profile;
  Waivers waivers;
  std::vector<TestResult> tests;
  std::vector<std::string> stale_waivers;  // match no test that ran
  std::string command;  // that runs the plugin's tests again, for what to do next
  // Why there is no verdict, and the exit status that says so.
  std::string problem;
  int problem_status = 0;

  // Takes in what supervise() says; when that is a failure, its name and indented
  // reasons are returned.
  std::string take(const tools::Json& message);
  size_t count(Status status) const;
  int exit_status() const;
  // Something passed, nothing failed, and no waiver is stale.
  bool good() const;
  tools::Json json() const;
  std::string text(bool colours) const;

 private:
  std::string take_not_run(const tools::Json& message);
  std::string failure_text(const TestResult& result, const std::string& again) const;
};

// How a test ended, before waivers.
enum class End { passed, failed, skipped, refused };

// Applies the waiver, if there is one: an unexpected pass and a refusal without a
// waiver are failures.
TestResult judge(std::string name, End end, std::string reason, Waivers& waivers);

}  // namespace xhal::cts
