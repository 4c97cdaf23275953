// SPDX-License-Identifier: Apache-2.0
// xhal-bench-hal: libxhal and the cpu plugin, each figure beside a peer's of the same run.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdlib>

#include "bench.hpp"

namespace {

using namespace xhal::bench;

struct Part {
  const char* name;
  void (*run)(Bench&);
  const char* what;
};

constexpr Part kParts[] = {
    {"calls", bench_calls, "from a framework's call to the plugin, with and without layers"},
    {"streams", bench_streams, "submitting and waiting"},
    {"events", bench_events, "asking for events that are reached"},
    {"scaling", bench_scaling, "record, pool, copy and fill among up to 100,000 objects"},
    {"memory", bench_memory, "copy, fill, and the pool"},
    {"bounce", bench_bounce, "copies of host memory that a device cannot reach"},
    {"rows", bench_rows, "softmax, layer_norm, gelu, adamw beside memcpy"},
    {"gemm", bench_gemm, "matrix products"},
    {"load", bench_load, "from nothing to a list of devices"},
};

// What is measured must not depend on what is set in somebody's shell; and the empty plugin is
// found beside the program, not among the real ones.
void forget_settings() {
  unsetenv("XHAL_LAYERS");
  unsetenv("XHAL_VISIBLE_DEVICES");
  unsetenv("XHAL_PLUGIN_SELECT");
  unsetenv("XHAL_PLUGIN_DISABLE");
  unsetenv("XHAL_PROBE");
  unsetenv("XHAL_CPU_DEVICES");
  unsetenv("XHAL_CPU_GUARD");
  setenv("XHAL_PLUGIN_PATH", XHAL_BENCH_PLUGINS ":" XHAL_BENCH_REAL_PLUGINS, 1);
}

// "calls:limit", "scaling:record:1000": the part and what it asks for.
int serve_child(const std::string& what) {
  const size_t colon = what.find(':');
  const std::string rest = colon == what.npos ? "" : what.substr(colon + 1);
  try {
    if (what.starts_with("calls:")) return serve_calls(rest);
    if (what.starts_with("scaling:")) return serve_scaling(rest);
    fmt::print(stderr, "xhal-bench-hal: nothing to serve by the name '{}'\n", what);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench child {}: {}\n", what, error.what());
  }
  return 1;
}

std::string hop_text(double ns) {
  if (std::isnan(ns)) return "one processor only";
  return fmt::format("{:.0f} ns ({})", ns, ns <= kNearHopNs ? "near" : "far");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Measures libxhal and the cpu plugin, each figure beside a peer's of the same run: the sides "
      "take\n"
      "turns, medians are compared. RATIO is value / peer. Exit status: 0, also when a goal is "
      "missed;\n"
      "1 when a row has no value or none of the peer it names; 2 wrong usage.",
      "xhal-bench-hal"};
  std::string json, child, row;
  std::vector<std::string> only;
  bool quick = false;
  app.add_option("--json", json, "also write the rows to this file")->type_name("F");
  app.add_flag("--quick", quick,
               "few rounds and small sizes: shows that everything runs, the figures mean little");
  std::string names;
  for (const auto& part : kParts)
    names += fmt::format("{}{} ({})", names.empty() ? "" : ", ", part.name, part.what);
  app.add_option("--only", only, "parts to run: " + names)->type_name("PART")->delimiter(',');
  app.add_option("--row", row, "only rows whose metric contains this")->type_name("TEXT");
  app.add_option("--serve", child, "")->group("");
  try {
    app.parse(argc, argv);
    for (const auto& name : only) {
      bool known = false;
      for (const auto& part : kParts) known |= name == part.name;
      if (!known)
        throw CLI::ValidationError("--only",
                                   fmt::format("no part '{}'; there are: {}", name, names));
    }
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (!child.empty()) return serve_child(child);  // in the environment its parent has made
  forget_settings();

  Report report("xhal-bench-hal: medians of turns taken by both sides");
  Bench bench(report, quick, row);
  const double load = load_average(), before = cache_line_hop_ns();
  for (const auto& part : kParts) {
    if (!only.empty() && std::find(only.begin(), only.end(), part.name) == only.end()) continue;
    fmt::print(stderr, "{}: {}\n", part.name, part.what);
    try {
      part.run(bench);
    } catch (const std::exception& error) {
      report.add({.metric = part.name, .unit = "-", .failed = error.what()});
    }
  }
  const double after = cache_line_hop_ns();
  report.fact(fmt::format("{} x {}, load average {:.1f} before, {:.1f} after",
                          allowed_cpus().size(), processor_name(), load, load_average()));
  report.fact(fmt::format("a cache line from core to core: {} before, {} after", hop_text(before),
                          hop_text(after)));
  Row hop{.metric = "a cache line from core to core",
          .unit = "ns",
          .note = "the distance that every hand-over between threads pays; near is up to 100 ns"};
  for (const double ns : {before, after}) {
    if (!std::isnan(ns)) hop.samples.push_back(ns);
  }
  if (hop.samples.empty())
    hop.not_here = "there is one processor only, or other work held the second all the time";
  bench.add(std::move(hop));
  return report.finish(json);
}
