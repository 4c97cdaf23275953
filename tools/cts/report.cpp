// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "common/table.hpp"

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
  TestResult result{std::move(name), Status::failed, std::move(reason), 0};
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
  if (!message.contains("ended")) return {};
  const std::string how = message["how"];
  const auto end = how == "passed"    ? End::passed
                   : how == "skipped" ? End::skipped
                   : how == "refused" ? End::refused
                                      : End::failed;
  auto result = judge(message["ended"], end, message["reason"], waivers);
  result.seconds = message["seconds"];
  tests.push_back(result);
  return result.status == Status::failed ? result.name + "\n" + indented(result.reason) : "";
}

size_t Report::count(Status status) const {
  return static_cast<size_t>(
      std::count_if(tests.begin(), tests.end(), [&](const auto& t) { return t.status == status; }));
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
  json["verdict"] = good() ? "pass" : "fail";
  for (const auto status : {Status::passed, Status::failed, Status::waived, Status::skipped})
    json[name_of(status)] = count(status);
  json["stale_waivers"] = stale_waivers;
  json["tests"] = tools::Json::array();
  for (const auto& t : tests) {
    tools::Json entry = {{"name", t.name}, {"status", name_of(t.status)}, {"seconds", t.seconds}};
    if (!t.reason.empty()) entry["reason"] = t.reason;
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
