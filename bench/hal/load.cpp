// SPDX-License-Identifier: Apache-2.0
// load.cpp: a process that meets xHAL for the first time: load the library, read the manifests,
// load three plugins whose probe is remembered, list the devices.
#include <fmt/core.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "bench.hpp"
#include "measure/child.hpp"

namespace xhal::bench {
namespace {

namespace fs = std::filesystem;

// A fresh folder for the verdicts of the probe, so that nobody's real one is touched.
struct Folder {
  Folder() : path(fs::temp_directory_path() / fmt::format("xhal-bench-{}", getpid())) {
    fs::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

}  // namespace

void bench_load(Bench& bench) {
  const Folder cache;
  const std::string starter = XHAL_BENCH_STARTER;
  const std::vector<std::string> environment = {"XHAL_PROBE=1",
                                                "XHAL_PLUGIN_SELECT=cpu,template,nop",
                                                "XDG_CACHE_HOME=" + cache.path.string()};
  const auto start = [&](const std::string& what) {
    return [&starter, &environment, what] {
      const std::string text = output_of(starter, {what}, environment);
      return std::strtod(text.c_str(), nullptr) / 1e6;
    };
  };
  bench.measure({.metric = "load the library, enumerate 3 plugins, probe cached",
                 .unit = "ms",
                 .peer = "OpenCL with PoCL",
                 .goal = Goal::value_at_most(5)},
                bench.effort(60, 4'000'000'000), start("xhal"), start("opencl"));
}

}  // namespace xhal::bench
