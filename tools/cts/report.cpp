// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "common/table.hpp"
#include "harness/contracts.hpp"

namespace xhal::cts {
namespace {

std::string indented(const std::string& text) {
  std::string out = "  ";
  for (const char c : text) {
    out += c;
    if (c == '\n') out += "  ";
  }
  return out;
}

}  // namespace

const char* name_of(Status status) {
  static constexpr const char* kNames[] = {"passed", "failed", "waived", "skipped"};
  return kNames[static_cast<size_t>(status)];
}

TestResult judge(std::string name, End end, std::string reason, Waivers& waivers) {
  const auto* waiver = waivers.find(name);
  TestResult result{std::move(name), Status::failed, std::move(reason), "", 0};
  if (waiver == nullptr) {
    if (end == End::passed) result.status = Status::passed;
    if (end == End::skipped) result.status = Status::skipped;
    if (end == End::refused) {
      result.reason = fmt::format(
          "refused: {}\n  If that is so by design, waive it with kind unsupported and a reason.",
          result.reason);
    }
    return result;
  }
  const bool xfail = waiver->kind == Waiver::Kind::xfail;
  if (end == End::passed) {
    result.reason = fmt::format("passes, though it is waived ({}: {}); remove the waiver",
                                xfail ? "xfail" : "unsupported", waiver->reason);
  } else if ((end == End::failed) == xfail) {
    result.status = Status::waived;
    result.reason = fmt::format("{} ({})", waiver->reason, result.reason);
  } else {
    result.reason =
        fmt::format("its waiver is for {}, but it {}: {}", xfail ? "a failure" : "a refusal",
                    end == End::failed ? "failed" : "was refused or skipped", result.reason);
  }
  return result;
}

std::string Report::take(const tools::Json& message) {
  if (message.contains("target")) {
    plugin = message["target"]["plugin"];
    device = message["target"]["device"];
    build = message["target"]["build"];
  }
  if (message.contains("problem")) {
    problem = message["problem"];
    problem_status = message["status"];
  }
  if (message.contains("not_run")) return take_not_run(message);
  if (!message.contains("ended")) return {};
  const std::string how = message["how"];
  const auto end = how == "passed"    ? End::passed
                   : how == "skipped" ? End::skipped
                   : how == "refused" ? End::refused
                                      : End::failed;
  auto result = judge(message["ended"], end, message["reason"], waivers);
  result.seconds = message["seconds"];
  if (result.status == Status::failed) result.contract = contract_of(result.name);
  tests.push_back(result);
  if (result.status != Status::failed) return {};
  return failure_text(result, message.contains("abrupt") ? " --filter '" + result.name + "'" : "");
}

// No waiver covers them: nobody knows what they would have said.
std::string Report::take_not_run(const tools::Json& message) {
  const std::vector<std::string> names = message["not_run"];
  const std::string reason = message["reason"];
  const bool at_start = message.contains("before");
  for (const auto& name : names) {
    (void)waivers.find(name);
    tests.push_back(
        {name, Status::failed, "not run: " + reason, contract_of(at_start ? kStart : name), 0});
  }
  TestResult all = tests.back();
  all.name = names[0];
  if (names.size() > 1) all.name += fmt::format(" and {} more", names.size() - 1);
  return failure_text(all, at_start ? " " : "");
}

// `again` is what makes the command run into it once more; empty where a debugger is of no use.
std::string Report::failure_text(const TestResult& result, const std::string& again) const {
  std::string text = result.reason + "\n" + result.contract;
  if (!again.empty())
    text += fmt::format("\nlook at it:  gdb --args {}{} --in-process", command, again);
  return result.name + "\n" + indented(text);
}

size_t Report::count(Status status) const {
  return static_cast<size_t>(
      std::count_if(tests.begin(), tests.end(), [&](const auto& t) { return t.status == status; }));
}

int Report::exit_status() const {
  if (problem_status != 0) return problem_status;
  return good() ? tools::kFine : tools::kFinding;
}

bool Report::good() const {
  return count(Status::passed) > 0 && count(Status::failed) == 0 && stale_waivers.empty();
}

tools::Json Report::json() const {
  tools::Json json;
  json["schema"] = "xhal.cts/1";
  json["host"] = tools::host_name();
  json["time"] = tools::time_text();
  json["plugin"] = plugin;
  json["build"] = build;
  json["device"] = device;
  json["profile"] = profile;
  json["verdict"] = problem_status == tools::kNoDevice ? "no device"
                    : problem_status == tools::kUsage  ? "not judged"
                    : exit_status() == tools::kFine    ? "pass"
                                                       : "fail";
  if (!problem.empty()) json["problem"] = problem;
  for (const auto status : {Status::passed, Status::failed, Status::waived, Status::skipped})
    json[name_of(status)] = count(status);
  json["stale_waivers"] = stale_waivers;
  json["tests"] = tools::Json::array();
  for (const auto& t : tests) {
    tools::Json entry = {{"name", t.name}, {"status", name_of(t.status)}, {"seconds", t.seconds}};
    if (!t.reason.empty()) entry["reason"] = t.reason;
    if (!t.contract.empty()) entry["contract"] = t.contract;
    json["tests"].push_back(std::move(entry));
  }
  return json;
}

std::string Report::text(bool colours) const {
  std::string text;
  // Many tests are skipped for the same reason: one line each reason.
  for (const auto status : {Status::skipped, Status::waived}) {
    std::map<std::string, std::vector<std::string>> by_reason;
    for (const auto& t : tests) {
      if (t.status == status) by_reason[t.reason].push_back(t.name);
    }
    for (const auto& [reason, names] : by_reason) {
      text += fmt::format("{} {}{}: {}\n", name_of(status), names[0],
                          names.size() == 1 ? "" : fmt::format(" and {} more", names.size() - 1),
                          reason);
    }
  }
  for (const auto& waiver : stale_waivers)
    text += fmt::format("waiver \"{}\" matches no test that ran; remove it\n", waiver);
  const auto verdict = good() ? tools::paint("pass", tools::Colour::good, colours)
                              : tools::paint("fail", tools::Colour::bad, colours);
  text += fmt::format("{} passed, {} failed, {} waived, {} skipped: {} {} {}\n",
                      count(Status::passed), count(Status::failed), count(Status::waived),
                      count(Status::skipped), plugin, profile, verdict);
  if (tests.empty()) text += "no test ran: see --list for the names that --filter can match\n";
  return text;
}

}  // namespace xhal::cts
