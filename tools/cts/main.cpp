// SPDX-License-Identifier: Apache-2.0
// xhal-cts: judges a plugin by its behaviour through the public ABI.
#include <fmt/core.h>
#include <fnmatch.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>

#include "arrange.hpp"
#include "common/library.hpp"
#include "common/output.hpp"
#include "common/process.hpp"
#include "common/table.hpp"
#include "operators/operator_test.hpp"
#include "report.hpp"
#include "supervisor.hpp"
#include "xhal_base/environment.hpp"

namespace xhal::cts {
namespace {

struct Options {
  std::string plugin, profile = "core", json, filter;
  std::vector<std::string> waivers;
  uint32_t device = 0;
  bool list = false, in_process = false;
};

constexpr const char* kFooter =
    "profiles\n"
    "  core       negotiation, devices, memory, pools, streams, timelines, events, errors, fork, "
    "shutdown,\n"
    "             and the operators fill, strided_copy and axpby: what every plugin must pass\n"
    "  training   every operator of the catalogue x dtype x layout against a float64 reference\n"
    "\n"
    "A waiver file holds {\"waivers\": [{\"test\": \"sort/*\", \"kind\": \"unsupported\", "
    "\"reason\": \"...\"}]}; kind is unsupported\n"
    "(refused by design) or xfail (fails, for now). A waived test that passes fails, and so does a "
    "waiver that matches\n"
    "nothing. In the training profile a refusal without a waiver is a failure.\n"
    "\n"
    "  xhal-cts --plugin cpu --profile core\n"
    "  xhal-cts --plugin ./build/libxhal_acme.so --filter 'Timeline.*'\n"
    "  xhal-cts --plugin acme --profile training --waivers acme.json --json report.json\n"
    "\n"
    "Exit status: 0 pass, 1 fail, 2 wrong usage, 3 the plugin has no device here.";

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

// A word without * and ? is the name of a test, or, where there is no such test, a part of names.
bool matches(const std::string& pattern, const std::string& name,
             const std::set<std::string>& names) {
  if (pattern.find_first_of("*?") != pattern.npos)
    return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
  return pattern == name || (names.count(pattern) == 0 && name.find(pattern) != name.npos);
}

std::vector<const testing::TestInfo*> selected_tests(const Options& options) {
  const auto patterns = split(options.filter);
  const auto& all = *testing::UnitTest::GetInstance();
  std::vector<const testing::TestInfo*> tests;
  std::set<std::string> names;
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const auto& suite = *all.GetTestSuite(s);
    const bool training = std::string_view(suite.name()) == "training";
    for (int t = 0; t < suite.total_test_count() && training == (options.profile == "training");
         ++t) {
      tests.push_back(suite.GetTestInfo(t));
      names.insert(display_name(*tests.back()));
    }
  }
  std::erase_if(tests, [&](const auto* test) {
    const auto name = display_name(*test);
    return !patterns.empty() && std::none_of(patterns.begin(), patterns.end(), [&](const auto& p) {
      return matches(p, name, names);
    });
  });
  return tests;
}

int write_report(const Report& report, const Options& options) {
  if (!options.json.empty()) {
    std::ofstream file(options.json);
    file << tools::json_text(report.json());
    if (!file.flush())
      throw tools::Failure(tools::kUsage, fmt::format("cannot write {}", options.json));
  }
  std::cout << std::flush;
  if (!tools::write_output("xhal-cts", report.text(tools::colours_wanted()))) return tools::kUsage;
  return report.good() ? tools::kFine : tools::kFinding;
}

// Arranges the plugin, runs the tests whose display names are given, and cleans up: all
// in this process.
int run_here(const Options& options, const Names& names, const Emit& emit) try {
  const std::set<std::string> wanted(names.begin(), names.end());
  std::string filter;
  for (const auto* test : selected_tests(options)) {
    if (wanted.count(display_name(*test)) == 0) continue;
    filter +=
        (filter.empty() ? "" : ":") + std::string(test->test_suite_name()) + "." + test->name();
  }
  testing::GTEST_FLAG(filter) = filter.empty() ? "-*" : filter;

  const Arrangement arrangement(options.plugin);
  const tools::Library library;
  auto found = arrangement.find(options.device);
  found.command = {tools::own_executable().string(), "--plugin", options.plugin, "--device",
                   std::to_string(options.device)};
  set_target(found);
  tools::Json about = {{"plugin", found.plugin}, {"device", found.info.id}, {"build", ""}};
  for (const auto& p : library.plugins()) {
    if (tools::text_of(p.name) == found.plugin) about["build"] = tools::text_of(p.build_id);
  }
  emit({{"target", about}});

  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new Listener(emit));
  (void)!RUN_ALL_TESTS();
  release_arena();
  close_device();
  return tools::kFine;
} catch (const tools::Failure& failure) {
  std::cerr << "xhal-cts: " << failure.what() << "\n";
  return failure.status;
}

// One test for its parent: the words that in_own_process() reads.
int run_for_parent(const Options& options, const Names& names) {
  int verdict = tools::kUsage;
  const int begun = run_here(options, names, [&](const tools::Json& message) {
    if (!message.contains("ended")) return;
    verdict = message["how"] == "failed" ? tools::kFinding : tools::kFine;
    const auto reason = message["reason"].get<std::string>();
    if (message["how"] == "skipped") std::cout << "SKIPPED:" << reason << "\n";
    if (message["how"] == "failed") std::cout << reason << "\n";
  });
  std::cout << std::flush;
  return begun != 0 ? begun : verdict;
}

int run(const Options& options) {
  if (options.profile == "training") register_training_tests();
  Names names;
  for (const auto* test : selected_tests(options)) names.push_back(display_name(*test));
  if (options.list) {
    std::string list;
    for (const auto& name : names) list += name + "\n";
    return tools::write_output("xhal-cts", list) ? tools::kFine : tools::kUsage;
  }
  if (options.plugin.empty())
    throw tools::Failure(tools::kUsage, "--plugin is needed; those there are:  xhal plugins list");
  if (base::environment("XHAL_CTS_CHILD")) return run_for_parent(options, names);

  Report report;
  report.profile = options.profile;
  for (const auto& file : options.waivers) report.waivers.add_file(file);
  const bool colours = tools::colours_wanted();
  const auto receive = [&](const tools::Json& message) {
    const auto failure = report.take(message);
    if (!failure.empty())
      std::cout << tools::paint("FAILED", tools::Colour::bad, colours) << " " << failure << "\n"
                << std::flush;
  };
  const auto tests = [&](const Names& some, const Emit& emit) {
    return run_here(options, some, emit);
  };
  const int begun = options.in_process ? tests(names, receive) : supervise(names, tests, receive);
  if (begun != 0) return begun;
  if (options.filter.empty()) report.stale_waivers = report.waivers.unused();
  return write_report(report, options);
}

int parse_and_run(int argc, char** argv) {
  Options options;
  CLI::App app("xhal-cts: the conformance suite of xHAL plugins", "xhal-cts");
  app.footer(kFooter);
  app.add_option("--plugin", options.plugin, "a plugin's name, its manifest, or its library");
  app.add_option("--profile", options.profile, "core or training")
      ->check(CLI::IsMember({"core", "training"}));
  app.add_option("--waivers", options.waivers, "file of waivers; may be given several times");
  app.add_option("--json", options.json, "write the report to this file");
  app.add_option(
      "--filter", options.filter,
      "only tests whose name matches: patterns with * and ?, or parts of names, commas between");
  app.add_option("--device", options.device, "ordinal of the device to use (default 0)");
  app.add_flag("--in-process", options.in_process,
               "run without a child process, for a debugger; a crash ends the suite");
  app.add_flag("--list", options.list, "print the names of the tests and stop");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0)
      return tools::write_output("xhal-cts", app.help()) ? tools::kFine : tools::kUsage;
    throw tools::Failure(tools::kUsage, fmt::format("{}; see: xhal-cts --help", e.what()));
  }
  return run(options);
}

}  // namespace
}  // namespace xhal::cts

int main(int argc, char** argv) try {
  xhal::tools::prepare_output();
  int one = 1;
  testing::InitGoogleTest(&one, argv);
  return xhal::cts::parse_and_run(argc, argv);
} catch (const xhal::tools::Failure& failure) {
  std::cerr << "xhal-cts: " << failure.what() << "\n";
  return failure.status;
}
