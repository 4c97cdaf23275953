// SPDX-License-Identifier: Apache-2.0
// xhal-cts: judges a plugin by its behaviour through the public ABI.
#include <fmt/core.h>
#include <fnmatch.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>

#include "arrange.hpp"
#include "common/library.hpp"
#include "common/output.hpp"
#include "common/process.hpp"
#include "common/seconds.hpp"
#include "common/table.hpp"
#include "operators/operator_test.hpp"
#include "printed.hpp"
#include "report.hpp"
#include "supervisor.hpp"
#include "xhal_base/environment.hpp"

namespace xhal::cts {
namespace {

struct Options {
  std::string plugin, profile = "core", json, filter;
  std::vector<std::string> waivers;
  uint32_t device = 0;
  double timeout = 30;
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
    "Every listed test ends as passed, failed, waived or skipped: one that crashes, hangs or ends "
    "the "
    "process has\n"
    "failed, and the suite goes on behind it in another process. --json writes its report in every "
    "case.\n"
    "\n"
    "  xhal-cts --plugin cpu --profile core\n"
    "  xhal-cts --plugin ./build/libxhal_acme.so --filter 'Timeline.*'\n"
    "  xhal-cts --plugin acme --profile training --waivers acme.json --json report.json\n"
    "\n"
    "Exit status: 0 pass, 1 fail, 2 wrong usage, 3 the plugin's hardware is not here.";

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

void write_report(const Report& report, const Options& options) {
  if (options.json.empty()) return;
  std::ofstream file(options.json);
  file << tools::json_text(report.json());
  if (!file.flush())
    throw tools::Failure(tools::kUsage, fmt::format("cannot write {}", options.json));
}

std::string seconds_text(std::chrono::milliseconds time) {
  return fmt::format("{}", time.count() / 1000.0);
}

void run_tests(const Options& options, std::chrono::milliseconds limit, const Emit& emit) {
  const Arrangement arrangement(options.plugin);
  emit({{"doing",
         "while the plugin was loaded and asked for its version and its devices "
         "(xhal_plugin_negotiate, enumerate)"}});
  const tools::Library library;
  const auto before = traces();
  const auto before_loading = surroundings();
  auto found = arrangement.find(options.device);
  found.before_enumeration = before;
  found.after_enumeration = traces();
  found.before_loading = before_loading;
  found.after_loading = surroundings();
  found.limit = limit;
  // A test that runs itself once more must hear of a hang before it counts as one.
  found.command = {tools::own_executable().string(),
                   "--plugin",
                   options.plugin,
                   "--device",
                   std::to_string(options.device),
                   "--timeout",
                   seconds_text(limit * 3 / 4)};
  set_target(found);
  tools::Json about = {{"plugin", found.plugin}, {"device", found.info.id}, {"build", ""}};
  for (const auto& p : library.plugins()) {
    if (tools::text_of(p.name) == found.plugin) about["build"] = tools::text_of(p.build_id);
  }
  emit({{"target", about}});
  emit({{"doing", "between two tests"}});

  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new Listener(emit));
  (void)!RUN_ALL_TESTS();
  emit({{"doing", "while the device was closed (device_close, shutdown)"}});
  close_device();
}

// Arranges the plugin, runs the tests whose display names are given, and cleans up: all
// in this process.
void run_here(const Options& options, const Names& names, std::chrono::milliseconds limit,
              const Emit& emit) try {
  const std::set<std::string> wanted(names.begin(), names.end());
  std::string filter;
  for (const auto* test : selected_tests(options)) {
    if (wanted.count(display_name(*test)) == 0) continue;
    filter +=
        (filter.empty() ? "" : ":") + std::string(test->test_suite_name()) + "." + test->name();
  }
  testing::GTEST_FLAG(filter) = filter.empty() ? "-*" : filter;
  run_tests(options, limit, emit);
  if (const auto printed = take_printed(); !printed.empty()) {
    emit({{"ended", "outside of a test"},
          {"how", "failed"},
          {"reason", printed_text(printed)},
          {"seconds", 0}});
  }
  emit({{"finished", true}});
} catch (const tools::Failure& failure) {
  emit({{"problem", failure.what()}, {"status", failure.status}});
} catch (const std::exception& e) {  // of the file system, mostly: a path that is too long
  emit({{"problem", e.what()}, {"status", tools::kUsage}});
}

// One test for its parent: the words that in_own_process() reads. They come last, so that they are
// missing when the plugin has ended the process before.
int run_for_parent(const Options& options, const Names& names, std::chrono::milliseconds limit) {
  tools::Json verdict = {{"how", "failed"}, {"reason", "the test did not run"}};
  run_here(options, names, limit, [&](const tools::Json& message) {
    if (message.contains("ended")) verdict = message;
    if (message.contains("problem")) verdict["reason"] = message["problem"];
  });
  std::cout << "\n" << kVerdict << tools::json_text(verdict) << std::flush;
  return tools::kFine;
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
  const std::chrono::milliseconds limit(static_cast<int64_t>(options.timeout * 1000));
  if (base::environment("XHAL_CTS_CHILD")) return run_for_parent(options, names, limit);

  Report report;
  report.plugin = options.plugin;
  report.profile = options.profile;
  report.command =
      fmt::format("xhal-cts --plugin {} --profile {}", options.plugin, options.profile);
  try {
    for (const auto& file : options.waivers) report.waivers.add_file(file);
  } catch (const tools::Failure& failure) {
    report.problem = failure.what();
    report.problem_status = failure.status;
  }
  const bool colours = tools::colours_wanted();
  const auto receive = [&](const tools::Json& message) {
    const auto failure = report.take(message);
    if (!failure.empty())
      std::cout << tools::paint("FAILED", tools::Colour::bad, colours) << " " << failure << "\n"
                << std::flush;
  };
  const auto tests = [&](const Names& some, std::chrono::milliseconds time, const Emit& emit) {
    run_here(options, some, time, emit);
  };
  if (report.problem.empty()) {
    if (options.in_process)
      tests(names, limit, receive);
    else
      supervise(names, limit, tests, receive);
  }
  if (options.filter.empty() && report.problem.empty())
    report.stale_waivers = report.waivers.unused();
  write_report(report, options);
  if (!report.problem.empty()) {
    std::cerr << "xhal-cts: " << report.problem << "\n";
    return report.exit_status();
  }
  std::cout << std::flush;
  return tools::write_output("xhal-cts", report.text(colours)) ? report.exit_status()
                                                               : tools::kUsage;
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
  app.add_option("--timeout", options.timeout,
                 "seconds that a test may take (default 30); it has hung when it takes longer")
      ->check([](const std::string& text) { return tools::wrong_seconds(text, 0.1, 86400); });
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
} catch (const std::exception& e) {
  std::cerr << "xhal-cts: " << e.what() << "\n";
  return xhal::tools::kUsage;
}
